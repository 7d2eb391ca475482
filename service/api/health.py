"""Whether this process lives, and whether it should get connections."""

from starlette.requests import Request
from starlette.responses import JSONResponse


async def livez(_request: Request) -> JSONResponse:
    """200 while the loop turns: restart the process when this does not answer, and only then."""
    return JSONResponse({"status": "alive"})


async def readyz(request: Request) -> JSONResponse:
    """200 when this node should get connections, else 503 with the reasons. Open connections stay either way."""
    reasons = request.app.state.node.not_ready()
    return JSONResponse(
        {"status": "not ready" if reasons else "ready", "reasons": reasons}, status_code=503 if reasons else 200
    )
