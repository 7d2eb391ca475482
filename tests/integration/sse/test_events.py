"""`GET /v1/events`: what a stream of events is made of, who gets one, and how it ends."""

import asyncio
import json
import time

import pytest

from service.core.entries import Entry
from service.core.names import EntryId
from service.transports.sse import entry_event
from tests.events import CLOSED, EventPhone, Refused
from tests.integration.http.web import Caller, check_problem, fetch
from tests.integration.sse.kit import EventNet, come_back
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import eventually, join, types_of
from tests.service import NodeProcess
from tests.tokens import SIGNED, bearer, mint, new_key, open_store

pytestmark = pytest.mark.anyio

EVENTS = {"Accept": "text/event-stream"}


async def refused(node: NodeProcess, user: str = "", *, headers: dict[str, str] | None = None, **query: str) -> Refused:
    with pytest.raises(Refused) as refusal:
        await EventPhone(node.url, user, **query).listen(headers=headers)
    return refusal.value


# -- what comes --------------------------------------------------------------------------------------------------------


async def test_a_stream_is_the_wire_with_a_bookmark_before_each_entry(net: EventNet, alice: str, bob: str) -> None:
    phone = await net.listen(bob, "web")
    assert phone.headers["content-type"].split(";")[0] == "text/event-stream"
    assert phone.headers["cache-control"] == "no-store"
    assert phone.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in phone.headers
    assert 1000 <= phone.retry_ms <= 3000
    assert types_of(phone.frames) == ["welcome", "live"]
    assert (phone.welcome()["user"], phone.welcome()["device"], phone.bookmark) == (bob, "web", "")
    sender = await net.speaker(alice)
    sent = await sender.send(f"user:{bob}", {"a": "b\r\nc"}, key="k-1")
    message = await phone.wait("message")
    assert {**message, "id": ""} == {
        "type": "message",
        "stream": f"user:{bob}",
        "id": "",
        "mid": "k-1",
        "from": alice,
        "to": f"user:{bob}",
        "body": {"a": "b\r\nc"},
    }
    assert sent["mid"] == "k-1"
    assert 0 < len(phone.bookmark) < 100


async def test_what_one_sends_comes_as_a_message(net: EventNet, alice: str, bob: str) -> None:
    phone = await net.listen(alice)
    answer = await phone.send(f"user:{bob}", "mine")
    message = await phone.wait("message")
    assert (message["stream"], message["from"], message["id"]) == (f"user:{alice}", alice, answer["id"])


async def test_heartbeats_come_while_nothing_happens(net: EventNet, start_node: StartNode, alice: str) -> None:
    phone = await net.at(start_node(ping_s=0.2)).listen(alice)
    await eventually(lambda: phone.comments >= 3, "heartbeats")
    assert types_of(phone.frames) == ["welcome", "live"]


async def test_head_is_answered_and_ends(net: EventNet, alice: str) -> None:
    answer = await fetch(net.node, f"/v1/events?user={alice}", "HEAD")
    assert (answer.status, answer.headers.get_content_type()) == (200, "text/event-stream")


async def test_a_client_of_http_1_0_gets_a_plain_body(net: EventNet, alice: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", net.node.port)
    writer.write(f"GET /v1/events?user={alice} HTTP/1.0\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b'{"type":"live"}\n\n')
    assert b"chunked" not in head
    assert body.startswith(b"retry: ")
    writer.close()


async def test_one_that_hangs_up_is_gone_at_once(net: EventNet, start_node: StartNode, alice: str) -> None:
    node = start_node(limits_connections_per_user=1)
    phone = await net.at(node).listen(alice)
    assert (await refused(node, alice)).code == "too_many_connections"
    await phone.leave()

    async def is_in() -> EventPhone | None:
        try:
            return await net.at(node).listen(alice)
        except Refused:
            return None

    deadline = time.monotonic() + 5
    while await is_in() is None:
        assert time.monotonic() < deadline


# -- who gets one ------------------------------------------------------------------------------------------------------


async def test_a_token_signs_in_by_header_and_query(signed: NodeProcess, alice: str) -> None:
    for headers, query in ((bearer(mint(alice)), {}), ({}, {"token": mint(alice)})):
        phone = EventPhone(signed.url, "", **query)
        await phone.listen(headers=headers)
        await phone.wait("live")
        assert phone.welcome()["user"] == alice
        assert phone.welcome()["expires_in"] > 200
        await phone.leave()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, "unauthorised"),
        ({"token": "x.y.z"}, "unauthorised"),
        ({"token": mint("alice", ttl=-5)}, "expired"),
        ({"user": "alice"}, "unauthorised"),
        ({"token": mint("alice", device="phone"), "device": "other"}, "forbidden"),
        ({"token": mint("alice"), "device": "a/b"}, "bad_name"),
    ],
)
async def test_who_may_not_in_is_refused_and_told_so(signed: NodeProcess, query: dict[str, str], code: str) -> None:
    said = dict(query)
    with pytest.raises(Refused) as refusing:
        await EventPhone(signed.url, said.pop("user", ""), **said).listen()
    refusal = refusing.value
    assert refusal.code == code
    assert refusal.headers["content-type"] == "application/problem+json"
    assert refusal.status in (400, 401, 403)


async def test_a_parameter_that_comes_twice_is_refused(net: EventNet) -> None:
    for query in ("user=a&user=b", "user=a&device=x&device=y", "user=a&last_event_id=x&last_event_id=y"):
        answer = await fetch(net.node, f"/v1/events?{query}", headers=EVENTS)
        assert answer.status in (400, 401)


async def test_the_device_of_a_token_is_the_one_that_listens(signed: NodeProcess, alice: str) -> None:
    phone = EventPhone(signed.url, "", token=mint(alice, device="tablet"))
    await phone.listen()
    assert (await phone.wait("welcome"))["device"] == "tablet"
    await phone.leave()


async def test_a_server_key_listens_as_whom_it_names(
    signed: NodeProcess, database: Server, alice: str, bob: str
) -> None:
    reading, key_id = await new_key(database.url, "read")
    sending, _ = await new_key(database.url, "send")
    assert (await refused(signed, headers=bearer(reading))).code == "bad_request"
    assert (await refused(signed, alice, headers=bearer(sending))).code == "not_allowed"
    phone = EventPhone(signed.url, alice)
    await phone.listen(headers=bearer(reading))
    await phone.wait("live")
    caller = Caller.with_token(signed, bob)
    await caller.send(f"user:{alice}", "for whom it names")
    await phone.wait("message", body="for whom it names")

    other = EventPhone(signed.url, alice)
    await other.listen(headers=bearer(reading))
    await other.wait("live")
    store = await open_store(database.url)
    assert await store.revoke_key(key_id)
    await store.close()
    for one in (phone, other):
        assert (await one.wait("error"))["code"] == "unauthorised"
        await one.ends()
        assert one.closed == CLOSED
    assert (await refused(signed, alice, headers=bearer(reading))).status == 401


@pytest.mark.parametrize(
    ("headers", "is_in"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://{host}"}, True),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "same-origin"}, True),
        ({}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "https://listed.example"}, False),
        ({"Origin": "https://listed.example", "Sec-Fetch-Site": "same-origin"}, False),
    ],
)
async def test_a_cookie_counts_for_pages_of_our_own_alone(
    start_node: StartNode, alice: str, headers: dict[str, str], *, is_in: bool
) -> None:
    node = start_node(**SIGNED, origins="https://listed.example")
    said = {name: value.format(host=f"127.0.0.1:{node.port}") for name, value in headers.items()}
    said["Cookie"] = f"other=1; waypost_token={mint(alice)}"
    if not is_in:
        assert (await refused(node, headers=said)).code == "unauthorised"
        return
    phone = EventPhone(node.url, "")
    await phone.listen(headers=said)
    assert (await phone.wait("welcome"))["user"] == alice
    await phone.leave()
    other = EventPhone(node.url, "", token=mint(alice + "x"))  # what is shown counts before it
    await other.listen(headers=said)
    assert (await other.wait("welcome"))["user"] == alice + "x"
    await other.leave()


async def test_pages_of_listed_origins_may_and_others_not(start_node: StartNode, alice: str) -> None:
    node = start_node(**SIGNED, origins="https://listed.example")
    phone = EventPhone(node.url, "", token=mint(alice))
    await phone.listen(headers={"Origin": "https://listed.example"})
    await phone.wait("live")
    assert phone.headers["access-control-allow-origin"] == "https://listed.example"
    assert "access-control-allow-credentials" not in phone.headers
    await phone.leave()
    refusal = await refused(node, token=mint(alice), headers={"Origin": "https://other.example"})
    assert (refusal.code, refusal.status) == ("forbidden", 403)


async def test_who_asks_too_often_is_told_when_to_come_back(start_node: StartNode, alice: str) -> None:
    node = start_node(**SIGNED, limits_user_requests_per_s=0.2, limits_user_requests_burst=1)
    token = mint(alice)
    first = EventPhone(node.url, "", token=token)
    await first.listen()
    answer = await fetch(node, f"/v1/events?token={token}")
    check_problem(answer, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    again = EventPhone(node.url, "", token=token)  # an EventSource would never come back after a 429
    await again.listen()
    assert (await again.wait("error"))["code"] == "rate_limited"
    await again.ends()
    assert again.closed == CLOSED
    assert 2000 <= again.retry_ms <= 8000
    await first.leave()


async def test_one_device_too_many_is_refused(start_node: StartNode, alice: str) -> None:
    node = start_node(limits_devices_per_user=1)
    phone = await EventPhone.open(node.url, alice, "one")
    refusal = await refused(node, alice, device="two")
    assert (refusal.code, refusal.status) == ("too_many_devices", 409)
    await phone.leave()


# -- how it ends -------------------------------------------------------------------------------------------------------


async def test_a_token_that_expires_ends_the_stream_and_the_next_request_is_401(
    start_node: StartNode, alice: str
) -> None:
    node = start_node(**SIGNED, token_grace_s=0.3)
    phone = EventPhone(node.url, "", token=mint(alice, ttl=1.2))
    await phone.listen()
    await phone.wait("live")
    assert (await phone.wait("error"))["code"] == "expired"
    await phone.ends()
    assert phone.closed == CLOSED
    with pytest.raises(Refused) as refusal:
        await come_back(phone)
    assert (refusal.value.status, refusal.value.code) == (401, "expired")


async def test_who_was_disconnected_is_told_to_stay_away_and_a_new_page_goes_on(
    net: EventNet, alice: str, bob: str
) -> None:
    phone = await net.listen(bob, "web")
    sender = await net.speaker(alice)
    await sender.send(f"user:{bob}", "one")
    await phone.wait("message", body="one")
    path = f"/v1/admin/users/{bob}/connections"
    assert (await fetch(net.node, path, "DELETE")).status == 202
    assert (await phone.wait("error"))["code"] == "forbidden"
    await phone.ends()
    assert (phone.closed, phone.bookmark[:4]) == (CLOSED, "end.")
    with pytest.raises(Refused) as refusal:  # after 204 an EventSource stays away
        await come_back(phone)
    assert (refusal.value.status, refusal.value.body) == (204, b"")
    await sender.send(f"user:{bob}", "two")
    new = EventPhone(net.node.url, bob, device="web", last_event_id=phone.bookmark)
    await new.listen()
    await new.wait("live")
    assert new.bodies() == ["two"]


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_a_store_that_is_away_is_told_as_what_passes(bare_database: Server, alice: str, accept: str) -> None:
    node = NodeProcess(bare_database.url, "storeless")
    try:
        node.start()
        phone = await EventPhone.open(node.url, alice)
        bare_database.kill()
        await eventually(node.reasons, "it is not ready")
        if accept == "*/*":
            check_problem(await fetch(node, f"/v1/events?user={alice}", headers={"Accept": accept}), "unavailable")
        else:
            other = EventPhone(node.url, alice)
            await other.listen(accept=accept)
            assert (await other.wait("error"))["retry"] is True
            await other.ends()
            assert other.closed == CLOSED
            assert other.retry_ms >= 1000
        assert phone.closed is None
        bare_database.start()
        await eventually(node.is_ready, "it is ready again", 20)
        await phone.send(f"user:{alice}", "still here")
        await phone.wait("message", body="still here")
        await phone.leave()
    finally:
        node.remove()


async def test_a_node_that_drains_says_so_and_ends_in_time(bare_database: Server, alice: str) -> None:
    node = NodeProcess(bare_database.url, "draining", drain_s=10)
    try:
        node.start()
        phones = [await EventPhone.open(node.url, alice, f"d{n}") for n in range(20)]
        began = time.monotonic()
        code = await asyncio.to_thread(node.stop)
        assert (code, time.monotonic() - began < 3) == (0, True)
        for phone in phones:
            assert (await phone.wait("error"))["code"] == "draining"
            await phone.ends()
            assert phone.closed == CLOSED
        assert len({phone.retry_ms for phone in phones}) > 5  # they come back one by one
        assert "Traceback" not in node.said()
    finally:
        node.remove()


async def test_one_that_takes_nothing_falls_behind_and_is_ended_as_slow_and_resumes(
    net: EventNet, start_node: StartNode, alice: str, bob: str
) -> None:
    node = start_node(limits_write_buffer_bytes=65_536, idle_close_s=0.5)
    phone = EventPhone(node.url, alice, device="web")
    await phone.listen(receive_buffer=16_384)
    await phone.wait("live")
    phone.stop_reading()
    sender = await net.at(node).speaker(bob)
    count = 2000
    bodies = [str(number).ljust(4000) for number in range(count)]
    for at in range(0, count, 50):
        await sender.send_all(f"user:{alice}", bodies[at : at + 50])
    await asyncio.sleep(1.0)
    phone.go_on_reading()
    await phone.ends(60)
    got = phone.bodies()
    assert 0 < len(got) < count
    again = await come_back(phone)
    await again.wait("live", 60)
    assert got + again.bodies() == bodies
    await again.leave()


async def test_one_that_stops_for_a_while_misses_nothing(
    net: EventNet, start_node: StartNode, alice: str, bob: str, group: str
) -> None:
    node = start_node(limits_write_buffer_bytes=65_536)
    phone = EventPhone(node.url, alice)
    await phone.listen(receive_buffer=16_384)
    await phone.wait("live")
    sender, other = await net.at(node).speaker(bob), await net.at(node).listen(bob, "other")
    for one in (phone, sender):
        await join(one, group)
    phone.stop_reading()
    count = 1500
    bodies = [str(number).ljust(4000) for number in range(count)]
    for at in range(0, count, 50):
        await sender.send_all(f"user:{alice}", bodies[at : at + 50])
    await sender.send(f"group:{group}", "in between")
    await other.wait("message", body="in between")  # the others lose nothing by it
    phone.go_on_reading()
    await phone.until(lambda: len(phone.bodies(f"user:{alice}")) == count, "all", 60)
    assert phone.bodies(f"user:{alice}") == bodies
    await phone.wait("message", body="in between")
    await sender.send(f"user:{alice}", "new")
    await phone.wait("message", body="new")
    await phone.leave()


async def test_events_are_json_on_one_line() -> None:
    entry = Entry(EntryId(1, 2), "message", "alice", "all", "m", b'{"a" : 1}')
    data = entry_event("all", entry)
    assert data.startswith(b"data: {")
    assert data.endswith(b"}\n\n")
    assert data.count(b"\n") == 2
    assert json.loads(data[6:])["body"] == {"a": 1}
