"""A process of clients: devices that send, receive, acknowledge, come and go, and write down all of it.

    python -m tests.soak.clients SEED FOLDER NODE_URL... -- ACTOR...

It is ordered about over standard input, a word a line: `mark N` (send a mark on every stream that is ours to mark),
`quiet` (send nothing more of its own), `end`. On standard output it says, several times a second, how far it is:
`{"marked":N,"live":N,"unanswered":N}`: the last mark that every device here has seen on all its streams, how many
devices are connected and caught up, and how many sends have no answer yet.

The devices know nothing of Waypost's code but the wire, as docs/protocol.md has it.
"""

import asyncio
import json
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.soak import cast
from tests.soak.cast import Actor
from tests.soak.history import Acknowledged, Answered, Attempt, Came, Cut, Gap, Opened, Refused, Stored, Writer

WINDOW = 4  # sends of a device without an answer
PAUSE_S = 0.6  # between two sends of a device, on average
PATIENCE_S = 5.0  # hear nothing for this long: reconnect
REPORT_S = 0.1
ENTRIES = ("message", "joined", "left", "redacted")
LARGE = 5000  # characters: such a body goes to mailboxes as a reference

Frame = dict[str, Any]


class Send:
    """One message on its way: sent again, with its key, until it is stored or refused for good."""

    __slots__ = ("body", "is_flying", "key", "not_before", "to", "value")

    def __init__(self, value: str, to: str, key: str, body: Frame) -> None:
        self.value = value
        self.to = to
        self.key = key
        self.body = body
        self.is_flying = False
        self.not_before = 0.0


class Device:
    """One device, over as many connections as it takes."""

    def __init__(self, actor: Actor, nodes: list[str], rng: random.Random, folder: Path) -> None:
        self.actor = actor
        self.user = actor.user
        self.writer = Writer(folder, actor.user, actor.device)
        self.is_live = False
        self.is_quiet = False
        self.marks: dict[str, int] = dict.fromkeys(cast.marks_for(self.user), 0)
        self.outbox: deque[Send] = deque()
        self._nodes = nodes
        self._rng = rng
        self._counter = 0
        self._epoch = ""
        self._offsets: dict[str, tuple[int, int]] = {}  # up to where entries and gaps came, in this epoch
        self._acknowledged: dict[str, tuple[int, int]] = {}  # on this connection
        self._groups: set[str] = set()  # those that this connection follows
        self._refs: dict[int, Send | str | dict[str, str]] = {}
        self._next_ref = 0
        self._pause_s = 0.05
        self._wake = asyncio.Event()
        self._heard_at = 0.0
        self._may_read = asyncio.Event()
        self._may_read.set()

    # -- what the soak asks for ----------------------------------------------------------------------------------------

    def mark(self, number: int) -> None:
        """Sends a mark on the streams that are ours to mark, whatever else happens."""
        if self.actor.sends:
            for stream in cast.marks_by(self.user):
                self._put(stream, is_keyed=True, mark=number)

    def _put(self, to: str, *, is_keyed: bool, mark: int = 0) -> None:
        self._counter += 1
        value = f"{self.user}-{self._counter}"
        body: Frame = {"v": value} | ({"mark": mark} if mark else {})
        if self._rng.random() < 0.03:
            body["pad"] = "x" * LARGE
        self.outbox.append(Send(value, to, value if is_keyed else "", body))
        self._wake.set()

    # -- one connection after the other --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connects, converses and comes back, until cancelled."""
        try:
            while True:
                try:
                    await self._connect()
                except (OSError, WebSocketException, TimeoutError):
                    pass  # the node is away
                await asyncio.sleep(self._pause_s * self._rng.random())
                self._pause_s = min(2 * self._pause_s, 1.0)
        finally:
            self.writer.close()

    async def _connect(self) -> None:
        url = self._rng.choice(self._nodes).replace("http://", "ws://") + f"/v1/connect?user={self.user}"
        websocket = await connect(
            url, compression=None, max_size=None, ping_interval=None, open_timeout=PATIENCE_S, close_timeout=0.5
        )
        self._refs.clear()
        self._acknowledged = {}
        self._groups = set()
        self._wake.set()
        for send in self.outbox:
            send.is_flying = False
        self._heard_at = time.monotonic()
        tasks = [asyncio.create_task(work(websocket)) for work in (self._read, self._speak, self._ping, self._live)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            websocket.transport.abort()
            await websocket.wait_closed()
            self.is_live = False
            self._may_read.set()
            self.writer.write(Cut(time.time(), websocket.close_code or 1006, websocket.close_reason or ""))
            # What had no key is given up: it may be stored or not.
            self.outbox = deque(send for send in self.outbox if send.key or not send.is_flying)

    async def _live(self, websocket: ClientConnection) -> None:
        """What happens to phones: the network is lost, the phone sleeps, the program stands still."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / 15))
            fate = self._rng.random()
            if self.is_quiet:
                continue
            if fate < 0.4:
                websocket.transport.abort()
            elif fate < 0.6:
                websocket.transport.abort()
                self._pause_s = 8.0
            else:
                self._may_read.clear()
                await asyncio.sleep(self._rng.random() * 3)
                self._may_read.set()

    async def _ping(self, websocket: ClientConnection) -> None:
        """Finds out that nobody is at the other end, though no error says so."""
        while True:
            await asyncio.sleep(1)
            await websocket.send('{"type":"ping"}')
            if self._may_read.is_set() and time.monotonic() - self._heard_at > PATIENCE_S:
                return

    # -- out -----------------------------------------------------------------------------------------------------------

    async def _say(self, websocket: ClientConnection, about: Send | str | dict[str, str], **frame: object) -> None:
        self._next_ref += 1
        self._refs[self._next_ref] = about
        await websocket.send(json.dumps({**frame, "ref": self._next_ref}))

    async def _speak(self, websocket: ClientConnection) -> None:
        hello: Frame = {"type": "hello", "device": self.actor.device}
        if self.actor.brings and self._epoch and self._rng.random() < 0.7:
            offsets = {stream: f"{ms}-{n}" for stream, (ms, n) in self._offsets.items()}
            hello |= {"offsets": offsets, "epoch": self._epoch}
        await websocket.send(json.dumps(hello))
        while not self._epoch or not self.is_live:
            self._wake.clear()
            await self._wake.wait()
        next_send = next_ack = next_change = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_ack:
                await self._acknowledge(websocket)
                next_ack = now + 0.3 + self._rng.random()
            if self.actor.sends and now >= next_send and not self.is_quiet and len(self.outbox) < 3 * WINDOW:
                for _ in range(20 if self._rng.random() < 0.02 else 1):
                    self._put(self._somebody(), is_keyed=self._rng.random() < 0.9)
                next_send = now + self._rng.expovariate(1 / PAUSE_S)
            if self.actor.sends and now >= next_change:
                await self._come_and_go(websocket)
                next_change = now + self._rng.expovariate(1 / 4)
            await self._hand_out(websocket, now)
            self._wake.clear()
            try:
                async with asyncio.timeout(0.05):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _somebody(self) -> str:
        roll = self._rng.random()
        if roll < 0.1:
            return "all"
        if roll < 0.5:
            return f"user:{self._rng.choice(cast.users)}"
        groups = [group for group in self._groups if group not in cast.groups_of(self.user)]
        return f"group:{self._rng.choice([*cast.groups_of(self.user), *sorted(groups)])}"

    async def _hand_out(self, websocket: ClientConnection, now: float) -> None:
        """Writes what may go. After a refusal everything later waits, and goes again in the order it was put."""
        flying = 0
        for send in list(self.outbox):
            if send.is_flying:
                flying += 1
                continue
            if flying >= WINDOW or now < send.not_before:
                return
            if send.not_before and flying:
                return  # in order: what was refused goes again when nothing is under way
            send.is_flying, send.not_before = True, 0.0
            flying += 1
            self.writer.write(Attempt(time.time(), send.value, send.to, send.key))
            key = {"key": send.key} if send.key else {}
            await self._say(websocket, send, type="send", to=send.to, body=send.body, **key)

    async def _acknowledge(self, websocket: ClientConnection) -> None:
        moved = {
            stream: f"{ms}-{n}"
            for stream, (ms, n) in self._offsets.items()
            if self._acknowledged.get(stream) != (ms, n) and n > 0
        }
        if not moved:
            return
        self._acknowledged = dict(self._offsets)
        await self._say(websocket, moved, type="ack", offsets=moved)

    async def _come_and_go(self, websocket: ClientConnection) -> None:
        for group in cast.groups_of(self.user):
            if group not in self._groups:  # at the beginning, and where a store was emptied
                await self._say(websocket, f"join {group}", type="join", group=group)
        if self.is_quiet:
            return
        group = self._rng.choice(cast.OPEN_GROUPS)
        verbs = ("leave", "join") if group in self._groups else ("join", "leave")
        for verb in (verbs * 2)[: self._rng.choice((1, 1, 2, 3, 4))]:  # changes of mind, before there is an answer
            await self._say(websocket, f"{verb} {group}", type=verb, group=group)

    # -- in ------------------------------------------------------------------------------------------------------------

    async def _read(self, websocket: ClientConnection) -> None:
        async for message in websocket:
            self._heard_at = time.monotonic()
            for line in str(message).split("\n"):
                self._take(json.loads(line))
            await self._may_read.wait()

    def _take(self, frame: Frame) -> None:
        at, kind, write = time.time(), frame["type"], self.writer.write
        about = self._refs.pop(frame["ref"], None) if "ref" in frame else None
        if kind == "welcome":
            if frame["epoch"] != self._epoch:
                self._epoch, self._offsets = frame["epoch"], {}
            starts = {stream: state["offset"] for stream, state in frame["streams"].items()}
            write(Opened(at, frame["node"], frame["epoch"], starts))
            self._groups = {stream[6:] for stream in starts if stream.startswith("group:")}
            self._offsets |= {stream: _pair(start) for stream, start in starts.items()}
        elif kind == "live":
            self.is_live = True
            self._pause_s = 0.05
            self._wake.set()
        elif kind == "sent":
            assert isinstance(about, Send)
            write(
                Stored(at, about.value, about.to, frame["stream"], frame["id"], frame["duplicate"], frame["durability"])
            )
            self._done(about)
            if frame["stream"] == about.to:
                self._see_mark(about.to, about.body)
        elif kind in ("joined", "left") and about is not None:
            write(Answered(at, frame["stream"], frame["id"], kind == "joined"))
            self._follow(frame["stream"], frame["id"], is_member=kind == "joined")
        elif kind in ENTRIES:
            body = frame.get("body") or {}
            user = frame.get("from") or frame.get("user") or frame.get("by") or ""
            write(Came(at, frame["stream"], frame["id"], kind, user, body.get("v", "")))
            self._offsets[frame["stream"]] = _pair(frame["id"])
            self._see_mark(frame["stream"], body)
            if kind in ("joined", "left") and user == self.user and frame["stream"] == f"user:{user}":
                (self._groups.add if kind == "joined" else self._groups.discard)(frame["group"])
        elif kind == "gap":
            causes = frame.get("causes") or [frame["cause"]]
            kinds = tuple(cause["kind"] for cause in causes)
            write(Gap(at, frame["stream"], frame["after"], frame["to"], frame["missed"], kinds))
            self._offsets[frame["stream"]] = _pair(frame["to"])
        elif kind == "acked":
            assert isinstance(about, dict)
            write(Acknowledged(at, about))
        elif kind == "error":
            self._refused(at, frame, about)

    def _refused(self, at: float, frame: Frame, about: Send | str | dict[str, str] | None) -> None:
        if isinstance(about, dict):
            if frame["code"] == "ack_beyond":
                self.writer.write(Refused(at, frame["message"], frame["code"], retry=False))
            self._acknowledged = {}
            return
        value = about.value if isinstance(about, Send) else about or ""
        self.writer.write(Refused(at, value, frame["code"], frame["retry"]))
        if not isinstance(about, Send):
            return
        is_ours = frame["code"] == "not_member" and about.to[6:] in cast.groups_of(self.user)
        if about.key and (frame["retry"] or is_ours):
            about.is_flying, about.not_before = False, time.monotonic() + 0.05 + 0.2 * self._rng.random()
        else:
            self._done(about)
        if is_ours:
            self._groups.discard(about.to[6:])

    def _done(self, send: Send) -> None:
        if send in self.outbox:
            self.outbox.remove(send)
        self._wake.set()

    def _follow(self, stream: str, entry: str, *, is_member: bool) -> None:
        if is_member:
            self._groups.add(stream[6:])
            self._offsets[stream] = max(_pair(entry), self._offsets.get(stream, (0, 0)))
        else:
            self._groups.discard(stream[6:])

    def _see_mark(self, stream: str, body: Frame) -> None:
        if stream in self.marks:
            self.marks[stream] = max(self.marks[stream], body.get("mark", 0))


def _pair(entry: str) -> tuple[int, int]:
    ms, n = entry.split("-")
    return int(ms), int(n)


class Process:
    """All devices of this process."""

    def __init__(self, devices: list[Device]) -> None:
        self.devices = devices

    async def run(self) -> None:
        """Until `end` is said, or nobody is there to say it."""
        running = [asyncio.create_task(device.run()) for device in self.devices]
        telling = asyncio.create_task(self._tell())
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        try:
            while (order := (await reader.readline()).decode().split()) and order[0] != "end":
                for device in self.devices:
                    if order[0] == "mark":
                        device.mark(int(order[1]))
                    else:
                        device.is_quiet = True
                failed = [task for task in running if task.done()]
                for task in failed:
                    task.result()
        finally:
            for task in (telling, *running):
                task.cancel()
            await asyncio.gather(telling, *running, return_exceptions=True)

    async def _tell(self) -> None:
        while True:
            said = {
                "marked": min(number for device in self.devices for number in device.marks.values()),
                "live": sum(device.is_live for device in self.devices),
                "unanswered": sum(len(device.outbox) for device in self.devices),
            }
            print(json.dumps(said), flush=True)
            for device in self.devices:
                device.writer.flush()
            await asyncio.sleep(REPORT_S)


def main(argv: list[str]) -> None:
    """Plays the actors named on the command line."""
    split = argv.index("--")
    seed, folder, nodes, names = argv[0], Path(argv[1]), argv[2:split], argv[split + 1 :]
    mine = [actor for actor in cast.actors() if f"{actor.user}.{actor.device}" in names]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Process([Device(actor, nodes, random.Random(f"{seed} {actor}"), folder) for actor in mine]).run())


if __name__ == "__main__":
    main(sys.argv[1:])
