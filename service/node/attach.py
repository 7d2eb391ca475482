"""Which streams this node's mailbox is on the register of: attach, linger, detach, and the slow audit.

One task makes all these calls, one after the other, so the attach and the detach of a stream can never cross. A detach
that the store carries out late, after a newer attach, changes nothing: each registration carries a rising token.
"""

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from service.config import Settings
from service.core.names import ZERO, EntryId
from service.errors import WaypostError
from service.node.connection import Connection
from service.store import MailboxGone, Registration, Store

if TYPE_CHECKING:
    from service.core.delivery import Delivery
    from service.node.node import Node

STREAMS_PER_CALL = 500  # bounds one call of the function to a few milliseconds of Redis


def _chunks(streams: list[str]) -> list[list[str]]:
    return [streams[at : at + STREAMS_PER_CALL] for at in range(0, len(streams), STREAMS_PER_CALL)]


class Attachments:
    """The registrations of a node's mailbox."""

    def __init__(
        self, node: "Node", store: Store, delivery: "Delivery[Connection]", settings: Settings, start_token: int
    ) -> None:
        self._node = node
        self._store = store
        self._delivery = delivery
        self._linger_s = settings.detach_linger_s
        self._audit_s = settings.audit_s
        self._mailbox = ""
        # Tokens rise over the life of the mailbox; they only ever compare within it.
        self._tokens = itertools.count(start_token)
        self._registered: dict[str, int] = {}
        self._wanted: dict[str, None] = {}
        self._idle: dict[str, float] = {}  # streams without connections → when to detach
        self._stray: dict[str, None] = {}  # registered, it seems, but not wanted
        self._to_audit: list[str] = []
        self._unverified: dict[int, dict[str, EntryId]] = {}  # beat → what the mailbox must have brought by then
        self._wake = asyncio.Event()
        self._calls = asyncio.Lock()
        self._has_left = False

    @property
    def count(self) -> int:
        """On the registers of how many streams the mailbox is."""
        return len(self._registered)

    def want(self, stream: str) -> None:
        """A connection follows the stream: be attached to it."""
        self._idle.pop(stream, None)
        if stream not in self._registered:
            self._wanted[stream] = None
            self._wake.set()

    def release(self, stream: str) -> None:
        """Nobody here follows the stream any more: detach after a while, for people come back within seconds."""
        self._idle[stream] = time.monotonic() + self._linger_s

    def stray(self, stream: str) -> None:
        """An entry came for a stream that nobody here wants (an attach that was carried out late): detach."""
        self._stray[stream] = None
        self._wake.set()

    async def leave(self) -> None:
        """The node ends: its mailbox is taken off every register, so that nobody copies anything to it any more. What
        fails is mended by whoever finds the mailbox gone.
        """
        async with self._calls:
            self._has_left = True
            registered, self._registered = list(self._registered), {}
            for streams in _chunks(registered):
                token = next(self._tokens)
                await self._store.detach(self._mailbox, [Registration(stream, token) for stream in streams])

    async def attach_all(self, mailbox: str) -> bool:
        """A new mailbox: attach every stream to it. Returns whether a stream's head was below its position.

        Connections on streams whose head is not the node's position are behind afterwards; the others missed nothing.
        Raises what `Store.attach` raises.
        """
        async with self._calls:
            if self._has_left:
                return False
            self._mailbox = mailbox
            self._registered.clear()
            self._wanted.clear()
            self._stray.clear()
            self._unverified.clear()
            was_rolled_back = False
            for streams in _chunks(list(self._delivery.tracks)):
                positions = self._positions(streams)
                heads = await self._attach(streams)
                for stream, head in heads.items():
                    was_rolled_back = was_rolled_back or head < positions.get(stream, ZERO)
                    self._node.attached(stream, head)
            return was_rolled_back

    def expect(self, given: Mapping[str, EntryId]) -> None:
        """The store answered that it has these entries: where the stream is registered, the mailbox brings them."""
        expected = self._unverified.setdefault(self._node.reader.next_beat, {})
        for stream, entry in given.items():
            if stream in self._registered:
                expected[stream] = entry

    def verify(self, beat: int) -> None:
        """The reader saw this beat: what was known before it was sent must have come through the mailbox by now.

        Where it has not, connections read pages, and the stream is registered once more.
        """
        for due in [due for due in self._unverified if due <= beat]:
            for stream, head in self._unverified.pop(due).items():
                track = self._delivery.tracks.get(stream)
                if track is not None and track.position is not None and track.position < head:
                    self._registered.pop(stream, None)
                    self.want(stream)
                    self._node.missed(stream, track.verify(head))

    async def run(self) -> None:
        """Attaches, detaches and audits for as long as the node lives."""
        audit_at = time.monotonic() + self._audit_s
        while True:
            try:
                async with asyncio.timeout(min(1.0, self._linger_s)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._node.reader.wait_until_sound()
            if time.monotonic() >= audit_at:
                # A full pass takes at most the period: half a pass' streams are done by half of it.
                self._to_audit = list(self._registered)
                audit_at = time.monotonic() + self._audit_s
            try:
                await self._work()
            except MailboxGone:
                self._node.reader.doubt("its mailbox is gone", "lease")
            except WaypostError as problem:
                self._node.out_of_reach(problem)
                self._node.reader.doubt("an attach or detach was not answered", "attach")

    async def _work(self) -> None:
        while self._wanted:
            async with self._calls:
                if self._has_left:
                    return
                streams = list(itertools.islice(self._wanted, STREAMS_PER_CALL))
                heads = await self._attach(streams)
                for stream in streams:
                    self._wanted.pop(stream, None)
                for stream, head in heads.items():
                    self._node.attached(stream, head)
        if not self._has_left:
            await self._detach()
            await self._audit()

    async def _attach(self, streams: Iterable[str]) -> dict[str, EntryId]:
        wants = [Registration(stream, next(self._tokens)) for stream in streams]
        attached = await self._store.attach(self._mailbox, wants)
        self._registered.update({want.stream: want.token for want in wants})
        return {stream: state.head for stream, state in attached.items()}

    def _positions(self, streams: Iterable[str]) -> dict[str, EntryId]:
        """The positions of those of the streams that have one: a head below it was rolled back."""
        tracks = [self._delivery.tracks.get(stream) for stream in streams]
        return {track.stream: track.position for track in tracks if track is not None and track.position is not None}

    async def _detach(self) -> None:
        async with self._calls:
            now = time.monotonic()
            due = [stream for stream, at in self._idle.items() if at <= now]
            gone = [stream for stream in due if not self._delivery.tracks.get(stream)]
            for stream in due:
                del self._idle[stream]
            for stream in gone:
                self._delivery.forget(stream)
                self._registered.pop(stream, None)
            gone += [stream for stream in self._stray if stream not in self._delivery.tracks]
            self._stray.clear()
            for streams in _chunks(gone):
                token = next(self._tokens)
                await self._store.detach(self._mailbox, [Registration(stream, token) for stream in streams])

    async def _audit(self) -> None:
        """Registers again a part of the streams, which repairs a registration that was lost, and compares heads."""
        part = max(1, int(len(self._registered) / max(1.0, self._audit_s / 2)))
        async with self._calls:
            streams = [stream for stream in self._to_audit[:part] if stream in self._registered]
            del self._to_audit[:part]
            for some in _chunks(streams):
                positions = self._positions(some)
                heads = await self._attach(some)
                for stream, head in heads.items():
                    self.expect({stream: head})
                if any(head < positions.get(stream, ZERO) for stream, head in heads.items()):
                    self._node.fence.trip("a stream is shorter than it was", was_rolled_back=True)
