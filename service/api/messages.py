"""Messages: sending one, looking into the history of a stream, and taking one away."""

import re

from starlette.requests import Request
from starlette.responses import Response

from service.api import histories
from service.api.bodies import NewMessage, Redaction, Sent
from service.api.caller import caller, node_of
from service.api.problems import answer
from service.api.reading import Query, body_of, reason_of
from service.auth import Principal, check_may, may_act_for
from service.core.bodies import check_body
from service.core.frames import KEY_LENGTH_MAX
from service.core.names import check_name, parse_id, parse_stream, user_stream
from service.errors import WaypostError
from service.inspection import noted

_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*)"')  # of a structured header, as the draft of Idempotency-Key has it


async def post(request: Request) -> Response:
    """`POST /v1/messages`: sends a message. 201 when it is stored, 200 when it was before."""
    principal, node = await caller(request), node_of(request)
    limits = node.settings.limits
    given = await body_of(request, NewMessage, most=limits.frame_bytes)
    kind, _ = parse_stream(given.to)
    sender = _sender(principal, given.from_)
    key = _key(request, given.key)
    body = check_body(bytes(given.body), limits)
    why = "sending to all needs the claim `broadcast`" if kind == "all" else "this sign-in may not send"
    check_may(principal, "send", given.to, why)
    try:
        message, outcome = await node.sends.post(sender, given.to, body, key, is_system=bool(principal.key))
    except WaypostError as problem:
        raise _as_told(problem, principal, key) from problem
    if principal.key or kind != "user":
        stream, entry = given.to, outcome.recipient_id
    else:  # the numbers of another person's inbox are shown to nobody
        stream, entry = user_stream(sender), outcome.id
    sent = Sent(stream, str(entry), message.mid, outcome.durability, outcome.is_duplicate)
    return answer(sent, 200 if outcome.is_duplicate else 201)


def _sender(principal: Principal, said: str | None) -> str:
    """Whose message it is. Raises `bad_request`, `bad_name`, `not_allowed`."""
    if said is None and not principal.user:
        raise WaypostError("bad_request", "a server key must say who sends: `from`")
    sender = principal.user if said is None else check_name(said)
    if not may_act_for(principal, sender):
        raise WaypostError("not_allowed", "`from` may only name the user who is signed in")
    if principal.user not in ("", sender):
        raise WaypostError("bad_request", "`from` and ?user= name different users")
    return sender


def _key(request: Request, in_body: str | None) -> str | None:
    """The key of a message, from its body or the header `Idempotency-Key`. Raises `bad_request`."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return in_body
    if len(given) > 1:
        raise WaypostError("bad_request", "Idempotency-Key is given twice")
    key = given[0].strip()
    if key.startswith('"'):
        string = _STRING.fullmatch(key)
        if string is None:
            raise WaypostError("bad_request", "Idempotency-Key begins like a string, and is none")
        key = re.sub(r"\\(.)", r"\1", string[1])
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isascii() or not key.isprintable():
        raise WaypostError("bad_request", f"Idempotency-Key is to have 1 to {KEY_LENGTH_MAX} characters of ASCII")
    if in_body not in (None, key):
        raise WaypostError("bad_request", "`key` and Idempotency-Key differ")
    return key


def _as_told(problem: WaypostError, principal: Principal, key: str | None) -> WaypostError:
    if problem.code == "no_group" and not principal.key:
        return WaypostError("not_member")
    if problem.code == "uncertain":  # with a key it is harmless twice
        return WaypostError("uncertain", retry=key is not None)
    return problem


async def read(request: Request) -> Response:
    """`GET /v1/streams/{stream}/messages`: history, the messages around an anchor, oldest first."""
    principal, stream = await caller(request), request.path_params["stream"]
    check_may(principal, "read", stream, "an inbox is its owner's alone")
    if not principal.key:
        node_of(request).rates.count("histories", principal.user)
    return await histories.page_of(
        request, "/v1/streams/{}/messages", stream, None if principal.key else principal.user
    )


async def redact(request: Request) -> Response:
    """`DELETE /v1/streams/{stream}/messages/{id}`: takes away the body of a message, everywhere."""
    principal, stream = await caller(request), request.path_params["stream"]
    check_may(principal, "redact", stream, "an inbox is its owner's alone")
    target = parse_id(request.path_params["id"])
    by = f"key:{principal.key}" if principal.key else principal.user
    node = node_of(request)
    if principal.key:  # who redacts their own is no operator
        async with noted(node.store, by, "redact", f"{stream} {target}", reason_of(Query(request))):
            is_new, told = await node.histories.redact(by, stream, target, is_system=True)
    else:
        is_new, told = await node.histories.redact(by, stream, target)
    return answer(Redaction(stream, str(target), not is_new, None if told is None else str(told)))
