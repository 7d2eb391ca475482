"""Whether this process lives, and whether it should get connections."""

from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import Health
from service.api.caller import node_of
from service.api.problems import answer


async def livez(_request: Request) -> Response:
    """`GET /livez`: alive, while the loop turns: restart the process when this does not answer, and only then."""
    return answer(Health("alive"))


async def readyz(request: Request) -> Response:
    """`GET /readyz`: 200 when this node should get connections, else 503 with the reasons.

    Open connections stay either way.
    """
    reasons = node_of(request).not_ready()
    return answer(Health("not ready" if reasons else "ready", reasons), 503 if reasons else 200)
