"""compose/nginx.conf before a node: WebSocket and HTTP over TLS through Debian's nginx."""

import asyncio
import re
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.certificates import CERTIFICATES
from tests.integration.doors.raw import Raw
from tests.integration.http.web import fetch, path_of
from tests.integration.store.kit import wait_until
from tests.integration.wire.conftest import StartNode
from tests.proxies import nginx
from tests.service import NodeProcess, Phone, free_port
from tests.tokens import SIGNED, bearer, mint

pytestmark = pytest.mark.anyio

CONF = Path(__file__).parents[3] / "compose" / "nginx.conf"
NGINX = nginx()


class Proxied(NamedTuple):
    """A node, how it is reached through the proxy, and the proxy's folder."""

    node: NodeProcess
    door: NodeProcess
    folder: Path


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture
def proxied(start_node: StartNode, port: int, tmp_path: Path) -> Iterator[Proxied]:
    """The shipped file, with other places and ports."""
    if NGINX is None:
        pytest.skip("nginx is not on the PATH")
    node = start_node(**SIGNED, origins=f"https://127.0.0.1:{port}")
    text = CONF.read_text()
    for here, there in (
        ("/run/nginx.pid", f"{tmp_path}/pid"),
        ("/var/log/nginx/waypost.log", f"{tmp_path}/access.log"),
        ("/var/log/nginx/error.log", f"{tmp_path}/error.log"),
        ("/etc/waypost/tls.pem", CERTIFICATES.server),
        ("/etc/waypost/tls.key", CERTIFICATES.server_key),
        ("server 127.0.0.1:8000", f"server 127.0.0.1:{node.port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("worker_processes auto", "worker_processes 1"),
        ("worker_connections 40000", "worker_connections 256"),
    ):
        assert text.count(here) == 1, here
        text = text.replace(here, there)
    temporary = "".join(
        f"    {what}_temp_path {tmp_path}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", "http {\n" + temporary)
    (tmp_path / "nginx.conf").write_text(text)
    command = [NGINX, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), "-e", str(tmp_path / "early.log")]
    process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: process.poll() is not None or listens(port), "nginx listens")
        assert process.poll() is None, (process.stderr or b"") and process.stderr.read()  # type: ignore[union-attr]
        door = NodeProcess("", "through-nginx", ssl_certfile=CERTIFICATES.server)
        door.port, door.url = port, f"https://127.0.0.1:{port}"
        yield Proxied(node, door, tmp_path)
        door.remove()
    finally:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(autouse=True)
async def phones() -> AsyncIterator[None]:
    yield
    await Phone.hang_up_all()


async def test_the_wire_and_http(proxied: Proxied, alice: str) -> None:
    door, token = proxied.door, mint(alice)
    origin = f"https://127.0.0.1:{door.port}"
    address = f"{door.url}"
    phone = await Phone.dial(address, None, ssl=door.trust, origin=origin, additional_headers=bearer(token))
    await phone.say(type="hello")
    await phone.wait("live")
    assert (await phone.send(f"user:{alice}", "x" * 50_000))["type"] == "sent"
    answer = await fetch(door, path_of("streams", f"user:{alice}", "messages"), headers=bearer(token))
    assert (answer.status, len(answer.json["messages"])) == (200, 1)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"  # the node knows that it was TLS
    assert answer.headers["x-content-type-options"] == "nosniff"
    await phone.websocket.send("no json")
    assert await phone.ends() == 4103


async def test_the_numbers_are_not_passed_on(proxied: Proxied) -> None:
    raw = await Raw.open(proxied.door)
    await raw.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await raw.answer()
    assert answer.status == 404
    await raw.close()


async def test_a_token_in_the_address_is_in_no_log(proxied: Proxied, alice: str) -> None:
    door, token = proxied.door, mint(alice)
    answer = await fetch(door, f"/v1/streams?token={token}")
    assert answer.status == 200
    context = door.trust
    assert isinstance(context, ssl.SSLContext)
    raw = await Raw.open(door)
    await raw.say(f"GET /v1/streams?token={token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await raw.answer()).status == 200
    await raw.close()

    def logged() -> str:
        return "".join(path.read_text() for path in proxied.folder.glob("*.log"))

    await asyncio.to_thread(wait_until, lambda: logged().count("/v1/streams HTTP") == 2, "it is logged")
    assert token not in logged()
    assert token.split(".")[2] not in logged() + proxied.node.said()


async def test_nobody_says_where_they_come_from(start_node: StartNode, proxied: Proxied) -> None:
    """What a client says of itself does not reach a node; and through a proxy nobody is of this machine."""
    said = await fetch(proxied.door, "/v1/admin/nodes", headers={"X-Forwarded-For": "127.0.0.1"})
    assert said.status == 401
    text = CONF.read_text()
    assert re.search(r"proxy_set_header X-Forwarded-For \$remote_addr;", text)
    assert "$proxy_add_x_forwarded_for;" not in text


async def test_lines_go_on_at_once(proxied: Proxied, alice: str) -> None:
    """What Server-Sent Events need: an answer in parts is not held back until it is whole."""
    listening = await asyncio.start_server(_drip, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    conf = proxied.folder / "nginx.conf"
    conf.write_text(conf.read_text().replace(f"server 127.0.0.1:{proxied.node.port}", f"server 127.0.0.1:{port}"))
    command = [NGINX or "", "-c", str(conf), "-p", str(proxied.folder), "-e", str(proxied.folder / "early.log")]
    await asyncio.to_thread(subprocess.run, [*command, "-s", "reload"], check=True)
    try:
        async with asyncio.timeout(10):
            while True:
                raw = await Raw.open(proxied.door)
                await raw.say(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await raw.reader.readuntil(b"\r\n\r\n")
                if b"text/event-stream" in head:
                    break
                await raw.close()
                await asyncio.sleep(0.05)
            begun = time.monotonic()
            await raw.reader.readuntil(b"data: 1\n\n")
            assert time.monotonic() - begun < 0.5
            await raw.reader.readuntil(b"data: 2\n\n")
            assert time.monotonic() - begun > 0.5
            await raw.close()
    finally:
        listening.close()


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer of two lines, a second between them."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n")
    await writer.drain()
    await asyncio.sleep(1)
    writer.write(b"data: 2\n\n")
    writer.close()
