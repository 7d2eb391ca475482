"""Ids of requests and connections: answered, and on every line that the log has about them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from migrations import __main__ as migrations
from service.errors import ERRORS
from tests.integration.doors.raw import UPGRADE, ask
from tests.integration.http.web import fetch, path_of
from tests.integration.store.kit import Server, wait_until
from tests.integration.wire.conftest import StartNode
from tests.service import NodeProcess, Phone
from tests.tokens import SIGNED, bearer, mint

pytestmark = pytest.mark.anyio

MADE = re.compile(r"[0-9a-f]{16}")
Line = dict[str, Any]


@pytest.fixture(autouse=True)
async def phones() -> AsyncIterator[None]:
    yield
    await Phone.hang_up_all()


@pytest.fixture
def chatty(start_node: StartNode) -> NodeProcess:
    return start_node(**SIGNED, log_level="debug", log_format="json")


def lines_of(node: NodeProcess, **fields: object) -> list[Line]:
    """The lines that say this, of all that the node has written; every one of them is JSON."""
    lines: list[Line] = [json.loads(line) for line in node.said().splitlines()]
    return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]


async def line_of(node: NodeProcess, **fields: object) -> Line:
    """The one line that says this, once it is there."""
    await asyncio.to_thread(wait_until, lambda: bool(lines_of(node, **fields)), f"a line with {fields}")
    [line] = lines_of(node, **fields)
    return line


@pytest.mark.parametrize("sane", ["a", "A1._-z", "x" * 64])
async def test_a_sane_id_is_taken_over(node: NodeProcess, sane: str) -> None:
    answer = await fetch(node, "/livez", headers={"X-Request-ID": sane})
    assert answer.headers["x-request-id"] == sane


@pytest.mark.parametrize(
    "odd",
    [
        (),
        ("X-Request-ID: ",),
        ("X-Request-ID: two words",),
        ("X-Request-ID: " + "x" * 65,),
        ('X-Request-ID: "a"',),
        ("X-Request-ID: é",),
        ("X-Request-ID: a", "X-Request-ID: b"),
    ],
)
async def test_for_any_other_one_is_made(node: NodeProcess, odd: tuple[str, ...]) -> None:
    made = {(await ask(node, "GET /livez HTTP/1.1", "Host: w", *odd)).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert all(MADE.fullmatch(one) for one in made)


async def test_every_answer_has_it_and_the_lines_too(chatty: NodeProcess) -> None:
    token = mint("alice")
    path = path_of("streams", "group:secret-plans", "messages")
    for nth, (address, method, headers, status) in enumerate(
        [
            (path_of("streams"), "GET", bearer(token), 200),
            (path, "GET", bearer(token), 403),
            (path, "GET", {}, 401),
            ("/nothing/secret-plans", "GET", {}, 404),
            ("/livez", "DELETE", {}, 405),
            (f"{path_of('events')}?device=a/b", "GET", bearer(token), 400),
        ]
    ):
        answer = await fetch(chatty, f"{address}", method, headers={**headers, "X-Request-ID": f"r{nth}"})
        assert (answer.status, answer.headers["x-request-id"]) == (status, f"r{nth}")
        line = await line_of(chatty, event="request", request=f"r{nth}")
        assert (line["method"], line["status"]) == (method, status)
        assert line["route"] in ("-", "/livez", "/v1/streams", "/v1/streams/{stream}/messages", "/v1/events")
        assert line["took_ms"] > 0
        assert line.get("user") == (None if status in (401, 404, 405) or nth == 5 else "alice")
    refused = await line_of(chatty, event="request_refused", request="r1")
    assert refused["status"] == ERRORS[refused["code"]].http == 403
    assert {line["node"] for line in lines_of(chatty)} == {chatty.name}
    assert "secret-plans" not in chatty.said()


async def test_an_upgrade_has_an_id_which_leads_to_its_connection(chatty: NodeProcess) -> None:
    said = await ask(chatty, "GET /v1/connect HTTP/1.1", *UPGRADE, "X-Request-ID: up1")
    assert (said.status, said.headers["x-request-id"]) == (101, "up1")
    headers = {**bearer(mint("alice")), "X-Request-ID": "up2"}
    phone = await Phone.dial(chatty.url, None, additional_headers=headers)
    await phone.say(type="hello", device="phone")
    await phone.wait("live")
    await phone.send("user:alice", "hi")
    await phone.leave()
    opened = await line_of(chatty, event="connection_opened", request="up2")
    assert (opened["user"], opened["transport"]) == ("alice", "websocket")
    closed = await line_of(chatty, event="connection_closed", connection=opened["connection"])
    assert (closed["user"], closed["device"], closed["close_code"], closed["reason"]) == (
        "alice",
        "phone",
        1000,
        "client",
    )
    assert (closed["level"], closed["sends"], closed["streams"]) == ("debug", 1, 2)
    assert closed["duration_s"] > 0


async def test_who_is_cut_off_by_us_is_said_at_info_and_why(chatty: NodeProcess) -> None:
    phone = await Phone.dial(chatty.url, None, additional_headers=bearer(mint("carol")))
    await phone.say(type="hello", device="phone")
    await phone.wait("live")
    await phone.websocket.send("no json")
    assert await phone.ends() == 4103
    closed = await line_of(chatty, event="connection_closed", user="carol")
    assert (closed["level"], closed["close_code"], closed["reason"]) == ("info", 4103, "bad_frame")

    lost = await Phone.dial(chatty.url, None, additional_headers=bearer(mint("bob")))
    await lost.say(type="hello")
    await lost.wait("live")
    lost.cut()
    closed = await line_of(chatty, event="connection_closed", user="bob")
    assert (closed["level"], closed["close_code"], closed["reason"]) == ("debug", 1006, "lost")

    stranger = await Phone.dial(chatty.url, None, additional_headers=bearer("nonsense"))
    assert await stranger.ends() == 4101
    refused = await line_of(chatty, event="connection_refused")
    assert (refused["level"], refused["code"], refused["close_code"]) == ("debug", "unauthorised", 4101)


async def test_what_is_our_fault_is_a_warning_with_code_and_request() -> None:
    with Server("valkey") as server:
        node = NodeProcess(server.url, "lonely", call_timeout_s=1, log_format="json")
        try:
            await migrations.up(server.url)
            node.start()
            server.kill()
            answer = await fetch(node, f"{path_of('streams')}?user=alice", headers={"X-Request-ID": "r1"})
            assert answer.status == 503
            line = await line_of(node, event="request_refused")
            assert {name: line[name] for name in ("level", "code", "status", "request", "user")} == {
                "level": "warning",
                "code": "unavailable",
                "status": 503,
                "request": "r1",
                "user": "alice",
            }
        finally:
            node.remove()
