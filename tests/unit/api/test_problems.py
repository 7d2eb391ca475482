"""Refusals over HTTP: every code of the table as a problem, and bugs as ours."""

from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from service.api.operations import at, does
from service.api.problems import refusal
from service.api.routes import ROUTES
from service.config import Settings
from service.errors import ERRORS, WaypostError


@pytest.mark.parametrize("code", ERRORS)
def test_every_code_is_a_problem(code: str) -> None:
    told = refusal(WaypostError(code, "in words", retry_after=1.2))
    assert told.status_code == ERRORS[code].http
    assert told.media_type == "application/problem+json"
    assert told.headers["retry-after"] == "2"  # whole seconds, and no sooner
    assert told.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in told.headers) == (ERRORS[code].http == 401)


@pytest.mark.parametrize(("seconds", "said"), [(0.001, "1"), (1.0, "1"), (1.001, "2"), (59.5, "60")])
def test_retry_after_is_never_too_soon(seconds: float, said: str) -> None:
    assert refusal(WaypostError("rate_limited", retry_after=seconds)).headers["retry-after"] == said


def test_a_bug_is_told_as_ours_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_request: Request) -> Response:
        raise ZeroDivisionError("a secret of the inside")

    app = Starlette(routes=[at("/", GET=does(broken, {}))])
    app.state = SimpleNamespace(settings=Settings())  # type: ignore[assignment]
    with TestClient(app) as client:
        told = client.get("/")
    assert (told.status_code, told.json()["code"], told.json()["retry"]) == (500, "internal", True)
    assert told.headers["content-type"] == "application/problem+json"
    assert "secret" not in told.text
    assert [record.getMessage() for record in caplog.records] == ["request_failed"]


@pytest.mark.parametrize(("size", "is_last"), [(0, False), (131_072, False), (131_073, True)])
def test_a_body_too_long_to_be_read_for_nothing_ends_the_connection(size: int, *, is_last: bool) -> None:
    async def refuses(_request: Request) -> Response:
        raise WaypostError("unauthorised")

    app = Starlette(routes=[at("/", POST=does(refuses, {}))])
    app.state = SimpleNamespace(settings=Settings())  # type: ignore[assignment]
    with TestClient(app) as client:
        told = client.post("/", content=b"x" * size)
    assert (told.status_code, told.json()["code"]) == (401, "unauthorised")
    assert (told.headers.get("connection") == "close") == is_last


def test_every_path_is_in_the_table_once() -> None:
    paths = [str(getattr(route, "path", "")) for route in ROUTES]
    assert len(set(paths)) == len(paths)
