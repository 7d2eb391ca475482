"""What goes on at the same time in one node: answers of the store that cross each other, and many who come together."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from service.config import Settings
from service.core.entries import Page
from service.core.names import EntryId, parse_id
from service.node import Node
from service.store import OpenedStream, Store, StoreOptions
from tests.integration.lines import Line, running
from tests.integration.store.kit import Server, key_of
from tests.integration.wire.kit import PATIENCE_S, eventually

pytestmark = pytest.mark.anyio


class HeldStore(Store):
    """Holds back the pages of one stream while `may_page` is clear, and counts the sessions being opened."""

    held = ""
    may_page: asyncio.Event
    asked = 0
    opening = most_opening = 0

    async def page(self, stream: str, after: EntryId, users: Sequence[str], **bounds: Any) -> Page:  # noqa: ANN401
        page = await super().page(stream, after, users, **bounds)
        if stream == self.held:
            self.asked += 1
            await asyncio.wait_for(self.may_page.wait(), PATIENCE_S)
        return page

    async def open_session(
        self, user: str, device: str, node: str, offsets: Mapping[str, EntryId], *, is_foreign: bool
    ) -> list[OpenedStream]:
        self.opening += 1
        self.most_opening = max(self.most_opening, self.opening)
        try:
            return await super().open_session(user, device, node, offsets, is_foreign=is_foreign)
        finally:
            self.opening -= 1


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions()


@pytest.fixture
async def store(database: Server, options: StoreOptions) -> AsyncIterator[HeldStore]:
    store = await HeldStore.connect(database.url, options=options)
    store.may_page = asyncio.Event()
    await store.check_server()
    yield store
    await store.close()


@pytest.fixture
async def node(store: HeldStore, fresh: Callable[[str], str]) -> AsyncIterator[Node]:
    async with running(Node(store, Settings(node=fresh("busy"), dev=True))) as node:
        yield node


async def arrive(node: Node, user: str, device: str = "phone") -> Line:
    line = Line(node, user)
    line.say(type="hello", device=device)
    await line.until(type="live")
    return line


async def test_of_two_connections_of_a_device_the_one_that_is_further_counts(node: Node, alice: str, bob: str) -> None:
    sender = await arrive(node, alice)
    tabs = [await arrive(node, bob) for _ in range(2)]
    for number in range(6):
        sender.say(type="send", to=f"user:{bob}", body=number)
    for tab in tabs:
        await tab.until(type="message", body=5)
    ids = [frame["id"] for frame in tabs[0].frames if frame["type"] == "message"]
    tabs[0].say(type="ack", ref="all", offsets={f"user:{bob}": ids[5]})
    tabs[1].say(type="ack", ref="half", offsets={f"user:{bob}": ids[2]})
    for tab, ref in zip(tabs, ("all", "half"), strict=True):
        await tab.until(type="acked", ref=ref)

    again = await arrive(node, bob)
    assert again.frames[0]["streams"][f"user:{bob}"]["offset"] == ids[5]
    assert not [frame for frame in again.frames if frame["type"] == "message"]


async def test_a_page_that_is_late_puts_no_doubt_on_a_store_that_is_well(
    node: Node, store: HeldStore, alice: str, bob: str
) -> None:
    sender, receiver = await arrive(node, alice), await arrive(node, bob)
    store.held = f"user:{bob}"
    latecomers = [Line(node, bob) for _ in range(25)]  # each reads a page that is below the position when it comes
    sender.say(type="send", to=f"user:{bob}", body="first")
    await receiver.until(type="message", body="first")
    for number, line in enumerate(latecomers):
        line.say(type="hello", device=f"d{number}")
        await line.until(type="welcome")
        await eventually(lambda asked=number: store.asked > asked, "its page is read")  # type: ignore[misc]
        sender.say(type="send", to=f"user:{bob}", body=number)
        await receiver.until(type="message", body=number)
        store.may_page.set()
        await line.until(type="live")
        store.may_page.clear()
        assert node.fence.is_open
    for line in latecomers:
        await line.until(type="message", body=24)
        bodies = [frame["body"] for frame in line.frames if frame["type"] == "message"]
        assert bodies == ["first", *range(25)]


async def test_what_a_connection_sends_along_with_a_send_that_found_no_room_is_refused_too(
    node: Node, alice: str, bob: str
) -> None:
    sender, receiver = await arrive(node, alice), await arrive(node, bob)
    most = node.settings.limits.node_unanswered_bytes
    node.sends._bytes = most - 10  # what other connections have waiting
    sender.say(type="send", ref="large", to=f"user:{bob}", body="x" * 100)
    sender.say(type="send", ref="small", to=f"user:{bob}", body=1)
    node.sends._bytes = 0
    for ref in ("large", "small"):
        assert (await sender.until(ref=ref))["code"] == "unavailable"
    await asyncio.sleep(0)  # the next turn of the loop
    sender.say(type="send", ref="later", to=f"user:{bob}", body=2)
    await sender.until(type="sent", ref="later")
    await receiver.until(type="message", body=2)
    assert [frame["body"] for frame in receiver.frames if frame["type"] == "message"] == [2]


async def test_a_storm_of_hellos_leaves_connections_to_the_store_for_those_who_are_there(
    node: Node, store: HeldStore, alice: str, bob: str, fresh: Callable[[str], str]
) -> None:
    sender, receiver = await arrive(node, alice), await arrive(node, bob)
    storm = [Line(node, fresh("s")) for _ in range(300)]
    for line in storm:
        line.say(type="hello")
    sender.say(type="send", ref=1, to=f"user:{bob}", body="beside it")
    await sender.until(type="sent", ref=1)
    await receiver.until(type="message", body="beside it")
    for line in storm:
        await line.until(type="live")
    assert store.most_opening <= node.settings.limits.opens_in_flight
    assert node.fence.is_open


async def test_a_registration_that_was_lost_is_noticed_by_what_is_sent_and_holds_up_no_answer(
    node: Node, database: Server, alice: str, bob: str
) -> None:
    sender, receiver = await arrive(node, alice), await arrive(node, bob)
    sender.say(type="send", ref=0, to=f"user:{bob}", body="before")
    await receiver.until(type="message", body="before")
    for user in (alice, bob):
        assert database.admin.hdel(key_of("h", f"user:{user}"), node.reader.mailbox) == 1
    beats = node.reader.next_beat
    sender.say(type="send", ref=1, to=f"user:{bob}", body="into the void")
    await sender.until(type="sent", ref=1)
    await receiver.until(type="message", body="into the void")
    assert node.reader.next_beat - beats < 20, "the audit, which takes a minute, has found it"
    registers = [key_of("h", f"user:{user}") for user in (alice, bob)]
    await eventually(
        lambda: all(database.admin.hexists(register, node.reader.mailbox) for register in registers), "registered again"
    )


async def test_a_server_that_others_have_opened_is_told_what_only_this_node_knows(
    node: Node, store: HeldStore, alice: str, bob: str
) -> None:
    sender, receiver = await arrive(node, alice), await arrive(node, bob)
    sender.say(type="send", ref=1, to=f"user:{bob}", body="kept")
    known = parse_id((await receiver.until(type="message", body="kept"))["id"])
    told: list[Mapping[str, EntryId]] = []
    reconcile = store.reconcile

    async def listen(name: str, live: Sequence[str], heads: Mapping[str, EntryId], *, is_late: bool) -> bool:
        told.append(heads)
        return await reconcile(name, live, heads, is_late=is_late)

    store.reconcile = listen  # type: ignore[assignment,method-assign]
    node.fence._told = "another server"  # as after a failover whose partitions the other nodes have opened
    node.fence.trip("a call was not answered")
    await eventually(lambda: node.fence.is_open, "it is open again")
    assert told
    assert told[0][f"user:{bob}"] == known
    node.fence.trip("a call was not answered")
    await eventually(lambda: node.fence.is_open, "it is open again")
    assert len(told) == 1, "the same server is told once"


class TestInAGroupTooLargeToAnnounce:
    @pytest.fixture
    def options(self) -> StoreOptions:
        return StoreOptions(announce=0)

    async def test_who_comes_back_while_the_page_of_the_leaving_is_on_its_way_is_a_member(
        self, node: Node, store: HeldStore, alice: str, bob: str, group: str
    ) -> None:
        member, phone, laptop = await arrive(node, bob), await arrive(node, alice), await arrive(node, alice, "laptop")
        stream = f"group:{group}"
        for line in (member, phone):
            line.say(type="join", ref="j", group=group)
            await line.until(ref="j")
        await eventually(lambda: laptop.connection.is_live(stream), "the laptop is live")
        store.held = stream
        phone.say(type="leave", ref="l", group=group)
        await phone.until(ref="l", type="left")
        await laptop.until(type="left", stream=f"user:{alice}")
        await eventually(lambda: store.asked >= 1, "the page of the leaving is read")
        phone.say(type="join", ref="again", group=group)
        await phone.until(ref="again", type="joined")
        member.say(type="send", to=f"user:{alice}", body="mark")
        for line in (phone, laptop):
            await line.until(type="message", body="mark")
        store.may_page.set()
        for line in (phone, laptop):
            await eventually(lambda one=line: one.connection.is_live(stream), "it is live again")  # type: ignore[misc]
        member.say(type="send", to=stream, body="welcome back")
        for line in (phone, laptop):
            await line.until(type="message", body="welcome back")
