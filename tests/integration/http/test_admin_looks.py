"""What administrators are told of devices, jobs, plans and messages, and what is noted of what they do."""

import asyncio
from typing import Any

import pytest

from service.store import Store, StoreOptions
from tests.integration.http.web import Caller, check_problem, path_of
from tests.integration.store.kit import Server
from tests.integration.wire.kit import Net
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio
AUDIT = path_of("admin", "audit")


async def test_nodes_say_how_they_are(net: Net, node: NodeProcess, alice: str) -> None:
    await net.open(alice)

    async def own() -> dict[str, Any]:
        rows = (await Caller(node).gets(path_of("admin", "nodes")))["nodes"]
        return next(row for row in rows if row["node"] == node.name)

    async with asyncio.timeout(20):
        while not (row := await own())["position"]:
            pass
    assert (row["is_silent"], row["version"]) == (False, row["facts"]["version"])
    assert row["uptime_s"] > 0
    assert row["memory_bytes"] > 10_000_000
    assert row["load"] >= 0
    assert row["lag_s"] >= 0
    assert row["lag_entries"] >= 0
    assert row["mailbox"].startswith("wp:{")


async def test_rows_of_streams_by_a_part_of_the_name(net: Net, node: NodeProcess, alice: str, group: str) -> None:
    await Caller(node, alice).make(group)
    await Caller(node, alice).send(f"group:{group}", 1)
    path = path_of("admin", "streams")
    found = await Caller(node).gets(path, part=group, facts=1)
    assert (found["streams"], [row["stream"] for row in found["rows"]]) == ([f"group:{group}"], [f"group:{group}"])
    assert found["rows"][0]["entries"] == 2
    assert "rows" not in await Caller(node).gets(path, part=group)
    check_problem(await Caller(node)("GET", path, facts=2), "bad_request")


async def test_a_users_devices(net: Net, node: NodeProcess, alice: str, bob: str) -> None:
    tablet = await net.open(bob, "tablet")
    await tablet.leave()
    phone = await net.open(bob, "phone")
    for number in range(3):
        await Caller(node, alice).send(f"user:{bob}", number)
    await phone.wait("message", body=2)
    await phone.acknowledge(phone.last_ids())
    found = await Caller(node).gets(path_of("admin", "users", bob, "devices"))
    assert (found["user"], found["devices_count"], found["nodes"]) == (bob, 2, [node.name])
    rows = {row["device"]: row for row in found["devices"]}
    assert (rows["phone"]["lag_messages"], rows["tablet"]["lag_messages"]) == (0, 3)
    assert rows["tablet"]["node"] == node.name
    inbox = next(row for row in rows["tablet"]["streams"] if row["stream"] == f"user:{bob}")
    assert (inbox["lag_messages"], inbox["gone"], inbox["loses_by"]) == (3, 0, "max_age=30d")
    nobody = await Caller(node).gets(path_of("admin", "users", "nobody-at-all", "devices"))
    assert nobody["devices"] == []
    check_problem(await Caller(node)("GET", path_of("admin", "users", "a b", "devices")), "bad_name")


async def test_why(net: Net, node: NodeProcess, alice: str, bob: str) -> None:
    phone = await net.open(bob, "phone")
    await Caller(node, alice).send(f"user:{bob}", "dear")
    frame = await phone.wait("message", body="dear")
    path = path_of("admin", "why")
    asked = f"{path}?stream=user:{bob}&id={frame['id']}&user={bob}"
    waiting = (await Caller(node)("GET", asked)).json
    assert (waiting["verdict"], waiting["devices"][0]["connected"]) == ("waiting_behind", True)
    assert (waiting["entry"]["sender"], waiting["entry"]["body"], waiting["entry"]["body_bytes"]) == (alice, None, 6)
    await phone.acknowledge(phone.last_ids())
    assert (await Caller(node)("GET", asked)).json["verdict"] == "delivered_acknowledged"
    for query, code in (
        ("", "bad_request"),
        ("?stream=all&id=1-1", "bad_request"),
        ("?stream=x&id=1-1&user=a", "bad_stream"),
        ("?stream=all&id=x&user=a", "bad_id"),
    ):
        check_problem(await Caller(node)("GET", path + query), code)


async def test_jobs_plan_and_survey(node: NodeProcess, alice: str) -> None:
    await Caller(node, alice).send(f"user:{alice}", 1)
    jobs = await Caller(node).gets(path_of("admin", "jobs"))
    assert [row["job"] for row in jobs["jobs"]] == ["retention", "devices", "groups", "audit", "survey"]
    assert all(row["runs"] == [] and row["state"] == "never" for row in jobs["jobs"])
    plan = await Caller(node).gets(path_of("admin", "retention", "plan"), stream=f"user:{alice}")
    assert (plan["streams"], plan["entries"]) == (1, 0)
    assert (await Caller(node).gets(path_of("admin", "retention", "plan")))["streams"] >= 1
    check_problem(await Caller(node)("GET", path_of("admin", "retention", "plan"), stream="x"), "bad_stream")
    survey = await Caller(node).gets(path_of("admin", "survey"), sort="bytes", limit=5)
    assert (survey["survey_as_of"], survey["sort"], survey["streams"]["streams"]) == (None, "bytes", [])
    check_problem(await Caller(node)("GET", path_of("admin", "survey"), sort="size"), "bad_request")


async def test_what_a_server_key_does_is_noted(
    signed: NodeProcess, database: Server, alice: str, bob: str, *, group: str
) -> None:
    key = await Caller.with_key(signed, database, "admin", "send", "groups", "read")
    who = f"key:{(key.token or '').split('_')[1]}"
    await key.make(group)
    sent = await key.send(f"user:{bob}", "oops", **{"from": alice})
    path = path_of("streams", sent["stream"], "messages", sent["id"])
    assert (await key("DELETE", path, reason="it named a customer")).status == 200
    check_problem(await key("DELETE", path_of("streams", f"user:{bob}", "messages", "5-5")), "not_found")
    assert (await key("DELETE", path_of("admin", "users", bob, "connections"), device="phone")).status == 202
    assert (await key("DELETE", path_of("groups", group))).status == 204
    found = await key.gets(AUDIT, limit=4)
    rows = [(row["who"], row["action"], row["target"], row["reason"], row["outcome"]) for row in found["actions"]]
    assert rows == [
        (who, "group_end", f"group:{group}", "", "ok"),
        (who, "disconnect", f"{bob}/phone", "", "ok"),
        (who, "redact", f"user:{bob} 5-5", "", "not_found"),
        (who, "redact", f"user:{bob} {sent['id']}", "it named a customer", "ok"),
    ]
    pages = await key.walk(AUDIT, "actions", limit=1)
    assert [page[0]["target"] for page in pages[:2]] == [f"group:{group}", f"{bob}/phone"]
    check_problem(await key("GET", AUDIT, after="x"), "bad_id")
    long = await key("DELETE", path_of("admin", "users", bob, "connections"), reason="x" * 301)
    check_problem(long, "bad_request")


async def test_what_users_do_to_their_own_is_not(signed: NodeProcess, database: Server, alice: str) -> None:
    store = await Store.connect(database.url, options=StoreOptions())
    try:
        await store.check_server()
        before = await store.actions("", 1)
        own = Caller.with_token(signed, alice)
        sent = await own.send(f"user:{alice}", "mine")
        assert (await own("DELETE", path_of("streams", sent["stream"], "messages", sent["id"]))).status == 200
        assert await store.actions("", 1) == before
    finally:
        await store.close()


async def test_in_dev_mode_it_is_dev(node: NodeProcess, bob: str) -> None:
    assert (await Caller(node, "alice")("DELETE", path_of("admin", "users", bob, "connections"))).status == 202
    [newest] = (await Caller(node).gets(AUDIT, limit=1))["actions"]
    assert (newest["who"], newest["action"], newest["target"]) == ("dev", "disconnect", bob)
