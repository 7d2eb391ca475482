"""What a route is, as the table says it: handler, parameters, body, answers and refusals. `openapi.py` tells it on."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.problems import Handler, telling
from service.api.reading import LIMIT_DEFAULT, LIMIT_MAX, REASON_LENGTH_MAX
from service.core.frames import DEVICE_DEFAULT, HISTORY_LIMIT_DEFAULT, KEY_LENGTH_MAX
from service.core.names import NAME_LENGTH_MAX
from service.errors import ERRORS
from service.inspection import ORDERS

Schema: TypeAlias = dict[str, Any]
Said: TypeAlias = type[msgspec.Struct] | str | None  # JSON of a Struct, something of a media type, or nothing

ANYWHERE = frozenset({"internal"})
SIGNED_IN = frozenset({"unauthorised", "expired", "forbidden", "rate_limited", "unavailable"})
WITH_A_BODY = frozenset({"bad_request", "too_large"})
WITH_A_QUERY = frozenset({"bad_request"})
WITH_NAMES_IN_THE_PATH = frozenset({"bad_name", "no_path"})  # the latter for what holds a slash

NAME: Schema = {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX, "pattern": r"^[^/\s]+$"}
ID: Schema = {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})$"}
STREAM: Schema = {
    "type": "string",
    "maxLength": NAME_LENGTH_MAX + len("group:"),
    "pattern": r"^(all|(user|group):[^/\s]+)$",
}


class Parameter(NamedTuple):
    """Something that a request may say beside its body. `place`: `path`, `query` or `header`."""

    place: str
    name: str
    description: str
    schema: Schema


IN_PATHS = {
    "stream": Parameter("path", "stream", "`user:<id>`, `group:<id>` or `all`", STREAM),
    "id": Parameter("path", "id", "An entry id, `<ms>-<n>`", ID),
    "device": Parameter("path", "device", "The name of a device", NAME),
    "group": Parameter("path", "group", "The name of a group", NAME),
    "user": Parameter("path", "user", "The name of a user", NAME),
    "file": Parameter("path", "file", "The name of a file", {"type": "string", "minLength": 1}),
}


def limited(default: int) -> Parameter:
    """`limit`, where a page has `default` rows unless it says otherwise."""
    bounds: Schema = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": default}
    return Parameter("query", "limit", "How many rows at most", bounds)


ANCHOR: Schema = {"type": "string", "minLength": 1}
PAGES = (
    limited(LIMIT_DEFAULT),
    Parameter("query", "after", "Where the page before ended: follow `next`, do not build it", {"type": "string"}),
)
HISTORY = (
    Parameter("query", "after", "Everything above this number, entry id or RFC 3339 time", ANCHOR),
    Parameter("query", "before", "What lies below this number, entry id or time", ANCHOR),
    Parameter("query", "around", "Half from below this number, entry id or time, the rest from it on", ANCHOR),
    limited(HISTORY_LIMIT_DEFAULT),
    Parameter("query", "with", "In the own inbox: only the messages between its owner and this user", NAME),
)
DEVICE = Parameter("query", "device", f"A device; else the token's, else `{DEVICE_DEFAULT}`", NAME)
ONLY_DEVICE = Parameter("query", "device", "Only this device", NAME)
KIND = Parameter("query", "kind", "Only streams of this kind", {"enum": ["user", "group", "all"]})
ONLY_STREAM = Parameter("query", "stream", "Only this stream", STREAM)
PART = Parameter("query", "part", "Only streams with this in their name", {"type": "string"})
FACTS = Parameter("query", "facts", "1: with how each stands, `rows`", {"enum": ["0", "1"], "default": "0"})
SORT = Parameter("query", "sort", "What the foremost streams are ordered by", {"enum": list(ORDERS), "default": "lag"})
REASON = Parameter("query", "reason", "Why, for the audit", {"type": "string", "maxLength": REASON_LENGTH_MAX})
WHAT = (
    Parameter("query", "stream", "The stream of the message", STREAM),
    Parameter("query", "id", "Its entry id", ID),
    Parameter("query", "user", "Whose devices are asked about", NAME),
)
BOOKMARK = "A bookmark: the `id` of the last event that this client has"
LAST_EVENT = (
    Parameter("header", "Last-Event-ID", BOOKMARK, {"type": "string"}),
    Parameter("query", "last_event_id", f"{BOOKMARK}, for who cannot set the header", {"type": "string"}),
)
KEY = Parameter(
    "header",
    "Idempotency-Key",
    "The same as `key` of the body, with or without the quotes of a structured header; both must agree",
    {"type": "string", "minLength": 1, "maxLength": 2 * KEY_LENGTH_MAX + 2, "pattern": r"^[\x20-\x7e]+$"},
)


class Operation(NamedTuple):
    """One method of one path. `answers`: status → what it says; `refuses`: the codes of all refusals it can give."""

    handler: Handler
    answers: Mapping[int, Said]
    refuses: frozenset[str]
    parameters: tuple[Parameter, ...]
    body: type[msgspec.Struct] | None
    is_body_optional: bool
    is_open: bool
    takes_cookie: bool


def does(
    handler: Handler,
    answers: Mapping[int, Said],
    refuses: str = "",
    *,
    takes: tuple[Parameter, ...] = (),
    body: type[msgspec.Struct] | None = None,
    is_body_optional: bool = False,
    is_open: bool = False,
    takes_cookie: bool = False,
) -> Operation:
    """An operation. `refuses`: codes beside those that come with a sign-in, a query, a body, or names in the path.

    `is_open`: nobody has to sign in. `takes_cookie`: pages of our own origin may do so by cookie.
    """
    codes = ANYWHERE | frozenset(refuses.split())
    if not is_open:
        codes |= SIGNED_IN
    if body is not None:
        codes |= WITH_A_BODY
    if takes:
        codes |= WITH_A_QUERY
    unknown = codes - ERRORS.keys()
    assert not unknown, f"no codes of service/errors.py: {unknown}"
    return Operation(handler, answers, codes, takes, body, is_body_optional, is_open, takes_cookie)


class Described(Route):
    """A path with its operations, by method."""

    def __init__(self, path: str, handler: Handler, operations: Mapping[str, Operation]) -> None:
        super().__init__(path, handler, methods=list(operations))
        names = tuple(IN_PATHS[name] for name in self.param_convertors)
        codes = WITH_NAMES_IN_THE_PATH if names else frozenset()
        self.operations = {
            method: one._replace(parameters=names + one.parameters, refuses=one.refuses | codes)
            for method, one in operations.items()
        }


def at(path: str, **operations: Operation) -> Described:
    """A path, and what its methods do. HEAD is answered as GET is, without a body."""

    async def answer(request: Request) -> Response:
        return await operations["GET" if request.method == "HEAD" else request.method].handler(request)

    return Described(path, telling(answer), operations)
