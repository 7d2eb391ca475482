"""Where a client is in each stream: what has come, what was handed out, what the program has taken.

    at       the connection's count: everything up to here has come on this connection. Begins at `welcome`
    handed   the highest entry that was handed out as an event. Outlives connections, so nothing is handed out twice
    taken    the highest entry that the program is done with: brought in `hello`, and acknowledged

A server counts from what we brought, which is `taken`; what lies between that and `handed` comes again and is let
pass. Positions of one history of the store (its epoch) mean nothing in another, so a taken one carries its epoch.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from service.core.names import EntryId, follows, had


class Fate(Enum):
    """What to do with an entry or a gap that has come."""

    NEW = "hand it out"
    AGAIN = "it was handed out on an earlier connection: count it, and no more"
    HAD = "it has passed this connection before, or pages will bring it: drop it"
    HOLE = "something before it did not come: reconnect, and have it sent again"


class Mark(NamedTuple):
    """A taken position: an entry id in one history. `generation` is the index of the epoch among those seen."""

    id: EntryId
    generation: int


class Track:
    """One stream."""

    __slots__ = ("acked", "at", "epoch_gap", "handed", "hole", "is_changed", "is_followed", "taken")

    def __init__(self) -> None:
        self.at: EntryId | None = None  # None: nothing has come yet, so the first entry begins the count
        self.handed: EntryId | None = None
        self.taken: Mark | None = None
        self.acked: EntryId | None = None  # up to where we acknowledged on this connection
        self.is_followed = False  # the server takes acknowledgements for it
        self.is_changed = False  # acknowledged on this connection: confirmed before leaving
        self.hole: tuple[EntryId, EntryId] | None = None  # the last hole: where we were, and what came instead
        self.epoch_gap: tuple[EntryId, EntryId] | None = None  # the last gap of cause `epoch` that was handed out

    def hand_out(self, entry: EntryId) -> Fate:
        """The entry counts on this connection; is it new to the program?"""
        self.at = entry
        if self.handed is not None and had(entry, self.handed):
            return Fate.AGAIN
        self.handed = entry
        return Fate.NEW


class Positions:
    """All streams of one client. `offsets` and `epoch` are what the program kept from an earlier run."""

    def __init__(self, offsets: Mapping[str, EntryId], epoch: str | None) -> None:
        # Epochs in the order they were seen. None: whatever the server has when the first connection opens.
        self._epochs: list[str | None] = [epoch]
        self._tracks: dict[str, Track] = {}
        self.has_news = False  # something was taken since `to_acknowledge`
        for stream, offset in offsets.items():
            track = self._track(stream)
            track.handed, track.taken = offset, Mark(offset, 0)

    @property
    def generation(self) -> int:
        """Which of the epochs seen is the current one."""
        return len(self._epochs) - 1

    def brought(self) -> tuple[str | None, dict[str, EntryId]]:
        """What `hello` brings: the offsets of the oldest epoch that is not left behind everywhere, and that epoch.

        One `hello` can speak of one epoch only. While some streams are in the old one still (the program has not yet
        taken the gap that leads out of it), the others are left to the server, which has their acknowledgements.
        """
        marks = {stream: track.taken for stream, track in self._tracks.items() if track.taken is not None}
        if not marks:
            return None, {}
        oldest = min(mark.generation for mark in marks.values())
        return self._epochs[oldest], {stream: mark.id for stream, mark in marks.items() if mark.generation == oldest}

    # -- what comes ----------------------------------------------------------------------------------------------------

    def opened(self, epoch: str, starts: Iterable[tuple[str, EntryId]]) -> None:
        """The server has welcomed us, and counts each stream from its start. What it does not name is not ours."""
        if self._epochs[-1] is None:
            self._epochs[-1] = epoch
        elif self._epochs[-1] != epoch:
            self._epochs.append(epoch)
        before, self._tracks = self._tracks, {}
        for stream, start in starts:
            track = self._tracks[stream] = before.get(stream) or Track()
            track.at = start
            track.is_followed, track.is_changed = True, False
            if track.handed is None:
                track.handed = start
            if track.taken is None:
                track.taken = Mark(start, self.generation)
            track.acked = start
        self.has_news = True  # perhaps; `to_acknowledge` looks

    def entry(self, stream: str, entry: EntryId, *, begins: bool = False, is_answer: bool = False) -> Fate:
        """An entry has come. `begins`: our own `joined`, from which the stream counts anew.

        `is_answer`: it is the answer to what we asked, which on a stream that is behind overtakes the pages.
        """
        track = self._track(stream)
        at = track.at
        if at is not None and had(entry, at):
            return Fate.HAD
        is_next = follows(entry, at) if at is not None else not is_answer
        if is_next or (begins and (at is None or entry > at)):
            track.is_followed = True
            return track.hand_out(entry)
        if is_answer or at is None:
            return Fate.HAD
        return Fate.HOLE

    def gap(self, stream: str, after: EntryId, to: EntryId, *, is_epoch: bool) -> tuple[Fate, EntryId]:
        """A gap was announced. Also returns from where it is new: after what was handed out while it still existed."""
        track = self._track(stream)
        if is_epoch:
            fate = Fate.HAD if track.epoch_gap == (after, to) else Fate.NEW
            track.at, track.epoch_gap = to, (after, to)
            if track.handed is None:
                track.handed = to
            return fate, after
        if track.at is not None and had(to, track.at):
            return Fate.HAD, after
        if track.at is not None and after.n > track.at.n:
            return Fate.HOLE, after
        start = after if track.handed is None or track.handed.n <= after.n else track.handed
        return track.hand_out(to), start

    def hole(self, stream: str, upto: EntryId) -> EntryId | None:
        """What came left a hole that ends at `upto`. Returns None the first time: reconnect, and it is sent again.

        When it is in the same place again the server knows no better. Then returns where the hole begins: it is a gap
        that nobody announced, and without this the client would reconnect for ever.
        """
        track = self._track(stream)
        assert track.at is not None
        hole = (track.at, upto)
        if track.hole != hole:
            track.hole = hole
            return None
        return track.at

    def ended(self, stream: str) -> None:
        """We are no longer a member: the server takes no acknowledgements for the stream from here on."""
        self._track(stream).is_followed = False

    # -- what the program takes ----------------------------------------------------------------------------------------

    def took(self, stream: str, entry: EntryId, generation: int, *, restarts: bool = False) -> None:
        """The program is done with an entry or a gap. `restarts`: with a gap of cause `epoch`, which may lead back."""
        track = self._tracks.get(stream)
        if track is None:
            return
        mark = track.taken
        if mark is not None and (generation < mark.generation or (generation == mark.generation and not restarts)):
            if generation == mark.generation and entry > mark.id:
                track.taken = Mark(entry, generation)
                self.has_news = True
            return
        track.taken = Mark(entry, generation)
        self.has_news = True
        track.epoch_gap = None
        if restarts and generation == self.generation:
            track.acked = entry  # the server counts from there, too

    def to_acknowledge(self) -> dict[str, EntryId]:
        """What was taken and not acknowledged on this connection yet; afterwards it counts as acknowledged."""
        self.has_news = False
        offsets: dict[str, EntryId] = {}
        for stream, track in self._tracks.items():
            mark = track.taken
            if not track.is_followed or mark is None or mark.generation != self.generation:
                continue
            if track.acked is None or mark.id > track.acked:
                offsets[stream] = track.acked = mark.id
                track.is_changed = True
        return offsets

    def to_confirm(self) -> dict[str, EntryId]:
        """Before leaving: everything that was acknowledged on this connection, or is still to be."""
        self.to_acknowledge()
        return {
            stream: track.acked
            for stream, track in self._tracks.items()
            if track.is_followed and track.is_changed and track.acked is not None
        }

    def _track(self, stream: str) -> Track:
        track = self._tracks.get(stream)
        if track is None:
            track = self._tracks[stream] = Track()
        return track
