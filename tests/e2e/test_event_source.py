"""A plain `EventSource` in a real browser: cut and ended in every way, it loses nothing, gets nothing twice, and stays
away when it is told to.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import pytest

from migrations import __main__ as migrations
from service.core.names import parse_id
from tests.e2e.kit import true
from tests.integration.http.web import Caller
from tests.integration.store.kit import Server
from tests.service import NodeProcess, free_port
from tests.tokens import SIGNED, mint

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the PATH"),
]

PAGE = """<!doctype html><meta charset="utf-8"><title>listening</title><script>
let told = Promise.resolve();
function tell(what) {
  told = told.then(() => fetch("/heard", {method: "POST", body: JSON.stringify(what)}));
}
for (const [name, url] of Object.entries(SOURCES)) {
  const source = new EventSource(url);
  source.onmessage = event => tell({name, id: event.lastEventId, frame: JSON.parse(event.data)});
  source.onerror = () => tell({name, state: source.readyState});
}
</script>"""
CLOSED = 2  # of `readyState`: it will not come back


class Site:
    """What serves the page, hears what the page tells, and stands before the nodes: all that begins with `/v1/` goes to
    `target`, whatever it is at the moment.
    """

    def __init__(self) -> None:
        self.target = 0
        self.port = free_port()
        self.sources: dict[str, str] = {}
        self.cookie = ""
        self.heard: list[dict[str, Any]] = []
        self._lines: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.sleep(0.05)

    def cut(self) -> None:
        """Loses every connection to a node."""
        for line in list(self._lines):
            line.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b" /v1/" in head.split(b"\r\n")[0]:
                    await self._pass_on(head, writer)
                    return
                writer.write(await self._answer(head, reader))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        lines = head.decode().split("\r\n")
        said = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        data = await reader.readexactly(int(said.get("content-length", 0)))
        if lines[0].startswith("POST /heard"):
            self.heard.append(json.loads(data))
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        page = PAGE.replace("SOURCES", json.dumps(self.sources)) if lines[0].startswith("GET / ") else ""
        status = "200 OK" if page else "404 Not Found"
        cookie = f"Set-Cookie: waypost_token={self.cookie}; HttpOnly; SameSite=Strict\r\n"
        head_lines = f"HTTP/1.1 {status}\r\n{cookie}Content-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
        return (head_lines + page).encode()

    async def _pass_on(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        kept = [line for line in head.strip().split(b"\r\n") if not line.lower().startswith(b"connection:")]
        node_reader, node_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._lines |= {writer, node_writer}
        try:
            node_writer.write(b"\r\n".join([*kept, b"Connection: close", b"", b""]))
            while data := await node_reader.read(65_536):
                writer.write(data)
                await writer.drain()
        finally:
            self._lines -= {writer, node_writer}
            node_writer.close()

    # -- what the page has told ----------------------------------------------------------------------------------------

    def frames(self, name: str) -> list[dict[str, Any]]:
        return [told["frame"] for told in self.heard if told["name"] == name and "frame" in told]

    def bodies(self, name: str) -> list[Any]:
        return [frame["body"] for frame in self.frames(name) if frame["type"] == "message"]

    def is_closed(self, name: str) -> bool:
        return any(told["name"] == name and told.get("state") == CLOSED for told in self.heard)


@contextlib.contextmanager
def browser(url: str) -> Iterator[None]:
    """A headless Chromium that shows this page."""
    assert CHROMIUM is not None
    folder = tempfile.mkdtemp(prefix="wp-chromium-")
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
    ]
    with (Path(folder) / "output").open("wb") as output:
        process = subprocess.Popen([CHROMIUM, *flags, url], stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def database() -> AsyncIterator[Server]:
    """One of its own; which kind makes no difference to a browser."""
    with Server("valkey") as server:
        await migrations.up(server.url)
        yield server


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


async def test_an_event_source_that_is_cut_and_ended_loses_nothing_and_gets_nothing_twice(
    database: Server, site: Site
) -> None:
    own, page = f"http://127.0.0.1:{site.port}", f"http://localhost:{site.port}"
    settings: dict[str, object] = {**SIGNED, "origins": page, "token_grace_s": 0.2, "drain_s": 5}
    nodes = [NodeProcess(database.url, f"n{n}", **settings) for n in range(3)]
    try:
        NodeProcess.start_all(nodes)
        first, second, third = nodes
        site.target = first.port
        site.cookie = mint("bob")
        site.sources = {
            # of another origin, which the nodes list: 127.0.0.1 is not localhost
            "cross": f"{own}/v1/events?{urlencode({'token': mint('bob'), 'device': 'cross'})}",
            "cookie": "/v1/events?device=cookie",
            "short": f"{own}/v1/events?{urlencode({'token': mint('bob', ttl=4), 'device': 'short'})}",
            "stranger": "/v1/events?token=x.y.z",
        }
        listening = ("cross", "cookie")
        sent = 0

        async def send(node: NodeProcess, count: int) -> None:
            nonlocal sent
            alice = Caller.with_token(node, "alice")
            for _ in range(count):
                await alice.send("user:bob", sent, key=f"k{sent}")
                sent += 1

        async def all_heard(what: str) -> None:
            await true(lambda: all(len(site.bodies(name)) >= sent for name in listening), what, 30)
            assert all(site.bodies(name) == list(range(sent)) for name in listening)

        with browser(page):
            await true(lambda: all(site.frames(name) for name in (*listening, "short")), "the page listens", 40)
            await true(lambda: site.is_closed("stranger"), "401 is the end", 10)
            await send(first, 20)
            await all_heard("what is sent while it listens")

            site.target = second.port
            await send(first, 5)
            await asyncio.to_thread(first.kill)
            await send(second, 5)
            await all_heard("what was sent while its node was killed")

            sending = asyncio.create_task(send(second, 200))
            await asyncio.sleep(0.1)
            site.cut()
            await sending
            await all_heard("what was sent while its network was cut")

            site.target = third.port
            assert await asyncio.to_thread(second.stop) == 0
            await send(third, 5)
            await all_heard("what was sent while its node was shut down")
            for name in listening:
                assert "draining" in [frame["code"] for frame in site.frames(name) if frame["type"] == "error"]

            assert site.is_closed("short")  # its token has expired meanwhile
            admin = await Caller.with_key(third, database, "admin")
            assert (await admin("DELETE", "/v1/admin/users/bob/connections")).status == 202
            await true(lambda: all(site.is_closed(name) for name in listening), "204 is the end", 20)
            await send(third, 3)
            await asyncio.sleep(0.5)
        for name in listening:
            numbers = [parse_id(frame["id"]).n for frame in site.frames(name) if frame["type"] == "message"]
            assert numbers == list(range(1, sent - 3 + 1))
            welcomes = [frame for frame in site.frames(name) if frame["type"] == "welcome"]
            assert {frame["node"] for frame in welcomes} == {"n0", "n1", "n2"}
        assert max(len(told.get("id", "")) for told in site.heard) < 200
        for node in nodes:
            assert "Traceback" not in node.said()
    finally:
        for node in nodes:
            node.remove()
