"""Who gets what over streams of events: the same as on every door, whatever they bring."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from service.core.bookmarks import new_base
from service.core.names import ZERO
from tests.events import EventPhone
from tests.integration.http.web import Caller, check_problem, path_of
from tests.integration.store.kit import Server
from tests.service import NodeProcess
from tests.tokens import mint, open_store

pytestmark = pytest.mark.anyio


class People:
    """Users with tokens who listen on two devices each, and ask over HTTP."""

    def __init__(self, node: NodeProcess, fresh: Callable[[str], str]) -> None:
        self.node = node
        self.fresh = fresh
        self.phones: list[EventPhone] = []
        self.marks = 0

    async def comes(self, name: str, device: str = "web", **claims: Any) -> tuple[str, EventPhone, Caller]:  # noqa: ANN401
        user = self.fresh(name)
        return user, await self.listens(user, device, **claims), Caller.with_token(self.node, user, **claims)

    async def listens(self, user: str, device: str = "web", bookmark: str = "", **claims: Any) -> EventPhone:  # noqa: ANN401
        phone = EventPhone(self.node.url, "", token=mint(user, **claims), device=device)
        self.phones.append(phone)
        await phone.listen(bookmark)
        await phone.wait("live")
        return phone

    async def settle(self, *phones: EventPhone) -> None:
        """Whatever was to come to these has come."""
        self.marks += 1
        herald = Caller.with_token(self.node, self.fresh("herald"), broadcast=True)
        await herald.send("all", f"mark {self.marks}")
        for phone in phones:
            user = phone.welcome()["user"]
            await herald.send(f"user:{user}", f"mark {self.marks}")
            await phone.wait("message", stream=f"user:{user}", body=f"mark {self.marks}")


@pytest.fixture
async def people(signed: NodeProcess, fresh: Callable[[str], str]) -> AsyncIterator[People]:
    people = People(signed, fresh)
    yield people
    for phone in people.phones:
        await phone.leave()


def heard(phone: EventPhone, stream: str) -> list[Any]:
    return [body for body in phone.bodies(stream) if not str(body).startswith("mark")]


async def test_an_inbox_is_its_owners_alone(people: People) -> None:
    alice, _, as_alice = await people.comes("alice")
    bob, bobs, _ = await people.comes("bob")
    eve, eves, _ = await people.comes("eve")
    await as_alice.send(f"user:{bob}", "for bob")
    await people.settle(bobs, eves)
    assert heard(bobs, f"user:{bob}") == ["for bob"]
    assert "for bob" not in str(eves.frames)
    thief = await people.listens(eve, bookmark=bobs.bookmark)
    await people.settle(thief)
    assert "for bob" not in str(thief.frames)
    assert set(thief.welcome()["streams"]) == {f"user:{eve}", "all"}
    assert alice not in str(thief.frames)


async def test_a_group_is_for_its_members_while_they_are(people: People, group: str) -> None:
    alice, alices, as_alice = await people.comes("alice")
    bob, bobs, as_bob = await people.comes("bob")
    _, eves, as_eve = await people.comes("eve")
    stream = f"group:{group}"
    await as_alice.put_in(group, alice)
    await as_alice.send(stream, "before bob")
    await as_bob.put_in(group, bob)
    await as_alice.send(stream, "for both")
    check_problem(await as_eve("POST", "/v1/messages", {"to": stream, "body": "let me in"}), "not_member")
    await bobs.wait("message", body="for both")
    assert (await as_bob("DELETE", path_of("groups", group, "members", bob))).status == 204
    await as_alice.send(stream, "after bob")
    await people.settle(alices, bobs, eves)
    assert heard(alices, stream) == ["before bob", "for both", "after bob"]
    assert heard(bobs, stream) == ["for both"]
    assert stream not in str(eves.frames)
    again = await people.listens(bob, bookmark=bobs.bookmark)
    assert stream not in again.welcome()["streams"]
    await people.settle(again)
    assert heard(again, stream) == []
    await as_bob.put_in(group, bob)
    await as_alice.send(stream, "for both again")
    await again.wait("message", body="for both again")
    assert heard(again, stream) == ["for both again"]


async def test_who_is_taken_out_of_a_closed_group_hears_nothing_after_it(people: People, group: str) -> None:
    alice, alices, as_alice = await people.comes("alice")
    bob, bobs, as_bob = await people.comes("bob")
    carol, carols, as_carol = await people.comes("carol", groups=[group])
    stream = f"group:{group}"
    await as_alice.make(group, open=False)
    check_problem(await as_bob("PUT", path_of("groups", group, "members", bob), {}), "group_closed")
    await as_alice.put_in(group, bob)
    await as_carol.put_in(group, carol)  # the token lets her in
    await as_alice.send(stream, "for three")
    for phone in (bobs, carols):
        await phone.wait("message", body="for three")
    assert (await as_alice("DELETE", path_of("groups", group, "members", bob))).status == 204
    await as_alice.send(stream, "for two")
    await people.settle(alices, bobs, carols)
    assert heard(bobs, stream) == ["for three"]
    assert heard(carols, stream) == ["for three", "for two"]
    assert heard(alices, stream) == ["for three", "for two"]
    check_problem(await as_bob("PUT", path_of("groups", group, "members", bob), {}), "group_closed")
    assert alice


async def test_everybody_hears_all_and_only_who_may_speaks_to_it(people: People) -> None:
    _, alices, as_alice = await people.comes("alice", broadcast=True)
    _, bobs, as_bob = await people.comes("bob")
    await as_alice.send("all", "to everybody")
    check_problem(await as_bob("POST", "/v1/messages", {"to": "all", "body": "me too"}), "not_allowed")
    for phone in (alices, bobs):
        await phone.wait("message", stream="all", body="to everybody")


async def test_a_base_that_names_what_is_not_ones_own_opens_nothing(
    people: People, database: Server, group: str
) -> None:
    alice, _, as_alice = await people.comes("alice")
    eve, eves, _ = await people.comes("eve")
    stream = f"group:{group}"
    await as_alice.put_in(group, alice)
    await as_alice.send(stream, "secret")
    store = await open_store(database.url)
    forged = new_base(store.epoch, {stream: ZERO, f"user:{alice}": ZERO, "all": ZERO, f"user:{eve}": ZERO})
    await store.keep_base(eve, "web", forged, origin="", forget=(), keep_s=60)
    await store.close()
    thief = await people.listens(eve, bookmark=forged.name)
    await people.settle(thief, eves)
    assert set(thief.welcome()["streams"]) == {f"user:{eve}", "all"}
    assert "secret" not in str(thief.frames)


async def test_a_server_key_hears_what_whom_it_names_hears(people: People, database: Server, group: str) -> None:
    alice, _, as_alice = await people.comes("alice")
    bob, bobs, _ = await people.comes("bob")
    stream = f"group:{group}"
    await as_alice.put_in(group, alice)
    await as_alice.send(stream, "members only")
    key = await Caller.with_key(people.node, database, "read")
    phone = EventPhone(people.node.url, bob, device="archive")
    people.phones.append(phone)
    await phone.listen(headers={"Authorization": f"Bearer {key.token}"})
    await phone.wait("live")
    await people.settle(phone, bobs)
    assert set(phone.welcome()["streams"]) == {f"user:{bob}", "all"}
    assert "members only" not in str(phone.frames)
