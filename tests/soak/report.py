"""A run of the soak in figures, for people (Markdown) and for programs (JSON)."""

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.soak.__main__ import Run

SHOWN = 5  # violations of a kind


def is_clean(run: "Run") -> bool:
    """Whether nothing was found wrong."""
    return run.verdict is not None and run.verdict.is_clean and not run.stuck


def data(run: "Run") -> dict[str, Any]:
    """All figures."""
    took: dict[str, list[float]] = defaultdict(list)
    for name, seconds in run.took:
        took[name].append(seconds)
    verdict = run.verdict
    return {
        "seed": run.seed,
        "product": run.product,
        "minutes": round(run.seconds / 60, 1),
        "faults": len(run.faults),
        "stuck": run.stuck,
        "crowd": run.crowd,
        "caught_up_s": {
            name: {"times": len(all_), "median": round(median(all_), 2), "most": round(max(all_), 2)}
            for name, all_ in sorted(took.items())
        },
        "counts": {} if verdict is None else verdict.counts,
        "violations": {} if verdict is None else verdict.violations,
    }


def text(run: "Run") -> str:
    """The same for people."""
    found = data(run)
    counts, violations = found["counts"], found["violations"]
    lines = [
        f"# Soak: seed {run.seed} on {run.product}, {found['minutes']} minutes, {found['faults']} faults",
        "",
        (
            f"{counts.get('attempted', 0)} messages attempted, {counts.get('acknowledged', 0)} acknowledged, "
            f"{counts.get('came', 0)} entries came to devices, {counts.get('opened', 0)} connections."
        ),
        "",
        "| announced | times | numbers |",
        "|---|---|---|",
    ]
    lines += [
        f"| gap, {name[5:]} | {counts[name]} | {counts['numbers in ' + name]} |"
        for name in sorted(counts)
        if name.startswith("gaps ")
    ]
    lines += ["", "| fault | times | s until all had everything: median | most |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['times']} | {row['median']} | {row['most']} |" for name, row in found["caught_up_s"].items()
    ]
    if crowd := run.crowd:
        lines += [
            "",
            (
                f"A lone conversation beside {crowd['connections']} connections: the 99th percentile of its messages' "
                f"times, as a multiple of that on an idle node ({crowd['idle_p99_ms']} ms)."
            ),
            "",
            "| the crowd | multiple | s |",
            "|---|---|---|",
            f"| is silent | {crowd['silent_crowd']} | |",
            f"| was put behind at once, and catches up | {crowd['all_put_behind']} | {crowd['all_put_behind_s']} |",
            f"| lost the network, and comes back at once | {crowd['all_come_back']} | {crowd['all_come_back_s']} |",
        ]
    lines += ["", "Nothing wrong was found." if is_clean(run) else "**Wrong:**"]
    if run.stuck:
        lines.append(f"- stuck: {run.stuck}")
    for kind, all_ in sorted(violations.items()):
        lines += [f"- {kind}: {len(all_)}", *(f"  - {what}" for what in all_[:SHOWN])]
    return "\n".join(lines) + "\n"
