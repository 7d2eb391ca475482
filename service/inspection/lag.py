"""How far a device is behind in a stream, and when that would cost it something. Pure: what is read comes in.

*Messages* are numbers: `joined`, `left` and redacted ones count. Of time there are two: `lag_s` lies between the first
entry that was not acknowledged and the head, and does not grow while nobody writes; `waiting_s` is how long that first
entry has been waiting, by the clock of Redis.
"""

from collections.abc import Sequence

import msgspec

from service.core.entries import Stretch
from service.core.names import ALL, ZERO, EntryId, parse_stream
from service.core.retention import Policy, limit_texts
from service.store.sights import DeviceSight, StreamBounds

_EVER = (Stretch(ZERO),)


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How far a device is behind. `gone`: of `messages`, those that were removed before it had them; it is told of a
    gap. `first`: the first entry that it has not acknowledged and that is there. `loses_ms`: Redis ms at which the
    policy begins to remove what it lacks, by the limit `loses_by`; None where no limit by age says so.
    """

    messages: int
    gone: int
    first: EntryId | None
    lag_s: float
    waiting_s: float
    loses_ms: int | None = None
    loses_by: str = ""


def begins(stream: str, head: EntryId, floor: EntryId, stretches: Sequence[Stretch] | None) -> EntryId:
    """Where a device that never acknowledged anything begins."""
    if stretches is not None:
        return stretches[-1].joined if stretches else head
    return head if stream == ALL else floor


def stands_at(device: DeviceSight, bounds: StreamBounds) -> EntryId:
    """Up to where a device has a stream: its offset, else where it would begin."""
    stored = device.offsets.get(bounds.stream)
    return begins(bounds.stream, bounds.head, bounds.floor, bounds.stretches) if stored is None else stored[0]


def unread_after(offset: EntryId, head: EntryId, stretches: Sequence[Stretch] | None) -> EntryId | None:
    """The id above which lies the first thing that is the user's and not acknowledged; None: there is nothing."""
    for stretch in _EVER if stretches is None else stretches:
        start = max(offset, stretch.joined)
        if min(head, stretch.left or head).n > start.n:
            return start
    return None


def messages(offset: EntryId, to: EntryId, stretches: Sequence[Stretch] | None) -> int:
    """How many numbers above the offset and up to `to` are the user's."""
    return sum(
        max(0, min(to, stretch.left or to).n - max(offset, stretch.joined).n)
        for stretch in (_EVER if stretches is None else stretches)
    )


def lag(
    offset: EntryId,
    head: EntryId,
    floor: EntryId,
    stretches: Sequence[Stretch] | None,
    *,
    first: EntryId | None,
    now_ms: int,
) -> Lag:
    """How far behind. `first` is the first entry above `unread_after`, None where none is there."""
    behind = messages(offset, head, stretches)
    if not behind or first is None or first > head:
        first = None
    return Lag(
        messages=behind,
        gone=messages(offset, min(floor, head), stretches),
        first=first,
        lag_s=0.0 if first is None else max(0, head.ms - first.ms) / 1000,
        waiting_s=0.0 if first is None else max(0, now_ms - first.ms) / 1000,
    )


def with_loss(found: Lag, stream: str, head: EntryId, policy: Policy, *, last_seen: int | None, idle_s: int) -> Lag:
    """The same with when the policy would begin to take what the device lacks, if it stays away.

    Limits by number and size depend on what others write: where they would fire now, the time is now (that of the
    first entry). What `min_keep` keeps, and an inbox holds for a device that is seen, is not taken.
    """
    first = found.first
    if first is None:
        return found
    at, by, texts = None, "", limit_texts(policy)
    if policy.max_age_s is not None:
        at, by = first.ms + policy.max_age_s * 1000, texts["max_age"]
    above = head.n - first.n + 1
    if policy.max_entries is not None and above > policy.max_entries:
        at, by = first.ms, texts["max_entries"]
    if policy.min_keep >= above:
        at, by = None, ""
    kind, _ = parse_stream(stream)
    if at is not None and policy.hold_unread_s is not None and kind == "user":
        held = first.ms + policy.hold_unread_s * 1000
        if last_seen is not None:
            held = min(held, last_seen + idle_s * 1000)
        if held > at:
            at, by = held, texts["hold_unread"]
    return msgspec.structs.replace(found, loses_ms=at, loses_by=by)
