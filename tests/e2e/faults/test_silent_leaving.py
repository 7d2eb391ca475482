"""A group too large to announce has no entry that tells who leaves: the inbox alone does, and that may be missed."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import mailboxes
from tests.e2e.kit import true
from tests.integration.store.kit import Server
from tests.integration.wire.kit import join, leave
from tests.proxy import Proxy, Rule
from tests.service import NodeProcess, Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]


class Scene:
    """Bob's laptop and alice on one node; on the other carol and, if he is there, bob's phone: all in group g."""

    def __init__(self, near: NodeProcess, alice: Phone, laptop: Phone, carol: Phone) -> None:
        self.near = near
        self.alice = alice
        self.laptop = laptop
        self.carol = carol

    async def hears_nothing_more(self, phone: Phone, pages: Rule) -> None:
        """Bob has left by the laptop, and the page of his inbox that says so is on its way to the phone's node."""
        await true(lambda: pages.hits, "the inbox is read")
        had = phone.bodies("group:g")
        await self.alice.send_all("group:g", ["not for bob"])
        await self.carol.wait("message", body="not for bob")  # the node has dispatched it
        pages.release()
        await self.alice.send_all("user:bob", ["mark"])
        await phone.wait("message", body="mark")
        assert phone.bodies("group:g") == had


@pytest.fixture
async def scene(database: Server, proxy: Proxy, start_nodes: StartNodes) -> AsyncIterator[Scene]:
    with Proxy(database.url) as elsewhere:
        [near], [far] = start_nodes("near", announce=0), start_nodes("far", through=elsewhere, announce=0)
        alice, laptop = await Phone.open(far.url, "alice"), await Phone.open(far.url, "bob", "laptop")
        carol = await Phone.open(near.url, "carol")
        for member in (alice, laptop, carol):
            await join(member, "g")
        await alice.send_all("group:g", ["before"])
        phone = await Phone.open(near.url, "bob", "phone")
        await phone.acknowledge(phone.last_ids())
        await phone.leave()
        yield Scene(near, alice, laptop, carol)


async def test_who_left_while_the_mailbox_was_lost_is_pushed_nothing_more(
    database: Server, proxy: Proxy, scene: Scene
) -> None:
    phone = await Phone.open(scene.near.url, "bob", "phone")
    pages = proxy.hold_answers("page_v", times=1000)
    known = mailboxes(database, "near")
    database.admin.delete(*known)
    assert (await leave(scene.laptop, "g"))["type"] == "left"  # the hint is lost with the mailbox
    await true(lambda: mailboxes(database, "near") - known and scene.near.is_ready(), "it has another mailbox")
    await scene.hears_nothing_more(phone, pages)


async def test_who_left_while_a_session_was_opened_is_pushed_nothing_more(proxy: Proxy, scene: Scene) -> None:
    opening = proxy.hold_answers("open_v")
    phone = await Phone.dial(scene.near.url, "bob")
    await phone.say(type="hello", device="phone")
    await true(lambda: opening.hits, "the session is opened, with the group")
    assert (await leave(scene.laptop, "g"))["type"] == "left"  # before the node listens to the inbox
    pages = proxy.hold_answers("page_v", times=1000)
    opening.release()
    await phone.wait("welcome")
    await scene.hears_nothing_more(phone, pages)
