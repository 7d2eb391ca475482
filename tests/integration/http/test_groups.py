"""`/v1/groups/…`: settings and members, by users, by owners and by server keys."""

from collections.abc import Callable
from typing import Any

import pytest

from service.core.server_keys import Scope
from tests.integration.http.web import Answer, Caller, check_problem, path_of
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, join
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio


def group_path(group: str) -> str:
    return path_of("groups", group)


def member_path(group: str, user: str) -> str:
    return path_of("groups", group, "members", user)


# -- settings ----------------------------------------------------------------------------------------------------------


async def test_who_makes_a_group_is_its_owner_and_a_member(
    net: Net, node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    caller, phone = Caller(node, alice), await net.open(alice)
    made = await caller("PUT", group_path(group), {"open": False, "announce": 5})
    assert made.status == 201
    await phone.wait("joined", stream=f"user:{alice}", group=group)
    assert made.json == {
        "group": group,
        "open": False,
        "announce": 5,
        "members": 1,
        "head": made.json["since"],
        "floor": "0-0",
        "role": "owner",
        "since": made.json["since"],
    }
    assert await caller.gets(group_path(group)) == made.json
    check_problem(await Caller(node, bob)("PUT", member_path(group, bob)), "group_closed")


async def test_settings_are_changed_one_by_one_and_what_is_left_out_stays(
    node: NodeProcess, alice: str, group: str
) -> None:
    caller = Caller(node, alice)
    made = await caller.make(group)
    assert (made["open"], made["announce"]) == (True, 1000)
    for body, expected in (
        ({"open": False}, (False, 1000)),
        ({"announce": 0}, (False, 0)),
        ({}, (False, 0)),
        (None, (False, 0)),
        ({"open": None, "announce": 7}, (False, 7)),
        ({"open": True}, (True, 7)),
    ):
        answer = await caller("PUT", group_path(group), body)
        assert (answer.status, answer.json["open"], answer.json["announce"]) == (200, *expected)


async def test_only_owners_change_settings(node: NodeProcess, alice: str, bob: str, group: str) -> None:
    await Caller(node, alice).make(group)
    other = Caller(node, bob)
    check_problem(await other("PUT", group_path(group), {"open": False}), "not_member")
    await other.put_in(group, bob)
    check_problem(await other("PUT", group_path(group), {"open": False}), "not_allowed")
    await Caller(node, alice).put_in(group, bob, "owner")
    assert (await other("PUT", group_path(group), {"open": False})).status == 200


@pytest.mark.parametrize(
    "body",
    [{"open": 1}, {"open": "yes"}, {"announce": -1}, {"announce": 1.5}, {"announce": 10**10}, [], "x", b"{", b"\xff"],
)
async def test_settings_that_are_none(node: NodeProcess, alice: str, group: str, body: object) -> None:
    check_problem(await Caller(node, alice)("PUT", group_path(group), body), "bad_request")
    check_problem(await Caller(node, alice)("GET", group_path(group)), "not_member")


async def test_what_is_not_the_callers_to_see_is_refused_alike(
    node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    await Caller(node, alice).make(group)
    requests = [
        ("GET", "{}"),
        ("GET", "{}/members"),
        ("GET", "{}/members/" + bob),
        ("GET", "{}/members/" + alice),
        ("DELETE", "{}"),
        ("DELETE", "{}/members/" + bob),
        ("DELETE", "{}/members/" + alice),
        ("PUT", "{}/members/" + alice),
    ]
    for method, path in requests:
        there, absent = [
            await Caller(node, bob)(method, path.format(group_path(name))) for name in (group, "never-made")
        ]
        check_problem(there, "not_member")
        assert there.json == absent.json


async def test_where_only_keys_make_groups(
    start_node: StartNode, database: Server, alice: str, fresh: Callable[[str], str]
) -> None:
    node, group = start_node(groups_create="keys"), fresh("g")
    check_problem(await Caller(node, alice)("PUT", group_path(group)), "group_closed")
    check_problem(await Caller(node, alice)("PUT", member_path(group, alice)), "group_closed")
    server = await Caller.with_key(node, database, "groups")
    assert (await server.make(group))["members"] == 0
    assert (await Caller(node, alice).put_in(group, alice))["role"] == "member"


async def test_a_group_too_many_is_not_made(start_node: StartNode, alice: str, fresh: Callable[[str], str]) -> None:
    caller = Caller(start_node(limits_streams_per_user=2), alice)
    for _ in range(2):
        await caller.make(fresh("g"))
    group = fresh("g")
    check_problem(await caller("PUT", group_path(group)), "too_many_streams")
    check_problem(await caller("PUT", member_path(group, alice)), "too_many_streams")
    check_problem(await caller("GET", group_path(group)), "not_member")


# -- members -----------------------------------------------------------------------------------------------------------


async def test_joining_and_leaving_by_oneself(net: Net, node: NodeProcess, alice: str, bob: str, group: str) -> None:
    await Caller(node, alice).make(group)
    caller, phone = Caller(node, bob), await net.open(bob)
    first = await caller("PUT", member_path(group, bob))
    await phone.wait("joined", stream=f"user:{bob}", group=group)
    [joined] = (await caller.gets(path_of("streams", f"group:{group}", "messages")))["messages"]
    assert (first.status, first.json) == (201, {"user": bob, "role": "member", "since": joined["id"]})
    again = await caller("PUT", member_path(group, bob), {"role": "member"})
    assert (again.status, again.json) == (200, first.json)
    assert await caller.gets(member_path(group, bob)) == first.json
    left = await caller("DELETE", member_path(group, bob))
    assert (left.status, left.json, left.headers["content-length"]) == (204, {}, None)
    assert (await phone.wait("left", stream=f"group:{group}"))["user"] == bob
    check_problem(await caller("DELETE", member_path(group, bob)), "not_member")
    check_problem(await caller("GET", member_path(group, bob)), "not_member")
    assert (await caller("PUT", member_path(group, bob))).status == 201


async def test_an_owner_puts_others_in_and_takes_them_out(
    node: NodeProcess, alice: str, bob: str, group: str, fresh: Callable[[str], str]
) -> None:
    owner, carol = Caller(node, alice), fresh("carol")
    await owner.make(group, open=False)
    new = await owner("PUT", member_path(group, bob))
    assert (new.status, new.json["role"]) == (201, "member")
    for role in ("owner", "member"):
        changed = await owner("PUT", member_path(group, bob), {"role": role})
        assert (changed.status, changed.json) == (200, new.json | {"role": role})
    other = Caller(node, bob)
    check_problem(await other("PUT", member_path(group, carol)), "not_allowed")
    check_problem(await other("PUT", member_path(group, bob), {"role": "owner"}), "not_allowed")
    check_problem(await other("DELETE", member_path(group, alice)), "not_allowed")
    check_problem(await other("GET", member_path(group, carol)), "not_found")
    check_problem(await owner("DELETE", member_path(group, carol)), "not_found")
    assert (await owner("DELETE", member_path(group, bob))).status == 204
    check_problem(await owner("DELETE", member_path(group, bob)), "not_found")
    check_problem(await other("GET", group_path(group)), "not_member")
    check_problem(await other("PUT", member_path(group, bob)), "group_closed")


async def test_an_owner_steps_back_and_makes_no_group_without_one(
    node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    owner = Caller(node, alice)
    made = await owner("PUT", member_path(group, alice), {"role": "member"})
    assert (made.status, made.json["role"]) == (201, "owner")  # a group has one
    await owner.put_in(group, bob, "owner")
    assert (await owner("PUT", member_path(group, alice), {"role": "owner"})).json["role"] == "owner"
    stepped = await owner("PUT", member_path(group, alice), {"role": "member"})
    assert (stepped.status, stepped.json["role"]) == (200, "member")
    check_problem(await owner("PUT", group_path(group), {"open": False}), "not_allowed")
    check_problem(
        await Caller(node, "nobody-yet")("PUT", member_path(group, "nobody-yet"), {"role": "owner"}), "not_member"
    )


async def test_an_owner_may_come_back_into_the_closed_group(
    node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    owner = Caller(node, alice)
    await owner.make(group, open=False)
    await owner.put_in(group, bob)
    assert (await owner("DELETE", member_path(group, alice))).status == 204
    back = await owner("PUT", member_path(group, alice))
    assert (back.status, back.json["role"]) == (201, "owner")


async def test_an_owner_who_was_removed_is_no_owner_and_stays_out(
    signed: NodeProcess, database: Server, alice: str, bob: str, group: str
) -> None:
    owner, server = Caller.with_token(signed, alice), await Caller.with_key(signed, database, "groups")
    await owner.make(group, open=False)
    await owner.put_in(group, bob)
    assert (await server("DELETE", member_path(group, alice))).status == 204
    check_problem(await owner("PUT", member_path(group, alice)), "group_closed")
    check_problem(await owner("DELETE", member_path(group, bob)), "not_member")


@pytest.mark.parametrize(("pattern", "may"), [("{group}", True), ("{start}*", True), ("{start}", False), ("x*", False)])
async def test_a_claim_opens_a_closed_group(
    signed: NodeProcess, alice: str, bob: str, group: str, *, pattern: str, may: bool
) -> None:
    await Caller.with_token(signed, alice).make(group, open=False)
    claim = pattern.format(group=group, start=group[:-1])
    caller = Caller.with_token(signed, bob, groups=[claim])
    answer = await caller("PUT", member_path(group, bob))
    if may:
        assert answer.status == 201
    else:
        check_problem(answer, "group_closed")


async def test_a_full_group(start_node: StartNode, alice: str, bob: str, fresh: Callable[[str], str]) -> None:
    node, group = start_node(limits_members_per_group=2), fresh("g")
    owner = Caller(node, alice)
    await owner.make(group)
    await owner.put_in(group, bob)
    check_problem(await owner("PUT", member_path(group, fresh("carol"))), "group_full")
    assert (await owner("PUT", member_path(group, bob), {"role": "owner"})).status == 200


@pytest.mark.parametrize("count", [3, 700])
async def test_members_page_by_page(
    node: NodeProcess, database: Server, alice: str, fresh: Callable[[str], str], *, count: int
) -> None:
    owner, group = Caller(node, alice), fresh("größe+")
    await owner.make(group, announce=0)
    server = await Caller.with_key(node, database, "groups", "read")
    others = [fresh("m") for _ in range(count)]
    for user in others:
        await server.put_in(group, user)
    for caller in (owner, server):
        pages = await caller.walk(path_of("groups", group, "members"), "members", limit=50)
        rows = {row["user"]: row for page in pages for row in page}
        assert rows.keys() == {alice, *others}
        assert rows[alice]["role"] == "owner"
        assert {rows[user]["role"] for user in others} == {"member"}
        assert count < 500 or len(pages) > 2
    assert (await owner.gets(group_path(group)))["members"] == count + 1


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": 0}, "bad_request"),
        ({"limit": 201}, "bad_request"),
        ({"after": "x"}, "bad_request"),
        ({"after": "-1"}, "bad_request"),
    ],
)
async def test_bad_questions_after_members(
    node: NodeProcess, alice: str, group: str, query: dict[str, Any], code: str
) -> None:
    caller = Caller(node, alice)
    await caller.make(group)
    check_problem(await caller("GET", path_of("groups", group, "members"), **query), code)


async def test_a_removed_member_gets_nothing_more_on_whatever_node(
    net: Net, node: NodeProcess, start_node: StartNode, alice: str, *, bob: str, group: str
) -> None:
    elsewhere = start_node(ping_s=24)
    phones = [await net.open(bob, "phone"), await net.at(elsewhere).open(bob, "tablet")]
    owner, stream = Caller(node, alice), f"group:{group}"
    await owner.make(group)
    await owner.put_in(group, bob)
    for phone in phones:
        await phone.wait("joined", stream=f"user:{bob}", group=group)
    await owner.send(stream, "while a member")
    for phone in phones:
        await phone.wait("message", body="while a member")
    assert (await owner("DELETE", member_path(group, bob))).status == 204
    await owner.send(stream, "not for bob")
    await owner.send(f"user:{bob}", "afterwards")
    for phone in phones:
        await phone.wait("left", stream=stream)
        await phone.wait("message", body="afterwards")
        assert phone.bodies(stream) == ["while a member"]
        assert (await phone.send(stream, "mine"))["code"] == "not_member"
    check_problem(await Caller(node, bob)("POST", path_of("messages"), {"to": stream, "body": 1}), "not_member")
    page = await Caller(node, bob).gets(path_of("streams", stream, "messages"))
    assert [one["body"] for one in page["messages"] if one["type"] == "message"] == ["while a member"]


async def test_a_member_who_was_put_in_hears_what_is_said_at_once(
    net: Net, node: NodeProcess, start_node: StartNode, alice: str, *, bob: str, group: str
) -> None:
    phone = await net.at(start_node(ping_s=24)).open(bob)
    owner = Caller(node, alice)
    await owner.make(group, open=False)
    await owner.put_in(group, bob)
    for number in range(5):
        await owner.send(f"group:{group}", number)
    await phone.until(lambda: phone.bodies(f"group:{group}") == list(range(5)), "all that was said")


# -- server keys -------------------------------------------------------------------------------------------------------

Expected = dict[tuple[str, str], tuple[Scope, int]]
# Method and path → the scope that is needed, and the answer with it.
ROUTES: Expected = {
    ("GET", ""): ("read", 200),
    ("PUT", ""): ("groups", 200),
    ("GET", "/members"): ("read", 200),
    ("GET", "/members/{bob}"): ("read", 200),
    ("PUT", "/members/{carol}"): ("groups", 201),
    ("DELETE", "/members/{bob}"): ("groups", 204),
    ("DELETE", ""): ("groups", 204),
}


async def test_each_scope_opens_its_own_doors(
    node: NodeProcess, database: Server, alice: str, bob: str, *, group: str, fresh: Callable[[str], str]
) -> None:
    await Caller(node, alice).make(group, open=False)
    await Caller(node, alice).put_in(group, bob)
    names = {"bob": bob, "carol": fresh("carol")}
    servers: dict[Scope, Caller] = {
        scope: await Caller.with_key(node, database, scope) for scope in ("send", "read", "groups", "admin")
    }
    for (method, path), (needed, status) in ROUTES.items():
        where = group_path(group) + path.format(**names)
        for scope, server in servers.items():
            if scope != needed:
                refusal = await server(method, where)
                check_problem(refusal, "not_allowed")
                assert f"`{needed}`" in refusal.json["detail"]
        assert (await servers[needed](method, where)).status == status, (method, where)


async def test_a_server_key_manages_what_it_is_no_member_of(
    node: NodeProcess, database: Server, alice: str, bob: str, group: str
) -> None:
    server = await Caller.with_key(node, database, "groups", "read")
    made = await server.make(group, open=False)
    assert made == made | {"members": 0, "role": None, "since": None, "open": False}
    assert (await server.put_in(group, alice, "owner"))["role"] == "owner"
    assert (await server.put_in(group, bob))["role"] == "member"
    assert (await Caller(node, alice)("DELETE", member_path(group, bob))).status == 204
    assert (await server("DELETE", member_path(group, alice))).status == 204
    assert (await server.gets(group_path(group)))["members"] == 0


async def test_what_a_server_key_is_told_of_what_is_not_there(
    node: NodeProcess, database: Server, alice: str, group: str
) -> None:
    server = await Caller.with_key(node, database, "groups", "read")

    async def ask(method: str, path: str) -> Answer:
        return await server(method, path)

    for method, path in (
        ("GET", group_path("never-made")),
        ("GET", path_of("groups", "never-made", "members")),
        ("GET", member_path("never-made", alice)),
        ("DELETE", group_path("never-made")),
    ):
        check_problem(await ask(method, path), "no_group")
    await server.make(group)
    check_problem(await ask("GET", member_path(group, alice)), "not_found")
    check_problem(await ask("DELETE", member_path(group, alice)), "not_found")


async def test_names_that_paths_must_escape(node: NodeProcess, fresh: Callable[[str], str]) -> None:
    user, group = fresh("ü+@|:"), fresh("größe~")
    caller = Caller(node, user)
    await caller.make(group)
    assert (await caller.gets(member_path(group, user)))["user"] == user
    assert (await caller.gets(group_path(group)))["group"] == group


async def test_a_group_joined_on_the_wire_is_the_same(net: Net, node: NodeProcess, alice: str, group: str) -> None:
    answer: dict[str, Any] = await join(await net.open(alice), group)
    told = await Caller(node, alice).gets(group_path(group))
    assert (told["role"], told["since"], told["head"]) == ("owner", answer["id"], answer["id"])
