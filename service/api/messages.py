"""`/v1/streams/{stream}/messages`: looking into the history of a stream, and taking a message away."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from service.auth import Principal, may, sign_in
from service.core import frames
from service.core.anchors import parse_anchor
from service.core.history import History, ask
from service.core.names import parse_id
from service.errors import WaypostError
from service.node.history import history_frame

_DIGITS_MAX = 20  # of a number; those that no stream reaches are all alike


class Messages(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of history, with what `history` says on the wire. `next`, `prev`: where to go on, null at the ends."""

    stream: str
    messages: tuple[Raw, ...]
    floor: str
    head: str
    found_oldest: bool
    found_newest: bool
    gaps: tuple[frames.Gap, ...]
    looked_at: int
    next: str | None
    prev: str | None
    first: str | None = None
    last: str | None = None


class Redaction(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message was taken away: `id` is the `redacted` entry's, absent when it was taken away before, or lies
    beyond the caller's membership.
    """

    stream: str
    target: str
    duplicate: bool
    id: str | None = None


async def read(request: Request) -> Response:
    """`GET`: messages around an anchor, oldest first."""
    principal, stream = _caller(request), request.path_params["stream"]
    if not may(principal, "read", stream):
        raise WaypostError("not_allowed", "an inbox is its owner's alone")
    query = request.query_params
    anchor = parse_anchor(*(_anchor(query.get(side)) for side in ("after", "before", "around")))
    question = ask(stream, principal.user, anchor, _limit(query.get("limit")), query.get("with"))
    found = await request.app.state.node.histories.read(principal.user, question)
    told = history_frame(stream, found)
    values = {name: getattr(told, name) for name in told.__struct_fields__ if name != "ref"}
    kept = ("with", "limit", *(("user",) if request.app.state.settings.dev else ()))  # a token is in no link
    said = {name: query[name] for name in kept if name in query}
    return _json(Messages(**values, next=_next(stream, said, found), prev=_prev(stream, said, found)))


async def redact(request: Request) -> Response:
    """`DELETE`: the body of one's own message is taken away everywhere."""
    principal, stream = _caller(request), request.path_params["stream"]
    if not may(principal, "redact", stream):
        raise WaypostError("not_allowed", "an inbox is its owner's alone")
    target = parse_id(request.path_params["id"])
    is_new, told = await request.app.state.node.histories.redact(principal.user, stream, target)
    return _json(Redaction(stream, str(target), not is_new, None if told is None else str(told)))


def _caller(request: Request) -> Principal:
    return sign_in(request.query_params, request.headers.get("authorization"), request.app.state.settings)


def _json(answer: msgspec.Struct) -> Response:
    # What a caller may see ends with a membership, and bodies are taken away: nobody in between keeps a copy.
    return Response(msgspec.json.encode(answer), 200, {"cache-control": "no-store"}, "application/json")


def _anchor(text: str | None) -> int | str | None:
    """An anchor of a query: digits are a number. A `+` that was not escaped has come as a blank."""
    if text is not None and text.isascii() and text.isdigit():
        return int(text) if len(text) <= _DIGITS_MAX else 10**_DIGITS_MAX
    if text is not None and len(text) > 6 and text[-6] == " ":
        return f"{text[:-6]}+{text[-5:]}"
    return text


def _limit(text: str | None) -> int:
    if text is None:
        return frames.HISTORY_LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise WaypostError("bad_request", "limit is to be a number")
    return int(text)


def _next(stream: str, said: Mapping[str, str], found: History) -> str | None:
    """Where what comes after is found, None when nothing does. Where no entry is shown, a number says it: nobody knows
    the id of what lies in a gap.
    """
    if found.found_newest:
        return None
    is_shown = found.entries and found.entries[-1].id == found.last
    return _link(stream, said, "after", str(found.last if is_shown else found.high.n))


def _prev(stream: str, said: Mapping[str, str], found: History) -> str | None:
    """Where what comes before is found, in the same way."""
    if found.found_oldest:
        return None
    is_shown = found.entries and found.entries[0].id == found.first
    return _link(stream, said, "before", str(found.first if is_shown else found.low.n + 1))


def _link(stream: str, said: Mapping[str, str], side: str, anchor: str) -> str:
    return f"/v1/streams/{quote(stream, safe=':')}/messages?{urlencode({side: anchor, **said}, safe=':')}"
