"""The table of HTTP routes: each path once, with what answers each of its methods."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api import admin, groups, health, messages, streams
from service.api.problems import Handler, telling


def at(path: str, **handlers: Handler) -> Route:
    """A path, and the handlers of its methods. HEAD is answered as GET is, without a body."""

    async def answer(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, telling(answer), methods=list(handlers))


ROUTES: list[Route] = [
    at("/livez", GET=health.livez),
    at("/readyz", GET=health.readyz),
    at("/v1/messages", POST=messages.post),
    at("/v1/streams", GET=streams.listed),
    at("/v1/streams/{stream}/messages", GET=messages.read),
    at("/v1/streams/{stream}/messages/{id}", DELETE=messages.redact),
    at("/v1/devices/{device}/offsets", PUT=streams.acknowledge),
    at("/v1/groups/{group}", GET=groups.look, PUT=groups.configure, DELETE=groups.delete),
    at("/v1/groups/{group}/members", GET=groups.members),
    at("/v1/groups/{group}/members/{user}", GET=groups.member, PUT=groups.put_in, DELETE=groups.take_out),
    at("/v1/admin/nodes", GET=admin.nodes),
    at("/v1/admin/streams", GET=admin.streams),
    at("/v1/admin/streams/{stream}", GET=admin.stream),
    at("/v1/admin/streams/{stream}/entries", GET=admin.entries),
    at("/v1/admin/users/{user}/connections", DELETE=admin.disconnect),
]
