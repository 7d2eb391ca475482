"""While the store is away everything is `unavailable`, to be tried again; and then all goes on."""

import time
from collections.abc import AsyncIterator, Callable

import pytest

from migrations import __main__ as migrations
from tests.integration.http.web import Caller, check_problem, path_of
from tests.integration.store.kit import Server
from tests.integration.wire.kit import eventually
from tests.service import NodeProcess
from tests.tokens import new_key

pytestmark = pytest.mark.anyio

ROUTES: list[tuple[str, str, object]] = [
    ("POST", path_of("messages"), {"to": "user:alice", "body": 1}),
    ("POST", path_of("messages"), {"to": "user:alice", "body": 1, "key": "k1"}),
    ("GET", path_of("streams"), None),
    ("GET", path_of("streams", "all", "messages"), None),
    ("DELETE", path_of("streams", "all", "messages", "5-1"), None),
    ("PUT", path_of("devices", "phone", "offsets"), {"offsets": {}}),
    ("GET", path_of("groups", "g"), None),
    ("PUT", path_of("groups", "g"), {}),
    ("DELETE", path_of("groups", "g"), None),
    ("GET", path_of("groups", "g", "members"), None),
    ("GET", path_of("groups", "g", "members", "alice"), None),
    ("PUT", path_of("groups", "g", "members", "alice"), None),
    ("DELETE", path_of("groups", "g", "members", "alice"), None),
    ("GET", path_of("admin", "nodes"), None),
    ("GET", path_of("admin", "streams"), None),
    ("GET", path_of("admin", "streams", "all"), None),
    ("GET", path_of("admin", "streams", "all", "entries"), None),
    ("DELETE", path_of("admin", "users", "alice", "connections"), None),
]


@pytest.fixture
async def away() -> AsyncIterator[tuple[Server, NodeProcess, str]]:
    """A store that has just died, its node, and a server key that was good."""
    server = Server("valkey")
    node = NodeProcess(server.url, "lonely", call_timeout_s=1)
    try:
        server.start()
        await migrations.up(server.url)
        node.start()
        key, _ = await new_key(server.url, "send", "read", "groups", "admin")
        assert (await Caller(node, "alice").make("g"))["role"] == "owner"
        server.kill()
        yield server, node, key
    finally:
        node.remove()
        server.remove()


async def test_everything_is_unavailable_at_once_and_then_goes_on(
    away: tuple[Server, NodeProcess, str], fresh: Callable[[str], str]
) -> None:
    server, node, key = away
    await eventually(lambda: not node.is_ready(), "it has found out")
    for caller in (Caller(node, "alice"), Caller(node, token=key)):
        for method, path, body in ROUTES:
            begun = time.monotonic()
            answer = await caller(method, path, body)
            check_problem(answer, "unavailable")
            assert answer.json["retry"] is True
            assert str(server.folder) not in str(answer.json)  # nor where the store is
            assert time.monotonic() - begun < 2
    server.start()
    await eventually(node.is_ready, "it is ready again")
    assert (await Caller(node, "alice").gets(path_of("groups", "g")))["members"] == 1
    assert (await Caller(node, "alice").send(f"user:{fresh('bob')}", 1))["id"]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_the_first_that_finds_out_is_told_the_same(
    away: tuple[Server, NodeProcess, str], method: str, path: str, body: object
) -> None:
    _, node, _ = away
    answer = await Caller(node, "alice")(method, path, body)
    assert answer.json["code"] in ("unavailable", "uncertain")
    assert answer.status == 503
    is_harmless = not (method == "POST" and "key" not in str(body))
    assert answer.json["retry"] is (is_harmless or answer.json["code"] == "unavailable")
