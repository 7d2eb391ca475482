"""Answers of the store and the mailbox come over different sockets: a node in this process, with answers held back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from service.config import Settings
from service.core.entries import Page
from service.core.names import EntryId
from service.node import Node
from service.store import Store, StoreOptions
from service.store.records import Membership
from tests.integration.lines import Line, running
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
