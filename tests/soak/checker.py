"""From what clients wrote down to a verdict: lost, doubled, reordered, unexpected, gaps without a reason.

Pure: histories, the faults that were injected, and what the store holds in the end. Two passes. `_Device` follows one
device line by line and knows what must never happen on a connection; `_Checker` compares all of them with what was
answered `sent`.

A number of a stream counts as *covered* on a device when its entry came, when `sent` stood for it, or when an announced
gap spans it. A reset store (another epoch in `welcome`) is itself an announcement: what was before is not asked for.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from service.core.names import ZERO, EntryId, parse_id
from tests.soak import history
from tests.soak.cast import OPEN_GROUPS
from tests.soak.history import Answered, Attempt, Came, Cut, Gap, Opened, Record, Refused, Stored

# A client that does what it should is never told these.
NEVER = frozenset(
    {"internal", "key_reused", "bad_request", "bad_frame", "bad_id", "bad_name", "bad_stream", "not_allowed"}
)
_VALUE = re.compile(r"(u\d+)-(\d+)")


class Fault(NamedTuple):
    """What was done to the system: from when, and which kinds of gap it may be the reason of."""

    name: str
    at: float
    explains: frozenset[str] = frozenset()


class Span(NamedTuple):
    """Everything above `after`, up to `to`."""

    after: EntryId
    to: EntryId

    def holds(self, entry: EntryId) -> bool:
        return self.after < entry <= self.to


class StreamFacts(NamedTuple):
    """What the store holds of a stream in the end. `redacted` are numbers, `lost` lines of the ledger."""

    head: EntryId
    floor: EntryId
    entries: frozenset[EntryId]
    redacted: frozenset[int]
    lost: tuple[Span, ...]


class Kept(NamedTuple):
    """What the store knew, over all epochs, of those that ended before they did.

    `stretches`: (user, group) → pairs of `joined` and `left` ids, the latter "" where there is none. `lost`: stream →
    stretches that the ledger called lost. `settled`: epoch → the time up to which everything had been delivered when
    that was last looked at; what was acknowledged later may have been there when the store was emptied. `ends`: when
    that happened (ms): all memberships ended with it. `ends`: when it was
    emptied (ms): every membership ended then.
    """

    stretches: dict[tuple[str, str], list[tuple[str, str]]]
    lost: dict[str, list[Span]]
    settled: dict[str, float]
    ends: list[int]


class Verdict(NamedTuple):
    """`violations` by kind; all else are counts of what was looked at."""

    violations: dict[str, list[str]]
    counts: dict[str, int]

    @property
    def is_clean(self) -> bool:
        return not self.violations


def check(folder: Path, faults: Iterable[Fault], facts: Mapping[str, StreamFacts], kept: Kept) -> Verdict:
    """Reads every history in `folder`; `facts` are of the last epoch."""
    checker = _Checker(list(faults), facts, kept)
    for (user, group), pairs in kept.stretches.items():
        for joined, left in pairs:
            checker.note_membership(user, f"group:{group}", parse_id(joined), is_join=True)
            if left:
                checker.note_membership(user, f"group:{group}", parse_id(left), is_join=False)
    for user, device, path in history.devices(folder):
        checker.follow(user, device, history.read(path))
    return checker.verdict()


class _Device:
    """One device over all its connections, in one epoch after the other."""

    def __init__(self, checker: "_Checker", user: str, name: str) -> None:
        self.checker = checker
        self.user = user
        self.name = name
        self.epoch = ""
        self.epochs: list[str] = []
        self.first: dict[tuple[str, str], EntryId] = {}  # (epoch, stream) → where the device began
        self.received: dict[str, set[EntryId]] = defaultdict(set)
        self.gaps: dict[str, list[Span]] = defaultdict(list)
        self.gone: Counter[str] = Counter()  # stream → numbers in gaps, and of messages that came without their body
        self._covered: dict[str, EntryId] = {}
        self._last: dict[str, EntryId] = {}  # on this connection
        self._own: set[tuple[str, EntryId]] = set()  # answered with `sent` here, and not seen as a message

    def __str__(self) -> str:
        return f"{self.user}/{self.name}"

    def wrong(self, kind: str, what: str) -> None:
        self.checker.wrong(kind, f"{self}: {what}")

    def take(self, record: Record) -> None:
        """The next line of its history."""
        if isinstance(record, Opened):
            self._opened(record)
        elif isinstance(record, Came):
            self._came(record)
        elif isinstance(record, Stored):
            self._stored(record)
        elif isinstance(record, Answered):
            self._answered(record)
        elif isinstance(record, Gap):
            self._gap(record)
        elif isinstance(record, Cut):
            self._last.clear()
            self._own.clear()

    def _opened(self, record: Opened) -> None:
        if record.epoch != self.epoch:
            self.epoch = record.epoch
            self.epochs.append(record.epoch)
            self._covered.clear()
        for stream, text in record.starts.items():
            start = parse_id(text)
            self._last[stream] = start
            self.first.setdefault((self.epoch, stream), start)
            covered = self._covered.setdefault(stream, start)
            if start > covered and not _is_open_group(stream):
                self.wrong("skipped", f"{stream} begins at {start}, above {covered}, and nothing was said of it")

    def _came(self, record: Came) -> None:
        stream, entry = record.stream, parse_id(record.id)
        if stream.startswith("user:") and stream != f"user:{self.user}":
            self.wrong("not theirs", f"{record}")
        last = self._last.get(stream)
        is_own_again = (stream, entry) in self._own
        self._own.discard((stream, entry))
        if last is not None and not (is_own_again and entry <= last):
            if entry.n <= last.n or entry.ms < last.ms:
                self.wrong("twice or out of order", f"{stream} {entry} came after {last} on one connection")
            elif entry.n != last.n + 1:
                self.checker.jumps.append((self, stream, last, entry))
        if last is None:
            self.first.setdefault((self.epoch, stream), EntryId(entry.ms, entry.n - 1))
        self._cover(stream, entry)
        self.received[stream].add(entry)
        self.checker.saw(self, record, entry)
        if record.type == "left" and record.user == self.user and stream.startswith("group:"):
            self._last.pop(stream, None)  # what comes next on it belongs to another membership
        if record.type == "message" and not record.value:
            self.gone[stream] += 1

    def _stored(self, record: Stored) -> None:
        stream, entry = record.stream, parse_id(record.id)
        self.checker.stored(self, record, entry)
        self.received[stream].add(entry)
        if record.is_duplicate:
            return  # it comes as a message, or has come
        self._own.add((stream, entry))
        last = self._last.get(stream)
        if last is not None and entry.n == last.n + 1:
            self._cover(stream, entry)

    def _answered(self, record: Answered) -> None:
        entry = parse_id(record.id)
        self.checker.note_membership(self.user, record.stream, entry, is_join=record.is_join)
        if record.is_join:
            self.first.setdefault((self.epoch, record.stream), entry)
            self._last[record.stream] = max(entry, self._last.get(record.stream, entry))
        else:
            self.received[record.stream].add(entry)
            self._last.pop(record.stream, None)

    def _gap(self, record: Gap) -> None:
        stream, span = record.stream, Span(parse_id(record.after), parse_id(record.to))
        self.gaps[stream].append(span)
        self.checker.gap(self, record)
        if record.missed is None:
            self._last[stream] = self._covered[stream] = span.to
            return
        last = self._last.get(stream, span.after)
        if span.after != last:
            self.wrong("gap", f"{record} begins elsewhere than at {last}")
        if record.missed != span.to.n - span.after.n or record.missed < 1:
            self.wrong("gap", f"{record} counts wrong")
        self.gone[stream] += record.missed
        self._cover(stream, span.to)

    def _cover(self, stream: str, entry: EntryId) -> None:
        self._last[stream] = max(entry, self._last.get(stream, entry))
        self._covered[stream] = max(entry, self._covered.get(stream, entry))

    def has(self, stream: str, entry: EntryId) -> bool:
        """Whether the entry came, or is part of an announced gap."""
        return entry in self.received[stream] or any(gap.holds(entry) for gap in self.gaps[stream])


class _Checker:
    """All devices together."""

    def __init__(self, faults: list[Fault], facts: Mapping[str, StreamFacts], kept: Kept) -> None:
        self.faults = faults
        self.facts = facts
        self.kept = kept
        self.violations: dict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self.devices: list[_Device] = []
        self.attempts: dict[str, Attempt] = {}
        self.refused: set[str] = set()
        self.acknowledged: dict[tuple[str, str, EntryId], str] = {}  # (epoch, stream, id) → value
        self.direct: dict[str, tuple[str, str]] = {}  # value of a direct message → epoch, recipient's inbox
        self.unsettled: set[str] = set()  # values acknowledged when their epoch was about to end
        self.said: dict[tuple[str, EntryId], str] = {}  # what stands at an id: the same for everybody
        self.places: dict[tuple[str, str], set[EntryId]] = defaultdict(set)  # (stream, value) → ids
        self.memberships: dict[tuple[str, str], dict[EntryId, bool]] = defaultdict(dict)
        self.jumps: list[tuple[_Device, str, EntryId, EntryId]] = []  # from one id to another that is not the next

    def wrong(self, kind: str, what: str) -> None:
        self.violations[kind].append(what)

    # -- first pass ----------------------------------------------------------------------------------------------------

    def follow(self, user: str, name: str, records: Iterator[Record]) -> None:
        """One device's whole history."""
        device = _Device(self, user, name)
        self.devices.append(device)
        for record in records:
            self.counts[type(record).__name__.lower()] += 1
            if isinstance(record, Attempt):
                self.attempts.setdefault(record.value, record)
            elif isinstance(record, Refused):
                self.refused.add(record.value)
                if record.code in NEVER:
                    self.wrong("refused", f"{device}: {record}")
            else:
                device.take(record)

    def note_membership(self, user: str, stream: str, entry: EntryId, *, is_join: bool) -> None:
        """The user is a member of the group from, or up to, this id."""
        self.memberships[user, stream][entry] = is_join

    def saw(self, device: _Device, record: Came, entry: EntryId) -> None:
        """An entry came to a device."""
        stream = record.stream
        if stream.startswith("group:") and record.type in ("joined", "left"):
            self.note_membership(record.user, stream, entry, is_join=record.type == "joined")
        if record.type != "message" or not record.value:
            return
        self._stands(device, stream, entry, record.value)

    def _stands(self, device: _Device, stream: str, entry: EntryId, value: str) -> None:
        """A value stands at an id, says a device: the same value for everybody."""
        self.places[stream, value].add(entry)
        said = self.said.setdefault((stream, entry), value)
        if said != value:
            device.wrong("unlike", f"{stream} {entry} is {value!r} here and {said!r} elsewhere")

    def stored(self, device: _Device, record: Stored, entry: EntryId) -> None:
        """A send was answered."""
        if record.at > self.kept.settled.get(device.epoch, 0.0):
            self.unsettled.add(record.value)
        self.acknowledged.setdefault((device.epoch, record.stream, entry), record.value)
        if record.to.startswith("user:"):
            self.direct[record.value] = (device.epoch, record.to)
        self._stands(device, record.stream, entry, record.value)

    def gap(self, device: _Device, record: Gap) -> None:
        """A gap was announced: is there a reason for it?"""
        self.counts[f"gaps {'+'.join(sorted(set(record.kinds)))}"] += 1
        self.counts[f"numbers in gaps {'+'.join(sorted(set(record.kinds)))}"] += record.missed or 0
        explained = {kind for fault in self.faults if fault.at < record.at for kind in fault.explains}
        if not set(record.kinds) <= explained:
            device.wrong("unexplained gap", f"{record}")

    # -- second pass ---------------------------------------------------------------------------------------------------

    def verdict(self) -> Verdict:
        """What all the histories say together."""
        self.counts["acknowledged"] = len(set(self.acknowledged.values()))
        self.counts["attempted"] = len(self.attempts)
        self._check_jumps()
        for device in self.devices:
            self._check_complete(device)
            self._check_entitled(device)
        self._check_values()
        self._check_order()
        self._check_store()
        return Verdict(dict(self.violations), dict(self.counts))

    def _stretches(self, user: str, stream: str, *, with_lost: bool) -> list[Span]:
        """From a joining to the next leaving; the last may have no end. `with_lost`: by what users were answered,
        though the store has lost it since.
        """
        spans: list[Span] = []
        start: EntryId | None = None
        lost = [] if with_lost else self.kept.lost.get(stream, [])
        ends = dict.fromkeys((EntryId(at, 0) for at in self.kept.ends), False)
        for entry, is_join in sorted({**self.memberships[user, stream], **ends}.items()):
            if any(span.holds(entry) for span in lost):
                continue
            if is_join and start is None:
                start = entry
            elif not is_join and start is not None:
                spans.append(Span(start, entry))
                start = None
        if start is not None:
            spans.append(Span(start, EntryId(2**53, 2**53)))
        return spans

    def _check_jumps(self) -> None:
        """Numbers go on without a hole, but for a new membership: they count anew from its beginning."""
        for device, stream, last, entry in self.jumps:
            beginnings = [point for point, is_join in self.memberships[device.user, stream].items() if is_join]
            if not any(last < point <= entry and entry.n - point.n <= 1 for point in beginnings):
                device.wrong("hole", f"{stream} {entry} came after {last}")

    def _check_complete(self, device: _Device) -> None:
        """Everything that was acknowledged came, or was announced as gone."""
        spans: dict[str, list[list[Span]]] = {}
        for (epoch, stream, entry), value in self.acknowledged.items():
            if value in self.unsettled or epoch not in device.epochs or not self._concerns(device, stream):
                continue
            first = device.first.get((epoch, stream))
            if first is None or entry <= first or device.has(stream, entry):
                continue
            if _is_open_group(stream):
                if stream not in spans:
                    spans[stream] = [self._stretches(device.user, stream, with_lost=lost) for lost in (False, True)]
                if not all(any(span.after < entry < span.to for span in known) for known in spans[stream]):
                    continue
            device.wrong("lost", f"{value} at {stream} {entry}, acknowledged")
        inbox = f"user:{device.user}"
        missing = 0
        for value, (epoch, to) in self.direct.items():
            if to != inbox or value in self.unsettled or epoch not in device.epochs:
                continue
            places = self.places.get((inbox, value), set())
            if any(device.has(inbox, place) for place in places):
                continue
            if places and not any(place > device.first.get((epoch, inbox), ZERO) for place in places):
                continue
            missing += 1
            if missing > device.gone[inbox]:  # no id is known: at most as many as numbers are known to be gone
                device.wrong("lost", f"{value} to {inbox}, acknowledged, at {sorted(places)}")

    def _concerns(self, device: _Device, stream: str) -> bool:
        return stream == "all" or stream.startswith("group:") or stream == f"user:{device.user}"

    def _check_entitled(self, device: _Device) -> None:
        """Nothing of a group came from outside the stretches of membership."""
        for stream, entries in device.received.items():
            if not stream.startswith("group:"):
                continue
            stretches = [
                span for lost in (False, True) for span in self._stretches(device.user, stream, with_lost=lost)
            ]
            for entry in entries:
                if not any(span.after <= entry <= span.to for span in stretches):
                    device.wrong("not theirs", f"{stream} {entry}")

    def _check_values(self) -> None:
        """Nothing that nobody sent; nothing stored twice."""
        may_lose = any({"lost", "epoch"} & fault.explains for fault in self.faults)
        for (stream, value), places in self.places.items():
            if value not in self.attempts:
                self.wrong("unexpected", f"{value} in {stream}")
            facts = self.facts.get(stream)
            # What was lost after somebody had seen it, and was unanswered, is rightly sent again.
            left = [place for place in places if facts is None or not may_lose or place in facts.entries]
            if len(left) > 1 and not self._are_of_different_epochs(stream, value):
                self.wrong("doubled", f"{value} in {stream} at {sorted(places)}")

    def _are_of_different_epochs(self, stream: str, value: str) -> bool:
        epochs = {epoch for (epoch, where, _), what in self.acknowledged.items() if (where, what) == (stream, value)}
        return len(epochs) > 1

    def _check_order(self) -> None:
        """What a device sent with keys to one stream stands there in the order it was sent.

        Not what was refused and sent again: what the device had sent by the time it heard of that may have gone before.
        """
        by_sender: dict[tuple[str, str], list[tuple[int, EntryId, str]]] = defaultdict(list)
        for (stream, value), places in self.places.items():
            match, attempt = _VALUE.fullmatch(value), self.attempts.get(value)
            if match is None or attempt is None or value in self.refused:
                continue
            if attempt.key and attempt.to == stream and len(places) == 1:
                by_sender[match[1], stream].append((int(match[2]), next(iter(places)), value))
        for (_, stream), sent in by_sender.items():
            sent.sort()
            for earlier, later in pairwise(sent):
                if later[1] < earlier[1]:
                    self.wrong("reordered", f"{later[2]} at {later[1]} stands before {earlier[2]} in {stream}")

    def _check_store(self) -> None:
        """Every number of a stream is an entry, a redaction, below the floor, or noted as lost; no gap spans what is
        there.
        """
        for stream, facts in self.facts.items():
            numbers = {entry.n for entry in facts.entries}
            wanted = set(range(facts.floor.n + 1, facts.head.n + 1))
            lost = {n for span in facts.lost for n in range(span.after.n + 1, span.to.n + 1)}
            if missing := wanted - numbers - facts.redacted - lost:
                self.wrong("hole in the store", f"{stream}: {sorted(missing)[:10]} of {facts.head}")
            if extra := numbers - wanted:
                self.wrong("hole in the store", f"{stream}: {sorted(extra)[:10]} outside {facts.floor} to {facts.head}")
            for device in self.devices:
                for gap in device.gaps[stream]:
                    there = [entry for entry in facts.entries if gap.holds(entry)]
                    if there and gap.after.n < gap.to.n and gap.to <= facts.head:
                        device.wrong("gap", f"{stream} {gap} spans {there[:3]}, which is there")


def _is_open_group(stream: str) -> bool:
    return stream.startswith("group:") and stream[6:] in OPEN_GROUPS
