"""`/livez` and `/readyz`: whether to restart this process, and whether to give it connections."""

import asyncio
import json
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from migrations import __main__ as migrations
from tests.integration.store.kit import Server, wait_until
from tests.integration.wire.conftest import assert_calm
from tests.integration.wire.kit import eventually
from tests.service import NodeProcess, Phone


def get(node: NodeProcess, path: str) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    try:
        with urllib.request.urlopen(node.url + path, timeout=5) as answer:
            assert isinstance(answer, HTTPResponse)
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


@pytest.fixture
async def own_database() -> AsyncIterator[Server]:
    """A database for one test, to be stopped and killed."""
    with Server("valkey") as server:
        await migrations.up(server.url)
        yield server


@pytest.fixture
def own_node(own_database: Server) -> Iterator[NodeProcess]:
    node = NodeProcess(own_database.url, "health", beat_s=0.1, not_ready_s=0.5, call_timeout_s=1)
    try:
        yield node.start()
        assert_calm(node.said())
    finally:
        node.remove()


@pytest.mark.anyio
async def test_node_that_is_well_is_alive_and_ready(node: NodeProcess) -> None:
    assert get(node, "/livez") == (200, {"status": "alive"})
    assert get(node, "/readyz") == (200, {"status": "ready", "reasons": []})


@pytest.mark.anyio
async def test_without_its_store_a_node_is_alive_and_not_ready_and_recovers_by_itself(
    own_database: Server, own_node: NodeProcess
) -> None:
    phone = await Phone.open(own_node.url, "alice")
    own_database.kill()
    await eventually(lambda: get(own_node, "/readyz")[0] == 503, "it is not ready")
    status, answer = get(own_node, "/readyz")
    assert status == 503
    assert answer["status"] == "not ready"
    assert [reason.split(":")[0] for reason in answer["reasons"]] == ["store"]
    assert get(own_node, "/livez") == (200, {"status": "alive"})
    error = await phone.send("user:bob", "x")
    assert (error["code"], error["retry"]) == ("unavailable", True)
    own_database.start()
    await eventually(lambda: get(own_node, "/readyz")[0] == 200, "it is ready again")
    assert (await phone.send("user:bob", "y"))["type"] == "sent"
    assert phone.closed is None
    await phone.leave()


@pytest.mark.anyio
async def test_node_whose_reader_stands_still_is_not_ready_and_recovers_by_itself(
    own_database: Server, own_node: NodeProcess
) -> None:
    assert own_database.process is not None
    own_database.process.send_signal(signal.SIGSTOP)
    try:
        await eventually(lambda: get(own_node, "/readyz")[0] == 503, "it is not ready")
        assert get(own_node, "/readyz")[1]["reasons"]
        assert get(own_node, "/livez")[0] == 200
    finally:
        own_database.process.send_signal(signal.SIGCONT)
    await eventually(lambda: get(own_node, "/readyz")[0] == 200, "it is ready again")


@pytest.mark.anyio
async def test_node_that_starts_without_its_store_waits_for_it(own_database: Server) -> None:
    own_database.kill()
    node = NodeProcess(own_database.url, "early").start(wait=False)
    try:
        wait_until(lambda: node.reasons() is not None, "it answers", 20)
        assert get(node, "/livez")[0] == 200
        assert get(node, "/readyz")[0] == 503
        phone = await Phone.dial(node.url, "alice")
        await phone.say(type="hello")
        assert await phone.ends() == 4000
        assert (phone.frames[0]["code"], phone.frames[0]["retry"]) == ("unavailable", True)
        own_database.start()
        await eventually(node.is_ready, "it is ready", 20)
        phone = await Phone.open(node.url, "alice")
        await phone.leave()
    finally:
        node.remove()


@pytest.mark.anyio
async def test_node_that_shuts_down_says_draining_and_ends_connections_with_4002(
    own_node: NodeProcess,
) -> None:
    phone = await Phone.open(own_node.url, "alice")
    assert await asyncio.to_thread(own_node.stop) == 0
    assert await phone.ends() == 4002
    assert phone.frames[-1]["code"] == "draining"
    assert phone.frames[-1]["retry"] is True


@pytest.mark.parametrize("path", ["/v1/connect", "/nothing", "/demo"])
def test_other_paths_are_not_found_over_http(node: NodeProcess, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(node.url + path, timeout=5)
    refusal.value.close()
    assert refusal.value.code in (404, 405, 426)


def test_health_is_not_written_to(node: NodeProcess) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(node.url + "/livez", data=b"x", timeout=5)
    refusal.value.close()
    assert refusal.value.code == 405
