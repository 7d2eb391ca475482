"""CORS: pages of other origins may ask, where the setting `origins` names them."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from service.api.problems import empty, refusal
from service.errors import WaypostError

METHODS = ("GET", "POST", "PUT", "DELETE")
HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")


class CrossOrigin(CORSMiddleware):
    """Starlette's, with a refusal like all others."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """What a browser is told that asks whether a page may."""
        answer = super().preflight_response(request_headers)
        if answer.status_code != 200:
            told = refusal(WaypostError("forbidden", "this page, method or header may not: see the setting origins"))
            told.headers["vary"] = "Origin"
            return told
        told = empty(204)
        told.headers.update({name: value for name, value in answer.headers.items() if not name.startswith("content-")})
        return told


def cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """The middleware for these origins (`*`: any), none where there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CrossOrigin,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=HEADERS,
            expose_headers=("Retry-After", "X-Request-Id"),
        )
    ]
