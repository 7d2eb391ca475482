"""Answers over HTTP, and refusals: `application/problem+json` (RFC 9457) with the codes of the wire."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.reading import declared_length, is_read
from service.core.problems import problem_of
from service.errors import ERRORS, WaypostError
from service.log import Log

Handler = Callable[[Request], Awaitable[Response]]

# A client that is cut off while it sends never reads the answer: so much longer, and so much of it, is let come.
LINGER_S = 2.0
LINGER_BYTES = 4_194_304
# What a caller may see ends with a membership, and bodies are taken away: nobody in between keeps a copy.
NO_STORE = {"cache-control": "no-store"}

log = Log("api")


class Lingering(Response):
    """The last answer of a connection: what the client still sends is read for a while and thrown away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers at once, and ends the connection when the body has come, or enough of it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def answer(body: msgspec.Struct, status: int = 200) -> Response:
    """A Struct as the answer."""
    return Response(msgspec.json.encode(body), status, NO_STORE, "application/json")


def empty(status: int) -> Response:
    """An answer that says nothing but its status."""
    return Response(None, status, NO_STORE)


def refusal(problem: WaypostError, *, is_last: bool = False) -> Response:
    """How a refusal is told over HTTP. `is_last`: the connection ends with it."""
    body = problem_of(problem)
    headers = dict(NO_STORE)
    if problem.retry_after is not None:
        headers["retry-after"] = str(max(1, -int(-problem.retry_after // 1)))  # whole seconds, and no sooner
    if body.status == 401:
        headers["www-authenticate"] = "Bearer"
    if is_last:
        headers["connection"] = "close"
    kind = Lingering if is_last else Response
    return kind(msgspec.json.encode(body), body.status, headers, "application/problem+json")


def count(request: Request, code: str) -> None:
    """An error is told to who asks."""
    node = getattr(request.app.state, "node", None)
    if node is not None:
        node.numbers.error(code)


def no_route(request: Request, problem: Exception) -> Response:
    """What the router refuses: a path that nothing is at, or another method than its own."""
    is_method = isinstance(problem, HTTPException) and problem.status_code == 405
    code = "method_not_allowed" if is_method else "no_path"
    count(request, code)
    told = refusal(WaypostError(code))
    if isinstance(problem, HTTPException) and problem.headers:
        told.headers.update(problem.headers)  # `allow`
    return told


def telling(handler: Handler) -> Handler:
    """The handler, with what it raises told as a problem."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except WaypostError as problem:
            count(request, problem.code)
            log_refusal(problem)
            return refusal(problem, is_last=_has_more_to_come(request))
        except Exception as error:  # noqa: BLE001 - a bug: the client is told that it is ours
            log.error("request_failed", traceback=error)
            count(request, "internal")
            return refusal(WaypostError("internal"), is_last=_has_more_to_come(request))

    return handle


def log_refusal(problem: WaypostError) -> None:
    """What is the caller's fault interests who looks for it; what is ours interests operators."""
    status = ERRORS[problem.code].http
    if status >= 500:
        log.warning("request_refused", code=problem.code, status=status)
    else:
        log.debug("request_refused", code=problem.code, status=status)


def _has_more_to_come(request: Request) -> bool:
    """Whether nobody knows how much the client still sends, or it is more than is read for the next request's sake."""
    if is_read(request):
        return False
    # Who waits to be asked for the body sends it, or another request: nobody could tell which.
    is_unclear = "transfer-encoding" in request.headers or "expect" in request.headers
    return is_unclear or declared_length(request) > request.app.state.settings.limits.frame_bytes
