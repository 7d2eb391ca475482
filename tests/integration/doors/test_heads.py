"""What is said before there is a request: headers of answers, heads that are too large, and what is no HTTP."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from service.errors import ERRORS
from service.transports.bounded_http import HEADERS_MAX, UPGRADE_LINE_BYTES_MAX
from service.transports.security_headers import HEADERS
from tests.integration.doors.raw import UPGRADE, Raw, Said, ask
from tests.integration.wire.conftest import StartNode
from tests.service import NodeProcess
from tests.tokens import SIGNED, mint

pytestmark = pytest.mark.anyio

HOST = "Host: 127.0.0.1"


def check_headers(said: Said) -> None:
    for name, value in HEADERS:
        assert said.headers[name.decode()] == value.decode()
    assert "server" not in said.headers
    assert "strict-transport-security" not in said.headers


def check_refused(said: Said, code: str, *words: str) -> None:
    """A refusal like all others, with which the socket ends."""
    row = ERRORS[code]
    assert (said.status, said.json["code"], said.json["status"]) == (row.http, code, row.http)
    assert said.json.keys() == {"code", "title", "status", "detail", "retry"}
    assert (said.json["title"], said.json["retry"]) == (row.text, row.retry)
    assert said.headers["content-type"] == "application/problem+json"
    assert (said.headers["cache-control"], said.headers["connection"]) == ("no-store", "close")
    assert all(word in said.json["detail"] for word in words), said.json
    check_headers(said)


@pytest.mark.parametrize(
    "line",
    [
        "GET /livez HTTP/1.1",
        "GET /v1/streams?user=alice HTTP/1.1",
        "GET /v1/streams HTTP/1.1",  # 401
        "GET /nothing HTTP/1.1",
        "PATCH /livez HTTP/1.1",
        "HEAD /livez HTTP/1.0",
    ],
)
async def test_every_answer_has_the_headers(node: NodeProcess, line: str) -> None:
    raw = await Raw.open(node)
    await raw.say(f"{line}\r\n{HOST}\r\n\r\n".encode())
    head = (await raw.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
    await raw.close()
    check_headers(
        Said(
            0, dict(line.lower().split(": ", 1) if i == 0 else line.split(": ", 1) for i, line in enumerate(head)), b""
        )
    )


async def test_a_trusted_proxy_says_that_it_was_tls(node: NodeProcess, start_node: StartNode) -> None:
    said = await ask(node, "GET /livez HTTP/1.1", HOST, "X-Forwarded-Proto: https")
    assert said.headers["strict-transport-security"] == "max-age=31536000"
    alone = start_node(forwarded_allow_ips="192.0.2.1")
    said = await ask(alone, "GET /livez HTTP/1.1", HOST, "X-Forwarded-Proto: https")
    assert "strict-transport-security" not in said.headers


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 x",
    ],
)
async def test_nobody_becomes_local_by_a_header(start_node: StartNode, header: str) -> None:
    for allowed in ("127.0.0.1", "*", "192.0.2.1"):
        node = start_node(forwarded_allow_ips=allowed)
        assert (await ask(node, "GET /v1/admin/nodes HTTP/1.1", HOST)).status == 200
        assert (await ask(node, "GET /v1/admin/nodes HTTP/1.1", HOST, header)).status == 401


@pytest.mark.parametrize("in_pieces", [False, True], ids=["in one piece", "in pieces"])
@pytest.mark.parametrize(
    "lines",
    [
        ("GET /livez HTTP/1.1", HOST, "X: " + "x" * 17_000),
        ("GET /livez?" + "x" * 17_000 + " HTTP/1.1", HOST),
        ("GET /livez HTTP/1.1", HOST, *(f"X{nth}: y" for nth in range(HEADERS_MAX))),
        ("POST /v1/messages HTTP/1.1", HOST, "X: " + "x" * 100_000),
        ("GET /v1/connect HTTP/1.1", *UPGRADE, "X: " + "x" * 17_000),
        ("GET /v1/connect HTTP/1.1", *UPGRADE, *(f"X{nth}: y" for nth in range(HEADERS_MAX))),
    ],
    ids=["header", "target", "count", "huge", "upgrade", "upgrade count"],
)
async def test_heads_above_the_limit(node: NodeProcess, lines: tuple[str, ...], *, in_pieces: bool) -> None:
    raw = await Raw.open(node)
    data = "\r\n".join((*lines, "", "")).encode()
    for at in range(0, len(data), 1000 if in_pieces else len(data)):
        await raw.say(data[at : at + (1000 if in_pieces else len(data))])
        await asyncio.sleep(0.001 if in_pieces else 0)
    check_refused(await raw.answer(), "head_too_large", "16384 bytes and 100 headers")
    assert await raw.ends() == b""
    await raw.close()


async def test_a_head_at_the_limit(start_node: StartNode) -> None:
    """A token of the full length fits a header of HTTP; an upgrade takes lines up to what its library reads."""
    node = start_node(**SIGNED)
    token = mint("alice", pad="x" * 5_900)
    assert 8000 < len(token) <= 8192
    said = await ask(node, "GET /v1/streams HTTP/1.1", HOST, f"Authorization: Bearer {token}")
    assert said.status == 200
    room = UPGRADE_LINE_BYTES_MAX - len("X: ")
    said = await ask(node, "GET /v1/connect HTTP/1.1", *UPGRADE, "X: " + "x" * room)
    assert said.status == 101
    said = await ask(node, "GET /v1/connect HTTP/1.1", *UPGRADE, "X: " + "x" * (room + 1))
    check_refused(said, "head_too_large", "header of an upgrade")
    query = "x" * (UPGRADE_LINE_BYTES_MAX - len("GET /v1/connect? HTTP/1.1"))
    assert (await ask(node, f"GET /v1/connect?{query} HTTP/1.1", *UPGRADE)).status == 101
    said = await ask(node, f"GET /v1/connect?{query}x HTTP/1.1", *UPGRADE)
    check_refused(said, "head_too_large", "address of an upgrade")


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA\x00B: y\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_no_http(node: NodeProcess, data: bytes) -> None:
    """Told once, and logged by nobody: whoever sends it would fill the disk."""
    before = node.said()
    raw = await Raw.open(node)
    await raw.say(data + b"\r\n" * 2)
    said = await raw.answer()
    if said.status == 501:
        assert said.headers["connection"] == "close"
    else:
        check_refused(said, "bad_http")
    assert await raw.ends() == b""
    await raw.close()
    assert node.said() == before


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (("POST /v1/connect HTTP/1.1", *UPGRADE), b""),
        (("GET /v1/connect HTTP/1.0", *UPGRADE), b""),
        (("GET /v1/connect HTTP/1.1", *UPGRADE, "Content-Length: 5"), b"hello"),
        (("GET /v1/connect HTTP/1.1", *UPGRADE, "Transfer-Encoding: chunked"), b"0\r\n\r\n"),
    ],
    ids=["POST", "HTTP/1.0", "a body", "chunks"],
)
async def test_upgrades_that_are_none_are_told_so(node: NodeProcess, lines: tuple[str, ...], body: bytes) -> None:
    """The library has no answer for these, and leaves the socket open for ever."""
    raw = await Raw.open(node)
    await raw.say("\r\n".join((*lines, "", "")).encode() + body)
    check_refused(await raw.answer(), "bad_http", "upgrade")
    assert await raw.ends() == b""
    await raw.close()


@pytest.mark.parametrize("lacking", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
async def test_a_handshake_that_lacks_something(node: NodeProcess, lacking: str) -> None:
    said = await ask(node, "GET /v1/connect HTTP/1.1", *(line for line in UPGRADE if not line.startswith(lacking)))
    assert (said.status, said.headers["connection"].lower()) == (400, "close")
    check_headers(said)
    said = await ask(node, "GET /v1/nowhere HTTP/1.1", *UPGRADE)
    assert said.status == 403
    check_headers(said)


async def test_nothing_is_compressed_though_it_is_offered(node: NodeProcess, alice: str) -> None:
    """A compressed frame of a kilobyte may be a megabyte of text."""
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    said = await ask(node, f"GET /v1/connect?user={alice} HTTP/1.1", *UPGRADE, offer)
    assert (said.status, "sec-websocket-extensions" in said.headers) == (101, False)
    address = f"ws://127.0.0.1:{node.port}/v1/connect?user={alice}"
    async with connect(address, extensions=[ClientPerMessageDeflateFactory()], compression=None) as websocket:
        await websocket.send(json.dumps({"type": "hello"}))
        assert json.loads(await websocket.recv())["type"] == "welcome"
        assert websocket.protocol.extensions == []
    raw = await Raw.open(node)
    await raw.say("\r\n".join((f"GET /v1/connect?user={alice} HTTP/1.1", *UPGRADE, offer, "", "")).encode())
    await raw.answer()
    await raw.say(b"\xc1\x85\x00\x00\x00\x00hello")  # a compressed frame all the same
    assert b"\x03\xea" in await raw.ends()  # 1002
    await raw.close()
    said = await ask(
        node,
        f"POST /v1/messages?user={alice} HTTP/1.1",
        HOST,
        "Content-Encoding: gzip",
        "Content-Length: 3",
        body=b"\x1f\x8b\x08",
    )
    assert (said.status, said.json["code"]) == (400, "bad_request")


DEEP = {"lists": b"[" * 100_000, "objects": b'{"a":' * 25_000}


@pytest.mark.parametrize("deep", DEEP.values(), ids=DEEP)
async def test_brackets_within_brackets(node: NodeProcess, start_node: StartNode, alice: str, deep: bytes) -> None:
    """Every door that reads JSON of others: frames, bodies, tokens, /chat."""
    signed = start_node(**SIGNED)
    for body in (deep, b'{"to":"user:x","body":' + deep):
        length = f"Content-Length: {len(body)}"
        said = await ask(node, f"POST /v1/messages?user={alice} HTTP/1.1", HOST, length, body=body)
        assert (said.status, said.json["code"]) == (400, "bad_request")
    for frame in (deep, b'{"type":"hello","x":' + deep, b'{"type":"send","ref":1,"to":"all","body":' + deep):
        async with connect(f"ws://127.0.0.1:{node.port}/v1/connect?user={alice}", compression=None) as websocket:
            await websocket.send(frame.decode(), text=True)
            assert json.loads(await websocket.recv())["type"] == "error"
    async with connect(f"ws://127.0.0.1:{node.port}/chat/channel/{alice}", compression=None) as websocket:
        await websocket.send(deep.decode(), text=True)
        assert str(await websocket.recv()).startswith("error: ")
        await websocket.send('{"Method":"One","MsgBody":' + deep.decode(), text=True)
        assert str(await websocket.recv()).startswith("error: ")
    import base64  # noqa: PLC0415 - for this alone

    short = deep[:4000]
    for head, claims in ((short, b"{}"), (b'{"alg":"HS256"}', short)):
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (head, claims, b"x" * 32))
        said = await ask(signed, "GET /v1/streams HTTP/1.1", HOST, f"Authorization: Bearer {token}")
        assert (said.status, said.json["code"]) == (401, "unauthorised")
    assert (await ask(node, "GET /livez HTTP/1.1", HOST)).status == 200
