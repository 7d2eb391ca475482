"""Position, live or behind, and doubt: what a node does with an entry from its mailbox, as steps without I/O.

A **track** is one stream as this node sees it. Its *position* is the id last dispatched from the mailbox. A **cursor**
is one connection on one track, in one of three places:

    behind   it reads pages from the stream; entries from the mailbox pass it by (they are in the stream)
    ahead    its last page reached beyond the position: it has what the mailbox is still to bring, so it drops that
    live     it gets every entry as it is dispatched

      ┌───────── fall_behind: a hole, doubt, a socket that does not drain ─────────┐
      ▼                                                                            │
    behind ── a page ends at the head, and the head is the position ───────────→ live
      │  └─── a page ends at the head, above the position ──→ ahead ─ reached ─→───┘
      └─ any other page: read on                                └─ fall_behind → behind

The answer to a page and the mailbox come over different sockets, so neither may be believed alone. A page whose head is
*below* the position never makes a cursor live: an entry between the two was dispatched while the cursor was behind, and
it would never come again. A page whose head is *above* it leaves the cursor ahead until the reader gets there.

What is not in `TRANSITIONS` cannot happen, and is an error.
"""

from collections.abc import Hashable, Iterator
from enum import Enum
from typing import Generic, TypeVar

from service.core.names import ZERO, EntryId, follows, had

Link = TypeVar("Link", bound=Hashable)


class Place(Enum):
    """Where a cursor stands towards its track."""

    BEHIND = "behind"
    AHEAD = "ahead"
    LIVE = "live"

    __hash__ = object.__hash__  # Enum's own is in Python, and called at every look into a table


class Event(Enum):
    """What moves a cursor from one place to another."""

    PAGE_BELOW = "a page ended below its head, or its head is below the position"
    PAGE_AT = "a page ended at its head, which is the position"
    PAGE_ABOVE = "a page ended at its head, above the position"
    REACHED = "the position reached what the cursor has"
    FALL_BEHIND = "a hole, doubt, or a socket that does not drain"

    __hash__ = object.__hash__  # the same


TRANSITIONS: dict[tuple[Place, Event], Place] = {
    (Place.BEHIND, Event.PAGE_BELOW): Place.BEHIND,
    (Place.BEHIND, Event.PAGE_AT): Place.LIVE,
    (Place.BEHIND, Event.PAGE_ABOVE): Place.AHEAD,
    (Place.BEHIND, Event.FALL_BEHIND): Place.BEHIND,
    (Place.AHEAD, Event.REACHED): Place.LIVE,
    (Place.AHEAD, Event.FALL_BEHIND): Place.BEHIND,
    (Place.LIVE, Event.FALL_BEHIND): Place.BEHIND,
}


class Step(Enum):
    """What to do with an entry that came out of the mailbox."""

    PUSH = "push it to the live cursors"
    HAD = "it was dispatched before: drop it"
    HOLE = "something is missing before it, or it is not whole: skip to it, and pages bring it"


class Cursor(Generic[Link]):
    """One connection (`link`) on one stream.

    `passed` is the id up to which everything has passed this connection: pushed, answered as `sent`, paged, or
    announced as a gap. For a live cursor ask the track (`Track.passed`), which moves for all of them at once. One that
    `must_read` is made live by a page alone, which says whose the entries are; not by having everything up to a head.
    """

    __slots__ = ("link", "must_read", "passed", "place", "stream")

    def __init__(self, link: Link, stream: str, passed: EntryId, *, must_read: bool = False) -> None:
        self.link = link
        self.stream = stream
        self.passed = passed
        self.must_read = must_read
        self.place = Place.BEHIND


class Track(Generic[Link]):
    """One stream as this node sees it.

    `position` is None until the first attach was answered. Cursors are kept by place, so that the loop that pushes an
    entry touches the live ones and nothing else.
    """

    __slots__ = ("_seen", "ahead", "behind", "live", "position", "shown", "stream")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.position: EntryId | None = None
        self.shown = ZERO  # the highest head that a page has shown
        self.live: dict[Link, Cursor[Link]] = {}
        self.ahead: dict[Link, Cursor[Link]] = {}
        self.behind: dict[Link, Cursor[Link]] = {}
        # The highest id that the mailbox brought before the attach was answered (they come over different sockets).
        self._seen: EntryId | None = None

    def __bool__(self) -> bool:
        """Whether anybody here wants this stream."""
        return bool(self.live or self.behind or self.ahead)

    def cursors(self) -> Iterator[Cursor[Link]]:
        """Every cursor, whatever its place."""
        yield from self.live.values()
        yield from self.ahead.values()
        yield from self.behind.values()

    def passed(self, cursor: Cursor[Link]) -> EntryId:
        """The id up to which everything has passed the cursor's connection."""
        if cursor.place is Place.LIVE and self.position is not None:
            return self.position
        return cursor.passed

    # -- what happens ------------------------------------------------------------------------------------------------

    def follow(self, link: Link, passed: EntryId, *, must_read: bool = False) -> Cursor[Link]:
        """A connection that has everything up to `passed` begins to follow, behind. A `page` may make it live at
        once.
        """
        cursor = Cursor(link, self.stream, passed, must_read=must_read)
        self.behind[link] = cursor
        return cursor

    def unfollow(self, link: Link) -> Cursor[Link] | None:
        """The connection no longer follows. Returns its cursor, None when it did not."""
        for place in (self.live, self.ahead, self.behind):
            cursor = place.pop(link, None)
            if cursor is not None:
                return cursor
        return None

    def attached(self, head: EntryId) -> list[Cursor[Link]]:
        """An attach was answered with `head`: what comes after it comes through the mailbox.

        Returns the cursors that fell behind: all that were not, when the head is not the position.
        """
        if self.position is None:
            self.position = head if self._seen is None else max(head, self._seen)
            self._seen = None
            return []
        if head == self.position:
            return []
        # Either a mailbox lost entries, or they are still on their way; a page tells, and costs little.
        return self.skip_to(max(head, self.position))

    def verify(self, head: EntryId) -> list[Cursor[Link]]:
        """The stream's head was `head` some time ago, and the mailbox has brought everything of that time.

        Returns the cursors that fell behind: all that were not, when the position is still below it.
        """
        if self.position is None or self.position >= head:
            return []
        return self.skip_to(head)

    def arrived(self, entry: EntryId, *, is_whole: bool = True) -> Step:
        """An entry came out of the mailbox. On `PUSH` the position has moved to it: push it to every cursor in `live`,
        then call `settle`. On `HOLE` call `skip_to`.

        An entry that is not `is_whole` (its body is in the stream alone) is a hole too. Never decides by `n` alone:
        after a store was restored from older data the same `n` is given out again, with a later `ms`.
        """
        position = self.position
        if position is None:
            self._seen = entry if self._seen is None else max(entry, self._seen)
            return Step.HAD
        if is_whole and follows(entry, position) and (not self.ahead or self._is_below_all_ahead(entry)):
            self.position = entry
            return Step.PUSH
        return Step.HAD if had(entry, position) else Step.HOLE

    def _is_below_all_ahead(self, entry: EntryId) -> bool:
        return all(_lies_below(entry, ahead) for ahead in self.ahead.values())

    def skip_to(self, entry: EntryId) -> list[Cursor[Link]]:
        """The position moves to an entry that was not pushed. Returns the cursors that fell behind: all that were
        not.
        """
        fallen = self.fall_behind()
        self.position = entry
        return fallen

    def settle(self) -> list[Cursor[Link]]:
        """After a push: cursors that were ahead, and whose last id the position has reached, are live now."""
        if not self.ahead or self.position is None:
            return []
        reached = [cursor for cursor in self.ahead.values() if cursor.passed <= self.position]
        for cursor in reached:
            self._move(cursor, Event.REACHED)
        return reached

    def page(self, cursor: Cursor[Link], upto: EntryId, head: EntryId) -> bool:
        """A page passed the cursor's connection: everything up to `upto`, read when the stream's head was `head`.

        Returns whether the cursor has caught up (live, or ahead); if not, read on from `cursor.passed`.
        """
        cursor.passed = upto
        self.shown = max(self.shown, head)
        position = self.position
        if upto < head or position is None or head < position:
            self._move(cursor, Event.PAGE_BELOW)
        elif head == position:
            self._move(cursor, Event.PAGE_AT)
        else:
            self._move(cursor, Event.PAGE_ABOVE)
        cursor.must_read = cursor.must_read and cursor.place is Place.BEHIND
        return cursor.place is not Place.BEHIND

    def fall_behind(self, link: Link | None = None) -> list[Cursor[Link]]:
        """Puts one connection behind, or everybody; returns the cursors that were not behind before."""
        if link is not None:
            cursor = self.live.get(link) or self.ahead.get(link)
            fallen = [] if cursor is None else [cursor]
        else:
            fallen = [*self.live.values(), *self.ahead.values()]
        for cursor in fallen:
            cursor.passed = self.passed(cursor)
            self._move(cursor, Event.FALL_BEHIND)
        return fallen

    # -- the table at work -------------------------------------------------------------------------------------------

    def _move(self, cursor: Cursor[Link], event: Event) -> None:
        place = TRANSITIONS[cursor.place, event]
        if place is cursor.place:
            return
        del self._cursors_at(cursor.place)[cursor.link]
        self._cursors_at(place)[cursor.link] = cursor
        cursor.place = place

    def _cursors_at(self, place: Place) -> dict[Link, Cursor[Link]]:
        if place is Place.LIVE:
            return self.live
        return self.ahead if place is Place.AHEAD else self.behind


def _lies_below(entry: EntryId, ahead: Cursor[Link]) -> bool:
    """Whether a cursor that is ahead has this entry. It has not when a store that lost what the cursor read gives the
    same numbers out once more.
    """
    return entry == ahead.passed or (entry.n < ahead.passed.n and entry.ms <= ahead.passed.ms)


class Delivery(Generic[Link]):
    """All tracks of a node, and who follows what."""

    __slots__ = ("tracks",)

    def __init__(self) -> None:
        self.tracks: dict[str, Track[Link]] = {}

    def track(self, stream: str) -> Track[Link]:
        """The track of `stream`, begun if there was none."""
        track = self.tracks.get(stream)
        if track is None:
            track = self.tracks[stream] = Track(stream)
        return track

    def positions(self) -> dict[str, EntryId]:
        """Per stream the highest id that was dispatched, or that a page's head has shown, for `reconcile`.

        What cursors behind have passed does not count: a client may have made it up.
        """
        return {
            stream: max(track.position, track.shown)
            for stream, track in self.tracks.items()
            if track.position is not None
        }

    def forget(self, stream: str) -> None:
        """The node is detached from the stream; its position means nothing any more."""
        self.tracks.pop(stream, None)
