"""python-socketio with its manager for Redis pub/sub, on uvicorn and uvloop.

python -m tests.bench.peers.python_socketio PORT REDIS_SOCKET
"""

import sys
from typing import Any
from urllib.parse import parse_qs

import socketio
import uvicorn

REDIS_CONNECTIONS = 10_000  # at the default of 100 a burst of publishing stands still


def application(redis_socket: str) -> Any:  # noqa: ANN401 - the library has no types
    manager = socketio.AsyncRedisManager(f"unix://{redis_socket}", redis_options={"max_connections": REDIS_CONNECTIONS})
    server = socketio.AsyncServer(async_mode="asgi", client_manager=manager, transports=["websocket"])

    async def connect(sid: str, environ: dict[str, Any]) -> None:
        await server.enter_room(sid, f"user:{parse_qs(environ['QUERY_STRING'])['user'][0]}")

    async def join(sid: str, group: str) -> None:
        await server.enter_room(sid, f"group:{group}")
        await server.emit("joined", to=sid)

    async def send(sid: str, to: str, body: str) -> bool:
        await server.emit("message", body, room=to, skip_sid=sid)
        return True  # which is the acknowledgement

    for handler in (connect, join, send):
        server.on(handler.__name__, handler)
    return socketio.ASGIApp(server)


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        backlog=4096,  # two thousand come at once
        ws_per_message_deflate=False,
        ws_max_queue=1024,
    )
