"""The table of HTTP routes."""

from starlette.routing import BaseRoute, Route

from service.api import health

ROUTES: list[BaseRoute] = [
    Route("/livez", health.livez),
    Route("/readyz", health.readyz),
]
