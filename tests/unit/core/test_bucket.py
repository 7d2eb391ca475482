"""A token bucket: what may come at once, how fast it goes on, and that time going back locks nobody out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.bucket import Bucket


def test_so_many_may_come_at_once_and_then_one_each_time_a_token_is_there() -> None:
    bucket = Bucket(rate=2, burst=3, now=100.0)
    assert [bucket.take(100.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100.0) == 0.5
    assert bucket.take(100.4) == pytest.approx(0.1)
    assert bucket.take(100.5) == 0
    assert bucket.take(100.5) == 0.5


def test_what_is_refused_takes_no_token() -> None:
    bucket = Bucket(rate=1, burst=1, now=0.0)
    bucket.take(0.0)
    assert [bucket.take(0.5) for _ in range(100)] == [0.5] * 100
    assert bucket.take(1.0) == 0


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(rate=10, burst=2, now=0.0)
    assert [bool(bucket.take(1e9)) for _ in range(3)] == [False, False, True]


def test_a_token_that_is_given_back_is_there_again_and_no_more_than_a_burst() -> None:
    bucket = Bucket(rate=1, burst=2, now=0.0)
    bucket.take(0.0)
    for _ in range(5):
        bucket.give_back()
    assert [bool(bucket.take(0.0)) for _ in range(3)] == [False, False, True]


def test_a_bucket_is_full_when_it_might_have_been_made_just_now() -> None:
    bucket = Bucket(rate=1, burst=2, now=0.0)
    assert bucket.is_full(0.0)
    bucket.take(0.0)
    assert not bucket.is_full(0.9)
    assert bucket.is_full(1.0)


def test_time_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    bucket = Bucket(rate=1, burst=1, now=50.0)
    assert bucket.take(50.0) == 0
    assert bucket.take(10.0) == 1.0
    assert bucket.take(11.0) == 0


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(0, 5), max_size=200),
)
def test_in_any_time_no_more_is_taken_than_burst_and_rate_allow(rate: float, burst: int, steps: list[float]) -> None:
    bucket, now, taken = Bucket(rate, burst, 0.0), 0.0, 0
    for step in steps:
        now += step
        wait = bucket.take(now)
        taken += not wait
        assert 0 <= wait <= 1 / rate
    assert taken <= burst + rate * now + 1e-6
