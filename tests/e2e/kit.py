"""What tests of the promises share: a device that counts as a client should, and how to look for holes."""

import asyncio
from collections.abc import Callable

from websockets.exceptions import WebSocketException

from service.core.names import ZERO, EntryId, parse_id
from tests.service import ENTRY_TYPES, Frame, Misdelivered, NodeProcess, Phone


async def true(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Waits for a condition without holding up the connections of this test."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds} s") from None


def numbers(phone: Phone, stream: str) -> list[int]:
    """The numbers of a stream that came: entries, the answers that stand for the own ones, and those in gaps."""
    found: list[int] = []
    for frame in phone.frames:
        if frame.get("stream") != stream:
            continue
        if frame["type"] == "gap":
            found += range(parse_id(frame["after"]).n + 1, parse_id(frame["to"]).n + 1)
        elif frame["type"] in (*ENTRY_TYPES, "sent"):
            found.append(parse_id(frame["id"]).n)
    return found


class Device:
    """A client as it should be: it counts what comes in each stream, and comes back after every cut.

    `record` is what it has, over all its connections; a number that is not the next one is an error at once. One that
    `remembers` brings its own offsets; else the server's tell where to go on, and what lies above them comes again.
    """

    def __init__(self, user: str, name: str = "phone", *, remembers: bool = True) -> None:
        self.user = user
        self.name = name
        self.remembers = remembers
        self.record: dict[str, list[Frame]] = {}
        self.offsets: dict[str, EntryId] = {}
        self.acknowledged: dict[str, EntryId] = {}
        self.epoch = ""
        self.connects = 0
        self._phone: Phone | None = None
        self._taken = 0

    @property
    def phone(self) -> Phone:
        assert self._phone is not None
        return self._phone

    async def connect(self, url: str) -> Phone:
        """Connects and has its `welcome`."""
        phone = await Phone.dial(url, self.user)
        hello: Frame = {"type": "hello", "device": self.name}
        if self.remembers and self.epoch:
            hello |= {"offsets": {stream: str(at) for stream, at in self.offsets.items()}, "epoch": self.epoch}
        await phone.say(**hello)
        welcome = await phone.wait("welcome")
        self._phone, self._taken, self.epoch = phone, 0, welcome["epoch"]
        self.connects += 1
        for stream, state in welcome["streams"].items():
            self._begin(stream, parse_id(state["offset"]))
        return phone

    def _begin(self, stream: str, offset: EntryId) -> None:
        """The server counts from here; whoever remembers must find what it brought."""
        known = self.offsets.get(stream, offset)
        is_right = known == offset if self.remembers else self.acknowledged.get(stream, ZERO) <= offset <= known
        if not is_right:
            raise Misdelivered(f"{stream} starts at {offset}, not at {known}, acknowledged {self.acknowledged}")
        self.offsets[stream] = offset
        kept = self.record.setdefault(stream, [])
        kept[:] = [frame for frame in kept if parse_id(frame["id"]) <= offset]

    def take(self) -> None:
        """Counts what has come since the last time."""
        frames = self.phone.frames
        for frame in frames[self._taken :]:
            if frame["type"] in ENTRY_TYPES:
                stream, entry = frame["stream"], parse_id(frame["id"])
                if entry.n != self.offsets[stream].n + 1:
                    raise Misdelivered(f"{frame} came after {self.offsets[stream]}")
                self.offsets[stream] = entry
                self.record[stream].append(frame)
            elif frame["type"] == "gap":
                raise Misdelivered(f"nothing was removed, and yet {frame}")
        self._taken = len(frames)

    async def acknowledge(self) -> None:
        """Acknowledges all it has, and waits until that is stored."""
        self.take()
        offsets = dict(self.offsets)
        await self.phone.acknowledge({stream: str(at) for stream, at in offsets.items()})
        self.acknowledged = offsets

    def bodies(self, stream: str) -> list[object]:
        return [frame["body"] for frame in self.record.get(stream, []) if frame["type"] == "message"]

    async def follow(self, *nodes: NodeProcess) -> None:
        """Until cancelled: connects, counts and acknowledges, and goes to the next node after every cut."""
        turn = 0
        while True:
            node = nodes[turn % len(nodes)]
            turn += 1
            try:
                await self.connect(node.url)
                while self.phone.closed is None:
                    self.take()
                    if turn % 2:  # every other connection only counts
                        await self.acknowledge()
                    await asyncio.sleep(0.02)
            except (OSError, AssertionError, WebSocketException):  # the node is away, or was when we waited
                await asyncio.sleep(0.05)
            if self._phone is not None:
                self.take()
