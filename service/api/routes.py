"""The table of HTTP routes."""

from starlette.routing import BaseRoute, Route

from service.api import health, messages
from service.api.problems import telling

ROUTES: list[BaseRoute] = [
    Route("/livez", health.livez),
    Route("/readyz", health.readyz),
    Route("/v1/streams/{stream}/messages", telling(messages.read), methods=["GET"]),
    Route("/v1/streams/{stream}/messages/{id}", telling(messages.redact), methods=["DELETE"]),
]
