"""Headers that tell browsers to make nothing of an answer but what it is, on every answer over HTTP."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# An answer may bring its own: a page that is meant to be shown says what it needs.
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
)
# A year. Without subdomains: they may be somebody else's business.
HSTS = (b"strict-transport-security", b"max-age=31536000")


class SecurityHeaders:
    """Around an ASGI application. HSTS is said where the client came by TLS: to us, or to a proxy that we trust."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, and adds to the beginning of an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = (*HEADERS, HSTS) if scope["scheme"] == "https" else HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added:
                    headers.setdefault(name.decode(), value.decode())
            await send(message)

        await self._app(scope, receive, send_with_headers)
