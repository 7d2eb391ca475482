"""`/v1/admin/…`: what administrators see and do, and who is one."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.http.web import Caller, check_problem, fetch, path_of
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, join, leave, n_of
from tests.service import NodeProcess, Phone
from tests.tokens import bearer, mint

pytestmark = pytest.mark.anyio
NODES = path_of("admin", "nodes")
STREAMS = path_of("admin", "streams")
ROUTES = [
    ("GET", NODES),
    ("GET", STREAMS),
    ("GET", path_of("admin", "streams", "all")),
    ("GET", path_of("admin", "streams", "all", "entries")),
    ("DELETE", path_of("admin", "users", "somebody", "connections")),
    ("GET", path_of("admin", "users", "somebody", "devices")),
    ("GET", path_of("admin", "jobs")),
    ("GET", path_of("admin", "retention", "plan")),
    ("GET", path_of("admin", "audit")),
    ("GET", f"{path_of('admin', 'why')}?stream=all&id=1-1&user=anybody"),
    ("GET", path_of("admin", "survey")),
]


def status_of(method: str) -> int:
    return 202 if method == "DELETE" else 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_who_may(node: NodeProcess, signed: NodeProcess, database: Server, method: str, path: str) -> None:
    assert (await Caller(node)(method, path)).status == status_of(method)  # dev mode, on this machine
    assert (await Caller(node, "anybody")(method, path)).status == status_of(method)
    named = path if "user=" in path else f"{path}?user=anybody"
    away = await fetch(node, named, method, headers={"X-Forwarded-For": "203.0.113.9"})
    check_problem(away, "not_allowed")
    check_problem(await fetch(node, path, method, headers={"Host": "evil.example"}), "forbidden")

    check_problem(await Caller(signed)(method, path), "unauthorised")
    check_problem(await Caller(signed, "anybody")(method, path), "unauthorised")
    check_problem(await Caller.with_token(signed, "anybody", scopes=["admin"])(method, path), "not_allowed")
    check_problem(await Caller.with_token(signed, "anybody", ttl=-99)(method, path), "expired")
    without = await Caller.with_key(signed, database, "send", "read", "groups")
    check_problem(await without(method, path), "not_allowed")
    administrator = await Caller.with_key(signed, database, "admin")
    assert (await administrator(method, path)).status == status_of(method)


async def test_the_nodes(node: NodeProcess, start_node: StartNode) -> None:
    other = start_node(ping_s=24)
    rows = {row["node"]: row for row in (await Caller(node).gets(NODES))["nodes"]}
    assert {node.name, other.name} <= rows.keys()
    seen = datetime.fromisoformat(rows[other.name]["last_seen"])
    assert abs(datetime.now(UTC) - seen) < timedelta(seconds=10)
    assert rows[other.name]["facts"]


@pytest.mark.parametrize("limit", [1, 50, 200])
async def test_all_streams_page_by_page(node: NodeProcess, fresh: Callable[[str], str], limit: int) -> None:
    users, groups = [fresh("u") for _ in range(30)], [fresh("g") for _ in range(10)]
    for user in users:
        await Caller(node, user).send(f"user:{user}", 1)
    for group in groups:
        await Caller(node, users[0]).make(group)
    await Caller(node, users[0]).send("all", 1)
    made = {
        "user": {f"user:{user}" for user in users},
        "group": {f"group:{group}" for group in groups},
        "all": {"all"},
    }
    for kind, expected in made.items():
        pages = await Caller(node).walk(STREAMS, "streams", kind=kind, limit=limit)
        found = {name for page in pages for name in page}
        assert expected <= found
        assert {name.partition(":")[0] for name in found} == {kind}
    pages = await Caller(node).walk(STREAMS, "streams", limit=limit)
    assert set().union(*made.values()) <= {name for page in pages for name in page}


@pytest.mark.parametrize(
    "query", [{"kind": "users"}, {"limit": 0}, {"limit": 201}, {"after": "x"}, {"after": "5@another-server"}]
)
async def test_bad_questions_after_streams(node: NodeProcess, query: dict[str, Any]) -> None:
    check_problem(await Caller(node)("GET", STREAMS, **query), "bad_request")


async def test_how_a_stream_stands(net: Net, node: NodeProcess, alice: str, group: str) -> None:
    caller = Caller(node, alice)
    await caller.make(group)
    phone = await net.open(alice)
    sent = [await caller.send(f"group:{group}", number) for number in range(3)]
    await phone.wait("message", body=2)
    facts = await Caller(node).gets(path_of("admin", "streams", f"group:{group}"))
    expected = {
        "stream": f"group:{group}",
        "head": sent[-1]["id"],
        "floor": "0-0",
        "entries": 4,
        "bytes": facts["bytes"],
        "oldest": facts["oldest"],
        "newest": sent[-1]["id"],
        "members": 1,
        "nodes": [node.name],
        "kind": "group",
        "rate_per_min": 4 / 5,
        "lag_messages": 3,
        "lag_device": f"{alice}/default",
        "lag_is_whole": True,
        "policy": "group:*",
        "limits": "max_age=30d",
    }
    assert {name: facts[name] for name in expected} == expected
    assert facts["bytes"] > 0
    assert n_of(facts["oldest"]) == 1
    nothing = await Caller(node).gets(path_of("admin", "streams", "user:never-seen"))
    assert (nothing["head"], nothing["entries"], nothing["oldest"], nothing["members"]) == ("0-0", 0, None, None)
    check_problem(await Caller(node)("GET", path_of("admin", "streams", "group:never-made")), "no_group")
    check_problem(await Caller(node)("GET", path_of("admin", "streams", "nothing")), "bad_stream")


@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_the_entries_of_a_stream_are_spelt_as_on_the_wire(
    net: Net, node: NodeProcess, alice: str, bob: str, *, group: str, limit: int
) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    await join(phone, group)
    await join(other, group)
    await phone.send_all(f"group:{group}", range(4))
    await leave(phone, group)
    path = path_of("admin", "streams", f"group:{group}", "entries")
    pages = await Caller(node).walk(path, "messages", after=0, limit=limit)
    entries = [entry for page in pages for entry in page]
    assert [entry["type"] for entry in entries] == ["joined", "joined", *["message"] * 4, "left"]
    assert [entry["body"] for entry in entries if entry["type"] == "message"] == list(range(4))
    newest = await Caller(node).gets(path, limit=1)
    assert newest["prev"] == f"{path}?before={newest['first']}&limit=1"
    middle = await Caller(node).gets(path, around=4, limit=2)
    assert [n_of(entry["id"]) for entry in middle["messages"]] == [3, 4]
    check_problem(await Caller(node)("GET", path, after=99), "bad_anchor")
    check_problem(await Caller(node)("GET", path_of("admin", "streams", "group:never-made", "entries")), "no_group")


async def test_a_user_is_disconnected_on_every_node(
    net: Net, node: NodeProcess, start_node: StartNode, alice: str, bob: str
) -> None:
    elsewhere = net.at(start_node(ping_s=24))
    ended = [await net.open(alice), await elsewhere.open(alice, "tablet")]
    spared = [await net.open(bob), await elsewhere.open(bob)]
    answer = await Caller(node)("DELETE", path_of("admin", "users", alice, "connections"))
    assert (answer.status, answer.json) == (202, {})
    for phone in ended:
        assert await phone.ends() == 4105
        assert phone.frames[-1]["code"] == "forbidden"
    await spared[0].send(f"user:{bob}", "still here")
    for phone in spared:
        await phone.wait("message" if phone is spared[1] else "sent")
    back = await net.open(alice)  # it ends connections, and forbids none
    assert back.closed is None


async def test_one_device_of_a_user_is_disconnected(net: Net, node: NodeProcess, alice: str) -> None:
    lost, kept = await net.open(alice, "phone"), await net.open(alice, "tablet")
    path = path_of("admin", "users", alice, "connections")
    assert (await Caller(node)("DELETE", path, device="phone")).status == 202
    assert await lost.ends() == 4105
    assert (await kept.send(f"user:{alice}", 1))["type"] == "sent"
    check_problem(await Caller(node)("DELETE", path, device="a b"), "bad_name")
    check_problem(await Caller(node)("DELETE", path_of("admin", "users", "a b", "connections")), "bad_name")


async def test_what_comes_after_a_notice_reaches_nobody_whom_it_ends(
    net: Net, node: NodeProcess, alice: str, bob: str
) -> None:
    phone: Phone = await net.open(alice)
    await Caller(node, bob).send(f"user:{alice}", "before")
    await Caller(node)("DELETE", path_of("admin", "users", alice, "connections"))
    await Caller(node, bob).send(f"user:{alice}", "after")
    assert await phone.ends() == 4105
    assert phone.bodies() == ["before"]


async def test_a_token_in_the_query_signs_in_but_a_server_key_does_not(
    signed: NodeProcess, database: Server, alice: str
) -> None:
    path = path_of("streams")
    assert (await Caller(signed)("GET", path, token=mint(alice))).status == 200
    key = (await Caller.with_key(signed, database, "read")).token or ""
    assert (await fetch(signed, f"{path}?user={alice}", headers=bearer(key))).status == 200
    check_problem(await Caller(signed)("GET", path, token=key, user=alice), "unauthorised")
    check_problem(await fetch(signed, f"{path}?user={alice}", headers=bearer(key[:-1] + "x")), "unauthorised")
