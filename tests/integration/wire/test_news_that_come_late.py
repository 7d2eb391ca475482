"""Answers of the store and the mailbox come over different sockets: a node in this process, with answers held back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from service.config import Settings
from service.core.entries import Page
from service.core.names import EntryId, parse_id
from service.node import Node
from service.store import Store, StoreOptions
from service.store.records import Membership
from service.transports.chat import joined_text
from tests.integration.lines import Line, OldLine, running
from tests.integration.store.kit import Server
from tests.integration.wire.kit import PATIENCE_S, eventually

pytestmark = pytest.mark.anyio


class SlowStore(Store):
    """While `may_answer` is clear, holds back the answers to questions about memberships, and that to a `join` until
    two have asked. While `may_page` is clear, holds back the pages of groups.
    """

    may_answer: asyncio.Event
    may_page: asyncio.Event
    asked = 0

    async def join(self, *args: Any, **options: Any) -> Membership:  # noqa: ANN401
        membership = await super().join(*args, **options)
        await eventually(lambda: self.may_answer.is_set() or self.asked == 2, "the other connections ask")
        return membership

    async def page(self, stream: str, after: EntryId, users: Sequence[str], **bounds: Any) -> Page:  # noqa: ANN401
        page = await super().page(stream, after, users, **bounds)
        if bounds["max_entries"] == 1:
            self.asked += 1
            await asyncio.wait_for(self.may_answer.wait(), PATIENCE_S)
        elif stream.startswith("group:"):
            await asyncio.wait_for(self.may_page.wait(), PATIENCE_S)
        return page


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions()


@pytest.fixture
async def store(database: Server, options: StoreOptions) -> AsyncIterator[SlowStore]:
    store = await SlowStore.connect(database.url, options=options)
    store.may_answer, store.may_page = asyncio.Event(), asyncio.Event()
    store.may_answer.set()
    store.may_page.set()
    await store.check_server()
    yield store
    await store.close()


@pytest.fixture
async def node(store: SlowStore, fresh: Callable[[str], str]) -> AsyncIterator[Node]:
    async with running(Node(store, Settings(node=fresh("late"), dev=True))) as node:
        yield node


async def test_news_of_a_joining_that_are_older_than_the_leaving_are_not_followed(
    node: Node, store: SlowStore, alice: str, bob: str, group: str
) -> None:
    member, phone, laptop = Line(node, bob), Line(node, alice), Line(node, alice)
    for line, device in ((member, "member"), (phone, "phone"), (laptop, "laptop")):
        line.say(type="hello", device=device)
        await line.until(type="live")
    member.say(type="join", ref=1, group=group)
    await member.until(ref=1)
    store.may_answer.clear()
    store.asked = 0

    phone.say(type="join", ref=1, group=group)
    await phone.until(type="joined", ref=1)
    phone.say(type="leave", ref=2, group=group)
    await phone.until(type="left", ref=2)
    await eventually(lambda: f"group:{group}" not in phone.connection.cursors, "it is no longer followed")
    heard = len(phone.frames)
    store.may_answer.set()
    member.say(type="send", ref=3, to=f"user:{alice}", body="mark")
    await phone.until(type="message", body="mark")
    # The laptop begins only now, and gets the end of the membership once; for the phone it is over.
    assert (await laptop.until(type="left", stream=f"group:{group}"))["user"] == alice
    await eventually(lambda: f"group:{group}" not in laptop.connection.cursors, "it is no longer followed")
    assert [frame for frame in phone.frames[heard:] if frame.get("stream") == f"group:{group}"] == []
    assert [frame["type"] for frame in laptop.frames if frame.get("stream") == f"group:{group}"] == ["left"]


async def leave_and_join_while_pages_are_held_back(
    node: Node, store: SlowStore, user: str, other: str, to: str
) -> Line:
    """A connection that has fallen behind in a group leaves it and joins again, before its page comes. It goes on
    writing, and one of the answers it waits for is of the second membership.
    """
    member, phone = Line(node, other), Line(node, user)
    for line, device in ((member, "member"), (phone, "phone")):
        line.say(type="hello", device=device)
        await line.until(type="live")
        line.say(type="join", ref="j1", group=to)
        await line.until(ref="j1")
    stream = f"group:{to}"

    async def say(body: str) -> None:
        member.say(type="send", ref=body, to=stream, body=body)
        await member.until(ref=body)

    await say("first")
    await phone.until(type="message", body="first")
    store.may_page.clear()
    phone.connection.paused()
    phone.connection.drained()
    await say("second")
    phone.say(type="leave", ref="l1", group=to)
    await phone.until(ref="l1", type="left")
    await say("between")
    phone.say(type="join", ref="j2", group=to)
    phone.say(type="send", ref="s1", to=stream, body="own")
    await phone.until(ref="s1", type="sent")
    await say("third")
    assert [f for f in phone.frames if f.get("ref") == "j2"] == [], "what was said before the leaving has not come yet"

    store.may_page.set()
    await phone.until(type="message", body="third")
    await eventually(lambda: phone.connection.is_live(stream), "the phone is live")
    await say("last")
    await phone.until(type="message", body="last")
    assert not phone.connection.session._asked.pending
    return phone


def story(line: Line, group: str) -> list[str]:
    """What came of a group after `first`, in short: answers by their `ref`."""
    told = [f for f in line.frames if f.get("stream") == f"group:{group}" and f["type"] != "live"]
    words = [str(f.get("ref") or f.get("body") or f["type"]) for f in told]
    return words[words.index("first") + 1 :]


async def test_the_answer_to_joining_again_comes_after_all_of_the_membership_before(
    node: Node, store: SlowStore, alice: str, bob: str, group: str
) -> None:
    phone = await leave_and_join_while_pages_are_held_back(node, store, alice, bob, group)
    # `l1` and `s1` overtake what is to come in pages, as answers do on a stream that is behind. `j2` must not: numbers
    # count anew from it. It stands for the own `joined`.
    assert story(phone, group) == ["l1", "s1", "second", "left", "j2", "own", "third", "last"]
    phone.say(type="leave", ref="l2", group=group)
    await phone.until(ref="l2", type="left")


async def test_who_leaves_once_more_hears_of_it_after_the_joining(
    node: Node, store: SlowStore, alice: str, bob: str, group: str
) -> None:
    """Also when the whole second membership lies in the page that ends the first."""
    member, phone = Line(node, bob), Line(node, alice)
    for line, device in ((member, "member"), (phone, "phone")):
        line.say(type="hello", device=device)
        await line.until(type="live")
        line.say(type="join", ref="j1", group=group)
        await line.until(ref="j1")
    await eventually(lambda: phone.connection.is_live(f"group:{group}"), "it is live")
    store.may_page.clear()
    phone.connection.paused()
    phone.connection.drained()
    for number in (1, 2, 3):
        phone.say(type="leave", ref=f"l{number}", group=group)
        phone.say(type="join", ref=f"j{number + 1}", group=group)
    phone.say(type="send", ref="s", to=f"user:{bob}", body="mark")
    await phone.until(ref="s")
    store.may_page.set()
    await phone.until(ref="j4")
    member.say(type="send", to=f"group:{group}", body="last")
    await phone.until(type="message", body="last")
    came = [f.get("ref") for f in phone.frames if f["type"] in ("joined", "left") and f.get("ref")]
    assert came == ["j1", "l1", "j2", "l2", "j3", "l3", "j4"]
    entries = [f for f in phone.frames if f.get("stream") == f"group:{group}" and "id" in f]
    counted = [f["id"] for f in entries if f["type"] == "joined" or "ref" not in f]  # a `left` that overtakes is not
    assert counted == sorted(counted, key=parse_id)


async def test_the_old_protocol_tells_of_joining_again_after_the_texts_from_before(
    node: Node, store: SlowStore, alice: str, bob: str, group: str
) -> None:
    member = Line(node, bob)
    member.say(type="hello", device="member")
    member.say(type="join", ref="j", group=group)
    await member.until(ref="j")
    phone = OldLine(node, alice)
    phone.join(group)
    await eventually(lambda: phone.connection.is_live(f"group:{group}"), "it is live")
    store.may_page.clear()
    phone.connection.paused()
    phone.connection.drained()
    for body in ("before", "between"):
        member.say(type="send", ref=body, to=f"group:{group}", body=body)
        await member.until(ref=body)
        if body == "before":
            await store.leave(alice, group, mailbox="", origin=None)
    phone.join(group)
    await eventually(lambda: not phone.connection.session._asked.changing, "it is a member again")
    member.say(type="send", ref=3, to=f"group:{group}", body="after")
    await member.until(ref=3)
    store.may_page.set()
    await eventually(lambda: phone.texts()[-1:] == [f"group 【{group}】 user 【{bob}】 send:after"], "all has come")
    assert phone.texts() == [
        joined_text(alice, group),
        f"group 【{group}】 user 【{bob}】 send:before",
        joined_text(alice, group),
        f"group 【{group}】 user 【{bob}】 send:after",
    ]


class TestInAGroupTooLargeToAnnounce:
    """No `left` stands in the group's stream: only the own inbox tells that the membership has ended."""

    @pytest.fixture
    def options(self) -> StoreOptions:
        return StoreOptions(announce=0)

    async def test_nothing_is_pushed_to_who_left_while_the_group_is_still_being_asked(
        self, node: Node, store: SlowStore, alice: str, bob: str, group: str
    ) -> None:
        member, phone, laptop = Line(node, bob), Line(node, alice), Line(node, alice)
        for line, device in ((member, "member"), (phone, "phone"), (laptop, "laptop")):
            line.say(type="hello", device=device)
            await line.until(type="live")
        for line in (member, phone):
            line.say(type="join", ref="j", group=group)
            await line.until(ref="j")
        member.say(type="send", to=f"group:{group}", body="before")
        for line in (phone, laptop):
            await line.until(type="message", body="before")
        await eventually(lambda: laptop.connection.is_live(f"group:{group}"), "the laptop is live")

        store.may_page.clear()
        store.may_answer.clear()
        phone.say(type="leave", ref="l", group=group)
        await phone.until(ref="l", type="left")
        member.say(type="send", to=f"group:{group}", body="after")
        member.say(type="send", to=f"user:{alice}", body="mark")
        for line in (phone, laptop):
            await line.until(type="message", body="mark")
        store.may_page.set()
        store.may_answer.set()
        for line in (phone, laptop):
            await eventually(lambda one=line: f"group:{group}" not in one.connection.cursors, "it is followed no more")  # type: ignore[misc]
            assert [frame["body"] for frame in line.frames if frame["type"] == "message"] == ["before", "mark"]

    async def test_the_answer_to_joining_again_comes_after_all_of_the_membership_before(
        self, node: Node, store: SlowStore, alice: str, bob: str, group: str
    ) -> None:
        phone = await leave_and_join_while_pages_are_held_back(node, store, alice, bob, group)
        assert story(phone, group) == ["l1", "s1", "second", "j2", "own", "third", "last"]
