"""How far a device is behind, and when that costs it something."""

import pytest

from service.core.entries import Stretch
from service.core.names import EntryId
from service.core.retention import Policy
from service.inspection.lag import Lag, begins, lag, messages, unread_after, with_loss

HEAD, FLOOR = EntryId(9000, 9), EntryId(2000, 2)
DAY_MS = 86_400_000


def at(n: int) -> EntryId:
    return EntryId(n * 1000, n)


def policy(
    *,
    max_age: int | None = None,
    max_entries: int | None = None,
    min_keep: int = 0,
    hold_unread: int | None = None,
) -> Policy:
    return Policy(
        match="user:*", max_age_s=max_age, max_entries=max_entries, min_keep=min_keep, hold_unread_s=hold_unread
    )


@pytest.mark.parametrize(
    ("stretches", "offset", "expected"),
    [
        (None, at(9), None),
        (None, at(4), at(4)),
        ((Stretch(at(3)),), at(1), at(3)),
        ((Stretch(at(3)),), at(5), at(5)),
        ((Stretch(at(1), at(4)), Stretch(at(6), at(8))), at(4), at(6)),
        ((Stretch(at(1), at(4)), Stretch(at(6), at(8))), at(8), None),
        ((), at(1), None),
    ],
)
def test_above_what_lies_the_first_unread(
    stretches: tuple[Stretch, ...] | None, offset: EntryId, expected: EntryId | None
) -> None:
    assert unread_after(offset, HEAD, stretches) == expected
    assert (messages(offset, HEAD, stretches) == 0) == (expected is None)


def test_only_numbers_within_the_memberships_count() -> None:
    stretches = (Stretch(at(1), at(4)), Stretch(at(6), at(8)))
    assert messages(at(2), HEAD, stretches) == 4
    assert messages(at(2), HEAD, None) == 7
    assert messages(at(2), at(7), stretches) == 3


def test_how_far_behind_and_for_how_long() -> None:
    found = lag(at(1), HEAD, FLOOR, None, first=at(3), now_ms=20_000)
    assert found == Lag(messages=8, gone=1, first=at(3), lag_s=6.0, waiting_s=17.0)
    assert lag(HEAD, HEAD, FLOOR, None, first=None, now_ms=20_000).messages == 0
    # Everything that it lacks is gone: nothing waits any more.
    assert lag(at(1), HEAD, HEAD, None, first=None, now_ms=20_000) == Lag(
        messages=8, gone=8, first=None, lag_s=0.0, waiting_s=0.0
    )


def test_where_a_device_begins() -> None:
    assert begins("all", HEAD, FLOOR, None) == HEAD
    assert begins("user:a", HEAD, FLOOR, None) == FLOOR
    assert begins("group:g", HEAD, FLOOR, (Stretch(at(1), at(4)), Stretch(at(6)))) == at(6)


@pytest.mark.parametrize(
    ("limits", "last_seen", "expected"),
    [
        ({"max_age": 86_400}, 0, (at(3).ms + DAY_MS, "max_age=1d")),
        ({}, 0, (None, "")),
        ({"max_entries": 7}, 0, (None, "")),
        ({"max_entries": 6}, 0, (at(3).ms, "max_entries=6")),
        ({"max_age": 86_400, "min_keep": 7}, 0, (None, "")),
        ({"max_age": 86_400, "min_keep": 6}, 0, (at(3).ms + DAY_MS, "max_age=1d")),
        ({"max_age": 86_400, "hold_unread": 3 * 86_400}, 10 * DAY_MS, (at(3).ms + 3 * DAY_MS, "hold_unread=3d")),
        # It holds nothing any more once it counts as idle: two days after it was seen.
        ({"max_age": 86_400, "hold_unread": 3 * 86_400}, 0, (2 * DAY_MS, "hold_unread=3d")),
        ({"max_age": 86_400, "hold_unread": 3 * 86_400}, -9 * DAY_MS, (at(3).ms + DAY_MS, "max_age=1d")),
    ],
)
def test_when_it_would_begin_to_lose_something(
    limits: dict[str, int], last_seen: int, expected: tuple[int | None, str]
) -> None:
    found = lag(at(2), HEAD, FLOOR, None, first=at(3), now_ms=20_000)
    told = with_loss(found, "user:a", HEAD, policy(**limits), last_seen=last_seen, idle_s=2 * 86_400)
    assert (told.loses_ms, told.loses_by) == expected


def test_who_lacks_nothing_loses_nothing() -> None:
    found = lag(HEAD, HEAD, FLOOR, None, first=None, now_ms=20_000)
    assert with_loss(found, "user:a", HEAD, policy(max_age=1), last_seen=0, idle_s=1).loses_ms is None
