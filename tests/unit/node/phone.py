"""A device that counts as docs/protocol.md tells clients to count, and knows what is stored: it checks the promises.

Whatever is not as promised is an AssertionError of `take`.
"""

from collections.abc import Container
from typing import Any, NamedTuple

import msgspec

from service.auth import Principal
from service.core import frames
from service.core.entries import Stretch
from service.core.frames import ServerFrame
from service.core.names import ALL, ZERO, EntryId, follows, group_of, had, parse_id, user_stream
from service.core.paging import Gap
from service.node import Node
from service.node.connection import Connection, EncodeEntry, gap_frame
from tests.unit.node.stored import Stored

Frame = dict[str, Any]
ENTRY_TYPES = ("message", "joined", "left", "redacted")


class Plain:
    """The wire, a line a frame."""

    transport = "plain"
    entry: EncodeEntry = staticmethod(lambda stream, entry: frames.encode_entry(stream, entry) + b"\n")

    def frame(self, frame: ServerFrame) -> bytes:
        return frames.encode(frame) + b"\n"

    def gap(self, stream: str, gap: Gap) -> bytes:
        return frames.encode(gap_frame(stream, gap)) + b"\n"


class Written(NamedTuple):
    """What the node wrote at one moment, and which streams were live then, through a mailbox that was believed."""

    data: bytes
    live: frozenset[str]


class Phone:
    """One device over all its connections. The socket of each is the phone itself."""

    def __init__(self, node: Node, stored: Stored, user: str, name: str, follows: Container[str]) -> None:
        self.user = user
        self.name = name  # of the device, too
        self.connection: Connection | None = None
        self.at: dict[str, EntryId] = {}  # everything up to here has come on this connection
        self.acknowledged: dict[str, EntryId] = {}
        self.is_told_live = False
        self.asked: list[int] = []  # refs of this connection, in the order they were asked
        self.answers: dict[int, Frame] = {}
        self.is_cut = False  # the node ended the connection
        self._node = node
        self._follows = follows
        self._stored = stored
        self._pushed: dict[str, EntryId] = {}
        self._counted_early: dict[str, set[EntryId]] = {}  # by `sent` on a stream that was behind: pages bring it again
        self._written: list[Written] = []
        self._before: dict[str, int] = {}  # memberships of groups that had begun when it connected

    # -- what the user does --------------------------------------------------------------------------------------------

    def come(self, *, remembers: bool) -> None:
        """Connects and says hello, with its own offsets or none."""
        brought = {stream: str(at) for stream, at in self.at.items()} if remembers else {}
        self.at, self._pushed, self._counted_early, self.is_told_live, self.is_cut = {}, {}, {}, False, False
        self.asked, self.answers = [], {}
        self._before = {group: len(members.get(self.user, ())) for group, members in self._stored.groups.items()}
        who = Principal(user=self.user, can_broadcast=True)
        self.connection = self._node.connect(self, Plain(), who, wants=self._follows.__contains__)
        self.connection.receive([frames.Hello(self.name, brought)])

    def go(self) -> None:
        """Loses the network."""
        assert self.connection is not None
        self.connection.closed()
        self.connection = None

    def say(self, *said: frames.ClientFrame) -> None:
        """Says frames in one WebSocket message."""
        assert self.connection is not None
        self.connection.receive([*said])

    def send(self, to: str, count: int = 1, *, key: str | None = None, body: bytes = b"1") -> None:
        """Sends messages in one WebSocket message."""
        self.say(*(frames.Send(to, msgspec.Raw(body), key, ref) for ref in self._refs(count)))

    def join(self, group: str) -> None:
        [ref] = self._refs(1)
        self.say(frames.Join(group, ref))

    def leave(self, group: str) -> None:
        [ref] = self._refs(1)
        self.say(frames.Leave(group, ref))

    def acknowledge(self) -> None:
        """Acknowledges everything that has come."""
        [ref] = self._refs(1)
        self.say(frames.Ack({stream: str(at) for stream, at in self.at.items()}, ref))

    def _refs(self, count: int) -> list[int]:
        refs = [len(self.asked) + number for number in range(1, count + 1)]
        self.asked += refs
        return refs

    # -- the socket ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        connection = self.connection
        assert connection is not None
        live = frozenset(stream for stream in connection.cursors if connection.is_live(stream))
        self._written.append(Written(data, live if self._node.reader.is_sound else frozenset()))

    buffered_bytes = 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.is_cut = True
        self.connection = None

    # -- what it makes of it -------------------------------------------------------------------------------------------

    def take(self) -> None:
        """Counts what was written since the last time, and checks it."""
        written, self._written = self._written, []
        for data, live in written:
            for line in data.splitlines():
                self._take(msgspec.json.decode(line), live)

    def _take(self, frame: Frame, live: frozenset[str]) -> None:
        kind = frame["type"]
        if kind == "welcome":
            for stream, state in frame["streams"].items():
                self._begin(stream, parse_id(state["offset"]))
        elif kind == "gap":
            self._gap(frame)
        elif kind == "live":
            assert "stream" in frame or not self.is_told_live, "live was told twice"
            self.is_told_live = True
        elif kind in ("sent", "joined", "left", "acked", "error") and "ref" in frame:
            assert frame["ref"] not in self.answers, f"a second answer: {frame}"
            self.answers[frame["ref"]] = frame
            assert frame.get("code") != "ack_beyond", f"what was acknowledged had come: {frame}, {self.at}"
            if kind in ("sent", "joined", "left"):
                self._answer(frame, live)
        else:
            self._push(frame)

    def _begin(self, stream: str, offset: EntryId) -> None:
        self.at[stream] = self._pushed[stream] = offset

    def _answer(self, frame: Frame, live: frozenset[str]) -> None:
        """An answer that stands for an entry."""
        stream, entry = frame["stream"], parse_id(frame["id"])
        stored = self._stored.ever[stream, entry]
        assert stored.sender == self.user, f"{frame} is the answer for {stored}"
        at = self.at.get(stream)
        if frame["type"] == "joined":
            if at is None or entry > at:
                self._begin(stream, entry)
        elif at is None or had(entry, at):
            pass  # it has come already
        elif follows(entry, at):
            self.at[stream] = entry
            if stream not in live:
                self._counted_early.setdefault(stream, set()).add(entry)
        else:
            assert stream not in live, f"{frame} is out of its place: {self.at}"

    def _push(self, frame: Frame) -> None:
        stream, entry = frame["stream"], parse_id(frame["id"])
        stored = self._stored.ever[stream, entry]
        assert frame["type"] == stored.type, f"{frame} is not what was stored: {stored}"
        assert "body" in frame or frame.get("redacted") or frame["type"] != "message", f"no body: {frame}"
        assert "body" not in frame or msgspec.json.encode(frame["body"]) == stored.body, f"{frame}: {stored}"
        self._check_is_mine(stream, entry)
        at = self.at.get(stream)
        is_own_joining = stored.type == "joined" and stored.sender == self.user and group_of(stream) is not None
        if at is None:
            starts = {stretch.joined.n for stretch in self._stretches(stream)}
            assert is_own_joining or entry.n - 1 in starts, f"{frame} is not the first: {starts}"
        else:
            assert entry > self._pushed[stream], f"{frame} came after {self._pushed}"
            # Joined again on another connection: numbers count anew from there.
            is_anew = any(
                at < stretch.joined and entry.n == stretch.joined.n + 1 for stretch in self._stretches(stream)
            )
            is_next = follows(entry, at) or is_anew or (is_own_joining and entry > at)
            is_again = had(entry, at) and entry in self._counted_early.get(stream, ())
            assert is_next or is_again, f"{frame} came after {self.at}"
        self._pushed[stream] = entry
        self.at[stream] = entry if at is None else max(at, entry)

    def _gap(self, frame: Frame) -> None:
        stream, after, to = frame["stream"], parse_id(frame["after"]), parse_id(frame["to"])
        stored, at = self._stored.stream(stream), self.at[stream]
        numbers = range(after.n + 1, to.n + 1)
        assert after == at or (at in self._counted_early.get(stream, ()) and after < at), f"{frame} came at {at}"
        assert numbers, f"nothing is missing: {frame}"
        assert frame["missed"] == len(numbers), frame
        there = {entry.n for entry in stored.entries} | stored.redactions.keys()
        assert there.isdisjoint(numbers), f"{sorted(there.intersection(numbers))} exist: {frame}"
        lines = [line for line in stored.ledger if line.after.n < to.n and line.to.n > after.n]
        told = frame.get("causes") or [frame["cause"]]
        assert {cause["kind"] for cause in told} == {line.kind for line in lines}, f"{frame} but {lines}"
        following = frame.get("next")
        between = range(to.n + 1, (to if following is None else parse_id(following)).n)
        assert there.isdisjoint(between), f"{frame} but {sorted(there.intersection(between))} exist"
        self._check_is_mine(stream, to)
        self._pushed[stream] = to
        self.at[stream] = max(at, to)

    def _stretches(self, stream: str) -> tuple[Stretch, ...]:
        group = group_of(stream)
        return () if group is None else self._stored.stretches(self.user, group)

    def _check_is_mine(self, stream: str, entry: EntryId) -> None:
        """An inbox is its user's, a group's entries are for its members, from the own `joined` to the own `left`."""
        if group_of(stream) is None:
            assert stream in (ALL, user_stream(self.user)), f"{stream} is not {self.user}'s"
            return
        within = [s for s in self._stretches(stream) if s.joined <= entry and (s.left is None or entry <= s.left)]
        assert within, f"{entry} of {stream} is not for {self.user}: {self._stretches(stream)}"

    # -- at the end ----------------------------------------------------------------------------------------------------

    def check_has_everything(self) -> None:
        """Nothing is on its way any more: everything that is this user's has come, and is live."""
        connection = self.connection
        if connection is None:
            return
        assert self.is_told_live, f"{self.name} was never told live"
        streams = [ALL, user_stream(self.user)]
        streams += [f"group:{group}" for group in self._stored.groups if self._stored.is_member(self.user, group)]
        streams = [stream for stream in streams if stream in self._follows]
        for stream in streams:
            head, at = self._stored.stream(stream).head, self.at.get(stream)
            if group_of(stream):  # where it was joined on another connection, it counts from there
                at = max(self._stretches(stream)[-1].joined, at or ZERO)
            assert at == head, f"{self.name} has {stream} up to {at} of {head}"
            assert connection.is_live(stream), f"{self.name} is not live on {stream}"
            assert connection.passed(stream) == head, f"{connection.passed(stream)} has passed, not {head}"
        for group in self._stored.groups:
            for stretch in self._stretches(f"group:{group}")[self._before.get(group, 0) :]:
                if stretch.left is not None and f"group:{group}" in self._follows:
                    at = self.at.get(f"group:{group}", ZERO)
                    assert at >= stretch.left, f"{self.name} has {group} up to {at}, and was a member in {stretch}"
        followed = {stream for stream in connection.cursors if stream in self._follows}  # the inbox may be overheard
        assert followed == set(streams), f"follows {followed}, not {streams}"
        assert not connection.session._fallen, f"not told live again: {connection.session._fallen}"
        assert not connection.session._asked.pending, f"not answered: {connection.session._asked.pending}"
        assert self.asked == sorted(self.answers), f"asked {self.asked}, answered {self.answers}"
