"""The mailbox reader: what the store has for this node's connections, in the order it was written.

A mailbox is read by one task over one connection of its own. The same loop renews the mailbox' lease and puts a *beat*
into it; seeing the beat again proves that the loop reads what the store writes. **Doubt** is the one answer to
everything that could mean a lost entry: a lease that is gone, a hole in the mailbox' dense ids, an entry that cannot
be read, a beat that does not come, a control call without an answer, another server. Then the mailbox is dropped, a
new one is made (a name is used once), all streams are attached to it, and connections on streams that have moved
meanwhile read pages.
"""

import asyncio
import itertools
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from service.config import Settings
from service.core.entries import Arrival
from service.errors import WaypostError
from service.metrics import DoubtKind
from service.store import Beat, MailboxReader, Store
from service.store.mailbox import Received

if TYPE_CHECKING:
    from service.node.node import Node

ENTRIES_PER_READ = 32  # of up to 16 KiB: 512 KiB at once, and milliseconds of work before sockets are served again
RETRY_S = 0.2  # between two attempts to begin a mailbox while the store is away


def redacted_in(received: Iterable[list[Arrival] | Beat | None]) -> set[tuple[str, str]]:
    """Stream and id of every message that something received says was redacted."""
    arrivals = itertools.chain.from_iterable(what for what in received if isinstance(what, list))
    return {(arrival.stream, arrival.entry.target) for arrival in arrivals if arrival.entry.type == "redacted"}


def tombstone(arrival: Arrival) -> Arrival:
    """A message whose body was taken away while it was on its way: it keeps its place."""
    entry = msgspec.structs.replace(arrival.entry, body=None, is_redacted=True)
    return msgspec.structs.replace(arrival, entry=entry, by_reference=False)


class Doubt(Exception):
    """Why the mailbox is not believed any more: in words for people, and of which kind that is."""

    def __init__(self, why: str, kind: DoubtKind) -> None:
        super().__init__(why)
        self.kind: DoubtKind = kind


class Reader:
    """The reader of a node's mailbox."""

    def __init__(self, node: "Node", store: Store, settings: Settings) -> None:
        self._node = node
        self._store = store
        self._beat_s = settings.beat_s
        self._ttl_ms = int(settings.mailbox_ttl_s * 1000)
        self.mailbox = ""  # the key of the mailbox that is read, "" in doubt
        self.next_beat = 1  # the number of the beat that will be sent next
        self._notices_after = ""  # the id of the last notice that was read, "" before the node knows where to begin
        self.last_seen = 0.0  # monotonic time of the last beat that came back
        self.position = 0  # the number of the last entry of the mailbox that was read
        self.lag_entries = 0  # of the mailbox, before the last beat that came back, and not read when it was sent
        self._lag_s = 0.0  # how long that beat took
        self._sent_at: dict[int, tuple[float, int]] = {}  # beats on their way: when they were sent, and what was read
        self._sound = asyncio.Event()
        self._doubt: Doubt | None = None
        self._has_left = False

    @property
    def is_sound(self) -> bool:
        """Whether the mailbox is believed."""
        return self._sound.is_set()

    @property
    def hears_notices(self) -> bool:
        """Whether every notice from now on will be heard, however long the mailbox is in doubt meanwhile."""
        return self._notices_after != ""

    def forget_notices(self) -> None:
        """Another history: ids of notices mean nothing in it."""
        self._notices_after = ""

    async def wait_until_sound(self) -> None:
        """Returns once the mailbox is believed."""
        await self._sound.wait()

    def lag_s(self, now: float) -> float:
        """How long what is put into the mailbox takes to come out of it, as far as beats can tell. `now`: monotonic."""
        waiting = [now - sent for sent, _ in self._sent_at.values()]
        if not self.is_sound and self.last_seen:  # nothing comes out of it
            waiting.append(now - self.last_seen)
        return max((self._lag_s, *waiting))

    def doubt(self, why: str, kind: DoubtKind) -> None:
        """Somebody else noticed that the mailbox cannot be believed: the reader makes a new one at its next turn."""
        self._doubt = self._doubt or Doubt(why, kind)

    async def leave(self) -> None:
        """The node ends, and nobody is connected any more: nothing is to be put into its mailbox from now on."""
        self._has_left = True
        try:
            await self._node.attachments.leave()
        except WaypostError:
            pass  # whoever finds the mailbox gone takes it off
        await self._drop(self.mailbox)

    async def run(self) -> None:
        """Reads for as long as the node lives."""
        mailboxes = self._store.mailbox_reader()
        try:
            while not self._has_left:
                await self._node.fence.wait_until_open()
                try:
                    await self._begin()
                    await self._read(mailboxes, self.mailbox)
                except Doubt as doubt:
                    self._node.numbers.doubt(doubt.kind)
                    self._node.log.warning("mailbox_doubted", detail=str(doubt), mailbox=self.mailbox)
                except WaypostError as problem:
                    self._node.numbers.doubt("call")
                    self._node.log.warning("mailbox_doubted", detail=problem.detail, mailbox=self.mailbox)
                    self._node.out_of_reach(problem)
                    await asyncio.sleep(RETRY_S)
                self._sound.clear()
                self._sent_at = {}
                self._node.spawn(self._drop(self.mailbox))
                self.mailbox = ""
                await mailboxes.close()  # it may lead to a server that is no longer the store's
        finally:
            await mailboxes.close()

    async def _begin(self) -> None:
        """A new mailbox with all streams attached to it."""
        self._doubt = None
        if not self._notices_after:
            self._notices_after = await self._store.last_notice()
        await self._node.sign_ins.look_at_keys_again()
        mailbox = self.mailbox = await self._store.create_mailbox(self._node.name)
        if await self._node.attachments.attach_all(mailbox):
            self._node.fence.trip("a stream is shorter than it was", was_rolled_back=True)
            raise Doubt("a stream is shorter than it was", "history")
        self.last_seen = time.monotonic()
        self._sound.set()
        self._node.log.info("mailbox_attached", mailbox=mailbox, count=len(self._node.delivery.tracks))

    async def _read(self, mailboxes: MailboxReader, mailbox: str) -> None:
        """Reads one mailbox until it is in doubt."""
        last = 0  # the mailbox' own ids are dense
        beat_at = time.monotonic()
        self.position = 0
        sent_at = self._sent_at = {}
        while True:
            now = time.monotonic()
            if now >= beat_at:
                sent_at[self.next_beat] = now, last
                await self._renew(mailboxes, mailbox, last)
                beat_at = now + self._beat_s
            block_ms = max(1, int((beat_at - time.monotonic()) * 1000))
            read = await mailboxes.read(
                mailbox, last, block_ms=block_ms, count=ENTRIES_PER_READ, notices_after=self._notices_after
            )
            self._notices_after = read.notices_upto
            for notice in read.notices:  # first: whom it ends gets nothing that was stored after it
                self._node.sign_ins.heed(notice)
            if len(read.notices) >= ENTRIES_PER_READ:
                continue  # perhaps there are more, older than these entries
            redacted = redacted_in(what for _, what in read.entries)
            if redacted:
                beat_at = time.monotonic()  # the next lease takes what was read out of the mailbox, bodies too
            last = self.position = self._take(read.entries, last, redacted)
            if sent_at and time.monotonic() - min(sent_at.values())[0] > 2 * self._beat_s:
                raise Doubt("a beat did not come back within two periods", "beat")
            if self._doubt:
                raise self._doubt

    def _take(self, received: Received, last: int, redacted: set[tuple[str, str]]) -> int:
        """What was read goes to the connections; returns the number of the last entry. Raises `Doubt`."""
        with self._node.turn.opened():
            for number, what in received:
                if number != last + 1:
                    raise Doubt(f"entries {last + 1} to {number - 1} are missing", "hole")
                last = number
                if isinstance(what, list):
                    for arrival in what:
                        is_redacted = bool(redacted) and (arrival.stream, str(arrival.entry.id)) in redacted
                        self._node.dispatch(tombstone(arrival) if is_redacted else arrival)
                elif isinstance(what, Beat):
                    self._beaten(what, number)
                    self._node.attachments.verify(what.number)
                else:
                    raise Doubt(f"entry {number} cannot be read", "unreadable")
        return last

    def _beaten(self, beat: Beat, number: int) -> None:
        """A beat came back, as this entry of the mailbox."""
        self.last_seen = time.monotonic()
        sent = self._sent_at.pop(beat.number, None)
        if sent is not None:
            sent_at, read = sent
            self._lag_s = self.last_seen - sent_at
            self.lag_entries = number - 1 - read

    async def _renew(self, mailboxes: MailboxReader, mailbox: str, last: int) -> None:
        """Renews the lease with a beat, trims what was read, and looks which server and which history answers."""
        beat = self.next_beat
        self.next_beat += 1
        lease = await mailboxes.lease(mailbox, beat, last, self._ttl_ms)
        if lease is None:
            raise Doubt("its lease is gone", "lease")
        servers = {lease.run, lease.server_run, self._node.fence.server_run}
        if len(servers) > 1 or lease.epoch != self._store.epoch:
            self._node.fence.trip("another server, or another history")
            raise Doubt("another server, or another history", "server")

    async def _drop(self, mailbox: str) -> None:
        if mailbox:
            try:
                await self._store.drop_mailbox(mailbox)
            except WaypostError:
                pass  # its lease runs out by itself
