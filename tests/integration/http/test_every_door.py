"""What holds for every route alike: who must sign in, which pages may ask, and a key that is revoked."""

from collections.abc import Iterator

import pytest
from starlette.routing import Route

from service.app import HTTP_ROUTES
from tests.integration.http.web import Caller, check_problem, fetch, path_of
from tests.integration.store.kit import Server
from tests.service import NodeProcess
from tests.tokens import bearer, mint, new_key, open_store

pytestmark = pytest.mark.anyio
DOCUMENTS = ("/openapi.json", "/asyncapi.json", "/docs", "/docs/{file}", "/client/{file}", "/", "/demo/{file}")
OPEN_TO_ALL = ("/livez", "/readyz", "/metrics", *DOCUMENTS)


def doors() -> Iterator[tuple[str, str]]:
    """Method and path of every route that has something to hide."""
    for route in HTTP_ROUTES:
        assert isinstance(route, Route)
        if route.path not in OPEN_TO_ALL:
            names = {"stream": "all", "id": "1-1", "device": "d", "group": "g", "user": "u"}
            yield from ((method, route.path.format(**names)) for method in sorted(route.methods or ()))


DOORS = list(doors())


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_nobody_comes_in_without_a_sign_in_that_holds(signed: NodeProcess, method: str, path: str) -> None:
    for token, code in (
        (None, "unauthorised"),
        ("", "unauthorised"),
        ("nonsense", "unauthorised"),
        (f"wpk_{'0' * 12}_{'a' * 43}", "unauthorised"),
        (mint("alice", secret="another secret, of somebody else entirely"), "unauthorised"),
        (mint("alice", ttl=-60), "expired"),
    ):
        answer = await fetch(signed, path, method, headers={} if token is None else bearer(token))
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            check_problem(answer, code)
    said = await fetch(signed, f"{path}?user=alice", method)
    assert said.status == 401  # outside of dev mode nobody is believed


@pytest.mark.parametrize(("method", "path"), DOORS)
async def test_pages_of_strangers_are_refused_whoever_is_signed_in(signed: NodeProcess, method: str, path: str) -> None:
    headers = {**bearer(mint("alice")), "Origin": "https://evil.example"}
    answer = await fetch(signed, path, method, headers=headers)
    assert answer.status == 403
    if method != "HEAD":
        check_problem(answer, "forbidden")


async def test_a_key_that_is_revoked_is_refused_with_the_next_request(node: NodeProcess, database: Server) -> None:
    key, key_id = await new_key(database.url, "read")
    server, path = Caller(node, token=key), path_of("streams", "all", "messages")
    await server.gets(path)
    store = await open_store(database.url)
    assert await store.revoke_key(key_id) is True
    await store.close()
    check_problem(await server("GET", path), "unauthorised")
