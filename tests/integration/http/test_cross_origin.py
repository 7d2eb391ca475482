"""Pages of other origins: those of the setting `origins` may ask, and read what they are answered."""

import json

import pytest

from tests.integration.http.web import Answer, check_problem, fetch
from tests.integration.wire.conftest import StartNode
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio
APP, OTHER = "https://app.example", "https://evil.example"


async def preflight(node: NodeProcess, origin: str, method: str = "PUT", headers: str = "authorization") -> Answer:
    """What a browser asks before the request itself."""
    said = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return await fetch(node, "/v1/groups/g", "OPTIONS", headers=said)


@pytest.fixture
def listed(start_node: StartNode) -> NodeProcess:
    """A node that pages of one other origin may ask."""
    return start_node(origins=f"{APP}, http://localhost:5173")


async def test_a_page_that_is_listed_may_ask_and_read(listed: NodeProcess, alice: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = await fetch_preflight(listed, method)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == APP
        assert answer.headers["access-control-allow-credentials"] is None
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert {"authorization", "content-type", "idempotency-key"} <= set(allowed.split(", "))
        assert set(answer.headers["access-control-allow-methods"].split(", ")) == {"GET", "POST", "PUT", "DELETE"}
    body = json.dumps({"to": f"user:{alice}", "body": 1}).encode()
    sent = await fetch(listed, f"/v1/messages?user={alice}", "POST", body, {"Origin": APP})
    refused = await fetch(listed, f"/v1/messages?user={alice}", "POST", b"", {"Origin": APP})
    assert (sent.status, refused.status) == (201, 400)
    for answer in (sent, refused):  # a refusal is for reading too
        assert answer.headers["access-control-allow-origin"] == APP
        assert "Origin" in answer.headers["vary"]
        assert answer.headers["access-control-expose-headers"] == "Retry-After, X-Request-Id"


async def fetch_preflight(node: NodeProcess, method: str) -> Answer:
    return await preflight(node, APP, method, "authorization, content-type, idempotency-key")


async def test_other_pages_methods_and_headers_may_not(listed: NodeProcess, alice: str) -> None:
    for origin, method, headers in (
        (OTHER, "PUT", "authorization"),
        (APP, "PATCH", "authorization"),
        (APP, "PUT", "x-other"),
        ("null", "PUT", "authorization"),
    ):
        check_problem(await preflight(listed, origin, method, headers), "forbidden")
    answer = await fetch(listed, f"/v1/streams?user={alice}", headers={"Origin": OTHER})
    check_problem(answer, "forbidden")
    assert answer.headers["access-control-allow-origin"] is None


async def test_a_star_lets_every_page_ask(start_node: StartNode, alice: str) -> None:
    node = start_node(origins="*")
    assert (await preflight(node, OTHER)).headers["access-control-allow-origin"] == "*"
    answer = await fetch(node, f"/v1/streams?user={alice}", headers={"Origin": OTHER})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")


async def test_without_the_setting_there_is_none_of_it(node: NodeProcess, alice: str) -> None:
    for origin in (APP, node.url):
        check_problem(await preflight(node, origin), "method_not_allowed")
    answer = await fetch(node, f"/v1/streams?user={alice}", headers={"Origin": node.url})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, None)
