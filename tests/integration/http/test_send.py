"""`POST /v1/messages`: what is stored and answered, repeats, who may say what in whose name."""

import asyncio
import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.http.web import Caller, check_problem, fetch, path_of
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, join, n_of
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio
MESSAGES = path_of("messages")


async def test_a_direct_message_reaches_both_inboxes_and_the_answer_names_the_own_one(
    net: Net, node: NodeProcess, alice: str, bob: str
) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    answer = await Caller(node, alice)("POST", MESSAGES, {"to": f"user:{bob}", "body": {"a": [1, "ü"]}})
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    came, own = await other.wait("message"), await phone.wait("message")
    assert came["body"] == own["body"] == {"a": [1, "ü"]}
    assert came["from"] == alice
    assert answer.json == {
        "stream": f"user:{alice}",
        "id": own["id"],
        "mid": own["mid"],
        "durability": answer.json["durability"],
    }
    assert came["mid"] == own["mid"]
    assert answer.json["durability"] in ("memory", "fsynced")


async def test_to_a_group_and_to_all(net: Net, node: NodeProcess, alice: str, bob: str, group: str) -> None:
    phone = await net.open(bob)
    await join(phone, group)
    await Caller(node, alice).put_in(group, alice)
    for to in (f"group:{group}", "all"):
        sent = await Caller(node, alice).send(to, to)
        came = await phone.wait("message", body=to)
        assert (sent["stream"], sent["id"], came["stream"]) == (to, came["id"], to)


async def test_a_body_is_kept_as_it_was_sent(net: Net, node: NodeProcess, alice: str) -> None:
    raw = b'{"to":"user:' + alice.encode() + b'","body": { "n" : 1.50, "e":1e400,\n "s":"\\u00fc" } }'
    assert (await Caller(node, alice)("POST", MESSAGES, raw)).status == 201
    url = f"{node.url}/v1/streams/user:{alice}/messages?user={alice}"
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as page:
        text = page.read()
    assert b'"body":{ "n" : 1.50, "e":1e400,  "s":"\\u00fc" }' in text


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_body", "header"),
    [
        ("k1", None),
        (None, "k1"),
        (None, '"k1"'),
        ("k1", "k1"),
        ("k1", '"k1"'),
        ('k"\\1', '"k\\"\\\\1"'),
        (None, "é".encode().decode("latin-1")),
    ],
)
async def test_a_repeat_with_its_key_is_stored_once(
    node: NodeProcess, alice: str, in_body: str | None, header: str | None
) -> None:
    given = {"to": f"user:{alice}", "body": 1} | ({} if in_body is None else {"key": in_body})
    headers = {} if header is None else {"Idempotency-Key": header}
    first = await Caller(node, alice)("POST", MESSAGES, given, headers=headers)
    if header is not None and not header.isascii():
        check_problem(first, "bad_request")
        return
    again = await Caller(node, alice)("POST", MESSAGES, given, headers=headers)
    assert (first.status, again.status) == (201, 200)
    assert "duplicate" not in first.json
    assert again.json == first.json | {"duplicate": True}
    assert first.json["mid"] == in_body or "k1"
    assert len((await Caller(node, alice).gets(path_of("streams", f"user:{alice}", "messages")))["messages"]) == 1


async def test_a_key_is_the_same_on_the_wire(net: Net, node: NodeProcess, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    sent = await phone.send(f"user:{bob}", "once", key="k1")
    again = await Caller(node, alice).send(f"user:{bob}", "once", key="k1")
    assert (again["id"], again["duplicate"]) == (sent["id"], True)
    check_problem(
        await Caller(node, alice)("POST", MESSAGES, {"to": f"user:{bob}", "body": "other", "key": "k1"}), "key_reused"
    )


@pytest.mark.parametrize(
    ("in_body", "header"),
    [("k1", "k2"), ("k1", '"k2"'), (None, '"k'), (None, '"a"b"'), (None, '""'), (None, "k" * 65), ("k" * 65, None)],
)
async def test_a_key_that_is_none(node: NodeProcess, alice: str, in_body: str | None, header: str | None) -> None:
    given = {"to": f"user:{alice}", "body": 1} | ({} if in_body is None else {"key": in_body})
    headers = {} if header is None else {"Idempotency-Key": header}
    check_problem(await Caller(node, alice)("POST", MESSAGES, given, headers=headers), "bad_request")


# -- who says it -------------------------------------------------------------------------------------------------------


async def test_a_user_speaks_for_themselves_alone(node: NodeProcess, alice: str, bob: str) -> None:
    caller = Caller(node, alice)
    assert (await caller.send("all", 1, **{"from": alice}))["stream"] == "all"
    check_problem(await caller("POST", MESSAGES, {"to": "all", "body": 1, "from": bob}), "not_allowed")


@pytest.mark.parametrize("to", ["group:{group}", "group:never-made"])
async def test_who_is_no_member_hears_the_same_of_every_group(
    node: NodeProcess, alice: str, bob: str, group: str, to: str
) -> None:
    await Caller(node, bob).put_in(group, bob)
    answer = await Caller(node, alice)("POST", MESSAGES, {"to": to.format(group=group), "body": 1})
    check_problem(answer, "not_member")
    assert answer.json["detail"] == "not a member of this group"


async def test_all_needs_the_claim(signed: NodeProcess, alice: str) -> None:
    check_problem(await Caller.with_token(signed, alice)("POST", MESSAGES, {"to": "all", "body": 1}), "not_allowed")
    assert (await Caller.with_token(signed, alice, broadcast=True).send("all", 1))["stream"] == "all"


async def test_a_server_key_speaks_as_anybody_and_is_told_where_the_recipient_finds_it(
    net: Net, node: NodeProcess, database: Server, alice: str, *, bob: str, group: str
) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    await phone.send_all(f"user:{alice}", range(3))
    await join(other, group)
    server = await Caller.with_key(node, database, "send")
    sent = await server.send(f"user:{bob}", "direct", **{"from": alice})
    came = await other.wait("message", body="direct")
    assert (sent["stream"], sent["id"], came["from"]) == (f"user:{bob}", came["id"], alice)
    assert n_of((await phone.wait("message", body="direct"))["id"]) != n_of(came["id"])
    sent = await server.send(f"group:{group}", "to the group", **{"from": alice})  # who is no member
    came = await other.wait("message", body="to the group")
    assert (sent["stream"], sent["id"], came["from"]) == (f"group:{group}", came["id"], alice)
    sent = await server.send("all", "to all", **{"from": "the-system"})
    assert (await other.wait("message", body="to all"))["id"] == sent["id"]
    named = await server("POST", MESSAGES, {"to": f"user:{bob}", "body": "by query"}, user=alice)
    assert (named.status, (await other.wait("message", body="by query"))["from"]) == (201, alice)


async def test_what_a_server_key_must_say_and_may_not(
    node: NodeProcess, database: Server, alice: str, bob: str
) -> None:
    server = await Caller.with_key(node, database, "send")
    given: dict[str, Any] = {"to": f"user:{alice}", "body": 1}
    check_problem(await server("POST", MESSAGES, given), "bad_request")
    check_problem(await server("POST", MESSAGES, given | {"from": "a/b"}), "bad_name")
    check_problem(await server("POST", MESSAGES, given | {"from": alice}, user=bob), "bad_request")
    check_problem(await server("POST", MESSAGES, given | {"from": alice, "to": "group:never-made"}), "no_group")
    for scope in ("read", "groups", "admin"):
        other = await Caller.with_key(node, database, scope)
        check_problem(await other("POST", MESSAGES, given | {"from": alice}), "not_allowed")


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_body_above_its_limit(node: NodeProcess, alice: str) -> None:
    caller = Caller(node, alice)
    assert (await caller.send(f"user:{alice}", "x" * 65_534))["stream"] == f"user:{alice}"
    check_problem(await caller("POST", MESSAGES, {"to": f"user:{alice}", "body": "x" * 65_535}), "body_too_large")
    check_problem(await caller("POST", MESSAGES, {"to": f"user:{alice}", "body": "x" * 131_072}), "too_large")
    nested = json.loads("[" * 128 + "]" * 128)
    assert (await caller.send(f"user:{alice}", nested))["stream"] == f"user:{alice}"
    check_problem(await caller("POST", MESSAGES, {"to": f"user:{alice}", "body": [nested]}), "bad_request")


async def test_who_sends_too_fast_is_told_when_to_go_on(
    start_node: StartNode, alice: str, bob: str, fresh: Callable[[str], str]
) -> None:
    node = start_node(limits_user_sends_per_s=0.1, limits_user_sends_burst=3)
    for number in range(3):
        await Caller(node, alice).send(f"user:{bob}", number)
    answer = await Caller(node, alice)("POST", MESSAGES, {"to": f"user:{bob}", "body": 3})
    check_problem(answer, "rate_limited")
    assert answer.json["retry"] is True
    assert 0 < answer.json["retry_after"] <= 10
    assert answer.json["retry_after"] <= int(answer.headers["retry-after"]) <= 11
    await Caller(node, fresh("carol")).send(f"user:{bob}", "others feel nothing")


async def test_who_asks_too_often_is_told_when_to_go_on(
    start_node: StartNode, database: Server, alice: str, bob: str
) -> None:
    node = start_node(limits_user_requests_per_s=0.1, limits_user_requests_burst=2)
    path = path_of("streams")
    for _ in range(2):
        await Caller(node, alice).gets(path)
    answer = await Caller(node, alice)("GET", path)
    check_problem(answer, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 11
    await Caller(node, bob).gets(path)
    server = await Caller.with_key(node, database, "read")
    for _ in range(5):
        await server.gets(path, user=alice)


async def test_who_looks_back_or_joins_too_often(
    start_node: StartNode, alice: str, fresh: Callable[[str], str]
) -> None:
    node = start_node(
        limits_user_histories_per_s=0.1,
        limits_user_histories_burst=1,
        limits_user_joins_per_s=0.1,
        limits_user_joins_burst=1,
    )
    caller, history = Caller(node, alice), path_of("streams", "all", "messages")
    await caller.gets(history)
    check_problem(await caller("GET", history), "rate_limited")
    await caller.put_in(fresh("g"), alice)
    group = fresh("g")
    for method, path in (
        ("PUT", path_of("groups", group)),
        ("PUT", path_of("groups", group, "members", alice)),
        ("DELETE", path_of("groups", group, "members", alice)),
        ("DELETE", path_of("groups", group)),
    ):
        check_problem(await caller(method, path), "rate_limited")
    check_problem(await caller("GET", path_of("groups", group)), "not_member")


async def test_what_one_request_did_a_connection_sees_in_order(net: Net, node: NodeProcess, alice: str) -> None:
    phone = await net.open(alice)
    for number in range(20):
        await Caller(node, alice).send(f"user:{alice}", number)
    await phone.until(lambda: len(phone.bodies()) == 20, "all of them")
    assert phone.bodies() == list(range(20))
    assert (await fetch(node, "/v1/messages", "GET")).status == 405
