"""The plot of a run: a panel for each scenario. The same figures make the same file."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.report import spell
from tests.bench.results import OURS, Result, Results
from tests.bench.scenario import Scenario

STYLE: Any = {
    "svg.hashsalt": "waypost",  # ids that do not change from run to run
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
OUR_COLOUR, THEIR_COLOUR, REDIS_COLOUR = "#1f6f8b", "#9aa5ab", "#d98c3f"
METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def is_possible() -> bool:
    """Whether there is something to draw with."""
    return importlib.util.find_spec("matplotlib") is not None


def write(results: Results, scenarios: Sequence[type[Scenario]], path: Path) -> None:
    """Draws what was found. Needs matplotlib."""
    import matplotlib as mpl  # noqa: PLC0415 - it may not be there

    mpl.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    shown = [one for one in scenarios if (one.drawn or one.compared) and results.of(one.name)]
    if not shown:
        return
    heights = [0.7 + 0.2 * len(results.of(one.name)) for one in shown]
    with mpl.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            len(shown), 1, figsize=(8, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
        )
        for scenario, panel in zip(shown, axes[:, 0], strict=True):
            _draw(panel, scenario, results.of(scenario.name))
        figure.savefig(path, metadata=METADATA)
        pyplot.close(figure)


def _draw(panel: Any, scenario: type[Scenario], found: list[Result]) -> None:  # noqa: ANN401 - it has no types
    """Bars, the first result on top; where server and Redis are told apart, in two colours."""
    names = [f"{result.case}  {result.contestant}".strip() for result in found]
    drawn = scenario.drawn or scenario.compared
    values = [result.median(drawn) or 0.0 for result in found]
    redis = [(result.median("redis_us") or 0.0) if drawn == "us" else 0.0 for result in found]
    colours = [OUR_COLOUR if result.contestant == OURS else THEIR_COLOUR for result in found]
    panel.barh(names, [value - part for value, part in zip(values, redis, strict=True)], color=colours)
    if any(redis):
        left = [value - part for value, part in zip(values, redis, strict=True)]
        panel.barh(names, redis, left=left, color=REDIS_COLOUR)
    for at, value in enumerate(values):
        panel.annotate(f" {spell(value)}", (value, at), va="center")
    panel.invert_yaxis()
    panel.set_title(scenario.title, loc="left")
    panel.set_xlabel(scenario.columns[drawn] + (", Redis' part in orange" if any(redis) else ""))
    panel.margins(x=0.12)
