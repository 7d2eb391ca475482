"""What the server pays for the same work as a stream grows, and as streams become many; and what an inbox takes."""

import random
import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from service.core.anchors import Anchor
from service.core.history import Question
from service.core.names import EntryId, group_stream
from service.store import Commit, Registration
from service.store.keys import name_in
from tests.bench.clients import text_of
from tests.bench.sample import Sample
from tests.bench.scenario import Scenario
from tests.bench.storing import WRITER, Place, Publish, to_group, to_user
from tests.bench.systems import Waypost
from tests.integration.store.kit import Admin, key_of
from tests.integration.store.stock import now_ms

REPLAYED = 100  # entries
LOOKED_AT = 50  # entries of a look back
PAGE_BYTES = 262_144
CALLS = 10  # between two looks at the clock
STEP_MS = 10  # between the entries of a stream
INBOX = 10  # entries of each inbox, before anything is measured
TOUCHED = 10  # streams in a batch, where streams are many
CHUNK = 5000  # entries that are made in one call

# KEYS 1 stream, 2 head. ARGV first and last number, ms of number 0, ms between, stream, sender, body.
FILL = """
local id
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  id = string.format('%.0f-%.0f', tonumber(ARGV[3]) + n * tonumber(ARGV[4]), n)
  redis.call('XADD', KEYS[1], id, 't', 'message', 'f', ARGV[6], 'o', ARGV[5], 'i', 'm' .. n, 'b', ARGV[7], 'd', 'phone')
end
redis.call('HSET', KEYS[2], 'head', id)
"""

# KEYS 1 stream. ARGV entries, body.
FILL_PLAIN = "for _ = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'b', ARGV[2]) end"


class Work(NamedTuple):
    """`call` does some pieces of work and returns how many, at `place`."""

    case: str
    place: Place
    call: Callable[[], Awaitable[int]]


def fill(admin: Admin, stream: str, entries: int) -> int:
    """A stream with so many messages, numbered from 1; returns the time of number 0."""
    began = now_ms(admin) - (entries + 1) * STEP_MS
    body = f'"{text_of(0)}"'
    for first in range(1, entries + 1, CHUNK):
        last = min(first + CHUNK - 1, entries)
        admin.eval(FILL, 2, key_of("s", stream), key_of("h", stream), first, last, began, STEP_MS, stream, WRITER, body)
    return began


async def costs(work: Sequence[Work], rounds: int) -> dict[str, Sample]:
    """Server CPU in µs for each piece, and what that is to the first work's: medians over rounds through all of it, of
    the ratios within rounds too.
    """
    found: dict[str, list[float]] = {one.case: [] for one in work}
    for turn in range(rounds + 1):
        for one in work if turn % 2 else reversed(work):
            cpu, pieces = one.place.cpu_s(), 0
            for _ in range(CALLS):
                pieces += await one.call()
            if turn:  # the first round warms
                found[one.case].append((one.place.cpu_s() - cpu) / pieces * 1e6)
    least = found[work[0].case]
    return {
        case: Sample(
            {
                "redis_us": statistics.median(mine),
                "times": statistics.median(a / b for a, b in zip(mine, least, strict=True)),
            }
        )
        for case, mine in found.items()
    }


class Growth(Scenario):
    """The same work on streams of different sizes, and in stores with different numbers of streams."""

    name = "growth"
    title = "The same work as streams grow and become many; CPU of Redis"
    columns: ClassVar[dict[str, str]] = {"redis_us": "Redis, µs", "times": "to the smallest"}
    compared = "redis_us"
    drawn = "times"
    repetitions_max = 1

    async def start(self) -> list[str]:
        return [Waypost.name, Publish.XADD] if self.stage.wants(Waypost) else []

    async def measure(self, contestant: str) -> dict[str, Sample]:
        if contestant == Publish.XADD:
            return await self._of_many(fill_plain, self._add_anywhere)
        return await self._of_entries() | await self._of_many(fill_inboxes, self._to_anybody)

    async def _of_entries(self) -> dict[str, Sample]:
        place = await Place.open(self.stage)
        try:
            work: dict[str, list[Work]] = {}
            for size in self.sizes.entries:
                group = f"of{size}"
                await place.store.join(WRITER, group, mailbox="", origin=None)
                began = fill(place.admin, group_stream(group), size)
                for what, call in self._on_group(place, group, size, began).items():
                    work.setdefault(what, []).append(Work(f"{what}, {size:,} entries", place, call))
            found: dict[str, Sample] = {}
            for what in ("replay", "history", "history by number", "publish"):  # the last one makes them longer
                found |= await costs(work[what], self.sizes.rounds)
            return found
        finally:
            await place.close()

    def _on_group(self, place: Place, group: str, size: int, began: int) -> dict[str, Callable[[], Awaitable[int]]]:
        stream = group_stream(group)
        after = EntryId(began + (size - REPLAYED) * STEP_MS, size - REPLAYED)
        newest = Question(stream, Anchor("newest"), LOOKED_AT)

        async def publish() -> int:
            await place.publish([to_group(group) for _ in range(self.sizes.batch)])
            return self.sizes.batch

        async def replay() -> int:
            page = await place.store.page(stream, after, [WRITER], max_entries=REPLAYED, max_bytes=PAGE_BYTES)
            assert len(page.entries) == REPLAYED
            return 1

        async def look(question: Question) -> int:
            past = await place.store.history(WRITER, question, max_bytes=PAGE_BYTES, looked_max=LOOKED_AT)
            assert len(past.entries) >= LOOKED_AT
            return 1

        async def look_at_a_number() -> int:
            number = random.randint(LOOKED_AT, size - LOOKED_AT)
            return await look(Question(stream, Anchor("around", number), LOOKED_AT))

        return {
            "publish": publish,
            "replay": replay,
            "history": lambda: look(newest),
            "history by number": look_at_a_number,
        }

    async def _of_many(
        self,
        fill_place: Callable[[Admin, int], None],
        writing: Callable[[Place, int], Callable[[], Awaitable[int]]],
    ) -> dict[str, Sample]:
        """A store for each number of streams. A batch goes to ten different ones, so that none of them share work."""
        places: list[Place] = []
        try:
            work = []
            for size in self.sizes.inboxes:
                places.append(await Place.open(self.stage))
                fill_place(places[-1].admin, size)
                work.append(Work(f"publish, {size:,} streams", places[-1], writing(places[-1], size)))
            return await costs(work, self.sizes.rounds)
        finally:
            for place in places:
                await place.close()

    def _to_anybody(self, place: Place, size: int) -> Callable[[], Awaitable[int]]:
        """Five users write to one other each."""

        async def publish() -> int:
            users = [f"u{number}" for number in random.sample(range(size), TOUCHED)]
            await place.publish([to_user(sender, to) for sender, to in zip(users[0::2], users[1::2], strict=True)])
            return TOUCHED // 2

        return publish

    def _add_anywhere(self, place: Place, size: int) -> Callable[[], Awaitable[int]]:
        """The same number of entries, by XADD: two are a piece of work, as a direct message is two."""

        async def add() -> int:
            pipe = place.admin.pipeline(transaction=False)
            for number in random.sample(range(size), TOUCHED):
                pipe.xadd(f"plain:{number}", {"b": to_group("").body})
            pipe.execute()
            return TOUCHED // 2

        return add


def fill_inboxes(admin: Admin, count: int) -> None:
    """So many users' inboxes, with a few messages each."""
    began = now_ms(admin) - (INBOX + 1) * STEP_MS
    for chunk in _chunks(range(count)):
        pipe = admin.pipeline(transaction=False)
        for number in chunk:
            stream = f"user:u{number}"
            given = (1, INBOX, began, STEP_MS, stream, WRITER, f'"{text_of(0)}"')
            pipe.eval(FILL, 2, key_of("s", stream), key_of("h", stream), *given)
        pipe.execute()


def fill_plain(admin: Admin, count: int) -> None:
    """So many streams with as many messages, and nothing else."""
    body = f'"{text_of(0)}"'
    for chunk in _chunks(range(count)):
        pipe = admin.pipeline(transaction=False)
        for number in chunk:
            pipe.eval(FILL_PLAIN, 1, f"plain:{number}", INBOX, body)
        pipe.execute()


def _chunks(numbers: range) -> Iterator[range]:
    return (numbers[begin : begin + CHUNK] for begin in range(0, len(numbers), CHUNK))


class Bytes(Scenario):
    """What Redis keeps for an inbox, and for a user."""

    name = "bytes"
    title = "Bytes in Redis (MEMORY USAGE, SAMPLES 0)"
    columns: ClassVar[dict[str, str]] = {"bytes": "bytes"}
    repetitions_max = 1

    async def start(self) -> list[str]:
        return [Waypost.name] if self.stage.wants(Waypost) else []

    async def measure(self, contestant: str) -> dict[str, Sample]:
        place = await Place.open(self.stage)
        try:
            found = {}
            for size in (1, 10, 100):
                for _ in range(size):
                    await place.publish([to_user(WRITER, f"inbox{size}")])
                keys = [key_of(kind, f"user:inbox{size}") for kind in ("s", "h")]
                case = f"inbox with {size} entr{'y' if size == 1 else 'ies'}"
                found[case] = Sample({"bytes": sum(used(place.admin, key) for key in keys)})
            found["user with a device and a message"] = Sample({"bytes": await self._user(place)})
            return found
        finally:
            await place.close()

    async def _user(self, place: Place) -> float:
        """Somebody who came, received a message, acknowledged it, and went."""
        user, device, stream = "somebody", "phone", "user:somebody"
        store = place.store
        await store.open_session(user, device, "node1", {}, is_foreign=False)
        mailbox = await store.create_mailbox("node1")
        await store.attach(mailbox, [Registration(stream, 1)])
        [outcome] = await store.publish([to_user(WRITER, user)], mailbox)
        assert outcome.recipient_id is not None
        await store.commit([Commit(user, device, {stream: outcome.recipient_id})])
        await store.detach(mailbox, [Registration(stream, 1)])
        names = (stream, user, f"{user}/{device}")
        partition = list(place.admin.scan_iter("wp:{*}:*", count=1000))
        return sum(used(place.admin, key) for key in partition if key.count(b":") > 2 and name_in(key) in names)


def used(admin: Admin, key: str | bytes) -> int:
    """Bytes of a key, 0 when it is not there."""
    return admin.memory_usage(key, samples=0) or 0
