"""What nodes say of themselves may be anything: they may be of another release."""

from service.inspection.nodes import _view
from service.inspection.times import age_s, when


def test_a_node_that_says_all() -> None:
    facts = {"version": "1.2", "uptime_s": "60.5", "connections": "7", "lag_s": "0.25", "load": "1.5", "position": "9"}
    found = _view("n", 1_000_000, facts, 1_002_000)
    assert (found.version, found.connections, found.position, found.lag_s, found.load) == ("1.2", 7, 9, 0.25, 1.5)
    assert (found.uptime_s, found.silent_s, found.is_silent) == (62.5, 2.0, False)
    assert found.started == when(1_000_000 - 60_500)


def test_a_node_that_says_nothing_or_nonsense() -> None:
    silent = _view("n", 1_000_000, {}, 1_002_000)
    assert (silent.is_silent, silent.started, silent.connections, silent.version) == (True, None, None, "")
    odd = _view("n", 1_000_000, {"connections": "many", "lag_s": "?", "memory_bytes": "-5", "load": ""}, 0)
    assert (odd.connections, odd.lag_s, odd.memory_bytes, odd.load, odd.silent_s) == (None, None, None, None, 0.0)


def test_times() -> None:
    assert when(0) == "1970-01-01T00:00:00.000Z"
    assert when(2**60).startswith("9999-12-31T23:59:59")
    assert age_s(5000, 4000) == 0.0
