"""Retention: which policy a stream has, what it lets go, and how long a device may stay away."""

import pytest

from service.core.names import EntryId
from service.core.retention import (
    BUILT_IN,
    Cut,
    Hold,
    Policy,
    cuts,
    duration_text,
    hold,
    horizon_s,
    parse_duration,
    parse_size,
    policy_of,
    size_text,
)

DAY_S = 86_400
NOW_MS = 1_795_000_000_000


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("12h", 43_200), ("14d", 14 * DAY_S), ("36500d", 36_500 * DAY_S)]
)
def test_durations_as_people_write_them(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "5", "0d", "-1d", "1.5h", "5 m", "2w", "05m", "36501d", "1d2h", 5, None, True])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="Expected a duration"):
        parse_duration(text)


def test_a_duration_is_told_in_its_largest_unit() -> None:
    assert [duration_text(seconds) for seconds in (1, 60, 90, 3600, 86_400, 14 * DAY_S)] == [
        "1s", "1m", "90s", "1h", "1d", "14d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "size"),
    [(1, 1), ("500", 500), ("7B", 7), ("64MB", 64_000_000), ("64MiB", 67_108_864), ("1 GB", 10**9), ("2TiB", 2**41)],
)
def test_sizes_as_people_write_them(value: object, size: int) -> None:
    assert parse_size(value) == size
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize("value", ["", 0, -1, "0MB", "1.5MB", "64mb", "64 M", "2000TiB", True, None, 1.5])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="Expected a size"):
        parse_size(value)


def test_the_most_specific_policy_wins_and_is_the_whole_policy() -> None:
    groups = Policy(match="group:*", max_age_s=DAY_S, max_entries=10)
    one = Policy(match="group:g1", max_bytes=5)
    alice = Policy(match="user:alice", max_entries=3)
    policies = (one, groups, alice)
    assert policy_of("group:g1", policies) == one
    assert policy_of("group:g11", policies) == groups
    assert policy_of("user:alice", policies) == alice
    assert (policy_of("user:bob", policies).match, policy_of("user:bob", policies).source) == ("user:*", BUILT_IN)
    assert policy_of("user:bob", policies).max_age_s == 30 * DAY_S
    assert policy_of("all", policies) == Policy(match="all", max_age_s=30 * DAY_S)
    assert policy_of("all", [Policy(match="all")]).max_age_s is None


def test_what_a_policy_lets_go_and_what_the_newest_are_kept_for() -> None:
    policy = Policy(match="group:*", max_age_s=14 * DAY_S, max_entries=1000, max_bytes=64_000_000, min_keep=100)
    assert cuts(policy, NOW_MS) == [
        Cut(limit="max_age=14d", upto=EntryId(NOW_MS - 14 * DAY_S * 1000, 0), keep=100),
        Cut(limit="max_entries=1000", keep=1000),
        Cut(limit="max_bytes=64MB", keep=100, keep_bytes=64_000_000),
    ]
    assert cuts(Policy(match="all"), NOW_MS) == []
    [cut] = cuts(Policy(match="all", max_age_s=100 * 365 * DAY_S), 5)  # a clock that stands at the beginning of time
    assert cut.upto == EntryId(0, 0)


def test_only_a_policy_that_says_so_holds_what_is_unread() -> None:
    policy = Policy(match="user:*", max_age_s=DAY_S, hold_unread_s=90 * DAY_S)
    assert hold(policy, "user:alice", NOW_MS, 30 * DAY_S) == Hold(
        "alice", EntryId(NOW_MS - 90 * DAY_S * 1000, 0), NOW_MS - 30 * DAY_S * 1000
    )
    assert hold(Policy(match="user:*", max_age_s=DAY_S), "user:alice", NOW_MS, DAY_S) is None


@pytest.mark.parametrize(
    ("policy", "away_s"),
    [
        (Policy(match="group:*"), None),
        (Policy(match="group:*", max_age_s=14 * DAY_S), 14 * DAY_S),
        # 1,000 entries in 1,000 s: the limit of 500 is reached in 500 s, one of 5,000 in 5,000 s.
        (Policy(match="group:*", max_entries=500), 500),
        (Policy(match="group:*", max_entries=5000), 5000),
        (Policy(match="group:*", max_entries=5000, max_age_s=60), 60),
        (Policy(match="group:*", max_entries=10_000), 10_000),
        (Policy(match="group:*", max_entries=10_001), None),  # too few are there to tell
        (Policy(match="group:*", max_bytes=200_000, max_age_s=DAY_S), 2000),
        # The newest 100 stay whatever their age is: 100 s.
        (Policy(match="group:*", max_age_s=60, min_keep=100), 100),
        (Policy(match="user:*", max_age_s=60, hold_unread_s=400), 400),
        (Policy(match="user:*", max_age_s=60, hold_unread_s=600), 500),  # by then the device is forgotten
        (Policy(match="group:*", max_age_s=60, min_keep=10_001), 60),
    ],
)
def test_how_long_a_device_may_stay_away(policy: Policy, away_s: float | None) -> None:
    found = horizon_s(policy, "group:g", entries=1000, size=100_000, oldest_age_s=1000, device_idle_s=500)
    assert found == away_s


def test_a_device_that_was_forgotten_begins_anew_in_all() -> None:
    for policy, away_s in ((Policy(match="all"), 500), (Policy(match="all", max_age_s=60), 60)):
        assert horizon_s(policy, "all", entries=9, size=9, oldest_age_s=9, device_idle_s=500) == away_s
