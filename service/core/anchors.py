"""Anchors: where a look into the history of a stream starts, spelt as an entry id, a number or a time.

    before A      everything below A          the split lies just below A
    after A       everything above A          the split lies at A
    around A      both, A itself included     the split lies just below A
    none          the newest                  the split lies at the head

A **split** cuts a stream in two: what is at or below it, and what is above it.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from service.core.names import PART_MAX, ZERO, EntryId, parse_id
from service.errors import WaypostError

Side = Literal["newest", "after", "before", "around"]

_LOOKS_LIKE_AN_ID = re.compile(r"[0-9]+-[0-9]+", re.ASCII)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Moment(msgspec.Struct, frozen=True):
    """A time: the whole millisecond at or before it, and the one at or after it. Entries have whole milliseconds."""

    floor: int
    ceil: int


class Anchor(msgspec.Struct, frozen=True):
    """`side` of `at`: an entry id, a number, or a time; None for the newest."""

    side: Side
    at: EntryId | int | Moment | None = None

    @property
    def split(self) -> tuple[Literal["id", "n", "ms"], EntryId | int]:
        """The split that this anchor stands for: at an id, at a number, or at the last entry of a millisecond."""
        at = self.at
        if at is None:
            return "id", EntryId(PART_MAX, PART_MAX)
        if isinstance(at, EntryId):
            return "id", at if self.side == "after" else below(at)
        if isinstance(at, Moment):
            ms = at.floor if self.side == "after" else (at.ceil if self.side == "before" else at.floor) - 1
            return "ms", max(ms, 0)
        return "n", at if self.side == "after" else max(at - 1, 0)


def below(entry: EntryId) -> EntryId:
    """A bound just below an entry: everything with a lower number is at or below it, the entry is above it."""
    return EntryId(entry.ms, entry.n - 1) if entry.n else ZERO


def parse_anchor(after: int | str | None, before: int | str | None, around: int | str | None) -> Anchor:
    """The anchor that a request names: at most one of the three. Raises `bad_request`, `bad_anchor`."""
    given: list[tuple[Side, int | str]] = []
    if after is not None:
        given.append(("after", after))
    if before is not None:
        given.append(("before", before))
    if around is not None:
        given.append(("around", around))
    if len(given) > 1:
        raise WaypostError("bad_request", "only one of after, before and around")
    if not given:
        return Anchor("newest")
    [(side, spelt)] = given
    return Anchor(side, _parse(spelt))


def _parse(spelt: int | str) -> EntryId | int | Moment:
    if isinstance(spelt, int):
        if spelt < 0:
            raise WaypostError("bad_anchor", "no entry has a number below 1")
        return min(spelt, PART_MAX)
    if _LOOKS_LIKE_AN_ID.fullmatch(spelt):
        try:
            entry = parse_id(spelt)
        except WaypostError as problem:
            raise WaypostError("bad_anchor", problem.detail) from problem
        if entry.n == 0 and entry != ZERO:
            raise WaypostError("bad_anchor", f"no entry has the number 0: {spelt}")
        return entry
    if _RFC_3339.fullmatch(spelt):
        try:
            since = datetime.fromisoformat(spelt.upper()) - _EPOCH
        except ValueError as problem:
            raise WaypostError("bad_anchor", f"no such time: {spelt[:40]!r}") from problem
        return Moment(since // _MS, -(-since // _MS))
    raise WaypostError("bad_anchor", f"neither a number, an entry id nor an RFC 3339 time: {spelt[:40]!r}")
