"""What goes wrong at the worst moment of a stream of events: a trim, a lost mailbox, a store that keeps no base."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from service.auth import Principal
from service.config import Limits, Settings
from service.core import bookmarks
from service.core.bookmarks import FULL, Base
from service.core.names import parse_id
from service.errors import Unavailable
from service.node import Node
from service.node.marked import MarkedConnection
from service.store import Outgoing, Store, StoreOptions
from service.transports.sse import EVENTS, mark
from tests.integration.http.web import redact
from tests.integration.lines import Line, running
from tests.integration.sse.kit import EventNet, come_back
from tests.integration.store.kit import Server
from tests.integration.wire import test_trim_during_replay as trims
from tests.integration.wire.test_found_in_review import lose_mailbox
from tests.service import ENTRY_TYPES, NodeProcess

pytestmark = pytest.mark.anyio


class EventLine(Line):
    """A line whose node writes events with bookmarks; `bookmark` is the last."""

    def __init__(self, node: Node, user: str) -> None:
        self.frames = []
        self.bookmark = ""
        connection = node.connect(self, EVENTS, Principal(user=user, can_broadcast=True), mark=mark)
        assert isinstance(connection, MarkedConnection)
        self.connection: MarkedConnection = connection

    def write(self, data: bytes) -> None:
        for event in data.split(b"\n\n")[:-1]:
            *lines, told = event.decode().split("\n")
            frame = json.loads(told.removeprefix("data: "))
            is_entry = frame["type"] in (*ENTRY_TYPES, "gap") and "ref" not in frame
            assert bool(lines) == is_entry, event
            self.bookmark = lines[0].removeprefix("id: ") if lines else self.bookmark
            self.frames.append(frame)


# -- trims: the wire's own scenarios, with bookmarks -------------------------------------------------------------------


@pytest.fixture
async def trimming(database: Server) -> AsyncIterator[trims.TrimmingStore]:
    store = await trims.TrimmingStore.connect(database.url, options=StoreOptions())
    await store.check_server()
    yield store
    await store.close()


@pytest.mark.parametrize("moment", [0.5, 1, 2])
async def test_entries_and_gaps_add_up_whenever_a_trim_comes(
    trimming: trims.TrimmingStore, fresh: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, moment: float
) -> None:
    monkeypatch.setattr(trims, "Line", EventLine)
    settings = Settings(node=fresh("trimmed"), dev=True, limits=Limits(page_entries=10, tail_entries=1))
    async with running(Node(trimming, settings)) as node:
        for upto in (1, 10, 15):
            await trims.replay(trimming, node, fresh, moment, upto)


# -- doubt -------------------------------------------------------------------------------------------------------------


async def test_a_mailbox_that_is_lost_costs_nothing(
    net: EventNet, node: NodeProcess, database: Server, alice: str, bob: str
) -> None:
    phone, sender = await net.listen(bob), await net.speaker(alice)
    for number in range(30):
        await sender.send(f"user:{bob}", number)
        if number in (5, 15):
            await lose_mailbox(node, database)
    await phone.wait("message", body=29)
    assert phone.bodies() == list(range(30))
    await phone.leave()
    again = await come_back(phone)
    await again.wait("live")
    assert again.messages() == []


async def test_what_was_redacted_is_told_live_and_after_coming_back(
    net: EventNet, node: NodeProcess, alice: str, bob: str
) -> None:
    phone, away, sender = await net.listen(bob), await net.listen(bob, "away"), await net.speaker(alice)
    first = await sender.send(f"user:{bob}", "first")
    await away.wait("message", body="first")
    await away.leave()
    second = await sender.send(f"user:{bob}", "second")
    await phone.wait("message", body="second")
    for sent in (first, second):
        assert (await redact(node, f"user:{alice}", sent["id"], alice)).status == 200
    await phone.until(lambda: [f["type"] for f in phone.frames].count("redacted") == 2, "both are told")
    back = await come_back(away)
    await back.wait("live")
    [tombstone] = back.messages()
    assert (tombstone["redacted"], "body" in tombstone) == (True, False)
    assert [frame["type"] for frame in back.frames].count("redacted") == 2
    assert "second" not in str(back.frames)


# -- a store that keeps no base ----------------------------------------------------------------------------------------


class ForgetfulStore(Store):
    """Keeps no base while `is_failing`."""

    is_failing = False
    failures = 0

    async def keep_base(
        self, user: str, device: str, base: Base, *, origin: str, forget: Sequence[str], keep_s: float
    ) -> None:
        if self.is_failing:
            self.failures += 1
            raise Unavailable("not now")
        await super().keep_base(user, device, base, origin=origin, forget=forget, keep_s=keep_s)


@pytest.fixture
async def forgetful(database: Server) -> AsyncIterator[ForgetfulStore]:
    store = await ForgetfulStore.connect(database.url, options=StoreOptions())
    await store.check_server()
    yield store
    await store.close()


async def test_without_a_base_no_session_is_opened(forgetful: ForgetfulStore, fresh: Callable[[str], str]) -> None:
    async with running(Node(forgetful, Settings(node=fresh("forgetful"), dev=True))) as node:
        forgetful.is_failing = True
        closed: list[int] = []
        line = EventLine(node, fresh("bob"))
        line.close = lambda code, reason: closed.append(code)  # type: ignore[method-assign]
        line.say(type="hello", device="web")
        assert (await line.until(type="error"))["code"] == "unavailable"
        assert closed == [4000]
        assert [frame["type"] for frame in line.frames] == ["error"]


async def test_a_bookmark_that_is_full_holds_up_its_connection_alone_until_there_is_a_base(
    forgetful: ForgetfulStore, fresh: Callable[[str], str]
) -> None:
    user, other, sender = fresh("bob"), fresh("carol"), fresh("alice")
    groups = [fresh("g") for _ in range(300)]
    for group in groups:
        for member in (user, other, sender):
            await forgetful.join(member, group)
    async with running(Node(forgetful, Settings(node=fresh("forgetful"), dev=True))) as node:
        line, wire = EventLine(node, user), Line(node, other)
        for one in (line, wire):
            one.say(type="hello", device="web")
            await one.until(type="live")
        forgetful.is_failing = True
        told = [Outgoing("group", sender, f"group:{group}", group, b'"hi"', "", None, None) for group in groups]
        for at in range(0, 300, 100):
            await forgetful.publish(told[at : at + 100], "")
        await wire.until(stream=f"group:{groups[-1]}", type="message")
        await asyncio.sleep(0.5)
        assert len([f for f in wire.frames if f["type"] == "message"]) == 300
        held = [f for f in line.frames if f["type"] == "message"]
        assert 100 < len(held) < 200
        assert FULL <= len(line.bookmark) < FULL + 200
        assert forgetful.failures
        forgetful.is_failing = False
        for group in groups:
            await line.until(stream=f"group:{group}", type="message")
        messages = [f for f in line.frames if f["type"] == "message"]
        assert sorted(f["stream"] for f in messages) == sorted(f"group:{group}" for group in groups)

        name, moves = bookmarks.split(line.bookmark)
        base, _ = await forgetful.find_base(user, "web", name)
        assert base is not None
        at_last = bookmarks.resolve(base, moves)
        assert {f["stream"]: parse_id(f["id"]) for f in messages}.items() <= at_last.items()
        for one in (line, wire):
            one.connection.closed()
