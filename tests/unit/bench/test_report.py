"""Medians, ratios, goals and tables of made-up results."""

import json
from pathlib import Path
from typing import ClassVar

import pytest

from tests.bench import plot, report
from tests.bench.goals import GOALS
from tests.bench.results import Results
from tests.bench.sample import Sample
from tests.bench.scenario import Scenario, Sizes
from tests.bench.scenarios import SCENARIOS
from tests.bench.systems import KINDS

FACTS = {"date": "2026-01-02", "cores": "2"}


class Writing(Scenario):
    """Takes the place of the fan-out."""

    name = "fan-out"
    title = "Writing"
    columns: ClassVar[dict[str, str]] = {"us": "CPU, µs", "p99_ms": "p99, ms"}
    compared = "us"

    async def start(self) -> list[str]:
        return []

    async def measure(self, contestant: str) -> dict[str, Sample]:
        return {}


@pytest.fixture
def results() -> Results:
    """The machine became half as fast at the second repetition, and twice as fast at the third."""
    found = Results(frozenset({"socket.io"}))
    for repetition, slowness in enumerate((1, 2, 0.5), 1):
        for contestant, us in (("floor", 10.0), ("waypost", 12.0), ("socket.io", 24.0)):
            found.add("fan-out", "w 1", contestant, repetition, Sample({"us": us * slowness, "p99_ms": 1234.0}))
    return found


def test_a_median_is_over_repetitions(results: Results) -> None:
    result = results.get("fan-out", "w 1", "waypost")
    assert result is not None
    assert result.median("us") == 12.0
    assert result.median("kib") is None


def test_a_ratio_is_of_what_was_measured_in_the_same_repetition(results: Results) -> None:
    results.add("fan-out", "w 1", "waypost", 4, Sample({"us": 99.0}))  # the floor failed then
    results.add("fan-out", "w 1", "floor", 4, Sample({}, problems=["gone"]))
    assert results.ratio("fan-out", "w 1", "us", "floor") == pytest.approx(1.2)
    assert results.ratio("fan-out", "w 1", "us", "socket.io") == pytest.approx(0.5)
    assert results.ratio("fan-out", "w 1", "us", "nobody") is None
    assert results.ratio("fan-out", "w 9", "us", "floor") is None


def test_a_ratio_to_nothing_is_none() -> None:
    found = Results()
    found.add("fan-out", "w 1", "waypost", 1, Sample({"us": 1.0}))
    found.add("fan-out", "w 1", "floor", 1, Sample({"us": 0.0}))
    assert found.ratio("fan-out", "w 1", "us", "floor") is None


def test_the_table_has_medians_and_ratios(results: Results) -> None:
    assert report.scenario_table(Writing, results).splitlines() == [
        "|                | CPU, µs | p99, ms | waypost : it |",
        "| -------------- | ------: | ------: | -----------: |",
        "| w 1  floor     |    10.0 |   1,234 |         1.20 |",
        "| w 1  waypost   |    12.0 |   1,234 |              |",
        "| w 1  socket.io |    24.0 |   1,234 |        0.500 |",
    ]


def test_goals_are_compared(results: Results) -> None:
    reached = {(goal.case, goal.than, goal.figure): (value, goal.is_met(value)) for goal, value in results.reached()}
    assert reached == {
        ("w 1", "floor", "us"): (pytest.approx(1.2), True),
        ("w 1", "socket.io", "p99_ms"): (1.0, True),
    }
    results.add("fan-out", "w 4", "waypost", 1, Sample({"us": 7.0}))
    results.add("fan-out", "w 4", "floor", 1, Sample({"us": 10.0}))
    assert "| fan-out, w 4: CPU, µs : floor     | ≤ 0.65 |    0.700 |  no |" in report.goal_table(results, [Writing])


def test_every_goal_names_what_is_measured() -> None:
    columns = {scenario.name: scenario.columns for scenario in SCENARIOS}
    assert [goal for goal in GOALS if goal.figure not in columns[goal.scenario]] == []


def test_what_peers_lose_is_told_and_no_failure(results: Results) -> None:
    results.add("fan-out", "w 4", "socket.io", 1, Sample({"us": 1.0}, lost=3))
    assert results.wrong(is_excused=False) == []
    assert results.wrong(is_excused=True) == ["fan-out w 4, socket.io: 3 lost (repetition 1)"]
    assert "- fan-out w 4, socket.io: 3 lost (repetition 1)" in report.text(results, [Writing], FACTS)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (Sample({}, lost=1), "1 lost"),
        (Sample({}, doubled=2), "2 doubled"),
        (Sample({}, lost=1, unordered=3), "1 lost, 3 out of order"),
        (Sample({}, problems=["bob: was told"]), "bob: was told"),
    ],
)
@pytest.mark.parametrize("contestant", ["waypost", "floor"])
def test_what_others_lose_fails_the_run(results: Results, contestant: str, sample: Sample, said: str) -> None:
    results.add("reconnect", "", contestant, 2, sample)
    assert results.wrong(is_excused=False) == [f"reconnect, {contestant}: {said} (repetition 2)"]


def test_json_has_everything(results: Results) -> None:
    results.add("fan-out", "w 1", "waypost", 1, Sample({"us": 12.0}, lost=1))
    found = json.loads(report.as_json(results, FACTS, Sizes()))
    assert found["machine"] == FACTS
    assert found["sizes"]["receivers"] == 1000
    [ours] = [one for one in found["results"] if one["contestant"] == "waypost"]
    assert ours["median"]["us"] == 12.0
    assert [one["repetition"] for one in ours["repetitions"]] == [1, 2, 3]
    assert ours["repetitions"][0]["lost"] == 1
    assert found["goals"][0]["value"] == pytest.approx(1.2)
    assert found["goals"][0]["is_met"] is True
    assert found["wrong"] == ["fan-out w 1, waypost: 1 lost (repetition 1)"]


def test_the_summary_has_server_and_redis(results: Results) -> None:
    results.add("direct", "w 1", "waypost", 1, Sample({"server_us": 40.0, "redis_us": 30.0}))
    results.add("direct", "w 1", "floor", 1, Sample({"server_us": 8.0, "redis_us": 0.0}))
    assert report.summary(results, KINDS).splitlines() == [
        "|         | fan-out, w 1 | direct, w 1 | keeps it |",
        "| ------- | -----------: | ----------: | -------: |",
        "| floor   |            – |        8.00 |       no |",
        "| waypost |            – | 40.0 + 30.0 |      yes |",
    ]
    assert report.summary(Results(), KINDS) == ""


def test_a_page_is_filled_between_its_marks() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.filled(page, "new\n") == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="no <!-- figures"):
        report.filled("a page", "new")


def test_figures_have_three_digits() -> None:
    spelt = [report.spell(value) for value in (None, 0.0, 0.1234, 1.234, 12.34, 123.4, 12345.6)]
    assert spelt == ["–", "0.000", "0.123", "1.23", "12.3", "123", "12,346"]


@pytest.mark.skipif(not plot.is_possible(), reason="matplotlib is not installed")
@pytest.mark.filterwarnings("default")  # of a library that is not ours
def test_the_same_figures_make_the_same_plot(results: Results, tmp_path: Path) -> None:
    paths = [tmp_path / "1.svg", tmp_path / "2.svg"]
    for path in paths:
        plot.write(results, [Writing], path)
    first, second = [path.read_text() for path in paths]
    assert first == second
    assert "Writing" in first
