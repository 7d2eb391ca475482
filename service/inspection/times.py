"""Times as everybody is told them: RFC 3339 in UTC, with an age in seconds beside."""

from datetime import UTC, datetime

from service.core.names import EntryId

MS_MAX = 253_402_300_799_999  # the end of the year 9999, the last that RFC 3339 can spell


def when(ms: float) -> str:
    """Redis time in ms as text."""
    text = datetime.fromtimestamp(min(max(ms, 0), MS_MAX) / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def when_or_none(ms: float | None) -> str | None:
    """The same of what may be unknown."""
    return None if ms is None else when(ms)


def age_s(ms: float, now_ms: float) -> float:
    """How long ago a moment was, in seconds; 0 for one that is still to come."""
    return max(0.0, (now_ms - ms) / 1000)


def id_or_none(entry: EntryId | None) -> str | None:
    """An entry id as text."""
    return None if entry is None else str(entry)


def at_or_none(entry: EntryId | None) -> str | None:
    """The time of an entry as text."""
    return None if entry is None else when(entry.ms)


def age_or_none(entry: EntryId | None, now_ms: float) -> float | None:
    """The age of an entry."""
    return None if entry is None else age_s(entry.ms, now_ms)
