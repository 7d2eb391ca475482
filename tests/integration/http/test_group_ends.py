"""`DELETE /v1/groups/{group}`: nobody is a member any more, what was said is gone, and whoever lacks it is told so."""

from collections.abc import Callable

import pytest

from service.store import Store
from tests.integration.http.web import Caller, check_problem, path_of
from tests.integration.store.kit import Server, head_of, numbers_in
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, n_of
from tests.service import NodeProcess
from tests.tokens import open_store

pytestmark = pytest.mark.anyio


def group_path(group: str) -> str:
    return path_of("groups", group)


async def test_devices_that_were_away_get_the_exact_gap(
    net: Net, node: NodeProcess, database: Server, alice: str, *, bob: str, group: str
) -> None:
    owner, stream = Caller(node, alice), f"group:{group}"
    await owner.make(group)
    await owner.put_in(group, bob)
    phone = await net.open(bob, "phone")
    first = await owner.send(stream, 1)
    await phone.wait("message", body=1)
    await phone.acknowledge({stream: first["id"]})
    await phone.leave()
    rest = [await owner.send(stream, number) for number in range(2, 6)]
    up_to_date = await net.open(bob, "tablet")
    await up_to_date.until(lambda: up_to_date.bodies(stream) == [1, 2, 3, 4, 5], "everything")

    assert (await owner("DELETE", group_path(group))).status == 204
    await up_to_date.wait("left", group=group)
    assert up_to_date.gaps() == []
    assert numbers_in(database.admin, stream) == []
    assert head_of(database.admin, stream) == tuple(map(int, rest[-1]["id"].split("-")))

    back = await net.open(bob, "phone")
    [gap] = back.gaps()
    assert (gap["stream"], gap["after"], gap["to"]) == (stream, first["id"], rest[-1]["id"])
    assert gap["missed"] == 4
    assert (gap["cause"]["kind"], gap["cause"]["policy"]) == ("trimmed", "deleted")
    assert back.bodies(stream) == []
    await back.acknowledge({stream: gap["to"]})
    await back.leave()
    again = await net.open(bob, "phone")
    assert again.gaps() == []
    assert stream not in again.welcome()["streams"]


async def test_nobody_is_in_it_any_more_on_whatever_node(
    net: Net, node: NodeProcess, start_node: StartNode, alice: str, *, bob: str, group: str
) -> None:
    owner, stream = Caller(node, alice), f"group:{group}"
    phones = [await net.open(bob, "phone"), await net.at(start_node(ping_s=24)).open(alice, "tablet")]
    await owner.make(group)
    await owner.put_in(group, bob)
    for phone in phones:
        await phone.wait("joined", stream=f"user:{phone.user}", group=group)
    assert (await owner("DELETE", group_path(group))).status == 204
    for phone in phones:
        await phone.wait("left", group=group)
        assert (await phone.send(stream, 1))["code"] == "not_member"
    for method, path in (
        ("GET", group_path(group)),
        ("DELETE", group_path(group)),
        ("GET", path_of("groups", group, "members")),
    ):
        check_problem(await owner(method, path), "not_member")
    streams = await owner.gets(path_of("streams"))
    assert stream not in [row["stream"] for row in streams["streams"]]


async def test_it_can_be_made_anew_and_its_numbers_go_on(
    net: Net, node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    owner, stream = Caller(node, alice), f"group:{group}"
    await owner.make(group, open=False)
    old = await owner.send(stream, "old")
    assert (await owner("DELETE", group_path(group))).status == 204
    new_owner = Caller(node, bob)
    made = await new_owner.make(group)
    assert (made["role"], made["open"], made["members"]) == ("owner", True, 1)
    assert n_of(made["since"]) == n_of(old["id"]) + 1
    assert (await owner.put_in(group, alice))["role"] == "member"
    phone = await net.open(alice)
    await new_owner.send(stream, "new")
    await phone.wait("message", body="new")
    assert "old" not in phone.bodies(stream)


async def test_only_an_owner_or_a_key_may(
    node: NodeProcess, database: Server, alice: str, bob: str, group: str
) -> None:
    owner, other = Caller(node, alice), Caller(node, bob)
    await owner.make(group)
    check_problem(await other("DELETE", group_path(group)), "not_member")
    await other.put_in(group, bob)
    check_problem(await other("DELETE", group_path(group)), "not_allowed")
    assert (await owner.gets(group_path(group)))["members"] == 2
    server = await Caller.with_key(node, database, "groups", "read")
    assert (await server("DELETE", group_path(group))).status == 204
    assert (await server("DELETE", group_path(group))).status == 204  # it may be repeated
    check_problem(await server("GET", group_path(group)), "no_group")
    check_problem(await other("GET", group_path(group)), "not_member")


@pytest.mark.parametrize("by_key", [True, False])
async def test_one_that_was_cut_short_is_completed_by_a_repeat(
    net: Net, node: NodeProcess, database: Server, alice: str, *, bob: str, group: str, by_key: bool
) -> None:
    owner, stream = Caller(node, alice), f"group:{group}"
    await owner.make(group)
    await owner.put_in(group, bob)
    await owner.send(stream, 1)
    store: Store = await open_store(database.url)
    await store.delete_group(group, by=alice, by_key=False)  # and then whoever did it is gone
    await store.close()
    check_problem(await owner("POST", path_of("messages"), {"to": stream, "body": 2}), "not_member")
    check_problem(await Caller(node, bob)("DELETE", group_path(group)), "not_allowed")
    check_problem(await Caller(node, "carol")("PUT", path_of("groups", group, "members", "carol")), "group_closed")
    who = await Caller.with_key(node, database, "groups") if by_key else owner
    assert (await who("DELETE", group_path(group))).status == 204
    assert numbers_in(database.admin, stream) == []
    assert not [name for name in (await net.open(bob)).welcome()["streams"] if name == stream]


async def test_a_large_group_goes_in_steps(
    node: NodeProcess, database: Server, alice: str, group: str, fresh: Callable[[str], str]
) -> None:
    owner, stream = Caller(node, alice), f"group:{group}"
    await owner.make(group, announce=0)
    store = await open_store(database.url)
    users = [fresh("m") for _ in range(700)]
    for user in users:
        await store.join(user, group, by=alice, role="member")
    for number in range(600):
        await owner.send(stream, number)
    head = head_of(database.admin, stream)
    assert (await owner("DELETE", group_path(group))).status == 204
    assert await store.members(group, "", 1000) == ([], "")
    await store.close()
    assert numbers_in(database.admin, stream) == []
    assert head_of(database.admin, stream) == head
