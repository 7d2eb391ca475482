"""Whatever happens to a stream while devices walk it page by page, they are told every number once, in order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.entries import Entry, GapKind, Page, Redaction, Removal, Stretch
from service.core.names import ZERO, EntryId
from service.core.paging import Gap, lay_out, start_of_membership

ME = "ann"


class Stream:
    """A stream as the store keeps it, and `page` and `trim` as their functions do them."""

    def __init__(self, *, is_group: bool) -> None:
        self.ids = [ZERO]  # by number
        self.entries: dict[int, Entry] = {}
        self.floor = ZERO
        self.redacted: dict[int, Redaction] = {}
        self.ledger: list[Removal] = []
        self.stretches: list[Stretch] | None = [] if is_group else None

    @property
    def head(self) -> EntryId:
        return self.ids[-1]

    @property
    def is_member(self) -> bool:
        return bool(self.stretches) and start_of_membership(tuple(self.stretches or ())) is not None

    def append(self, kind: str, sender: str, pause: int) -> EntryId:
        entry_id = EntryId(max(self.head.ms, 1) + pause, self.head.n + 1)
        self.ids.append(entry_id)
        self.entries[entry_id.n] = Entry(entry_id, kind, sender, "group:g", body=b"1" if kind == "message" else None)
        return entry_id

    def join_or_leave(self, pause: int, *, is_announced: bool) -> None:
        if self.stretches is None:
            return
        here = self.append("left" if self.is_member else "joined", ME, pause) if is_announced else self.head
        if self.is_member:
            self.stretches[-1] = Stretch(self.stretches[-1].joined, here)
        else:
            self.stretches.append(Stretch(here))

    def redact(self, share: float) -> None:
        messages = [n for n, entry in self.entries.items() if entry.type == "message"]
        if messages:
            n = messages[int(share * (len(messages) - 1))]
            entry = self.entries.pop(n)
            self.redacted[n] = Redaction(entry.id, "root", 0, entry.sender, entry.to, entry.mid)

    def lose(self, share: float, count: int, *, is_noted: bool) -> None:
        """A stretch is gone: with a line in the ledger as after a failover, or without, as after XDEL or DEL."""
        numbers = range(self.floor.n + 1, self.head.n + 1)
        gone = list(numbers)[int(share * len(numbers)) :][:count]
        if not gone:
            return
        for n in gone:
            self.entries.pop(n, None)
            self.redacted.pop(n, None)
        if is_noted:
            self.ledger.append(Removal(self.ids[gone[0] - 1], self.ids[gone[-1]], len(gone), "lost", 1))

    def trim(self, upto: EntryId, limit: str) -> None:
        upto = min(upto, self.head)
        if upto <= self.floor:
            return
        removed = [n for n, entry in self.entries.items() if entry.id <= upto]
        following = [n for n in self.entries if n not in removed]
        to = max(self.floor, self.entries[max(removed)].id) if removed else self.floor
        if to.n < upto.n <= (min(following) - 1 if following else self.head.n):
            to = upto
        if to == self.floor and not removed:
            return
        self.ledger.append(Removal(self.floor, to, len(removed), "trimmed", 1, "default", limit))
        self.floor = to
        for n in removed:
            del self.entries[n]
        self.redacted = {n: line for n, line in self.redacted.items() if n > to.n}

    def page(self, after: EntryId, size: int) -> Page:
        above = [self.entries[n] for n in sorted(self.entries) if self.entries[n].id > after]
        below = [entry.id for entry in self.entries.values() if entry.id <= after]
        is_last = len(above) <= size
        upto = self.head if is_last else above[size - 1].id
        return Page(
            stream="group:g",
            after=after,
            head=self.head,
            floor=self.floor,
            before=max(below, default=None),
            entries=tuple(above[:size]),
            is_last=is_last,
            redactions={n: line for n, line in self.redacted.items() if max(after.n, self.floor.n) < n <= upto.n},
            removals=tuple(r for r in self.ledger if r.to > after and (is_last or r.after < upto)),
            stretches=None if self.stretches is None else {ME: tuple(self.stretches)},
        )

    def entitled(self, after: EntryId) -> list[int]:
        """The numbers above `after` that are mine: without the own `joined` entries, from which numbers count anew."""
        if self.stretches is None:
            return list(range(after.n + 1, self.head.n + 1))
        found: list[int] = []
        for stretch in self.stretches:
            start, end = max(after.n, stretch.joined.n), (stretch.left or self.head).n
            found += range(start + 1, end + 1)
        return found


class Device:
    """What one device has been told, page by page."""

    def __init__(self, stream: Stream, size: int) -> None:
        self.stream = stream
        self.size = size
        self.start = self.offset = stream.head if stream.stretches is None else ZERO
        self.numbers: list[int] = []  # every number told, as an entry or as part of a gap
        self.gaps: list[Gap] = []
        self.told: list[Entry | Gap] = []
        self.has_ended = False

    def read_page(self) -> bool:
        """Reads one page; returns whether it was the last."""
        page = self.stream.page(self.offset, self.size)
        layout = lay_out(page, ME, ZERO)
        assert layout.upto >= self.offset
        assert layout.has_ended == (page.stretches is not None and self._is_over(layout.upto))
        for item in layout.items:
            if isinstance(item, Gap):
                assert item.missed, f"a gap of nothing: {item}"
                assert item.after.n + item.missed == item.to.n
                assert item.after < item.to
                assert item.causes
                assert item.next is None or item.next > item.to
                self.numbers += range(item.after.n + 1, item.to.n + 1)
                self.gaps.append(item)
            else:
                assert item.id > self.offset
                if not (item.type == "joined" and item.sender == ME):
                    self.numbers.append(item.id.n)
            assert self.offset < (item.to if isinstance(item, Gap) else item.id) <= layout.upto
        self.told += layout.items
        self.offset = layout.upto
        return page.is_last

    def _is_over(self, upto: EntryId) -> bool:
        stretches = self.stream.stretches
        assert stretches is not None
        return not self.stream.is_member and (not stretches or (stretches[-1].left or ZERO) <= upto)

    def read_all(self) -> None:
        while not self.read_page():
            pass


pauses = st.integers(0, 3)  # milliseconds; 0: several entries within one
shares = st.floats(0, 1)
steps = st.one_of(
    st.tuples(st.just("publish"), pauses, st.integers(1, 4)),
    st.tuples(st.just("membership"), pauses, st.booleans()),
    st.tuples(st.just("redact"), shares),
    st.tuples(st.just("lose"), shares, st.integers(1, 5), st.booleans()),
    st.tuples(st.just("trim to a number"), shares, st.sampled_from(["max_age", "max_entries"])),
    st.tuples(st.just("trim to a time"), shares, st.booleans()),
    st.tuples(st.just("trim to what a device has"), shares),
    st.tuples(st.just("read a page"), st.integers(0, 1)),
    st.tuples(st.just("another device"), st.integers(1, 4)),
)


def carry_out(stream: Stream, devices: list[Device], step: tuple[object, ...]) -> None:
    match step:
        case ("publish", int(pause), int(count)):
            for _ in range(count):
                stream.append("message", "bob", pause)
        case ("membership", int(pause), bool(is_announced)):
            stream.join_or_leave(pause, is_announced=is_announced)
        case ("redact", float(share)):
            stream.redact(share)
        case ("lose", float(share), int(count), bool(is_noted)):
            stream.lose(share, count, is_noted=is_noted)
        case ("trim to a number", float(share), str(limit)):
            stream.trim(stream.ids[int(share * stream.head.n)], limit)
        case ("trim to a time", float(share), bool(is_end)):
            stream.trim(EntryId(int(share * stream.head.ms), 10**15 if is_end else 0), "max_age")
        case ("trim to what a device has", float(share)):
            stream.trim(devices[int(share * (len(devices) - 1))].offset, "hold_unread")
        case ("read a page", int(which)):
            devices[which % len(devices)].read_page()
        case ("another device", int(size)):
            devices.append(Device(stream, size))
        case _:
            raise AssertionError(step)


@settings(derandomize=True, max_examples=600, deadline=None)
@given(is_group=st.booleans(), history=st.lists(steps, max_size=25), size=st.integers(1, 4))
def test_whatever_happens_every_number_is_told_once_in_order(
    is_group: bool, history: list[tuple[object, ...]], size: int
) -> None:
    stream = Stream(is_group=is_group)
    devices = [Device(stream, size)]
    for step in history:
        carry_out(stream, devices, step)
    for device in devices:
        device.read_all()
        assert device.numbers == sorted(set(device.numbers)), "rising, and nothing twice"
        assert device.numbers == stream.entitled(device.start)
        assert all(gap.missed is not None for gap in device.gaps), "nothing here is of another history"


@settings(derandomize=True, max_examples=300, deadline=None)
@given(is_group=st.booleans(), history=st.lists(steps, max_size=25), later=st.lists(steps, max_size=8))
def test_whatever_happens_the_end_of_every_gap_works_as_an_offset_later(
    is_group: bool, history: list[tuple[object, ...]], later: list[tuple[object, ...]]
) -> None:
    stream = Stream(is_group=is_group)
    devices = [Device(stream, 3)]
    for step in history:
        carry_out(stream, devices, step)
    for device in devices:
        device.read_all()
    for step in later:
        carry_out(stream, devices, step)
    for gap in [gap for device in devices for gap in device.gaps]:
        again = Device(stream, 2)
        again.offset = again.start = gap.to
        again.read_all()
        assert again.numbers == stream.entitled(gap.to)
        assert all(other.missed is not None for other in again.gaps)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    is_group=st.booleans(), history=st.lists(steps, max_size=25), sizes=st.tuples(st.integers(1, 3), st.integers(4, 99))
)
def test_whatever_happens_pages_of_any_size_tell_the_same(
    is_group: bool, history: list[tuple[object, ...]], sizes: tuple[int, int]
) -> None:
    stream = Stream(is_group=is_group)
    for step in history:
        if step[0] not in ("read a page", "another device", "trim to what a device has"):
            carry_out(stream, [], step)
    small, large = (Device(stream, size) for size in sizes)
    for device in (small, large):
        device.offset = device.start = ZERO
        device.read_all()
    assert small.numbers == large.numbers == stream.entitled(ZERO)
    kinds: list[list[GapKind]] = [[gap.causes[0].kind for gap in device.gaps] for device in (small, large)]
    assert kinds[0] == kinds[1]
    assert [item for item in small.told if isinstance(item, Entry)] == [i for i in large.told if isinstance(i, Entry)]
