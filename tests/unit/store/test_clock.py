"""The store's clock, as a node reckons it for measuring."""

import time

import pytest

from service.store.clock import DRIFT_MS, Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of this machine's clock, to be turned by hand."""
    turned = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: turned[0])
    monkeypatch.setattr(time, "monotonic_ns", lambda: int(turned[0] * 1e9))
    return turned


def test_before_it_was_told_it_knows_nothing() -> None:
    assert Clock().now_ms() is None


def test_it_goes_on_from_the_answer_that_was_least_late(now: list[float]) -> None:
    clock = Clock()
    for late_ms in (20, 1, 30):
        now[0] += 5
        clock.told(int(now[0] * 1000) + 1_000_000 - late_ms)
    now[0] += 5
    assert clock.now_ms() == pytest.approx(now[0] * 1000 + 1_000_000 - 1)


@pytest.mark.parametrize("step_ms", [-3_600_000, -2 * DRIFT_MS, 2 * DRIFT_MS])
def test_a_clock_that_was_set_is_followed_at_once(now: list[float], step_ms: int) -> None:
    clock = Clock()
    clock.told(int(now[0] * 1000) + 1_000_000)
    now[0] += 5
    clock.told(int(now[0] * 1000) + 1_000_000 + step_ms)
    assert clock.now_ms() == pytest.approx(now[0] * 1000 + 1_000_000 + step_ms)
