"""The newest entries of streams that somebody here is catching up on, for whoever is only a little behind.

At a high rate a page is below the position by the time it has come: entries have been dispatched meanwhile. Read on by
pages alone, a connection might run after a busy stream for a long time. The entries in between are here, as they were
pushed to the others. Kept only while a stream has connections that are behind, and bounded; a hole empties it.
"""

from collections import deque

from service.config import Limits
from service.core.names import EntryId
from service.node.connection import Item


class Tails:
    """The tails of a node's streams."""

    def __init__(self, limits: Limits) -> None:
        self._entries_max = limits.tail_entries
        self._bytes_max = limits.tail_bytes
        self._tails: dict[str, deque[Item]] = {}
        self._bytes = 0

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self._tails)

    def add(self, item: Item) -> None:
        """An entry was pushed, and connections that are behind on its stream will want it."""
        tail = self._tails.setdefault(item.arrival.stream, deque())
        tail.append(item)
        self._bytes += _size(item)
        if len(tail) > self._entries_max:
            self._bytes -= _size(tail.popleft())
        if self._bytes > self._bytes_max:  # pages will do
            self._tails.clear()
            self._bytes = 0

    def drop(self, stream: str) -> None:
        """Nobody is behind on the stream any more, or what is kept of it is no longer the whole truth."""
        for item in self._tails.pop(stream, ()):
            self._bytes -= _size(item)

    def between(self, stream: str, after: EntryId, upto: EntryId) -> list[Item] | None:
        """Every entry above `after` up to `upto`, None when they are not all here."""
        items = [item for item in self._tails.get(stream, ()) if after < item.arrival.entry.id <= upto]
        numbers = [item.arrival.entry.id.n for item in items]
        return items if items and numbers == list(range(after.n + 1, upto.n + 1)) else None


def _size(item: Item) -> int:
    entry = item.arrival.entry
    return len(entry.body or b"") + len(entry.mid) + len(entry.sender) + len(entry.to)
