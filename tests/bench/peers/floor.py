"""The floor: who a frame is for is looked up, and its body is written there. No JSON, no Redis, no promises.

python -m tests.bench.peers.floor PORT
"""

import sys
from urllib.parse import parse_qs, urlsplit

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

BACKLOG = 4096  # connections that come at once
USERS: dict[bytes, WSTransport] = {}
GROUPS: dict[bytes, set[WSTransport]] = {}


class Peer(WSListener):
    """One client: `+<group> ` joins, `<to> <body>` is sent on."""

    def __init__(self, user: str) -> None:
        self.name = b"user:" + user.encode()

    def on_ws_connected(self, transport: WSTransport) -> None:
        USERS[self.name] = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        USERS.pop(self.name, None)
        for members in GROUPS.values():
            members.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            return
        to, _, body = frame.get_payload_as_bytes().partition(b" ")
        if to.startswith(b"group:"):
            text = WSMsgType.TEXT
            for member in GROUPS[to]:
                if member is not transport:
                    member.send(text, body)
        elif to.startswith(b"+"):
            GROUPS.setdefault(b"group:" + to[1:], set()).add(transport)
            transport.send(WSMsgType.TEXT, b"joined")
        else:
            USERS[to].send(WSMsgType.TEXT, body)


def peer(request: WSUpgradeRequest) -> Peer:
    return Peer(parse_qs(urlsplit(request.path.decode()).query)["user"][0])


async def main(port: int) -> None:
    server = await ws_create_server(peer, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
