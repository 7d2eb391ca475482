"""Requests have ids: taken from who sent them where one is sane, else made; answered, and on every log line below.

An upgrade to a WebSocket is a request too. Nothing is said of what was asked for but the path of the route: a path and
a query may hold names, and what somebody took for a token.
"""

import re
import secrets
import time

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.log import Log, bound

log = Log("requests")

NAME = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._-]{1,64}")
NO_ROUTE = "-"


def request_id(scope: Scope) -> str:
    """The id that a request came with, where there is one and it is sane; else a new one."""
    given = [value for name, value in scope["headers"] if name == NAME]
    if len(given) == 1 and _SANE.fullmatch(given[0]):
        return str(given[0], "ascii")
    return secrets.token_hex(8)


def _route(scope: Scope) -> str:
    route: BaseRoute | None = scope.get("route")
    return str(getattr(route, "path", NO_ROUTE))


class Requests:
    """Around an ASGI application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, with the id in the context; and logs how it went, where that is of interest."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        name = request_id(scope)
        header = NAME, name.encode()
        begun = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept"):
                message["headers"] = [*message.get("headers", ()), header]
                status = message.get("status", 101)
            await send(message)

        with bound(request=name):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                if scope["type"] == "http" and log.is_chatty:
                    took_ms = round((time.monotonic() - begun) * 1000, 3)
                    log.debug("request", method=scope["method"], route=_route(scope), status=status, took_ms=took_ms)
