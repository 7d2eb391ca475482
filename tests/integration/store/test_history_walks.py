"""Streams with everything in them, made by a seed; whatever is asked, each number is what it should be, once.

What should be is reckoned here by numbers alone, without ids, splits or laying out. A failure names its seed.
"""

import random

import pytest

from service.core.anchors import parse_anchor
from service.core.history import History, answer, ask
from service.core.names import EntryId, parse_id
from service.errors import WaypostError
from service.store import Store, StoreOptions, TrimCause
from tests.integration.store.kit import Admin, head_of, key_of, numbers_in, send, to_group

pytestmark = pytest.mark.anyio
STREAM = "group:g"
OPEN = 10**9  # a number that no stream reaches
SEEDS = 25


@pytest.fixture(params=[1000, 1], ids=["announced", "unannounced"])
def options(request: pytest.FixtureRequest) -> StoreOptions:
    return StoreOptions(announce=request.param)


class Group:
    """A group in which things happen by chance, and what each number is to bob then: `here`, `redacted`, `gone`, or not
    his.
    """

    def __init__(self, store: Store, admin: Admin, chance: random.Random) -> None:
        self.what: dict[int, str] = {}
        self.head = 0
        self._store, self._admin, self._chance = store, admin, chance
        self._ids: dict[int, EntryId] = {}
        self._stretches: list[tuple[int, bool, int]] = []  # joined, whether that is the own entry, left
        self._gone: set[int] = set()
        self._redacted: set[int] = set()

    async def live(self) -> None:
        """Things happen."""
        await self._store.join("alice", "g", mailbox="", origin=None)
        acts = [self._send, self._change, self._redact, self._trim, self._lose, self._wait]
        for act in self._chance.choices(acts, [9, 4, 5, 1, 1, 2], k=self._chance.randint(5, 60)):
            await act(head_of(self._admin, STREAM))
        await self._reckon()

    async def _send(self, _: EntryId) -> None:
        sent = await send(self._store, *(to_group("alice", "g") for _ in range(self._chance.randint(1, 5))))
        self._ids |= {entry.n: entry for entry in sent}

    @property
    def _is_member(self) -> bool:
        return bool(self._stretches) and self._stretches[-1][2] == OPEN

    async def _change(self, _: EntryId) -> None:
        if self._is_member:
            changed = await self._store.leave("bob", "g", mailbox="", origin=None)
            self._stretches[-1] = (*self._stretches[-1][:2], changed.id.n)
        else:
            changed = await self._store.join("bob", "g", mailbox="", origin=None)
            self._stretches.append((changed.id.n, changed.is_announced, OPEN))

    async def _redact(self, _: EntryId) -> None:
        there = numbers_in(self._admin, STREAM)
        for n in self._chance.sample(sorted(self._ids.keys() & there), k=min(1, len(self._ids.keys() & there))):
            await self._store.redact(STREAM, self._ids[n], "alice", only_sender=True)
            self._redacted.add(n)

    async def _trim(self, head: EntryId) -> None:
        there = self._admin.xrange(key_of("s", STREAM))
        if there and head.n > 3:
            upto = parse_id(self._chance.choice(there)[0].decode())
            await self._store.trim(STREAM, upto, TrimCause("old", "max_age"))

    async def _lose(self, head: EntryId) -> None:
        lost = EntryId(head.ms, head.n + self._chance.randint(1, 3))
        await self._store.reconcile("n1", ["n1"], {STREAM: lost})
        self._gone |= set(range(head.n + 1, lost.n + 1))

    async def _wait(self, head: EntryId) -> None:
        self._admin.hset(key_of("h", STREAM), "head", f"{head.ms + self._chance.randint(1, 50)}-{head.n}")

    async def _reckon(self) -> None:
        raw = self._admin.hget(key_of("h", STREAM), "floor")
        floor = parse_id(raw.decode()).n if raw else 0
        remembered = [(s.joined.n, s.left.n) for s in await self._store.stretches("bob", "g") if s.left is not None]
        head = head_of(self._admin, STREAM).n
        for n in range(1, head + 1):
            is_gone = n <= floor or n in self._gone
            what = "gone" if is_gone else "redacted" if n in self._redacted else "here"
            for joined, is_own, left in self._stretches:
                # The record may forget a stretch that is gone as a whole. Where the own joining is gone the stretch
                # begins above it, and no gap is told for it.
                is_told = joined < n <= left or (n == joined and is_own and what == "here")
                if is_told and (left > floor or (joined, left) in remembered):
                    self.what[n] = what
        self.head = head if self._is_member or not self._stretches else max((left for _, left in remembered), default=0)


def said_of(found: History) -> dict[int, str]:
    """What an answer says of each number; of every one at most once."""
    said = [(n, "gone") for gap in found.gaps for n in range(gap.after.n + 1, gap.to.n + 1)]
    said += [(entry.id.n, "redacted" if entry.is_redacted else "here") for entry in found.entries]
    assert len(dict(said)) == len(said), said
    return dict(said)


async def look(store: Store, limit: int, **spelt: int | str | None) -> History:
    anchor = parse_anchor(spelt.get("after"), spelt.get("before"), spelt.get("around"))
    question = ask(STREAM, "bob", anchor, limit)
    return answer(await store.history("bob", question, max_bytes=10**6, looked_max=1000), "bob", question)


def check(told: Group, found: History, limit: int) -> None:
    """An answer says of each number in its bounds what it is, and of no other."""
    low, high = found.low.n, found.high.n
    assert said_of(found) == {n: what for n, what in told.what.items() if low < n <= high}
    assert len(found.entries) <= limit
    assert [entry.id for entry in found.entries] == sorted(entry.id for entry in found.entries)
    if found.found_oldest:
        assert not [n for n in told.what if n <= low]
    if found.found_newest:
        assert not [n for n in told.what if n > high]
    assert found.head.n == told.head


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_every_number_is_what_it_should_be(store: Store, admin: Admin, seed: int) -> None:
    chance = random.Random(seed)
    told = Group(store, admin, chance)
    await told.live()
    if not told.what and not await store.stretches("bob", "g"):
        with pytest.raises(WaypostError, match="not_member"):
            await look(store, 5)
        return
    for _ in range(40):
        limit, n = chance.choice([1, 2, 3, 7, 200]), chance.randint(0, told.head + 2)
        side = chance.choice(["after", "before", "around", "newest"])
        if side in ("after", "around") and n > told.head:
            with pytest.raises(WaypostError, match="bad_anchor"):
                await look(store, limit, **{side: n})
            continue
        found = await look(store, limit, **({} if side == "newest" else {side: n}))
        check(told, found, limit)
        low, high = found.low.n, found.high.n
        if side == "after":
            assert not [m for m in told.what if n < m <= low]
            shown = [m for m, what in told.what.items() if m > n and what != "gone"]
            assert [entry.id.n for entry in found.entries] == shown[:limit]
        elif side in ("before", "newest"):
            bound = told.head + 1 if side == "newest" else n
            assert not [m for m in told.what if high < m < bound]
            shown = [m for m, what in told.what.items() if m < bound and what != "gone"]
            assert [entry.id.n for entry in found.entries] == shown[-limit:]
        elif limit > 1:
            below = [m for m, what in told.what.items() if m < n and what != "gone"][-(limit // 2) :]
            above = [m for m, what in told.what.items() if m >= n and what != "gone"][: limit - len(below)]
            assert [entry.id.n for entry in found.entries] == below + above


@pytest.mark.parametrize("seed", range(SEEDS, SEEDS + 15))
@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_going_on_by_first_and_last_tells_everything_once(
    store: Store, admin: Admin, seed: int, limit: int
) -> None:
    chance = random.Random(seed)
    told = Group(store, admin, chance)
    await told.live()
    if not await store.stretches("bob", "g"):
        return
    for is_forward in (True, False):
        said: dict[int, str] = {}
        found = await look(store, limit, **({"after": 0} if is_forward else {}))
        for _ in range(500):
            check(told, found, limit)
            assert not said.keys() & said_of(found).keys()
            said |= said_of(found)
            if found.found_newest if is_forward else found.found_oldest:
                break
            at = found.last if is_forward else found.first
            assert at is not None
            found = await look(store, limit, **{"after" if is_forward else "before": str(at)})
        assert said == told.what
