"""Who takes part: devices and their connections, and nodes in this process, each with a store and faults of its own."""

import asyncio
import itertools
from collections.abc import Callable, Sequence

from service.config import Limits, Settings
from service.core.frames import Left, Sent, ServerFrame
from service.core.names import EntryId, parse_id
from service.core.session import Life
from service.node import Node
from service.node.connection import CLOSE_INTERNAL
from service.store import Store, StoreOptions
from service.store.connection import Command
from service.store.context import Context
from tests.integration.lines import Line, PlainCodec
from tests.integration.store.kit import Admin
from tests.integration.stories.faults import PULSE, Faults, FaultyLink
from tests.integration.stories.model import Attempt, Model
from tests.integration.stories.watch import Asked, Watch, Written
from tests.service import Frame


class Host:
    """A node, and the faults between it and the store. `start` it, and `kill` it, any number of times."""

    def __init__(self, url: str, admin: Admin, settings: Settings, late: list[Sequence[Command]]) -> None:
        self.name = settings.node
        self.beat_s = settings.beat_s
        self._url = url
        self._admin = admin
        self._settings = settings
        self._late = late
        self.faults = Faults(admin, late)
        self.node: Node | None = None
        self.store: Store | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        options = StoreOptions(mailbox_ttl_s=self._settings.mailbox_ttl_s, mailbox_cap=self._settings.mailbox_cap)
        self.faults = Faults(self._admin, self._late)
        self.store = Store(Context(FaultyLink(self._url, options, self.faults), options))
        self.node = Node(self.store, self._settings)
        self._running = asyncio.create_task(self.node.run())

    async def end(self) -> None:
        """Ends as a process that is killed: nothing more is said, to nobody."""
        self.node = None
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self.store is not None:
            await self.store.close()

    def check(self) -> None:
        """Raises what has ended the node, if anything did that was not asked to."""
        if self.node is not None and self._running is not None and self._running.done():
            self._running.result()

    @property
    def is_quiet(self) -> bool:
        """Whether everything that can go on without a new event has gone on: nothing is read, asked or written."""
        node, faults = self.node, self.faults
        if node is None or not node.fence.is_open:
            return True  # no more will happen until somebody does something about it
        held = faults.held
        if faults.under_way or not (node.sends._idle.is_set() or "publish" in held):
            return False
        is_catching_up = node.attachments._wanted or any(c._catching_up for c in node.connections.values())
        if is_catching_up and not faults.waiting:
            return False
        return bool(held & {*PULSE, "attach", "mailbox"}) or (node.reader.is_sound and self._has_read_all(node))

    def _has_read_all(self, node: Node) -> bool:
        newest = self._admin.xrevrange(node.reader.mailbox, count=1)
        return bool(newest) and self.faults.read_upto == (node.reader.mailbox, newest[0][0])


class Device:
    """An installation of a client: what it has said about how far it has come, and what the store has of that."""

    def __init__(self, user: str, name: str) -> None:
        self.user = user
        self.name = name
        self.connections = 0
        self.stored: dict[str, EntryId] = {}  # as the store has it
        self.said: dict[str, set[EntryId]] = {}  # every offset acknowledged or brought
        self.confirmed: dict[str, EntryId] = {}  # the highest that was answered with `acked`
        self.forgotten: set[str] = set()  # streams that the store had an offset of, once
        self.kept: dict[str, EntryId] = {}  # what the client itself has counted, for it to bring

    def __str__(self) -> str:
        return f"{self.user}/{self.name}"

    def has(self, stream: str) -> EntryId:
        """The highest offset of a stream that it has said, or that is stored."""
        return max({self.stored[stream]} | self.said.get(stream, set()))

    def says(self, offsets: dict[str, EntryId]) -> None:
        for stream, offset in offsets.items():
            self.said.setdefault(stream, set()).add(offset)


class _JudgingCodec(PlainCodec):
    """Shows each frame of the session to `judge` when it is given out."""

    def __init__(self, judge: Callable[[ServerFrame], None]) -> None:
        self._judge = judge

    def frame(self, frame: ServerFrame) -> bytes:
        self._judge(frame)
        return super().frame(frame)


class Phone(Line):
    """One connection of a device, watched. It ends when either side closes, or when its node is killed."""

    def __init__(self, host: Host, device: Device, model: Model, brought: dict[str, EntryId]) -> None:
        """`brought` are the offsets that its `hello` brings. Raises `WaypostError` when the node takes nobody."""
        assert host.node is not None
        self.host = host
        self.device = device
        self.watch = Watch(model, device.user, device.stored, brought)
        self.written: list[Written] = []
        self.taken = 0  # frames that were held against the model
        device.connections += 1
        self.label = str(device) if device.connections == 1 else f"{device}({device.connections})"
        self.is_open = True
        self.code: int | None = None  # the close code, when the server has closed
        self.attempts: dict[str, Attempt] = {}
        self.acks: dict[str, dict[str, EntryId]] = {}  # ref → offsets
        self.claims: list[str] = []
        self.questions: dict[str, Asked] = {}  # about the past
        self._mailboxes: dict[str, str] = {}  # ref → the mailbox that its own entry is to come through
        self._refs = itertools.count(1)
        self._places: dict[str, tuple[bool, bool]] = {}  # ref of an answer → whether it is in its place, and should be
        super().__init__(host.node, device.user, _JudgingCodec(self._judge))
        device.says(brought)
        offsets = {stream: str(offset) for stream, offset in brought.items()}
        self.say(type="hello", device=device.name, offsets=offsets)

    def write(self, data: bytes) -> None:
        known = len(self.frames)
        super().write(data)
        for frame in self.frames[known:]:
            self.written.append(Written(frame, *self._places.pop(frame.get("ref", ""), (False, False))))

    def _judge(self, frame: ServerFrame) -> None:
        """Notes how an answer's place is come by, when it takes it: it is written at the end of the node's turn."""
        node = self.connection._node
        if (
            isinstance(frame, Sent | Left)
            and frame.ref is not None
            and not (isinstance(frame, Sent) and frame.duplicate)
        ):
            ref = str(frame.ref)
            should_be = (
                self.connection.session.life is Life.OPEN  # at the end all is answered that is stored
                and self.connection.is_live(frame.stream)
                and node.reader.mailbox == self._mailboxes[ref] != ""
            )
            self._places[ref] = node._is_dispatching, should_be

    def close(self, code: int, reason: str) -> None:
        self.is_open, self.code = False, code

    def cut(self) -> None:
        """The network is lost. A node that was killed does not hear of it."""
        self.is_open = False
        if self.host.node is self.connection._node:
            self.connection.closed()

    def ask(self, attempt: Attempt, **frame: object) -> None:
        """Says something that is to be answered."""
        ref = f"{self.label}.{next(self._refs)}"
        self.attempts[ref] = attempt
        self._mailboxes[ref] = self.connection._node.reader.mailbox
        self.say(ref=ref, **frame)

    def acknowledge(self, offsets: dict[str, EntryId], *, is_answered: bool) -> None:
        ref = f"{self.label}.a{next(self._refs)}"
        self.device.says(offsets)
        given = {"ref": ref} if is_answered else {}
        if is_answered:
            self.acks[ref] = offsets
        self.say(type="ack", offsets={stream: str(offset) for stream, offset in offsets.items()}, **given)

    def claim(self, stream: str, offset: EntryId) -> None:
        """Acknowledges what cannot have been delivered, which must be refused."""
        ref = f"{self.label}.c{next(self._refs)}"
        self.claims.append(ref)
        self.say(type="ack", ref=ref, offsets={stream: str(offset)})

    def look_back(self, stream: str, anchor: dict[str, object], limit: int) -> None:
        """Asks what was said in a stream."""
        ref = f"{self.label}.h{next(self._refs)}"
        known = self.watch.known(stream)
        gone = frozenset(n for n in range(1, len(known.entries) + 1) if known.is_gone(n))
        since = known.member_since(self.device.user)
        self.questions[ref] = Asked(stream, str(anchor), limit, gone, frozenset(known.redacted), since)
        self.say(type="history", ref=ref, stream=stream, limit=limit, **anchor)

    @property
    def waits_for(self) -> list[str]:
        """What was asked and not answered."""
        answered = {str(frame["ref"]) for frame in self.frames if "ref" in frame}
        return [ref for ref in (*self.attempts, *self.acks, *self.claims, *self.questions) if ref not in answered]

    def take_frames(self) -> None:
        """Holds what has come since against the model."""
        assert self.code != CLOSE_INTERNAL, f"{self.label}: something failed in the node"
        for written in self.written[self.taken :]:
            self.taken += 1
            self._hear(written.frame)
            try:
                self.watch.take(written)
            except AssertionError as error:
                error.add_note(f"it came to {self.label}")
                raise
        self.device.kept.update({stream: passed[-1] for stream, passed in self.watch.passed.items()})

    def _hear(self, frame: Frame) -> None:
        ref = str(frame.get("ref", ""))
        if ref in self.acks and frame["type"] == "acked":
            for stream, offset in self.acks[ref].items():
                confirmed = self.device.confirmed
                confirmed[stream] = max(offset, confirmed.get(stream, offset))
        elif ref in self.claims:
            assert frame.get("code") == "ack_beyond", f"{self.label}: {frame} to what was never delivered"
        elif ref in self.questions:
            self.watch.check_past(self.questions[ref], frame)
        elif ref in self.attempts:
            attempt = self.attempts[ref]
            assert attempt.answer is None, f"{self.label}: {ref} was answered twice: {attempt.answer}, {frame}"
            attempt.answer = frame
        elif frame["type"] == "error":
            assert frame["code"] in ("unavailable", "uncertain", "draining"), f"{self.label}: {frame}"


def small(name: str, *, beat_s: float, mailbox_cap: int, tail_entries: int) -> Settings:
    """Settings under which little is much: a few messages fill a page, and what takes a minute takes a moment."""
    limits = Limits(page_entries=3, tail_entries=tail_entries, batch_messages=4)
    return Settings(
        node=name,
        dev=True,
        beat_s=beat_s,
        mailbox_ttl_s=3.0,
        mailbox_cap=mailbox_cap,
        detach_linger_s=0.02,
        audit_s=0.05,
        commit_s=0.05,
        limits=limits,
    )


def offset_of(raw: bytes) -> EntryId:
    """A stored offset, without its epoch."""
    return parse_id(raw.decode().partition(" ")[0])
