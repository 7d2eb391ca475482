"""What a request says: parameters of its query, and a JSON body, bounded before it is read."""

import asyncio
import json
import re
from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from starlette.requests import ClientDisconnect, Request

from service.auth import given_once
from service.errors import WaypostError

Body = TypeVar("Body", bound=msgspec.Struct)

LIMIT_DEFAULT = 100  # rows of a page, where the caller does not say
LIMIT_MAX = 200  # as many as a page of a stream
REASON_LENGTH_MAX = 300  # characters: a sentence or two
BODY_S = 30.0  # for a body to come: of what a request may say, a slow phone needs a few seconds
DIGITS_MAX = 20  # of a number; those that nothing reaches are all alike

# What msgspec repeats of what was given. A refusal may end up in a log, and what was given may be anything.
_GIVEN = re.compile(r"Invalid enum value (?:'.*'|-?\d+)", re.DOTALL)


class Query:
    """The parameters of a request's query, of which each may be given once; others than those asked for are ignored."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def text(self, name: str) -> str | None:
        """A parameter, None when it is not there. Raises `bad_request` when it is there twice."""
        return given_once(self._request, name)

    def limit(self, default: int = LIMIT_DEFAULT) -> int:
        """How many rows are wanted at most. Raises `bad_request` unless that is 1 to 200."""
        text = self.text("limit")
        if text is None:
            return default
        if not is_number(text):
            raise WaypostError("bad_request", "limit is to be a number")
        if not 1 <= int(text) <= LIMIT_MAX:
            raise WaypostError("bad_request", f"limit is to be from 1 to {LIMIT_MAX}")
        return int(text)

    def anchor(self, name: str) -> int | str | None:
        """An anchor in a stream: digits are a number. A `+` that was not escaped has come as a blank."""
        text = self.text(name)
        if text is not None and text.isascii() and text.isdigit():
            return int(text) if len(text) <= DIGITS_MAX else 10**DIGITS_MAX
        if text is not None and len(text) > 6 and text[-6] == " ":
            return f"{text[:-6]}+{text[-5:]}"
        return text

    def kept(self, names: Iterable[str]) -> dict[str, str]:
        """Those of these parameters that were given, and `user`: for links. A token is in no link."""
        given = self._request.query_params
        return {name: given[name] for name in (*names, "user") if name in given}


def reason_of(query: Query) -> str:
    """Why an operator does something, for the audit. Raises `bad_request` for what is no line of text."""
    text = query.text("reason") or ""
    if len(text) > REASON_LENGTH_MAX or not text.isprintable():
        raise WaypostError("bad_request", f"reason is to be a line of at most {REASON_LENGTH_MAX} characters")
    return text


def is_number(text: str) -> bool:
    """Whether this is a number, of a length that can be read."""
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX


def link(path: str, **query: str) -> str:
    """A path with a query, for `next` and `prev`."""
    return f"{path}?{urlencode(query, safe=':')}"


async def body_of(request: Request, kind: type[Body], *, most: int, may_be_empty: bool = False) -> Body:
    """The body of a request, whatever its `Content-Type` says, of at most `most` bytes.

    `may_be_empty`: nothing counts as `{}`. Raises `too_large`, before reading where the length is told, `bad_request`.
    """
    data = await _read(request, most)
    if not data and may_be_empty:
        data = b"{}"
    if not data:
        raise WaypostError("bad_request", "the request needs a body, a JSON object")
    return parse(data, kind)


async def _read(request: Request, most: int) -> bytes:
    if declared_length(request) > most:
        raise WaypostError("too_large", f"the body may have {most} bytes")
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise WaypostError("too_large", f"the body may have {most} bytes")
                parts.append(part)
    except (ClientDisconnect, TimeoutError) as gone:
        raise WaypostError("bad_request", f"the body did not come to its end within {BODY_S:g} s") from gone
    request.state.is_read = True
    return b"".join(parts)


def is_read(request: Request) -> bool:
    """Whether the body has come to its end here."""
    return getattr(request.state, "is_read", False)


def declared_length(request: Request) -> int:
    """How long the body is said to be, in bytes; 0 when nothing is said."""
    said = request.headers.get("content-length", "")
    return int(said) if is_number(said) else 0


def parse(data: bytes, kind: type[Body]) -> Body:
    """The JSON of a body as a Struct. Raises `bad_request`, with the place of what is wrong, not what stands there."""
    try:
        data.decode()  # msgspec does not look into what it keeps as it is
    except UnicodeDecodeError:
        raise WaypostError("bad_request", "the body is not UTF-8") from None
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as problem:
        raise WaypostError("bad_request", _GIVEN.sub("None of the values there are", str(problem))) from problem
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        if _is_json(data):
            raise WaypostError("bad_request", "a string in the body holds half of a surrogate pair") from problem
        raise WaypostError("bad_request", f"the body is not JSON that can be read: {problem}") from problem
    except RecursionError:
        raise WaypostError("bad_request", "the body nests too deep") from None


def _is_json(data: bytes) -> bool:
    """Whether it is JSON all the same: half of a surrogate pair, which JavaScript can send, has no UTF-8."""
    try:
        json.loads(data.decode(), parse_constant=_refuse, parse_int=len)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
