"""Reading requests: bodies bounded and typed, queries, and links that can be followed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from starlette.requests import Request

from service.api import reading
from service.api.bodies import ANSWERS, REQUESTS, NewMember, NewMessage, Offsets
from service.api.reading import Query, body_of, link, parse
from service.errors import WaypostError

Receive = Callable[[], Awaitable[dict[str, Any]]]


def request(parts: Iterable[bytes], *, query: str = "", ends: bool = True, **headers: str) -> Request:
    """A request whose body comes in these parts; without `ends` no more comes, ever."""
    coming = list(parts)

    async def receive() -> dict[str, Any]:
        if coming:
            part = coming.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(coming) or not ends}
        await asyncio.Event().wait()
        raise AssertionError

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": query.encode(), "headers": named}
    return Request(scope, receive)


async def refused(request: Request, code: str, *, most: int = 1000) -> str:
    with pytest.raises(WaypostError) as refusal:
        await body_of(request, Offsets, most=most)
    assert refusal.value.code == code
    return refusal.value.detail


@pytest.mark.anyio
async def test_a_body_in_parts_is_read_to_its_limit_and_no_further() -> None:
    text = b'{"offsets":{"all":"1-1"}}'
    parts = [text[at : at + 1] for at in range(len(text))]
    asked = request(parts)
    assert await body_of(asked, Offsets, most=len(text)) == Offsets({"all": "1-1"})
    assert reading.is_read(asked)
    asked = request([b"x"] * 11, ends=False)
    assert await refused(asked, "too_large", most=10) == "the body may have 10 bytes"
    assert not reading.is_read(asked)


@pytest.mark.anyio
async def test_what_says_that_it_is_too_long_is_not_read() -> None:
    await refused(request([], ends=False, content_length="1001"), "too_large")
    await refused(request([], ends=False, content_length="9" * 20), "too_large")


@pytest.mark.anyio
async def test_nobody_waits_for_a_body_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BODY_S", 0.05)
    begun = time.monotonic()
    await refused(request([b"{"], ends=False), "bad_request")
    assert time.monotonic() - begun < 5


@pytest.mark.anyio
async def test_nothing_counts_as_an_object_where_all_of_it_may_be_left_out() -> None:
    assert await body_of(request([b""]), NewMember, most=10, may_be_empty=True) == NewMember()
    assert "JSON object" in await refused(request([b""]), "bad_request")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"role":"secret value"}', NewMember),
        (b'{"to":"secret value","body":1,"key":7}', NewMessage),
        (b'{"offsets":{"secret value":7}}', Offsets),
        (b'"secret value', Offsets),
        (b'{"secret value":\xff}', Offsets),
        (b'{"role":"secret\\nvalue"}', NewMember),
    ],
)
def test_a_refusal_says_where_and_not_what(data: bytes, kind: type[Any]) -> None:
    with pytest.raises(WaypostError) as refusal:
        parse(data, kind)
    assert refusal.value.code == "bad_request"
    assert "secret" not in refusal.value.detail
    assert "value" not in refusal.value.detail.replace("values there are", "")


def test_a_body_stays_as_it_was_sent() -> None:
    given = parse(b'{ "body" : [1.50, "\\u00fc" ] , "to":"all","later":1 }', NewMessage)
    assert bytes(given.body) == b'[1.50, "\\u00fc" ]'


@pytest.mark.parametrize(
    ("query", "limit"), [("", 100), ("limit=1", 1), ("limit=200", 200), ("limit=007", 7), ("limit=0", None)]
)
def test_limits(query: str, limit: int | None) -> None:
    asked = Query(request([], query=query))
    if limit is not None:
        assert asked.limit() == limit
    else:
        with pytest.raises(WaypostError):
            asked.limit()


@pytest.mark.parametrize("spelt", ["", "1.5", "-1", "²", "٣", "0x10", "1_0", "9" * 21, "9" * 5000])
def test_limits_that_are_none(spelt: str) -> None:
    with pytest.raises(WaypostError):
        Query(request([], query=f"limit={spelt}".encode().decode("latin-1"))).limit()


def test_links_keep_what_was_asked_and_no_token() -> None:
    asked = Query(request([], query="token=secret&user=a&limit=5&other=1&with=b%26c"))
    assert link("/v1/x", after="1-1", **asked.kept(("with", "limit"))) == "/v1/x?after=1-1&with=b%26c&limit=5&user=a"


def test_every_body_says_what_it_is() -> None:
    for kind in (*REQUESTS, *ANSWERS):
        assert kind.__doc__, f"say what {kind.__name__} is"
        assert not kind.__doc__.startswith(kind.__name__ + "("), f"say what {kind.__name__} is"
