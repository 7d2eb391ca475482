"""When a job is due: by Redis time and in UTC, missed runs once, and a clock that was set back stops nothing."""

import datetime

import pytest

from service.config import Schedule
from service.inspection.schedule import due_in_ms, next_ms
from service.store import JobState

EVERY = Schedule(every=300)


def ms(text: str) -> int:
    """A moment, as `2026-03-29 01:30:00` in UTC."""
    return round(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def cron(expression: str) -> Schedule:
    return Schedule(every=300, cron=expression)


def state(slot_ms: int | None, now_ms: int, *, is_done: bool = True, lease_ms: int = 0) -> JobState:
    return JobState("" if slot_ms is None else str(slot_ms), "run", is_done, lease_ms, now_ms)


def test_an_interval_counts_from_the_begin_of_the_last_run() -> None:
    assert due_in_ms(EVERY, state(1_000_000, 1_000_001)) == 299_999
    assert due_in_ms(EVERY, state(1_000_000, 1_299_999)) == 1
    assert due_in_ms(EVERY, state(1_000_000, 1_300_000)) == 0


@pytest.mark.parametrize("schedule", [EVERY, cron("*/5 * * * *")])
def test_many_missed_runs_are_one(schedule: Schedule) -> None:
    slot, now = ms("2026-01-01 00:00:00"), ms("2026-01-09 13:02:00")
    assert due_in_ms(schedule, state(slot, now)) == 0
    after = due_in_ms(schedule, state(now, now))
    assert after is not None
    assert 0 < after <= 300_000


def test_a_job_that_was_never_seen_is_to_be_noted_at_once() -> None:
    assert due_in_ms(EVERY, state(None, 5)) == 0


def test_a_run_that_was_left_is_resumed_at_once_and_not_while_it_is_held() -> None:
    assert due_in_ms(EVERY, state(1_000_000, 1_000_001, is_done=False)) == 0
    assert due_in_ms(EVERY, state(1_000_000, 1_000_001, is_done=False, lease_ms=7)) == 299_999


def test_a_slot_in_the_future_means_that_the_clock_was_set_back() -> None:
    hour = 3_600_000
    assert due_in_ms(EVERY, state(10 * hour, 9 * hour)) == 0
    assert due_in_ms(cron("0 3 * * *"), state(10 * hour, 9 * hour)) == 0
    assert due_in_ms(EVERY, state(10 * hour, 10 * hour - 1)) == 300_001  # two servers that differ a little


def test_a_run_at_its_very_second_is_not_due_in_it_again() -> None:
    at = ms("2026-05-05 03:00:00")
    for late in (0, 1, 999):
        assert next_ms(cron("0 3 * * *"), at + late) == ms("2026-05-06 03:00:00")
    assert next_ms(cron("0 3 * * *"), at - 1) == at


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
def test_summer_time_is_nothing_to_us(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    nightly, hourly = cron("30 2 * * *"), cron("30 * * * *")
    # The nights in which Berlin and New York have no half past two, or have it twice.
    for day in ("2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01"):
        at = ms(f"{day} 02:30:00")
        assert next_ms(nightly, at - 3_600_000) == at
        assert next_ms(nightly, at) == at + 86_400_000
        moments, moment = [], ms(f"{day} 00:00:00")
        for _ in range(24):
            found = next_ms(hourly, moment)
            assert found is not None
            moments.append(found)
            moment = found
        assert moments == [ms(f"{day} {hour:02}:30:00") for hour in range(24)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 3 * * 0", "2026-11-29 03:00:00"),  # Sunday, as in every crontab
        ("0 3 * * sun", "2026-11-29 03:00:00"),
        ("0 3 * * 1-5", "2026-11-25 03:00:00"),
        ("0 3 * * 6,0", "2026-11-28 03:00:00"),
        ("0 3 * * 4/2", "2026-11-26 03:00:00"),
        ("0 3 * * */6", "2026-11-28 03:00:00"),
        ("0 3 * * *", "2026-11-25 03:00:00"),
        ("0 3 1 * *", "2026-12-01 03:00:00"),
    ],
)
def test_weekdays_are_those_of_other_crontabs(expression: str, expected: str) -> None:
    tuesday = ms("2026-11-24 12:00:00")
    assert next_ms(cron(expression), tuesday) == ms(expected)


def test_a_date_that_does_not_exist_is_never_due() -> None:
    never = cron("0 0 31 2 *")
    assert next_ms(never, ms("2026-01-01 00:00:00")) is None
    assert due_in_ms(never, state(1_000_000, 2_000_000)) is None
