"""The store as the functions of service/store/lua leave it, in memory and in plain Python, for models of a node.

One partition, one server. Each method does what the function of its name does, at one moment; bodies of the real ones
are tested in tests/integration/store, and `tests/integration/store/test_stored.py` holds this one against them.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from service.core.entries import Arrival, Entry, Page, Redaction, Removal, Stretch
from service.core.names import ALL, ZERO, EntryId, group_of, group_stream, user_stream
from service.errors import Fenced, WaypostError
from service.store import (
    Attached,
    Beat,
    Commit,
    Lease,
    MailboxGone,
    Membership,
    OpenedStream,
    Outcome,
    Outgoing,
    Registration,
    TrimCause,
    Trimmed,
)

BODY_MAX = 4  # bytes; a larger body goes to mailboxes as a reference


class Stream:
    """One stream: its entries and all that is kept beside them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.head = ZERO
        self.floor = ZERO
        self.lost = ZERO
        self.entries: dict[EntryId, Entry] = {}
        self.register: dict[str, int] = {}  # mailbox → token
        self.redactions: dict[int, Redaction] = {}
        self.ledger: list[Removal] = []


class Mailbox:
    """A node's mailbox; its own ids are dense."""

    def __init__(self) -> None:
        self.last = 0
        self.entries: dict[int, list[Arrival] | Beat] = {}

    def add(self, what: list[Arrival] | Beat) -> None:
        self.last += 1
        self.entries[self.last] = what


class Stored:
    """Everything that is stored. `clock` is the milliseconds of the ids given out next."""

    def __init__(self) -> None:
        self.clock = 1
        self.epoch = "e1"
        self.run = "r1"  # of the server
        self.fence = "r1"  # the server that the store was opened for
        self.reconciled: set[str] = set()  # nodes that have told what they know, while it is closed
        self.streams: dict[str, Stream] = {}
        self.groups: dict[str, dict[str, tuple[Stretch, ...]]] = {}
        self.lists: dict[str, set[str]] = {}  # user → groups
        self.devices: set[tuple[str, str]] = set()
        self.offsets: dict[tuple[str, str], dict[str, EntryId]] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self._post: dict[str, list[Arrival]] = {}  # what the call under way has for mailboxes: an entry for each
        self.keys: dict[tuple[str, str, str], tuple[bytes, EntryId, EntryId | None]] = {}
        self.ever: dict[tuple[str, EntryId], Entry] = {}  # all that was ever stored: for checks, no part of the store

    def stream(self, name: str) -> Stream:
        if name not in self.streams:
            self.streams[name] = Stream(name)
        return self.streams[name]

    def check_fence(self) -> None:
        """Before the first write of whatever writes, and before a page."""
        if self.fence != self.run:
            raise Fenced("another server")

    # -- appending -----------------------------------------------------------------------------------------------------

    def _append(self, stream: Stream, entry: Entry) -> EntryId:
        entry_id = EntryId(max(self.clock, stream.head.ms), stream.head.n + 1)
        stream.entries[entry_id] = self.ever[stream.name, entry_id] = replace(entry, id=entry_id)
        stream.head = entry_id
        return entry_id

    def _deliver(self, stream: Stream, entry_id: EntryId, mailbox: str, origin: tuple[int, int] | None) -> None:
        entry = stream.entries[entry_id]
        is_large = len(entry.body or b"") > BODY_MAX
        copied = replace(entry, body=None) if is_large else entry
        for name in list(stream.register):
            if name not in self.mailboxes:
                del stream.register[name]
                continue
            marked = origin if name == mailbox else None
            self._post.setdefault(name, []).append(Arrival(stream.name, copied, marked, by_reference=is_large))

    def _hand_over(self) -> None:
        post, self._post = self._post, {}
        for name, arrivals in post.items():
            self.mailboxes[name].add(arrivals)

    def publish(self, batch: Sequence[Outgoing], mailbox: str) -> list[Outcome]:
        self.check_fence()
        outcomes = [self._publish(message, mailbox) for message in batch]
        self._hand_over()
        return outcomes

    def _publish(self, message: Outgoing, mailbox: str) -> Outcome:
        group = group_of(message.to)
        if group is not None and not self.is_member(message.sender, group):
            code = "not_member" if group in self.groups else "no_group"
            return Outcome(code, None, None, is_duplicate=False, durability="fsynced")
        known = None if message.key is None else self.keys.get((message.to, message.sender, message.key))
        if known is not None:
            body, first, copy_id = known
            if body != message.body:
                return Outcome("key_reused", None, None, is_duplicate=False, durability="fsynced")
            return Outcome(None, copy_id or first, first, is_duplicate=True, durability="fsynced")
        to = self.stream(message.to)
        inbox = user_stream(message.sender)
        own = self.stream(inbox) if message.kind == "direct" and message.to != inbox else None
        entry = Entry(ZERO, "message", message.sender, message.to, message.mid, message.body, message.device)
        first = self._append(to, entry)
        copy_id = None if own is None else self._append(own, entry)
        if message.key is not None:
            self.keys[message.to, message.sender, message.key] = message.body, first, copy_id
        self._deliver(to, first, mailbox, None if own is not None else message.origin)
        if own is not None and copy_id is not None:
            self._deliver(own, copy_id, mailbox, message.origin)
        return Outcome(None, copy_id or first, first, is_duplicate=False, durability="fsynced")

    # -- groups --------------------------------------------------------------------------------------------------------

    def stretches(self, user: str, group: str) -> tuple[Stretch, ...]:
        return self.groups.get(group, {}).get(user, ())

    def is_member(self, user: str, group: str) -> bool:
        stretches = self.stretches(user, group)
        return bool(stretches) and stretches[-1].left is None

    def join(self, user: str, group: str, mailbox: str, origin: tuple[int, int] | None) -> Membership:
        self.check_fence()
        stream, inbox = self.stream(group_stream(group)), self.stream(user_stream(user))
        head, stretches = stream.head, self.stretches(user, group)
        if self.is_member(user, group):
            return Membership(stretches[-1].joined, head, is_new=False, is_announced=False)
        self.lists.setdefault(user, set()).add(group)
        entry = Entry(ZERO, "joined", user, stream.name)
        joined = self._append(stream, entry)
        self.groups.setdefault(group, {})[user] = (*stretches, Stretch(joined))
        self._deliver(stream, joined, mailbox, origin)
        for owner, device in self.devices:
            if owner == user:
                self.offsets[owner, device].setdefault(stream.name, joined)
        self._deliver(inbox, self._append(inbox, entry), mailbox, None)
        self._hand_over()
        return Membership(joined, head, is_new=True, is_announced=True)

    def leave(self, user: str, group: str, mailbox: str, origin: tuple[int, int] | None) -> Membership:
        self.check_fence()
        if not self.is_member(user, group):
            raise WaypostError("not_member")
        stream, inbox = self.stream(group_stream(group)), self.stream(user_stream(user))
        head = stream.head
        entry = Entry(ZERO, "left", user, stream.name)
        left = self._append(stream, entry)
        *earlier, last = self.stretches(user, group)
        self.groups[group][user] = (*earlier, Stretch(last.joined, left))
        self._deliver(stream, left, mailbox, origin)
        self._deliver(inbox, self._append(inbox, entry), mailbox, None)
        self._hand_over()
        self.lists[user].discard(group)
        return Membership(left, head, is_new=True, is_announced=True)

    # -- reading -------------------------------------------------------------------------------------------------------

    def page(self, name: str, after: EntryId, users: Sequence[str], max_entries: int) -> Page:
        self.check_fence()
        stream, group = self.stream(name), group_of(name)
        above = [entry for entry in stream.entries.values() if entry.id > after]
        is_last = len(above) <= max_entries
        entries = tuple(above[:max_entries])
        upto = stream.head if is_last else entries[-1].id
        removals: tuple[Removal, ...] = ()
        if stream.floor > after or stream.lost > after:
            removals = tuple(
                line for line in stream.ledger if line.to > after and (is_last or line.after < entries[-1].id)
            )
        return Page(
            stream=name,
            after=after,
            head=stream.head,
            floor=stream.floor,
            before=max((entry_id for entry_id in stream.entries if entry_id <= after), default=None),
            entries=entries,
            is_last=is_last,
            redactions={
                n: line for n, line in stream.redactions.items() if max(after.n - 1, stream.floor.n) < n <= upto.n
            },
            removals=removals,
            stretches=None if group is None else {user: self.stretches(user, group) for user in users},
        )

    # -- removing ------------------------------------------------------------------------------------------------------

    def trim(self, name: str, upto: EntryId, cause: TrimCause, limit: int = 500) -> Trimmed:
        self.check_fence()
        stream = self.stream(name)
        upto = min(upto, stream.head)
        if upto <= stream.floor:
            return Trimmed(0, stream.floor, more=False)
        removed = [entry_id for entry_id in stream.entries if entry_id <= upto][:limit]
        following = [entry_id for entry_id in stream.entries if entry_id not in removed]
        more = bool(following) and following[0] <= upto
        to = max(removed[-1], stream.floor) if removed else stream.floor
        high = following[0].n - 1 if following else stream.head.n
        if not more and to.n < upto.n <= high:
            to = upto
        if to == stream.floor and not removed:
            return Trimmed(0, stream.floor, more=False)
        stream.ledger.append(
            Removal(stream.floor, to, len(removed), cause.kind, self.clock, cause.policy, cause.limit, cause.run)
        )
        stream.floor = to
        for entry_id in removed:
            del stream.entries[entry_id]
        stream.redactions = {n: line for n, line in stream.redactions.items() if n > to.n}
        return Trimmed(len(removed), to, more)

    def redact(self, name: str, entry_id: EntryId, by: str) -> EntryId | None:
        """Of a stream that is no inbox: one copy."""
        self.check_fence()
        stream = self.stream(name)
        if entry_id.n in stream.redactions:
            return None
        entry = stream.entries.get(entry_id)
        if entry is None or entry.type != "message":
            raise WaypostError("not_found")
        del stream.entries[entry_id]
        stream.redactions[entry_id.n] = Redaction(entry_id, by, self.clock, entry.sender, entry.to, entry.mid)
        told = self._append(stream, Entry(ZERO, "redacted", by, name, target=str(entry_id)))
        self._deliver(stream, told, "", None)
        self._hand_over()
        return told

    # -- the register and mailboxes ------------------------------------------------------------------------------------

    def create_mailbox(self, name: str) -> None:
        self.mailboxes[name] = Mailbox()

    def attach(self, mailbox: str, wants: Iterable[Registration]) -> dict[str, Attached]:
        self.check_fence()
        if mailbox not in self.mailboxes:
            raise MailboxGone(mailbox)
        answer = {}
        for want in wants:
            stream = self.stream(want.stream)
            stream.register[mailbox] = max(want.token, stream.register.get(mailbox, 0))
            answer[want.stream] = Attached(stream.head, stream.floor)
        return answer

    def detach(self, mailbox: str, wants: Iterable[Registration]) -> None:
        self.check_fence()
        for want in wants:
            register = self.stream(want.stream).register
            if mailbox in register and register[mailbox] <= want.token:
                del register[mailbox]

    def lease(self, mailbox: str, beat: int, read_upto: int) -> Lease | None:
        if mailbox not in self.mailboxes:
            return None
        box = self.mailboxes[mailbox]
        box.add(Beat(beat))
        for number in [number for number in box.entries if number <= read_upto]:
            del box.entries[number]
        return Lease(self.epoch, self.fence, self.run)

    # -- devices -------------------------------------------------------------------------------------------------------

    def open_session(
        self, user: str, device: str, brought: Mapping[str, EntryId], *, is_foreign: bool
    ) -> list[OpenedStream]:
        self.check_fence()
        stored = self.offsets.setdefault((user, device), {})
        groups = {group_stream(group) for group in self.lists.get(user, ())}
        groups |= {stream for stream in stored if group_of(stream) is not None}
        rows = []
        for name in (user_stream(user), *sorted(groups), ALL):
            row = self._open(user, name, stored.get(name), brought.get(name), is_foreign=is_foreign)
            if row is None:
                stored.pop(name, None)
                self.lists.get(user, set()).discard(name.removeprefix("group:"))
            else:
                stored[name] = row.offset
                rows.append(row)
        self.devices.add((user, device))
        return rows

    def _open(
        self, user: str, name: str, stored: EntryId | None, brought: EntryId | None, *, is_foreign: bool
    ) -> OpenedStream | None:
        stream, group = self.stream(name), group_of(name)
        head, first, left = stream.head, ZERO, None
        begin = head if name == ALL else stream.floor
        if group is not None:
            stretches = self.stretches(user, group)
            if not stretches:
                return None
            begin, left, first = stretches[-1].joined, stretches[-1].left, stretches[0].joined
            if left is not None and stored is None:
                return None
        begin = min(begin, head)
        foreign = None
        if stored is not None and stored > head:
            foreign, stored = stored, None
        offset = start = begin if stored is None else stored
        if brought is not None and is_foreign:
            foreign = brought
        elif brought is not None:
            foreign, start = None, brought
            if brought <= head and brought > offset:
                offset = brought
            elif brought <= head and first > brought:
                start = first
        if left is not None:
            if left <= start:
                return None
            head = left
        return OpenedStream(name, offset, start, head, stream.floor, foreign)

    def commit(self, commits: Iterable[Commit]) -> None:
        self.check_fence()
        for one in commits:
            if (one.user, one.device) not in self.devices:
                continue
            stored = self.offsets[one.user, one.device]
            for name, offset in one.offsets.items():
                if stored.get(name, ZERO) < offset <= self.stream(name).head:
                    stored[name] = offset

    # -- servers that come back with less ------------------------------------------------------------------------------

    def copy(self) -> "Stored":
        """Everything as it is now: what a server that lags, or a file that was cut, comes back with."""
        return copy.deepcopy(self)

    def restart(self, kept: "Stored") -> None:
        """Another server process, with what was `kept`. Its clock has moved on."""
        clock, ever = self.clock + 1, self.ever
        self.__dict__.update(kept.copy().__dict__)
        self.ever = ever
        self.clock, self.run, self.reconciled = clock, f"r{clock}", set()

    def reconcile(self, node: str, live: Iterable[str], heads: Mapping[str, EntryId]) -> bool:
        for name, known in heads.items():
            stream = self.stream(name)
            if known <= stream.head:
                continue
            raised = EntryId(known.ms, max(known.n, stream.head.n))
            count = raised.n - stream.head.n
            if count:
                stream.ledger.append(Removal(stream.head, raised, count, "lost", self.clock, run=self.run))
                stream.lost = max(stream.lost, raised)
            stream.head = raised
        self.reconciled.add(node)
        if self.reconciled >= set(live):
            self.fence = self.run
        return self.fence == self.run
