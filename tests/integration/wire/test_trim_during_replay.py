"""A trim at every moment of a replay: what comes are entries and gaps that add up to exactly what was missed."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from service.config import Limits, Settings
from service.core.entries import Page
from service.core.names import EntryId, parse_id
from service.node import Node
from service.store import Store, StoreOptions, TrimCause
from tests.integration.lines import Line, running
from tests.integration.store.kit import Server
from tests.service import Frame

pytestmark = pytest.mark.anyio

MESSAGES = 25
REDACTED = (4, 9, 10, 11, 17, 25)
CAUSE = TrimCause(policy="group:*", limit="max_entries=5")


class TrimmingStore(Store):
    """Trims the stream up to a number when its page number `moment` is read: just before, or after it was read."""

    stream = ""
    ids: Sequence[EntryId] = ()
    moment: float | None = None  # 0.5: between the first page's answer and the second's question
    upto = 0
    asked = 0
    read = 0  # up to which number pages had spoken when it was trimmed
    is_trimmed = False

    async def page(self, stream: str, after: EntryId, users: Sequence[str], **bounds: Any) -> Page:  # noqa: ANN401
        if stream != self.stream:
            return await super().page(stream, after, users, **bounds)
        number, self.asked = self.asked, self.asked + 1
        if self.moment == number:
            self.read = after.n
            await self._trim()
        page = await super().page(stream, after, users, **bounds)
        if self.moment == number + 0.5:
            self.read = page.head.n if page.is_last else page.entries[-1].id.n
            await self._trim()
        return page

    async def _trim(self) -> None:
        self.is_trimmed = True
        await self.trim(self.stream, self.ids[self.upto - 1], CAUSE)


@pytest.fixture
async def store(database: Server) -> AsyncIterator[TrimmingStore]:
    store = await TrimmingStore.connect(database.url, options=StoreOptions())
    await store.check_server()
    yield store
    await store.close()


@pytest.fixture
async def node(store: TrimmingStore, fresh: Callable[[str], str]) -> AsyncIterator[Node]:
    settings = Settings(node=fresh("trimmed"), dev=True, limits=Limits(page_entries=10, tail_entries=1))
    async with running(Node(store, settings)) as node:
        yield node


async def missed(store: TrimmingStore, node: Node, user: str, group: str) -> tuple[EntryId, list[EntryId]]:
    """A member's offset, and the ids of what was sent after it: messages of which some were redacted."""
    line = Line(node, user)
    line.say(type="hello", device="phone")
    await line.until(type="live")
    line.say(type="join", group=group, ref="j")
    joined = parse_id((await line.until(ref="j"))["id"])
    line.say(type="ack", offsets={f"group:{group}": str(joined)}, ref="a")
    await line.until(ref="a")
    line.connection.closed()
    other = Line(node, user)
    other.say(type="hello", device="sender")
    for number in range(1, MESSAGES + 1):
        other.say(type="send", to=f"group:{group}", body=number, ref=number)
    await other.until(ref=MESSAGES)
    ids = [parse_id(frame["id"]) for frame in other.frames if frame["type"] == "sent"]
    for number in REDACTED:
        told = await store.redact(f"group:{group}", ids[number - 1], user, only_sender=True)
        assert told is not None
        ids.append(told)
    other.connection.closed()
    return joined, ids


def walk(frames: list[Frame], stream: str, offset: EntryId) -> list[tuple[str, int]]:
    """What came of a stream after the offset, each number once, in order: ("entry" or "gap", number)."""
    at = offset.n
    found = []
    for frame in frames:
        if frame.get("stream") != stream or "ref" in frame:
            continue
        if frame["type"] == "gap":
            after, to = parse_id(frame["after"]), parse_id(frame["to"])
            assert (after.n, to.n - after.n) == (at, frame["missed"])
            found += [("gap", number) for number in range(after.n + 1, to.n + 1)]
            at = to.n
        elif "id" in frame:
            assert parse_id(frame["id"]).n == at + 1, frame
            at += 1
            found.append(("entry", at))
    return found


@pytest.mark.parametrize("moment", [0, 0.5, 1, 1.5, 2, 2.5, 3])
async def test_entries_and_gaps_add_up_whenever_a_trim_comes(
    store: TrimmingStore, node: Node, fresh: Callable[[str], str], moment: float
) -> None:
    for upto in (1, 9, 10, 11, 15, 25, MESSAGES + len(REDACTED)):
        await replay(store, node, fresh, moment, upto)


async def replay(store: TrimmingStore, node: Node, fresh: Callable[[str], str], moment: float, upto: int) -> None:
    """One replay with a trim at that moment up to the entry of that number, and what must have come of it."""
    user, group = fresh("ada"), fresh("g")
    offset, ids = await missed(store, node, user, group)
    store.stream, store.ids, store.moment, store.upto = f"group:{group}", ids, moment, upto
    store.asked, store.is_trimmed = 0, False

    line = Line(node, user)
    line.say(type="hello", device="phone")
    await line.until(type="live")

    found = walk(line.frames, store.stream, offset)
    assert [number for _, number in found] == [entry.n for entry in ids]
    # What had been read before the trim is there; what came after it is, up to where it went, a gap.
    gone = range(store.read + 1, offset.n + upto + 1) if store.is_trimmed else range(0)
    for kind, number in found:
        assert kind == ("gap" if number in gone else "entry"), (number, found)
    gaps = [frame for frame in line.frames if frame["type"] == "gap"]
    assert len(gaps) == bool(gone)
    assert store.is_trimmed or moment > 2  # there are three pages
    for gap in gaps:
        cause = gap["cause"]
        assert (cause["kind"], cause["policy"], cause["limit"]) == ("trimmed", CAUSE.policy, CAUSE.limit)
        assert gap.get("next") == (str(ids[upto]) if upto < len(ids) else None)
    line.connection.closed()


async def test_who_is_up_to_date_gets_no_gap_however_empty_the_stream_is(
    store: TrimmingStore, node: Node, fresh: Callable[[str], str]
) -> None:
    user, group = fresh("ada"), fresh("g")
    _, ids = await missed(store, node, user, group)
    line = Line(node, user)
    line.say(type="hello", device="phone")
    await line.until(type="live")
    line.say(type="ack", offsets={f"group:{group}": str(ids[-1])}, ref="a")
    await line.until(ref="a")
    await store.trim(f"group:{group}", None, CAUSE)
    assert (await store.survey(f"group:{group}", None)).length == 0
    again = Line(node, user)
    again.say(type="hello", device="phone")
    await again.until(type="live")
    line.say(type="send", to=f"group:{group}", body="next", ref="s")
    await again.until(type="message", body="next")
    for one in (line, again):
        assert [frame for frame in one.frames if frame["type"] == "gap"] == []
        one.connection.closed()


async def test_several_removals_are_one_gap_with_all_their_causes(
    store: TrimmingStore, node: Node, fresh: Callable[[str], str]
) -> None:
    user, group = fresh("ada"), fresh("g")
    offset, ids = await missed(store, node, user, group)
    stream = f"group:{group}"
    await store.trim(stream, ids[4], TrimCause(policy="group:*", limit="max_age=14d"))
    await store.trim(stream, ids[7], TrimCause(policy="group:*", limit="max_entries=9"))
    await store.trim(stream, ids[19], TrimCause(policy=stream, limit="max_bytes=1KB"))
    line = Line(node, user)
    line.say(type="hello", device="phone")
    await line.until(type="live")
    [gap] = [frame for frame in line.frames if frame["type"] == "gap"]
    assert (gap["after"], gap["to"], gap["next"]) == (str(offset), str(ids[19]), str(ids[20]))
    assert gap["missed"] == 20
    assert [(cause["policy"], cause["limit"]) for cause in gap["causes"]] == [
        ("group:*", "max_age=14d"),
        ("group:*", "max_entries=9"),
        (stream, "max_bytes=1KB"),
    ]
    assert gap["cause"] == gap["causes"][-1]
    assert all(cause["at"] for cause in gap["causes"])
    line.connection.closed()
