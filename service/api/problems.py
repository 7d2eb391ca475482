"""Refusals over HTTP: `application/problem+json` (RFC 9457) with the codes of the wire."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import ERRORS, WaypostError
from service.log import Log

Handler = Callable[[Request], Awaitable[Response]]

log = Log("api")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a refusal. Decide by `code`; `retry`: the same request may work later."""

    code: str
    title: str
    status: int
    detail: str
    retry: bool
    retry_after: float | None = None  # seconds, where known


def refusal(problem: WaypostError) -> Response:
    """How a refusal is told over HTTP."""
    row = ERRORS[problem.code]
    body = Problem(problem.code, row.text, row.http, problem.detail, problem.retry, problem.retry_after)
    headers = {} if problem.retry_after is None else {"retry-after": str(max(1, round(problem.retry_after)))}
    if row.http == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), row.http, headers, "application/problem+json")


def no_route(_request: Request, problem: Exception) -> Response:
    """What the router refuses: a path that nothing is at, or another method than its own."""
    is_method = isinstance(problem, HTTPException) and problem.status_code == 405
    answer = refusal(WaypostError("method_not_allowed" if is_method else "no_path"))
    if isinstance(problem, HTTPException) and problem.headers:
        answer.headers.update(problem.headers)  # `allow`
    return answer


def telling(handler: Handler) -> Handler:
    """The handler, with what it raises told as a problem."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except WaypostError as problem:
            return refusal(problem)
        except Exception as error:  # noqa: BLE001 - a bug: the client is told that it is ours
            log.error("request_failed", traceback=error)
            return refusal(WaypostError("internal"))

    return handle
