"""The soak: clients that send and count, faults by a schedule from a seed, and a verdict.

    make soak SEED=7 MINUTES=30

Every kind of fault in turn, in an order that the seed gives; after each the system must bring everybody everything
(the time that takes is measured), and in the end the histories of all clients are checked, and a lone conversation is
timed beside a crowd. Exits with 1 when anything
is wrong; histories, logs and the report stay in the folder that is named at the end.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from tests.integration.store.kit import binary
from tests.soak import crowd, faults, report
from tests.soak.checker import Fault, StreamFacts, Verdict, check
from tests.soak.stage import Stage, Stuck


class Run:
    """What happened in one run."""

    def __init__(self, seed: str, product: str) -> None:
        self.seed = seed
        self.product = product
        self.faults: list[Fault] = []
        self.took: list[tuple[str, float]] = []  # kind of fault → seconds until everybody was caught up after it
        self.seconds = 0.0
        self.stuck = ""
        self.verdict: Verdict | None = None
        self.crowd: dict[str, float] = {}  # figures of `crowd.py`


def soak(
    seed: str,
    product: str,
    folder: Path,
    *,
    minutes: float = 0.0,
    rounds: int | None = None,
    only: list[str] | None = None,
) -> Run:
    """Injects faults for so many minutes, or so many of each kind, then checks."""
    run = Run(seed, product)
    chance = random.Random(seed)
    kinds = only or faults.available(product)
    began = time.monotonic()
    facts: dict[str, StreamFacts] = {}
    with Stage(seed, folder, product) as stage:
        try:
            for name in _schedule(kinds, chance, rounds):
                if rounds is None and time.monotonic() - began >= 60 * minutes:
                    break
                _inject(run, stage, name, chance)
            stage.finish()
            facts = stage.facts()
        except Stuck as problem:
            run.stuck = str(problem)
            for client in stage.clients:
                client.remove()
    run.seconds = time.monotonic() - began
    run.verdict = check(folder / "histories", run.faults, facts, stage.kept)
    return run


def _schedule(kinds: list[str], chance: random.Random, rounds: int | None) -> Iterator[str]:
    """Every kind once a round, each time in another order; round after round without end where no number is given."""
    for _ in itertools.count() if rounds is None else range(rounds):
        yield from chance.sample(kinds, len(kinds))


def _inject(run: Run, stage: Stage, name: str, chance: random.Random) -> None:
    kind = faults.KINDS[name]
    run.faults.append(Fault(name, time.time(), kind.explains))
    kind.deed(stage, chance)
    took = stage.caught_up()
    run.took.append((name, took))
    print(f"{len(run.faults):4} {name}: all caught up after {took:.1f} s", flush=True)


def main() -> int:
    """Reads the command line. 0: nothing wrong was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", default=str(time.time_ns() % 1_000_000))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--product", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--only", action="append", choices=list(faults.KINDS), help="inject these kinds alone")
    parser.add_argument("--crowd", type=int, default=1000, help="connections of the crowd at the end, 0 for none")
    parser.add_argument("--folder", type=Path, help="an empty or new folder for all that is written")
    args = parser.parse_args()
    if binary(args.product) is None:
        print("redis-server is not on the PATH", file=sys.stderr)
        return 2
    folder = args.folder or Path(tempfile.mkdtemp(prefix="waypost-soak-"))
    print(f"seed {args.seed}, {args.minutes:g} minutes on {args.product}, in {folder}", flush=True)
    run = soak(args.seed, args.product, folder, minutes=args.minutes, only=args.only)
    if args.crowd:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            run.crowd = runner.run(crowd.measure(args.crowd))
    text = report.text(run)
    (folder / "report.md").write_text(text)
    (folder / "report.json").write_text(json.dumps(report.data(run), indent=1))
    print(text)
    return 0 if report.is_clean(run) else 1


if __name__ == "__main__":
    sys.exit(main())
