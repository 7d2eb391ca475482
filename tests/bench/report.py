"""What a run says: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence

import msgspec

from tests.bench.results import OURS, Results
from tests.bench.scenario import Scenario
from tests.bench.systems import KINDS, System

FLOWS = ("fan-out", "direct", "direct-2")
BEGIN, END = "<!-- figures, written by python -m tests.bench --docs -->", "<!-- end of figures -->"


def spell(value: float | None) -> str:
    """A figure with three digits that count."""
    if value is None:
        return "–"
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 1
        else f"{value:.3f}"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown has it, its columns of one width. The first column is for words, the others for figures."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(w) if at else cell.ljust(w) for at, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    )


def scenario_table(scenario: type[Scenario], results: Results) -> str:
    """The medians of a scenario, and what Waypost is to each by the figure that compares them."""
    found = results.of(scenario.name)
    compares = bool(scenario.compared) and len({result.contestant for result in found}) > 1
    head = ["", *scenario.columns.values()]
    if compares:
        head.append(f"{OURS} : it")
    rows = []
    for result in found:
        row = [f"{result.case}  {result.contestant}".strip() if compares else result.case or result.contestant]
        row += [spell(result.median(figure)) for figure in scenario.columns]
        if compares:
            ratio = results.ratio(scenario.name, result.case, scenario.compared, result.contestant)
            row.append("" if result.contestant == OURS else spell(ratio))
        rows.append(row)
    return table(head, rows)


def summary(results: Results, kinds: Sequence[type[System]]) -> str:
    """Server and Redis for one delivery, of everybody in every flow; "" where nothing flowed."""
    found = [result for name in FLOWS for result in results.of(name)]
    cases = list(dict.fromkeys((result.scenario, result.case) for result in found if result.case))
    rows = []
    for kind in kinds:
        cells = []
        for scenario, case in cases:
            result = results.get(scenario, case, kind.name)
            parts = [result.median(figure) for figure in ("server_us", "redis_us")] if result else []
            cells.append(" + ".join(spell(part) for part in parts if part) or "–")
        if any(cell != "–" for cell in cells):
            rows.append([kind.name, *cells, kind.keeps])
    return table(["", *(f"{scenario}, {case}" for scenario, case in cases), "keeps it"], rows) if rows else ""


def goal_table(results: Results, scenarios: Sequence[type[Scenario]]) -> str:
    """The goals that this run speaks of."""
    columns = {scenario.name: scenario.columns for scenario in scenarios}
    rows = []
    for goal, value in results.reached():
        what = f"{goal.scenario}, {goal.case}" if goal.case else goal.scenario
        than = f" : {goal.than}" if goal.than else ""
        wanted = f"≤ {goal.at_most:g}" if goal.at_most is not None else f"≥ {goal.at_least:g}"
        is_met = "yes" if goal.is_met(value) else "no"
        rows.append([f"{what}: {columns[goal.scenario][goal.figure]}{than}", wanted, spell(value), is_met])
    return table(["goal", "wanted", "measured", "met"], rows)


def machine_line(facts: dict[str, str]) -> str:
    """What it ran on."""
    return ", ".join(f"{name} {value}" for name, value in facts.items()) + "."


def text(results: Results, scenarios: Sequence[type[Scenario]], facts: dict[str, str]) -> str:
    """All tables, as Markdown."""
    parts = [machine_line(facts)]
    if in_short := summary(results, KINDS):
        parts += ["**CPU µs per delivery: server + Redis**", in_short]
    for scenario in scenarios:
        if results.of(scenario.name):
            parts += [f"**{scenario.title}**", scenario_table(scenario, results)]
    if results.reached():
        parts += ["**Goals**", goal_table(results, scenarios)]
    losing = results.wrong(is_excused=True)
    if losing:
        parts += ["**What peers lost**", "\n".join(f"- {said}" for said in losing)]
    return "\n\n".join(parts) + "\n"


def filled(page: str, figures: str) -> str:
    """A page with these figures between its two marks. Raises `ValueError` for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{figures}\n{END}{after}"


def as_json(results: Results, facts: dict[str, str], sizes: object) -> str:
    """Everything that was measured."""
    goals = [
        {**msgspec.to_builtins(goal), "value": value, "is_met": goal.is_met(value)} for goal, value in results.reached()
    ]
    found = {
        "machine": facts,
        "sizes": msgspec.to_builtins(sizes),
        "results": results.records(),
        "goals": goals,
        "wrong": results.wrong(is_excused=False),
        "lost by peers": results.wrong(is_excused=True),
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
