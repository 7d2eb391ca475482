"""A call was carried out and its answer never came: `uncertain`, and what may be repeated says so and is harmless."""

import asyncio
from collections.abc import Iterator

import pytest

from service.store.functions import library
from tests.integration.http.web import Caller, check_problem, path_of
from tests.integration.store.kit import Server, numbers_in
from tests.integration.wire.kit import eventually, n_of
from tests.proxy import Proxy
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def behind(database: Server) -> Iterator[tuple[NodeProcess, Proxy]]:
    """A node, and what lies between it and its store."""
    with Proxy(database.url) as proxy:
        node = NodeProcess(proxy.url, "behind", call_timeout_s=1)
        try:
            yield node.start(), proxy
        finally:
            node.remove()


@pytest.mark.parametrize("key", ["k", None])
async def test_a_message(behind: tuple[NodeProcess, Proxy], database: Server, alice: str, key: str | None) -> None:
    node, proxy = behind
    await eventually(node.is_ready, "it is ready")
    caller, body = Caller(node, alice), {"to": f"user:{alice}", "body": 1, "key": key}
    lost = proxy.lose_answers(library("publish"))
    answer = await caller("POST", path_of("messages"), body)
    check_problem(answer, "uncertain")
    assert lost.hits == 1
    assert answer.json["retry"] is (key is not None)
    await eventually(node.is_ready, "it is ready again")
    again = await caller("POST", path_of("messages"), body)
    assert (again.status, again.json.get("duplicate", False)) == ((200, True) if key else (201, False))
    assert numbers_in(database.admin, f"user:{alice}") == ([1] if key else [1, 2])


@pytest.mark.parametrize(
    ("request_line", "call", "status"),
    [
        ("PUT /v1/groups/{g}", "configure_group", 200),
        ("PUT /v1/groups/{g}/members/bob", "join", 200),
        ("DELETE /v1/groups/{g}/members/carol", "leave", 404),
        ("DELETE /v1/groups/{g}", "delete_group", 204),
        ("DELETE /v1/groups/{g}", "trim", 204),
        ("DELETE /v1/groups/{g}", "leave", 204),
        ("DELETE /v1/streams/group:{g}/messages/{sent}", "redact", 200),
        ("PUT /v1/devices/phone/offsets", "open", 200),
        ("DELETE /v1/admin/users/bob/connections", "tell_nodes", 202),
    ],
)
async def test_a_change_may_be_repeated(
    behind: tuple[NodeProcess, Proxy], group: str, request_line: str, call: str, status: int
) -> None:
    node, proxy = behind
    await eventually(node.is_ready, "it is ready")
    owner = Caller(node, f"owner-of-{group}")
    await owner.make(group)
    await owner.put_in(group, "carol")
    sent = (await owner.send(f"group:{group}", 1))["id"]
    method, path = request_line.format(g=group, sent=sent).split()
    body = {"offsets": {f"group:{group}": sent}} if call == "open" else {"open": False}
    lost = proxy.lose_answers(library(call))
    answer = await owner(method, path, body)
    check_problem(answer, "uncertain")
    assert lost.hits == 1
    assert answer.json["retry"] is True
    await eventually(node.is_ready, "it is ready again")
    again = await owner(method, path, body)
    assert again.status == status, again


async def test_what_is_said_in_a_group_that_was_made_anew_meanwhile_stays(
    behind: tuple[NodeProcess, Proxy], database: Server, alice: str, bob: str, group: str
) -> None:
    node, proxy = behind
    await eventually(node.is_ready, "it is ready")
    caller, server = Caller(node, alice), await Caller.with_key(node, database, "groups")
    await caller.make(group)
    await caller.send(f"group:{group}", "old")
    assert (await caller("DELETE", path_of("groups", group, "members", alice))).status == 204
    held = proxy.hold_calls(library("trim"))
    deleting = asyncio.create_task(server("DELETE", path_of("groups", group)))
    await eventually(lambda: held.hits, "the group is marked, and empty")
    new = Caller(node, bob)
    made = await new.make(group)
    said = await new.send(f"group:{group}", "new")
    held.release()
    assert (await deleting).status == 204
    page = await new.gets(path_of("streams", f"group:{group}", "messages"))
    assert [one["id"] for one in page["messages"]] == [made["since"], said["id"]]
    assert (await new.gets(path_of("groups", group)))["members"] == 1
    assert numbers_in(database.admin, f"group:{group}")[-1] == n_of(said["id"])
