"""Where a request comes from: what it shows, whether it is of this machine, and whether its page may."""

import pytest
from msgspec.structs import replace
from starlette.requests import HTTPConnection

from service.auth import Credentials, check_origin, credentials_of
from service.config import Settings
from service.errors import WaypostError

OURS = replace(Settings(), jwt_secrets="s" * 32)
DEV = replace(Settings(), dev=True)


def visit(query: str = "", *, peer: str = "127.0.0.1", host: str = "127.0.0.1:8000", **headers: str) -> HTTPConnection:
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return HTTPConnection(
        {
            "type": "http",
            "query_string": query.encode(),
            "client": (peer, 5),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
    )


def test_what_is_shown_is_taken_from_header_and_query() -> None:
    shown = credentials_of(visit("token=t&user=u", authorization="Bearer h"))
    assert shown == Credentials("Bearer h", "t", "u", is_local=True)
    assert credentials_of(visit(host="a.example")) == Credentials()


@pytest.mark.parametrize("query", ["user=a&user=b", "user=a&user=a", "token=a&token=", "token=t&user=u&token=t"])
def test_what_is_said_twice_is_refused(query: str) -> None:
    with pytest.raises(WaypostError, match="twice") as caught:
        credentials_of(visit(query))
    assert caught.value.code == "unauthorised"


@pytest.mark.parametrize(
    ("given", "is_local"),
    [
        ({}, True),
        ({"peer": "127.9.9.9", "host": "localhost"}, True),
        ({"peer": "::1", "host": "[::1]:8000"}, True),
        ({"host": "waypost.localhost:8000"}, True),
        ({"peer": "192.0.2.1"}, False),
        ({"host": "waypost.example"}, False),
        ({"host": "192.0.2.1:8000"}, False),
        ({"host": ""}, False),
        ({"host": "127.0.0.1.example"}, False),
        ({"host": "[::1"}, False),
        ({"x_forwarded_for": "127.0.0.1"}, False),
        ({"forwarded": "for=127.0.0.1"}, False),
        ({"via": "1.1 proxy"}, False),
    ],
)
def test_who_is_of_this_machine(given: dict[str, str], is_local: bool) -> None:
    assert credentials_of(visit(**given)).is_local is is_local


def test_without_an_address_nobody_is_of_this_machine() -> None:
    connection = visit()
    connection.scope["client"] = None
    assert not credentials_of(connection).is_local


@pytest.mark.parametrize(
    ("settings", "host", "origin", "may"),
    [
        (OURS, "wp.example", None, True),
        (OURS, "wp.example", "http://wp.example", True),
        (OURS, "wp.example", "https://wp.example", True),  # a proxy before us may end TLS
        (OURS, "WP.example:8443", "https://wp.example:8443", True),
        (OURS, "wp.example", "https://wp.example:8443", False),
        (OURS, "wp.example", "https://other.example", False),
        (OURS, "wp.example", "null", False),
        (OURS, "wp.example", "", False),
        (OURS, "", "", False),
        (OURS, "127.0.0.1:8000", "http://127.0.0.1:3000", False),
        (replace(OURS, origins="https://app.example"), "wp.example", "https://app.example", True),
        (replace(OURS, origins="https://app.example"), "wp.example", "https://APP.example", True),
        (replace(OURS, origins="https://app.example:443"), "wp.example", "https://app.example", True),
        (replace(OURS, origins="https://app.example"), "wp.example", "https://app.example.evil", False),
        (replace(OURS, origins="https://app.example"), "wp.example", "https://wp.example", True),
        (replace(OURS, origins="*"), "wp.example", "https://other.example", True),
        (replace(OURS, origins="*"), "wp.example", "null", True),
        (DEV, "127.0.0.1:8000", "http://127.0.0.1:3000", True),
        (DEV, "127.0.0.1:8000", "http://localhost:3000", True),
        (DEV, "192.0.2.1:8000", "http://192.0.2.1:8000", True),
        (DEV, "192.0.2.1:8000", "http://192.0.2.2:8000", False),
        (DEV, "rebound.example", "http://rebound.example", False),
        (DEV, "rebound.example:8000", None, False),  # a page of that name that only looks sends no `Origin`
        (DEV, "127.0.0.1.rebound.example", None, False),
        (DEV, "waypost:8000", None, True),  # a container
        (DEV, "waypost.localhost", None, True),
        (DEV, "[::1]:8000", None, True),
        (replace(DEV, origins="http://wp.example"), "wp.example", None, True),
        (replace(DEV, url="http://wp.example:8000"), "wp.example:8000", None, True),
        (DEV, "127.0.0.1:8000", "http://a.example", False),
        (DEV, "127.0.0.1:8000", "http://[::1", False),
        (replace(DEV, origins="http://a.example"), "127.0.0.1:8000", "http://a.example", True),
    ],
)
def test_which_pages_may(settings: Settings, host: str, origin: str | None, may: bool) -> None:
    connection = visit(host=host) if origin is None else visit(host=host, origin=origin)
    if may:
        check_origin(connection, settings)
        return
    with pytest.raises(WaypostError) as caught:
        check_origin(connection, settings)
    assert caught.value.code == "forbidden"
