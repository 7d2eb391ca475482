"""A server as the client sees it, in a few lines, and a program that uses a client: what the properties are tried on.

`World` holds both ends and nothing is lost between them but by `cut`. It checks at each step what may never happen, and
at its end that the program got everything, in order, once.
"""

import itertools
from typing import Any

import msgspec

from service.client.outbox import Operation
from service.client.state import State
from service.core import frames
from service.core.names import EntryId

ME = "ann"
STREAMS = ("user:ann", "group:g", "all")
PING_S = 25.0
KEY_WINDOW_S = 60.0  # the shortest that a server may be set to
LIMITS: dict[str, int | float] = {"unanswered_sends": 8, "frame_bytes": 4096}


def welcome(
    offsets: dict[str, str], *, epoch: str = "e1", user: str = ME, more: bool = False, ping: float = PING_S
) -> frames.Welcome:
    """A welcome that starts each stream at its offset."""
    states = {stream: frames.StreamState(offset, offset, "0-0", 0) for stream, offset in offsets.items()}
    return frames.Welcome(user, "d", "node", epoch, ping, LIMITS, states, more)


def message(stream: str, entry: EntryId | str, mid: str = "m", sender: str = "bob") -> frames.Message:
    """A message, with a body that says which."""
    return frames.Message(stream, str(entry), mid, sender, stream, msgspec.Raw(msgspec.json.encode(str(entry))))


def packed(*sent: frames.ServerFrame) -> bytes:
    """Frames in one WebSocket message."""
    return b"\n".join([frames.encode(frame) for frame in sent])


def said(messages: list[bytes]) -> list[dict[str, Any]]:
    """What a client says, frame by frame."""
    return [msgspec.json.decode(line) for part in messages for line in part.split(b"\n")]


class Stream:
    """What the server has: ids by number, which of them are messages of our own, and what was trimmed."""

    def __init__(self) -> None:
        self.ids: list[EntryId] = [EntryId(0, 0)]
        self.mids: dict[int, str] = {}
        self.floor = 0

    def append(self, ms: int, mid: str = "") -> EntryId:
        entry = EntryId(ms, len(self.ids))
        self.ids.append(entry)
        if mid:
            self.mids[entry.n] = mid
        return entry


class World:
    """One client and one server. `stored` is what the server has of the device; `taken` what the program has."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = State(device="d", jitter=lambda: 0.5)
        self.streams = {name: Stream() for name in STREAMS}
        self.stored = dict.fromkeys(STREAMS, 0)
        self.cursors: dict[str, int] = {}  # of the connection, empty when there is none
        self.in_place: dict[tuple[str, int], frames.Sent] = {}  # answers that wait for their place among the pushes
        self.wire: list[bytes] = []  # what the client has said and the server has not heard
        self.skipped: set[tuple[str, int]] = set()
        self.taken = dict.fromkeys(STREAMS, 0)
        self.missed: dict[str, set[int]] = {name: set() for name in STREAMS}
        self.keys: dict[str, tuple[EntryId, float]] = {}  # which message has a key, and since when
        self.order: list[str] = []  # keys in the order they were stored
        self.operations: list[Operation] = []
        self.fate: list[str] = []  # what befalls the next sends, one by one

    # -- the network ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        if self.cursors:
            return
        hello = said(self.client.begin())[0]
        brought = {stream: int(offset.split("-")[1]) for stream, offset in hello["offsets"].items()}
        for stream, n in brought.items():
            assert n <= self.taken[stream], "an offset was brought that the program has not taken"
            self.stored[stream] = max(self.stored[stream], n)
        self.cursors = {stream: brought.get(stream, self.stored[stream]) for stream in STREAMS}
        starts = {stream: str(self.streams[stream].ids[n]) for stream, n in self.cursors.items()}
        self.give(welcome(starts))

    def give(self, *sent: frames.ServerFrame) -> None:
        self.client.receive(packed(*sent), self.now)
        self.check()

    def check(self) -> None:
        """The client may want to end the connection: then it does."""
        if self.client.ending:
            self.cut()

    def cut(self) -> None:
        if self.cursors:
            self.cursors, self.in_place, self.wire = {}, {}, []
            self.client.lost(self.now, 1006)

    # -- the server ----------------------------------------------------------------------------------------------------

    def append(self, stream: str) -> None:
        self.now += 0.001
        self.streams[stream].append(int(self.now * 1000))

    def trim(self, stream: str, count: int) -> None:
        """Old entries go, but none that is younger than the time for which keys are kept."""
        kept = self.streams[stream]
        unheard = {f"key{operation.number}" for operation in self.operations if not operation.is_settled}
        own = [n for n, mid in kept.mids.items() if mid in unheard]
        kept.floor = max(kept.floor, min([len(kept.ids) - 1 - count, *(n - 1 for n in own)]))

    def push(self, stream: str, count: int) -> None:
        """The next frames of a stream, in one message."""
        if self.cursors:
            pushed = (self.next_frame(stream) for _ in range(count))
            self.give(*[frame for frame in itertools.takewhile(bool, pushed) if frame is not None])

    def next_frame(self, stream: str) -> frames.ServerFrame | None:
        kept, at = self.streams[stream], self.cursors[stream]
        if at >= len(kept.ids) - 1:
            return None
        if at < kept.floor:
            late = sorted(n for name, n in self.in_place if name == stream and n <= kept.floor)
            if late:  # their place is gone, so they are answered now
                return self.in_place.pop((stream, late[0]))
            self.cursors[stream] = kept.floor
            to = kept.ids[kept.floor]
            return frames.Gap(stream, str(kept.ids[at]), str(to), to.n - at, frames.Cause("trimmed"))
        self.cursors[stream] = at + 1
        sent = self.in_place.pop((stream, at + 1), None)
        return sent or self.entry(stream, at + 1)

    def entry(self, stream: str, n: int) -> frames.Message:
        kept = self.streams[stream]
        return message(stream, kept.ids[n], kept.mids.get(n, "m"), ME if n in kept.mids else "bob")

    def repeat(self, stream: str) -> None:
        """A server that says again what it has said."""
        at = self.cursors.get(stream, 0)
        if at > self.streams[stream].floor:
            self.give(self.entry(stream, at))

    def skip(self, stream: str) -> None:
        """A server that forgets to say something, though not to answer."""
        place = (stream, self.cursors.get(stream, 0) + 1)
        is_there = self.cursors and place[1] < len(self.streams[stream].ids)
        if is_there and place not in self.in_place and place not in self.skipped:  # the second time it would insist
            self.skipped.add(place)
            self.cursors[stream] += 1

    def speak(self) -> None:
        """The client says what it has to say."""
        if self.cursors:
            self.wire += self.client.flush(self.now)

    def hear(self) -> None:
        """The server hears one message of what the client has said."""
        if self.wire:
            failed = False
            for frame in said([self.wire.pop(0)]):
                if frame["type"] == "send" and self.cursors:
                    failed = self.store(frame, failed=failed)
                elif frame["type"] == "ack":
                    for stream, offset in frame["offsets"].items():
                        n = int(offset.split("-")[1])
                        assert n <= self.taken[stream], "something was acknowledged that the program has not taken"
                        self.stored[stream] = max(self.stored[stream], n)

    def serve(self) -> None:
        """The client speaks, and the server hears all of it."""
        self.speak()
        while self.wire:
            self.hear()

    def wait(self, seconds: float) -> None:
        """Time passes, though not while something is on its way."""
        self.serve()
        self.now += seconds

    def store(self, frame: dict[str, Any], *, failed: bool) -> bool:
        """One send; returns whether it failed, and with it all that came behind it in the same message."""
        fate = self.fate.pop(0) if self.fate and not failed else "stored"
        if failed or fate == "unavailable":
            self.give(frames.Error("unavailable", "", True, frame["ref"]))
            return True
        if fate == "lost":
            self.cut()
            return True
        stream, key = frame["to"], frame["key"]
        is_duplicate = key in self.keys and self.now - self.keys[key][1] < KEY_WINDOW_S
        if not is_duplicate:
            self.now += 0.001
            self.keys[key] = (self.streams[stream].append(int(self.now * 1000), key), self.now)
            self.order.append(key)
        if fate == "uncertain":
            self.give(frames.Error("uncertain", "", True, frame["ref"]))
            return True
        if fate == "unheard":
            self.cut()
            return True
        entry, _ = self.keys[key]
        sent = frames.Sent(stream, str(entry), key, is_duplicate, "fsynced", frame["ref"])
        if not is_duplicate and self.cursors[stream] == entry.n - 1:  # live: the reader says it, in its place
            self.in_place[stream, entry.n] = sent
        else:
            self.give(sent)
        return False

    # -- the program ---------------------------------------------------------------------------------------------------

    def send(self, stream: str) -> None:
        number = self.client.number()
        frame = frames.Send(stream, msgspec.Raw(b"1"), f"key{number}", number)
        self.operations.append(self.client.submit(frame))

    def take(self, count: int) -> None:
        """The program takes events, and looks at each."""
        for _ in range(count):
            event = self.client.next_event()
            if event is None:
                return
            if isinstance(event, frames.Gap):
                after, to = int(event.after.split("-")[1]), int(event.to.split("-")[1])
                assert after == self.taken[event.stream], "a gap that does not begin where the program is"
                assert event.missed == to - after
                self.missed[event.stream] |= set(range(after + 1, to + 1))
                self.taken[event.stream] = to
            elif isinstance(event, frames.Message | frames.Sent):
                n = int(event.id.split("-")[1])
                assert n == self.taken[event.stream] + 1, "out of order, twice, or with a hole"
                self.taken[event.stream] = n
            self.client.took()

    def settle(self) -> None:
        """All goes well from here on, until there is nothing more to be done."""
        self.fate = []
        for stream in STREAMS:  # what a server forgot to say last shows with what comes after it
            self.append(stream)
        limit = self.now + 3000.0
        while True:
            self.connect()
            for stream in STREAMS:
                self.push(stream, 10_000)
            if self.cursors:
                self.give(frames.Live())
            self.wait(11.0)  # longer than any pause
            self.take(100_000)
            is_all = all(self.taken[name] == len(kept.ids) - 1 for name, kept in self.streams.items())
            if is_all and self.cursors and not self.client.outbox:
                break
            assert self.now < limit, "it does not come to an end"
        for _ in range(2):  # acknowledgements wait for half a second
            self.serve()
            self.now += 1.0
        self.serve()
