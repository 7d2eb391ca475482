"""What a run has found: medians over its repetitions, and ratios within each of them."""

import statistics

import msgspec

from tests.bench.goals import GOALS, Goal
from tests.bench.sample import Sample

OURS = "waypost"


class Result(msgspec.Struct):
    """One contestant in one case of a scenario: repetition → what it found."""

    scenario: str
    case: str
    contestant: str
    samples: dict[int, Sample] = {}

    def median(self, figure: str) -> float | None:
        """Over the repetitions; None where it was never measured."""
        found = [sample.figures[figure] for sample in self.samples.values() if figure in sample.figures]
        return statistics.median(found) if found else None

    def wrong(self) -> list[str]:
        """What was not as it should be, a line for each repetition."""
        return [f"{said} (repetition {at})" for at, sample in self.samples.items() if (said := sample.wrong)]


class Results:
    """All results of a run, in the order in which they came."""

    def __init__(self, excused: frozenset[str] = frozenset()) -> None:
        self.excused = excused  # contestants that are known to lose
        self._results: dict[tuple[str, str, str], Result] = {}

    def add(self, scenario: str, case: str, contestant: str, repetition: int, sample: Sample) -> None:
        """What one repetition found."""
        place = (scenario, case, contestant)
        self._results.setdefault(place, Result(*place)).samples[repetition] = sample

    def of(self, scenario: str) -> list[Result]:
        """Case by case, the contestants in the order of their first appearance."""
        found = [result for result in self._results.values() if result.scenario == scenario]
        cases = list(dict.fromkeys(result.case for result in found))
        contestants = list(dict.fromkeys(result.contestant for result in found))
        return sorted(found, key=lambda one: (cases.index(one.case), contestants.index(one.contestant)))

    def get(self, scenario: str, case: str, contestant: str) -> Result | None:
        return self._results.get((scenario, case, contestant))

    def ratio(self, scenario: str, case: str, figure: str, than: str, ours: str = OURS) -> float | None:
        """Waypost's figure to another's: the median of the ratios within repetitions, for machines drift from one to
        the next. None where they did not meet.
        """
        mine, theirs = self.get(scenario, case, ours), self.get(scenario, case, than)
        if mine is None or theirs is None:
            return None
        ratios = [
            sample.figures[figure] / theirs.samples[at].figures[figure]
            for at, sample in mine.samples.items()
            if figure in sample.figures and at in theirs.samples and theirs.samples[at].figures.get(figure)
        ]
        return statistics.median(ratios) if ratios else None

    def reached(self) -> list[tuple[Goal, float]]:
        """The goals that this run speaks of, with what was reached."""
        found = []
        for goal in GOALS:
            if goal.than:
                value = self.ratio(goal.scenario, goal.case, goal.figure, goal.than)
            else:
                result = self.get(goal.scenario, goal.case, OURS)
                value = None if result is None else result.median(goal.figure)
            if value is not None:
                found.append((goal, value))
        return found

    def wrong(self, *, is_excused: bool) -> list[str]:
        """What was lost, doubled, out of order, or went wrong: with those that are known to lose, or with others."""
        return [
            f"{result.scenario} {result.case}, {result.contestant}: {said}".replace(" ,", ",")
            for result in self._results.values()
            if (result.contestant in self.excused) == is_excused
            for said in result.wrong()
        ]

    def records(self) -> list[dict[str, object]]:
        """Everything, as JSON can have it."""
        return [
            {
                "scenario": result.scenario,
                "case": result.case,
                "contestant": result.contestant,
                "median": {
                    figure: result.median(figure)
                    for figure in dict.fromkeys(name for sample in result.samples.values() for name in sample.figures)
                },
                "repetitions": [
                    {**msgspec.to_builtins(sample), "repetition": at} for at, sample in result.samples.items()
                ],
            }
            for result in self._results.values()
        ]
