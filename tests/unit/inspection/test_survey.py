"""The foremost of many: exact, whatever the order in which they come, and never more than asked for."""

from hypothesis import given
from hypothesis import strategies as st

from service.inspection.survey import Foremost

OFFERS = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 12)), max_size=60)


@given(OFFERS, st.integers(1, 5))
def test_the_foremost_are_those_of_the_highest_value(offers: list[tuple[str, int]], most: int) -> None:
    foremost = Foremost(most)
    highest: dict[str, int] = {}
    for key, value in offers:
        foremost.offer(key, value, (key, value))
        highest[key] = max(value, highest.get(key, 0))
    rows = foremost.rows()
    values = sorted((value for value in highest.values() if value), reverse=True)[:most]
    assert [value for _, value in rows] == values
    assert all(highest[key] == value for key, value in rows)
    assert len({key for key, _ in rows}) == len(rows) <= most


def test_what_it_keeps_does_not_grow() -> None:
    foremost = Foremost(3)
    for number in range(10_000):
        foremost.offer(f"s{number % 50}", number, number)
    assert len(foremost._heap) <= 4 * 3 + 17
    assert foremost.rows() == [9999, 9998, 9997]
