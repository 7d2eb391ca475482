"""`GET /v1/streams` and `PUT /v1/devices/{device}/offsets`: how far a device has come, and moving it on."""

from collections.abc import Callable
from typing import Any

import pytest

from service.core.names import EntryId, parse_id
from service.store import TrimCause
from tests.integration.http.web import Caller, check_problem, path_of
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, n_of, stored_offset
from tests.service import NodeProcess
from tests.tokens import open_store

pytestmark = pytest.mark.anyio
STREAMS = path_of("streams")


def offsets_path(device: str) -> str:
    return path_of("devices", device, "offsets")


async def test_the_own_streams_and_how_far_a_device_has_come(
    net: Net, node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    caller, inbox = Caller(node, alice), f"user:{alice}"
    await caller.put_in(group, alice)
    phone = await net.open(alice, "phone")
    sent = await Caller(node, bob).send(inbox, 1)
    await Caller(node, bob).send(inbox, 2)
    await phone.until(lambda: phone.bodies() == [1, 2], "both")
    first = phone.messages()[0]["id"]
    await phone.acknowledge({inbox: first})
    assert n_of(sent["id"]) == 1  # in bob's inbox: alice's has the joining before it
    rows = {row["stream"]: row for row in (await caller.gets(STREAMS, device="phone"))["streams"]}
    assert list(rows) == [inbox, "all", f"group:{group}"]
    assert rows[inbox] == {
        "stream": inbox,
        "head": phone.messages()[1]["id"],
        "floor": "0-0",
        "offset": first,
        "missed": 1,
    }
    # A device that never came would begin at the start of the inbox, where the user joined, and now.
    unseen = {row["stream"]: row for row in (await caller.gets(STREAMS, device="unseen"))["streams"]}
    assert (unseen[inbox]["offset"], unseen[inbox]["missed"]) == ("0-0", 3)
    assert unseen["all"]["missed"] == 0
    assert unseen[f"group:{group}"]["offset"] == rows[f"group:{group}"]["offset"]
    assert (await caller.gets(STREAMS))["streams"] == (await caller.gets(STREAMS, device="default"))["streams"]


@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_pages_follow_each_other_to_the_end(node: NodeProcess, fresh: Callable[[str], str], limit: int) -> None:
    alice = fresh("alice")
    groups = sorted(f"group:{fresh('ä|g')}" for _ in range(7))
    for name in groups:
        await Caller(node, alice).put_in(name.removeprefix("group:"), alice)
    pages = await Caller(node, alice).walk(STREAMS, "streams", limit=limit, device="phone")
    assert [row["stream"] for page in pages for row in page] == [f"user:{alice}", "all", *groups]
    assert all(len(page) <= limit for page in pages)


async def test_links_keep_the_question_and_no_token(
    signed: NodeProcess, alice: str, fresh: Callable[[str], str]
) -> None:
    caller = Caller.with_token(signed, alice)
    for _ in range(3):
        await caller.put_in(fresh("g"), alice)
    by_query = await Caller(signed)("GET", STREAMS, token=caller.token, limit=1, device="d")
    assert by_query.json["next"] == f"/v1/streams?after=user:{alice}&device=d&limit=1"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": 0}, "bad_request"),
        ({"limit": 201}, "bad_request"),
        ({"limit": "x"}, "bad_request"),
        ({"limit": "9" * 5000}, "bad_request"),
        ({"after": "user:somebody"}, "bad_request"),
        ({"after": "nonsense"}, "bad_request"),
        ({"device": "a/b"}, "bad_name"),
    ],
)
async def test_bad_questions(node: NodeProcess, alice: str, query: dict[str, Any], code: str) -> None:
    check_problem(await Caller(node, alice)("GET", STREAMS, **query), code)


async def test_a_token_for_one_device_is_that_device(signed: NodeProcess, database: Server, alice: str) -> None:
    bound = Caller.with_token(signed, alice, device="phone")
    sent = await bound.send(f"user:{alice}", 1)
    assert (await bound("PUT", offsets_path("phone"), {"offsets": {f"user:{alice}": sent["id"]}})).status == 200
    own = (await bound.gets(STREAMS))["streams"]
    assert own == (await bound.gets(STREAMS, device="phone"))["streams"]
    assert own[0]["offset"] == sent["id"]
    check_problem(await bound("GET", STREAMS, device="default"), "forbidden")
    check_problem(await bound("PUT", offsets_path("default"), {"offsets": {}}), "forbidden")
    assert stored_offset(database, alice, "default", f"user:{alice}") is None


async def test_a_server_key_asks_for_somebody(node: NodeProcess, database: Server, alice: str) -> None:
    await Caller(node, alice).send(f"user:{alice}", 1)
    server = await Caller.with_key(node, database, "read")
    check_problem(await server("GET", STREAMS), "bad_request")
    assert (await server.gets(STREAMS, user=alice))["streams"][0]["missed"] == 1
    pages = await server.walk(STREAMS, "streams", user=alice, limit=1)
    assert [row["stream"] for page in pages for row in page] == [f"user:{alice}", "all"]
    given = {"offsets": {f"user:{alice}": "0-0"}}
    check_problem(await server("PUT", offsets_path("phone"), given), "bad_request")
    assert (await server("PUT", offsets_path("phone"), given, user=alice)).status == 200
    without = await Caller.with_key(node, database, "send", "groups", "admin")
    check_problem(await without("GET", STREAMS, user=alice), "not_allowed")
    check_problem(await without("PUT", offsets_path("phone"), given, user=alice), "not_allowed")


# -- moving on ---------------------------------------------------------------------------------------------------------


async def test_offsets_go_forward_only_and_the_answer_shows_what_is_stored(
    net: Net, node: NodeProcess, database: Server, alice: str, group: str
) -> None:
    caller, inbox = Caller(node, alice), f"user:{alice}"
    sent = [await caller.send(inbox, number) for number in range(3)]
    await caller.put_in(group, alice)
    spoken = await caller.send(f"group:{group}", 1)
    given = {inbox: sent[1]["id"], f"group:{group}": spoken["id"]}
    answer = await caller("PUT", offsets_path("phone"), {"offsets": given})
    assert (answer.status, answer.json) == (200, {"offsets": given})
    for lower in ("0-0", sent[0]["id"], sent[1]["id"]):
        again = await caller("PUT", offsets_path("phone"), {"offsets": {inbox: lower}})
        assert (again.status, again.json) == (200, {"offsets": {inbox: sent[1]["id"]}})
    assert stored_offset(database, alice, "phone", inbox) == sent[1]["id"]
    phone = await net.open(alice, "phone")
    assert phone.bodies() == [2]


async def test_a_device_that_is_new_is_registered(net: Net, node: NodeProcess, alice: str) -> None:
    caller = Caller(node, alice)
    assert (await caller("PUT", offsets_path("phone"), {"offsets": {}})).json == {"offsets": {}}
    await caller.send("all", "since then")
    phone = await net.open(alice, "phone")
    assert "since then" in phone.bodies("all")
    assert "since then" not in (await net.open(alice, "tablet")).bodies("all")


async def test_too_many_devices(start_node: StartNode, alice: str) -> None:
    caller = Caller(start_node(limits_devices_per_user=2), alice)
    for device in ("a", "b", "a"):
        assert (await caller("PUT", offsets_path(device), {"offsets": {}})).status == 200
    check_problem(await caller("PUT", offsets_path("c"), {"offsets": {}}), "too_many_devices")


async def test_what_cannot_be_acknowledged(
    node: NodeProcess, database: Server, alice: str, bob: str, group: str
) -> None:
    caller, inbox = Caller(node, alice), f"user:{alice}"
    sent = await caller.send(inbox, 1)
    await Caller(node, bob).put_in(group, bob)
    head = parse_id(sent["id"])

    async def refused(code: str, offsets: dict[str, str], device: str = "phone") -> None:
        check_problem(await caller("PUT", offsets_path(device), {"offsets": offsets}), code)

    for name in (f"group:{group}", "group:never-made"):
        await refused("not_member", {name: "0-0"})
    await refused("not_allowed", {f"user:{bob}": "0-0"})
    await refused("ack_beyond", {inbox: str(EntryId(head.ms, head.n + 1))})
    await refused("ack_beyond", {inbox: str(EntryId(head.ms + 1, head.n))})  # another history's
    await refused("bad_id", {inbox: "5"})
    await refused("bad_stream", {"nothing": "0-0"})
    await refused("bad_name", {"group:a/b": "0-0"})
    await refused("bad_name", {}, device="a|b ")
    await refused("bad_request", {f"group:g{number}": "0-0" for number in range(2003)})
    # One that is refused takes the others with it.
    await refused("not_member", {inbox: sent["id"], f"group:{group}": "0-0"})
    assert stored_offset(database, alice, "phone", inbox) == "0-0"


async def test_acknowledging_a_gap(net: Net, node: NodeProcess, database: Server, alice: str) -> None:
    caller, inbox = Caller(node, alice), f"user:{alice}"
    sent = [await caller.send(inbox, number) for number in range(3)]
    await caller("PUT", offsets_path("phone"), {"offsets": {inbox: "0-0"}})
    store = await open_store(database.url)
    await store.trim(inbox, parse_id(sent[1]["id"]), TrimCause("old", "max_age"))
    await store.close()
    answer = await caller("PUT", offsets_path("phone"), {"offsets": {inbox: sent[1]["id"]}})
    assert answer.json == {"offsets": {inbox: sent[1]["id"]}}
    phone = await net.open(alice, "phone")
    assert (phone.bodies(), phone.gaps()) == ([2], [])


async def test_who_has_left_may_still_move_on_to_the_end_of_the_membership(
    net: Net, node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    caller, stream = Caller(node, alice), f"group:{group}"
    await Caller(node, bob).put_in(group, bob)
    await caller.put_in(group, alice)
    await caller("PUT", offsets_path("phone"), {"offsets": {}})
    said = await Caller(node, bob).send(stream, 1)
    left = await caller("DELETE", path_of("groups", group, "members", alice))
    assert left.status == 204
    later = await Caller(node, bob).send(stream, "not for alice")
    check_problem(await caller("PUT", offsets_path("phone"), {"offsets": {stream: later["id"]}}), "ack_beyond")
    assert (await caller("PUT", offsets_path("phone"), {"offsets": {stream: said["id"]}})).status == 200
    phone = await net.open(alice, "phone")
    assert phone.bodies(stream) == []
