"""What tests of the running service share: node processes, and a phone that speaks the wire by hand."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.certificates import CERTIFICATES
from tests.integration.store.kit import wait_until

Frame = dict[str, Any]

ENTRY_TYPES = ("message", "joined", "left", "redacted")


class Misdelivered(Exception):
    """Something came that must never come. Not an AssertionError: no test may take it for a wait that failed."""


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pair(entry: str) -> tuple[int, int]:
    ms, n = entry.split("-")
    return int(ms), int(n)


class NodeProcess:
    """`waypost serve` in dev mode, against a store that somebody else runs."""

    def __init__(self, redis_url: str, name: str, **settings: object) -> None:
        self.name = name
        self.port = free_port()
        self.trust = ssl.create_default_context(cafile=CERTIFICATES.ca) if "ssl_certfile" in settings else None
        self.url = f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}"
        self.output = Path(tempfile.mkstemp(prefix=f"wp-{name}-")[1])
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("WAYPOST_")}
        self.environ |= {
            "WAYPOST_REDIS_URL": redis_url,
            "WAYPOST_PORT": str(self.port),
            "WAYPOST_NODE": name,
            "WAYPOST_DEV": "1",
        }
        self.environ |= {f"WAYPOST_{key.upper()}": str(value) for key, value in settings.items()}
        self.arguments: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Self:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", *self.arguments],
                env=self.environ,
                stdout=output,
                stderr=output,
            )
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Until this very process is: another one may answer on its port."""
        wait_until(self._is_ready_or_gone, f"{self.name} is ready", 20)
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended at its start; it said:\n{self.said()}"

    @staticmethod
    def start_all(nodes: Iterable["NodeProcess"]) -> None:
        """Several at a time: a process takes half a second to come up."""
        begun = [node.start(wait=False) for node in nodes]
        for node in begun:
            node.wait_until_ready()

    def _is_ready_or_gone(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None or self.is_ready()

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def reasons(self) -> list[str] | None:
        """What `/readyz` gives as reasons, None when nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2, context=self.trust) as answer:
                found: list[str] = json.load(answer)["reasons"]
        except urllib.error.HTTPError as refusal:
            if refusal.code != 503:
                raise
            found = json.load(refusal)["reasons"]
            return found or ["503 without a reason"]
        except OSError:
            return None
        return found

    def is_ready(self) -> bool:
        return self.reasons() == []

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.ends()

    def stop(self) -> int:
        """Ends it as an operator would; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.ends()

    def ends(self, seconds: float = 20) -> int:
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        return code

    def memory_bytes(self) -> int:
        """The resident memory of the process (Linux)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024

    def remove(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self.output.unlink()


class Phone:
    """One connection of one device, by hand: every frame that came, in order, checked for what must never happen."""

    every: ClassVar[list["Phone"]] = []  # those of this test

    def __init__(self, websocket: ClientConnection, user: str) -> None:
        self.websocket = websocket
        self.user = user
        self.frames: list[Frame] = []
        self.closed: tuple[int, str] | None = None
        self._highest: dict[str, tuple[int, int]] = {}
        self._problem: Misdelivered | None = None
        self._taken = 0
        self._answers: dict[object, Frame] = {}
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())
        Phone.every.append(self)

    @classmethod
    async def dial(cls, url: str, user: str | None, *, receive_buffer: int = 0, **options: object) -> Self:
        """Connects, and says nothing yet. With a small `receive_buffer` (bytes) the server soon feels who stops
        reading.
        """
        query = "" if user is None else f"?user={user}"
        given: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None, **options}
        if receive_buffer:
            given["sock"] = sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(url.rpartition(":")[2])))
        address = f"ws{url.removeprefix('http')}/v1/connect{query}"
        return cls(await connect(address, **given), user or "")

    @classmethod
    async def open(cls, url: str, user: str, device: str = "default", **hello: object) -> Self:
        """Connects, says hello and waits until everything missed has come."""
        phone = await cls.dial(url, user)
        await phone.say(type="hello", device=device, **hello)
        await phone.wait("live")
        return phone

    async def _read(self) -> None:
        try:
            async for text in self.websocket:
                for line in str(text).split("\n"):
                    self._check(json.loads(line))
                async with self._news:
                    self._news.notify_all()
                await self._may_read.wait()
        except ConnectionClosed:
            pass
        except Misdelivered as problem:
            self._problem = problem
        finally:
            self.closed = (self.websocket.close_code or 1006, self.websocket.close_reason or "")
            async with self._news:
                self._news.notify_all()

    def _check(self, frame: Frame) -> None:
        """Within a connection the ids of what is pushed only rise, but for a gap of cause `epoch`: it begins anew. The
        answer to a join counts, for numbers go on from there; no other answer does: it may overtake what is to come.
        """
        self.frames.append(frame)
        if "ref" in frame:
            self._answers.setdefault(frame["ref"], frame)
            if frame["type"] == "joined":
                self._highest[frame["stream"]] = max(_pair(frame["id"]), self._highest.get(frame["stream"], (0, 0)))
        elif frame["type"] in (*ENTRY_TYPES, "gap"):
            upto = _pair(frame["to" if frame["type"] == "gap" else "id"])
            is_new = frame["type"] == "gap" and frame["missed"] is None
            if upto <= self._highest.get(frame["stream"], (0, 0)) and not is_new:
                raise Misdelivered(f"{frame} came after {self._highest}")
            self._highest[frame["stream"]] = upto

    async def say(self, **frame: object) -> None:
        await self.websocket.send(json.dumps(frame))

    async def until(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        """Waits until something is true of what has come."""
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: condition() or self.closed is not None)
        except TimeoutError:
            raise AssertionError(f"{self.user}: {what}: not within {seconds} s; came: {self.frames[-5:]}") from None
        if self._problem is not None:
            raise self._problem
        assert condition(), f"{self.user}: {what}: closed with {self.closed} before; came: {self.frames[-5:]}"

    async def wait(self, type_: str, seconds: float = 20, **fields: object) -> Frame:
        """The next frame of a type (and fields), of those that no `wait` returned or passed over."""

        def found() -> Frame | None:
            for at in range(self._taken, len(self.frames)):
                frame = self.frames[at]
                if frame["type"] == type_ and all(frame.get(name) == value for name, value in fields.items()):
                    return frame
            return None

        await self.until(found, f"a {type_} {fields}", seconds)
        frame = found()
        assert frame is not None
        self._taken = self.frames.index(frame, self._taken) + 1
        return frame

    async def ends(self, seconds: float = 20) -> int:
        """Waits until the server has closed the connection; the close code."""
        async with asyncio.timeout(seconds):
            await asyncio.shield(self._reading)
        if self._problem is not None:
            raise self._problem
        assert self.closed is not None
        return self.closed[0]

    async def send(self, to: str, body: object, key: str | None = None) -> Frame:
        """Sends and waits for the answer: `sent` or `error`."""
        ref = f"r{len(self.frames)}-{time.monotonic_ns()}"
        given = {} if key is None else {"key": key}
        await self.say(type="send", ref=ref, to=to, body=body, **given)
        await self.until(lambda: self.answer_to(ref), f"an answer to {body!r}")
        answer = self.answer_to(ref)
        assert answer is not None
        return answer

    def answer_to(self, ref: object) -> Frame | None:
        return self._answers.get(ref)

    async def send_all(self, to: str, bodies: Iterable[object], seconds: float = 30) -> list[Frame]:
        """Sends without waiting in between; every one must be answered `sent`. Returns the answers, as sent."""
        refs = []
        for body in bodies:
            refs.append(f"s{time.monotonic_ns()}")
            await self.say(type="send", ref=refs[-1], to=to, body=body)
        await self.until(lambda: refs[-1] in self._answers and self._answers.keys() >= set(refs), "answers", seconds)
        answers = [self._answers[ref] for ref in refs]
        assert {answer["type"] for answer in answers} == {"sent"}, answers
        return answers

    def stop_reading(self) -> None:
        """Reads nothing more, once the library's queue (16 frames) is full, until `go_on_reading`."""
        self._may_read.clear()

    def go_on_reading(self) -> None:
        self._may_read.set()

    async def ack(self, **offsets: str) -> None:
        """Acknowledges (`user_bob="…"` stands for `user:bob`) and waits until that is stored."""
        await self.acknowledge({stream.replace("_", ":", 1): offset for stream, offset in offsets.items()})

    async def acknowledge(self, offsets: dict[str, str]) -> None:
        ref = f"a{time.monotonic_ns()}"
        await self.say(type="ack", ref=ref, offsets=offsets)
        await self.until(lambda: self.answer_to(ref), "acked")
        answer = self.answer_to(ref)
        assert answer is not None
        assert answer["type"] == "acked", answer

    def messages(self, stream: str | None = None) -> list[Frame]:
        """The messages that came, in order."""
        return [f for f in self.frames if f["type"] == "message" and stream in (None, f["stream"])]

    def bodies(self, stream: str | None = None) -> list[Any]:
        """The bodies of the messages that came, in order."""
        return [frame["body"] for frame in self.messages(stream)]

    def gaps(self) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == "gap"]

    def welcome(self) -> Frame:
        return next(frame for frame in self.frames if frame["type"] == "welcome")

    def last_ids(self) -> dict[str, str]:
        """Per stream the highest id that came, as a client acknowledges: entries, `sent` and gaps count."""
        found: dict[str, tuple[int, int]] = {}
        for frame in self.frames:
            if "stream" in frame and ("id" in frame or frame["type"] == "gap"):
                ms, n = str(frame["to"] if frame["type"] == "gap" else frame["id"]).split("-")
                found[frame["stream"]] = max((int(ms), int(n)), found.get(frame["stream"], (0, 0)))
        return {stream: f"{ms}-{n}" for stream, (ms, n) in found.items()}

    async def leave(self) -> None:
        """Hangs up."""
        await self.websocket.close()
        await self._reading

    @classmethod
    async def hang_up_all(cls) -> None:
        """At the end of a test: no socket stays open, and a check that failed while reading fails the test."""
        here = asyncio.get_running_loop()  # others were cut with their test, whose loop is closed
        every, cls.every = [phone for phone in cls.every if phone._reading.get_loop() is here], []
        for phone in every:
            phone.go_on_reading()
            phone.cut()
        await asyncio.gather(*(phone._reading for phone in every))

    def cut(self) -> None:
        """Loses the network: no goodbye."""
        self.websocket.transport.abort()
