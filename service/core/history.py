"""A look into the history of a stream: what is asked for, what the store read for it, and what that means for the user.

It says of every number within its bounds what became of it, as a page does: an entry, a redacted message that keeps
its place, or part of a gap. It moves nothing: no offset, and nothing of what a connection has passed.
"""

from collections.abc import Sequence

import msgspec

from service.core.anchors import Anchor, Moment, below, parse_anchor
from service.core.entries import Entry, Page, Redaction, Removal, Stretch
from service.core.frames import AskHistory
from service.core.names import ZERO, EntryId, check_name, may_be_read, parse_stream, user_stream
from service.core.paging import Gap, contradicts, lay
from service.errors import WaypostError

LIMIT_MAX = 200  # as many as a page


class Question(msgspec.Struct, frozen=True):
    """What of a stream is asked for. `partner`: in the own inbox, only what was said with this user; "" for all."""

    stream: str
    anchor: Anchor
    limit: int
    partner: str = ""

    @property
    def back(self) -> int:
        """How many entries are wanted from below the split of the anchor."""
        match self.anchor.side:
            case "after":
                return 0
            case "around":
                return self.limit // 2
        return self.limit

    @property
    def is_forward(self) -> bool:
        """Whether entries are wanted from above the split of the anchor."""
        return self.anchor.side in ("after", "around")


class Past(msgspec.Struct, frozen=True):
    """What the store read for a `Question`, all of one moment.

    `now` is Redis time in ms. `split` is where the anchor's split lies; for an anchor that is an id, `before` and
    `after` are the entries next to it (at or below it; above it). `entries` are the user's, oldest first, those of
    others than the partner without content (type ""). Everything of the user's above `low` up to `high` was read;
    None: from the start, to the end. `stretches` are the user's membership, None where the stream is no group's.
    """

    now: int
    head: EntryId
    floor: EntryId
    split: EntryId
    before: EntryId | None
    after: EntryId | None
    entries: tuple[Entry, ...]
    low: EntryId | None
    high: EntryId | None
    redactions: dict[int, Redaction]
    removals: tuple[Removal, ...]
    stretches: tuple[Stretch, ...] | None


class History(msgspec.Struct, frozen=True):
    """The answer: what lies above `low`, up to `high`.

    `entries` are at most as many as were asked for, oldest first. `looked_at` counts those of others than the partner
    too. `first` and `last` are the ids it speaks of, None when it speaks of none. `found_oldest`: nothing of the user's
    lies below, `found_newest`: nothing above.
    """

    entries: tuple[Entry, ...]
    gaps: tuple[Gap, ...]
    floor: EntryId
    head: EntryId
    found_oldest: bool
    found_newest: bool
    looked_at: int
    low: EntryId
    high: EntryId
    first: EntryId | None = None
    last: EntryId | None = None


def asked(frame: AskHistory, user: str) -> Question:
    """What a frame of `user` asks for. Raises what `ask` and `parse_anchor` raise."""
    _check_stream(frame.stream, user)
    return ask(frame.stream, user, parse_anchor(frame.after, frame.before, frame.around), frame.limit, frame.with_)


def ask(stream: str, user: str, anchor: Anchor, limit: int, partner: str | None = None) -> Question:
    """What `user` asks for, checked as far as that goes without the store.

    Raises `bad_stream`, `bad_name`, `bad_request`, and `not_allowed` for another user's inbox.
    """
    _check_stream(stream, user)
    if not 1 <= limit <= LIMIT_MAX:
        raise WaypostError("bad_request", f"limit is to be from 1 to {LIMIT_MAX}")
    if partner is not None:
        check_name(partner)
        if parse_stream(stream)[0] != "user":
            raise WaypostError("bad_request", "with is for the own inbox")
    return Question(stream, anchor, limit, partner or "")


def owner_of(stream: str) -> str:
    """As whom a stream is seen whole: an inbox as its owner, "" for others. Raises `bad_stream`, `bad_name`."""
    kind, name = parse_stream(stream)
    return name if kind == "user" else ""


def _check_stream(stream: str, user: str) -> None:
    """Raises `bad_stream`, `bad_name`, and `not_allowed` for another user's inbox."""
    if not may_be_read(stream, user):
        raise WaypostError("not_allowed", "an inbox is its owner's alone")


def answer(past: Past, user: str, question: Question) -> History:
    """What `past`, which was read for `question`, means for `user`. Raises `bad_anchor`."""
    start, end = _bounds(past)
    _check(past, question, end)
    split = _split(past)
    low = (past.low or ZERO) if question.back else split
    high = min(past.high or end, end) if question.is_forward else min(split, end)
    page = _page(past, user, question.stream, low, high)
    cut = _Cut(lay(page, user).items, user, question)
    low, high = _within(past, *cut.fit(split, low, high))
    kept = cut.kept
    shown = [item for item in kept if isinstance(item, Entry) and cut.is_wanted(item)]
    return History(
        entries=tuple(shown),
        gaps=tuple(item for item in kept if isinstance(item, Gap)),
        floor=min(past.floor, end),
        head=end,
        found_oldest=low <= start,
        found_newest=high >= end,
        looked_at=sum(isinstance(item, Entry) for item in kept),
        low=low,
        high=high,
        first=_first(kept[0]) if kept else None,
        last=_last(kept[-1]) if kept else None,
    )


def is_of(stretches: Sequence[Stretch], entry: EntryId) -> bool:
    """Whether an id lies within one of these times of membership."""
    return any(stretch.joined <= entry and (stretch.left is None or entry <= stretch.left) for stretch in stretches)


def _bounds(past: Past) -> tuple[EntryId, EntryId]:
    """Below which nothing is the user's, and the last id that is: the head, or where the membership ended."""
    stretches = past.stretches
    if stretches is None:
        return ZERO, past.head
    if not stretches:  # a record that cannot be read entitles to nothing
        return ZERO, ZERO
    return below(stretches[0].joined), stretches[-1].left or past.head


def _within(past: Past, low: EntryId, high: EntryId) -> tuple[EntryId, EntryId]:
    """The same place, told by what is the user's: what lies between times of membership, before or after them is
    nothing to a former member, its numbers included.
    """
    if not past.stretches:
        return low, high
    start, end = _bounds(past)
    ends = [(below(stretch.joined), stretch.left or past.head) for stretch in past.stretches]
    lower = max((min(low, last) for first, last in ends if first <= low), default=start)
    upper = min((max(high, first) for first, last in ends if last >= high), default=end)
    return lower, upper


def _split(past: Past) -> EntryId:
    """Where the split lies. The store makes up the ms of a number whose entry is gone, from entries that exist and from
    memberships; it is not lower than that of what was redacted below.
    """
    redacted = (redaction.id for redaction in past.redactions.values())
    return EntryId(max([past.split.ms, *(entry.ms for entry in redacted if entry.n <= past.split.n)]), past.split.n)


def _check(past: Past, question: Question, head: EntryId) -> None:
    """Raises `bad_anchor` for what is no place in this stream: above the head, or of another history."""
    at, side = question.anchor.at, question.anchor.side
    if isinstance(at, Moment):
        if at.floor > max(past.now, past.head.ms) and side != "before":
            raise WaypostError("bad_anchor", "that time is still to come")
    elif isinstance(at, int):
        if at > head.n and side != "before":
            raise WaypostError("bad_anchor", f"above the head, which is {head}")
    elif isinstance(at, EntryId):
        if at > head and at.n > head.n:
            if side != "before":
                raise WaypostError("bad_anchor", f"above the head, which is {head}")
        elif at > head or at.n > head.n or _is_foreign(past, question.stream, at, head):
            raise WaypostError("bad_anchor", f"{at} belongs to another history of the stream")


def _is_foreign(past: Past, stream: str, at: EntryId, head: EntryId) -> bool:
    """Whether an id contradicts the stream: its number and its ms stand to another id as they cannot. Of ids that are
    not the user's nothing is told, so these are compared with the user's own memberships alone.
    """
    known = [redaction.id for redaction in past.redactions.values()]
    known += [
        bound for stretch in past.stretches or () for bound in (stretch.joined, stretch.left) if bound is not None
    ]
    if any((entry < at) != (entry.n < at.n) for entry in known if entry.n != at.n):
        return True
    if past.stretches is not None and not is_of(past.stretches, at):
        return False
    following = () if past.after is None else (Entry(past.after, "", "", ""),)
    around = Page(stream, at, head, past.floor, past.before, following, True, past.redactions, past.removals, None)
    return contradicts(around)


def _page(past: Past, user: str, stream: str, low: EntryId, high: EntryId) -> Page:
    """What was read, as a page whose head is where the look ends."""
    return Page(
        stream=stream,
        after=low,
        head=high,
        floor=past.floor,
        before=None,
        entries=tuple(entry for entry in past.entries if low < entry.id <= high),
        is_last=True,
        redactions={n: redaction for n, redaction in past.redactions.items() if low.n < n <= high.n},
        removals=past.removals,
        stretches=None if past.stretches is None else {user: past.stretches},
    )


class _Cut:
    """Items cut to as many entries as were asked for, each way from the split."""

    def __init__(self, items: tuple[Entry | Gap, ...], user: str, question: Question) -> None:
        self._items = items
        self._question = question
        self._user = user
        self.kept: list[Entry | Gap] = []

    def is_wanted(self, entry: Entry) -> bool:
        """Whether the entry is one that is asked for."""
        question = self._question
        if not question.partner:
            return True
        came = entry.sender == question.partner and entry.to == question.stream
        went = entry.sender == self._user and entry.to == user_stream(question.partner)
        return entry.type == "message" and (came or went)

    def fit(self, split: EntryId, low: EntryId, high: EntryId) -> tuple[EntryId, EntryId]:
        """Keeps what fits; returns where it begins and ends then."""
        question = self._question
        down = [item for item in self._items if _last(item) <= split]
        up = list(self._items[len(down) :])
        down, is_cut = self._take([*reversed(down)], question.back)
        if is_cut:
            low = below(_first(down[-1])) if down else split
        taken = sum(isinstance(item, Entry) and self.is_wanted(item) for item in down)
        up, is_cut = self._take(up, question.limit - taken)
        if is_cut:
            high = _last(up[-1]) if up else split
        self.kept = [*reversed(down), *up]
        return low, high

    def _take(self, items: list[Entry | Gap], most: int) -> tuple[list[Entry | Gap], bool]:
        """The items up to the last entry before more than `most` are wanted, and whether any are left.

        A gap after that entry is told by the next answer, with what follows it.
        """
        kept = count = 0
        for at, item in enumerate(items):
            if isinstance(item, Entry):
                if self.is_wanted(item):
                    if count == most:
                        return items[:kept], True
                    count += 1
                kept = at + 1
        return items, False


def _first(item: Entry | Gap) -> EntryId:
    """The first id that an item speaks of; within a gap nobody knows its ms."""
    return item.id if isinstance(item, Entry) else EntryId(item.after.ms, item.after.n + 1)


def _last(item: Entry | Gap) -> EntryId:
    return item.id if isinstance(item, Entry) else item.to
