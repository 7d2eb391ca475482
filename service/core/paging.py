"""What a page means for one user: entries in order, and a gap for every stretch that is gone.

`lay_out` walks the numbers from the offset upwards. Every number is an entry, a redacted message (it keeps its place),
or part of a gap; and a gap is told with its bounds, its count and its cause. What lies outside the user's stretches of
membership is no gap: it never was theirs.
"""

from bisect import bisect_left, bisect_right

import msgspec

from service.core.entries import Entry, GapKind, Page, Redaction, Removal, Stretch
from service.core.names import ZERO, EntryId

# A gap names so many removals one by one. A phone that was off for a week has missed two thousand runs of a job: those
# are told by their cause, each with the last time.
CAUSES_MAX = 16


class Gap(msgspec.Struct, frozen=True):
    """A stretch above `after`, up to `to`, that no longer exists.

    `missed` is how many numbers it spans, None when another history makes that unknowable. `causes` are lines of the
    ledger, oldest first, never empty (the last of each cause, where they are many). `next` is the first id that still
    exists above it, None when there is none.
    """

    after: EntryId
    to: EntryId
    missed: int | None
    causes: tuple[Removal, ...]
    next: EntryId | None = None


class Layout(msgspec.Struct, frozen=True):
    """A page as one user gets it.

    `items` in order; `upto` is the id up to which the stream has then passed the connection; `has_ended` says that
    the user's membership ends there, so that nothing more will come.
    """

    items: tuple[Entry | Gap, ...]
    upto: EntryId
    has_ended: bool = False


def lay_out(page: Page, user: str, resume: EntryId) -> Layout:
    """What `user`, who has everything up to `page.after`, gets of this page.

    `resume` is where to go on when the offset belongs to another history: the server's own offset for this device.
    """
    return _other_history(page, user, resume) if contradicts(page) else lay(page, user)


def lay(page: Page, user: str) -> Layout:
    """The same for a page that is known to be of this history, so that its `before` counts for nothing."""
    laid = _Laying(page)
    if page.stretches is None:
        laid.lay(page.after, page.head)
        return laid.finish(page.after, has_ended=False)
    stretches = page.stretches.get(user, ())
    for stretch in stretches:
        laid.lay_stretch(stretch, user)
    last = stretches[-1].left if stretches else ZERO
    # A former member has it all once the page has reached the end of the last stretch.
    upto = laid.upto
    return laid.finish(page.after, has_ended=last is not None and (page.is_last or last <= upto))


def up_to(layout: Layout, joining: EntryId, user: str) -> Layout:
    """The layout as far as the answer to the joining of `user`: what is above it comes with another page.

    The answer is written next, in place of the own `joined` entry.
    """
    if layout.upto < joining or any(isinstance(item, Gap) and item.missed is None for item in layout.items):
        return layout
    items = tuple(
        item
        for item in layout.items
        if (item.to if isinstance(item, Gap) else item.id) <= joining and not _is_joining(item, joining, user)
    )
    return Layout(items, joining, has_ended=layout.has_ended and layout.upto == joining)


def _is_joining(item: Entry | Gap, joining: EntryId, user: str) -> bool:
    return isinstance(item, Entry) and item.id == joining and item.type == "joined" and item.sender == user


def is_whole_for(page: Page, user: str) -> bool:
    """Whether all of the page is the user's, and the offset is one of this history: for all of those, one layout."""
    if contradicts(page):
        return False
    if page.stretches is None:
        return True
    stretches = page.stretches.get(user, ())
    return bool(stretches) and stretches[-1].left is None and stretches[-1].joined <= page.after


def contradicts(page: Page) -> bool:
    """Whether the offset `page.after` belongs to another history than the stream.

    It does when it is above the head, or when the entry with exactly that id should be there and is not: its number
    is taken by another entry. A number that nobody has is a hole, which has a cause of its own.
    """
    after = page.after
    if after in (ZERO, page.head, page.floor, page.before):
        return False
    if after > page.head or after.n >= page.head.n:
        return True
    if after < page.floor or after.n < page.floor.n:
        return after > page.floor or after.n > page.floor.n
    redaction = page.redactions.get(after.n)
    if redaction is not None:
        return redaction.id != after
    for removal in page.removals:
        if removal.after < after <= removal.to:  # within a fork only its end is of this history
            return removal.policy == "fork" and after != removal.to
    if page.before is not None and page.before.n >= after.n:
        return True
    return bool(page.entries) and page.entries[0].id.n <= after.n


def start_of_membership(stretches: tuple[Stretch, ...]) -> EntryId | None:
    """Where a device that has nothing begins in a group: the start of the open stretch. None: not a member now."""
    return stretches[-1].joined if stretches and stretches[-1].left is None else None


def start_of_what_is_lacking(
    stretches: tuple[Stretch, ...], ended: EntryId | None, since: int | None
) -> EntryId | None:
    """Where a connection begins that does not follow a group, and hears of a joining: at `since`, which is Redis time
    in ms, or None for before it was opened. It has everything up to `ended`, if it followed the group before.
    Returns None when it lacks nothing.

    The membership that it heard of may have ended meanwhile, and another begun: they are the user's all the same.
    """
    for stretch in stretches:
        if stretch.left is None:
            is_lacking = True
        elif ended is not None:
            is_lacking = stretch.left > ended
        else:
            is_lacking = since is not None and stretch.left.ms >= since
        if is_lacking:
            return max(stretch.joined, ended or ZERO)
    return None


def _other_history(page: Page, user: str, resume: EntryId) -> Layout:
    """The offset is void: say so, and go on from the server's own, or, where that is void too, from the floor.

    Never from where the page began, nor from above the head: that would be void again, and told without end.
    """
    valid = page.floor <= resume <= page.head and resume != page.after
    to = resume if valid else page.floor
    start = None if page.stretches is None else start_of_membership(page.stretches.get(user, ()))
    if start is not None and start <= page.head and start != page.after:
        to = max(to, start)
    cause = Removal(after=page.after, to=to, count=0, kind="epoch", at=0)
    return Layout((Gap(page.after, to, None, (cause,)),), to)


class _Laying:
    """One page being laid out: items so far, and up to where."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.items: list[Entry | Gap] = []
        # As far as this page can speak of: to the head, or to its last entry.
        self.upto = page.head if page.is_last else page.entries[-1].id
        self._laid = page.after  # where the stretches so far end
        self._redacted = sorted(page.redactions)

    def lay_stretch(self, stretch: Stretch, user: str) -> None:
        """Lays what lies within one stretch of membership."""
        end = self.page.head if stretch.left is None else stretch.left
        if end <= self._laid:
            return
        start = max(self._laid, stretch.joined)
        if stretch.joined > self._laid:
            # Who was away while leaving and coming back sees the own `joined` entry: numbers count anew from it.
            self.items += [entry for entry in self.page.entries if _is_joining(entry, stretch.joined, user)]
        self.lay(start, end)
        self._laid = max(self._laid, min(end, self.upto))

    def lay(self, after: EntryId, end: EntryId) -> None:
        """Lays every number above `after` up to `end`, as far as the page reaches."""
        page = self.page
        end = min(end, self.upto)
        at = after
        if at < page.floor and at < end:
            to = min(page.floor, end)
            self._gap(at, to)
            at = to
        for entry in page.entries:
            if at < entry.id <= end:
                self._fill(at, entry.id.n)
                self.items.append(entry)
                at = entry.id
        if at.n < end.n:
            self._fill(at, end.n + 1, last=end)

    def _fill(self, at: EntryId, until: int, last: EntryId | None = None) -> None:
        """The numbers above `at` and below `until`, none of which is an entry: redacted messages and lost stretches.

        `last` is the id of the last number when it is known.
        """
        for n in self._redacted[bisect_right(self._redacted, at.n) : bisect_left(self._redacted, until)]:
            redaction = self.page.redactions[n]
            if redaction.id.n > at.n + 1:
                self._lost(at, n - 1)
            self.items.append(_tombstone(redaction))
            at = redaction.id
        if at.n + 1 < until:
            self._lost(at, until - 1, last)

    def _lost(self, after: EntryId, n: int, last: EntryId | None = None) -> None:
        """Numbers above `after` up to `n` are nowhere. The ledger may know the id of the last; else it is made up."""
        known = [removal.to for removal in self.page.removals if removal.to.n == n and removal.to > after]
        self._gap(after, last or (known[-1] if known else EntryId(after.ms, n)))

    def _gap(self, after: EntryId, to: EntryId) -> None:
        if to.n <= after.n:  # a floor made of a time: no number lies between
            return
        causes = tuple(removal for removal in self.page.removals if removal.after < to and removal.to > after)
        if not causes:
            kind: GapKind = "trimmed" if to <= self.page.floor else "lost"
            causes = (Removal(after=after, to=to, count=to.n - after.n, kind=kind, at=0),)
        if len(causes) > CAUSES_MAX:
            causes = _by_cause(causes)
        self.items.append(Gap(after, to, to.n - after.n, causes))

    def finish(self, after: EntryId, *, has_ended: bool) -> Layout:
        """The layout, each gap with the id that comes next."""
        following: EntryId | None = None
        for index in range(len(self.items) - 1, -1, -1):
            item = self.items[index]
            if isinstance(item, Gap):
                if following is not None:
                    self.items[index] = msgspec.structs.replace(item, next=following)
            else:
                following = item.id
        return Layout(tuple(self.items), max(after, self.upto), has_ended)


def _by_cause(removals: tuple[Removal, ...]) -> tuple[Removal, ...]:
    """The newest removal of each cause, in order of time, and no more than `CAUSES_MAX` of them."""
    newest: dict[tuple[str, str, str], Removal] = {}
    for removal in removals:
        cause = (removal.kind, removal.policy, removal.limit)
        newest.pop(cause, None)
        newest[cause] = removal
    return tuple(newest.values())[-CAUSES_MAX:]


def _tombstone(redaction: Redaction) -> Entry:
    """What is left of a redacted message: its place."""
    return Entry(redaction.id, "message", redaction.sender, redaction.to, redaction.mid, is_redacted=True)
