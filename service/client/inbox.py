"""What has come for the program: events in order, each once, and for each stream how far the program has got.

An `Item` waits here until the program asks for the next event, and its position counts as taken when the program is
done with it. Positions alone decide what is new; see `positions.py`.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from service.client.events import Event
from service.client.positions import Fate, Positions
from service.client.wire import Entry
from service.core import frames
from service.core.names import EntryId, group_stream, parse_id

EVENTS_MOST = 256  # that wait for the program; above it the socket is not read, and the server keeps the rest


class Hole(Exception):
    """Something did not come: the connection is of no use any more. The next one brings it."""


class Item(NamedTuple):
    """An event on its way to the program, and the position that it stands for.

    `event` is None for what the program has had before: only its position counts.
    """

    event: Event | None
    stream: str = ""
    id: EntryId | None = None
    generation: int = 0
    restarts: bool = False


class Inbox:
    """The events of one client. `is_listening`: the program wants them; else they count as taken when they come."""

    def __init__(self, offsets: Mapping[str, EntryId], epoch: str | None, *, is_listening: bool) -> None:
        self.positions = Positions(offsets, epoch)
        self._is_listening = is_listening
        self._items: deque[Item] = deque()
        self._yielded: Item | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._items)

    # -- what comes ----------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """An event that stands in no stream."""
        self._put(Item(event))

    def put_entry(self, frame: Entry | frames.Sent, user: str) -> None:
        """An entry, or the answer to what `user`, who we are, has asked for. Raises `Hole`."""
        entry = parse_id(frame.id)
        is_answer = is_own = False
        if isinstance(frame, frames.Sent):
            is_answer = True
        elif isinstance(frame, frames.Joined | frames.Left):
            is_answer = frame.ref is not None
            is_own = frame.user == user and frame.stream == group_stream(frame.group)
        begins = is_own and isinstance(frame, frames.Joined)
        fate = self.positions.entry(frame.stream, entry, begins=begins, is_answer=is_answer)
        if fate is Fate.HOLE:
            self._bridge(frame.stream, EntryId(entry.ms, max(entry.n - 1, 0)), frame.id)
            fate = self.positions.entry(frame.stream, entry)
        self._hand_out(fate, Item(frame, frame.stream, entry, self.positions.generation))
        if is_own and not begins and fate is not Fate.HAD:
            self.positions.ended(frame.stream)

    def put_gap(self, gap: frames.Gap) -> None:
        """A gap that the server announced. Raises `Hole`."""
        after, to = parse_id(gap.after), parse_id(gap.to)
        is_epoch = gap.missed is None
        fate, start = self.positions.gap(gap.stream, after, to, is_epoch=is_epoch)
        if fate is Fate.HOLE:
            self._bridge(gap.stream, after, gap.to)
            fate, start = self.positions.gap(gap.stream, after, to, is_epoch=is_epoch)
        self._hand_out(fate, Item(_since(gap, start), gap.stream, to, self.positions.generation, is_epoch))

    def _bridge(self, stream: str, upto: EntryId, following: str) -> None:
        """Something up to `upto` is missing. The second time it stays missing, so the program is told of a gap."""
        begin = self.positions.hole(stream, upto)
        if begin is None:
            raise Hole(f"entries of {stream} are missing before {following}")
        is_epoch = upto.n <= begin.n  # numbers that go back are of another history
        fate, start = self.positions.gap(stream, begin, upto, is_epoch=is_epoch)
        cause = frames.Cause("epoch" if is_epoch else "lost")
        missed = None if is_epoch else upto.n - begin.n
        gap = frames.Gap(stream, str(begin), str(upto), missed, cause, next=following)
        self._hand_out(fate, Item(_since(gap, start)))  # no position: nobody knows the id of what is not there

    # -- what the program gets -----------------------------------------------------------------------------------------

    def _hand_out(self, fate: Fate, item: Item) -> None:
        if fate is Fate.NEW:
            self._put(item)
        elif fate is Fate.AGAIN:
            self._put(item._replace(event=None))

    def _put(self, item: Item) -> None:
        if self._is_closed:
            return
        if not self._is_listening:
            self._took(item)
        elif item.event is None and self._items and self._items[-1][:2] == item[:2]:
            self._items[-1] = item  # a replay of what was handed out before takes one place, not thousands
        else:
            self._items.append(item)

    def next_event(self) -> Event | None:
        """The next event for the program, None when there is none now. Call `took` once the program is done with it."""
        while self._items:
            item = self._items.popleft()
            if item.event is not None:
                self._yielded = item
                return item.event
            self._took(item)
        return None

    def took(self) -> None:
        """The program is done with the event that `next_event` gave last. May be called twice."""
        if self._yielded is not None:
            self._took(self._yielded)
            self._yielded = None

    def _took(self, item: Item) -> None:
        if item.id is not None:
            self.positions.took(item.stream, item.id, item.generation, restarts=item.restarts)

    def close(self) -> None:
        """The program goes. What it has not taken comes again next time."""
        self._is_closed = True
        self._items.clear()
        self._yielded = None

    @property
    def is_full(self) -> bool:
        """Whether as much waits for the program as may."""
        return len(self._items) >= EVENTS_MOST


def _since(gap: frames.Gap, start: EntryId) -> frames.Gap:
    """The part of a gap that is above `start`: what was lost after we got it is not missing here."""
    if gap.missed is None or parse_id(gap.after) == start:
        return gap
    return msgspec.structs.replace(gap, after=str(start), missed=parse_id(gap.to).n - start.n)
