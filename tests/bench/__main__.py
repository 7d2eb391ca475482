"""Waypost beside what a user would pick instead, in one run.

    python -m tests.bench
    python -m tests.bench --only fan-out,direct --repetitions 5 --seconds 3

The systems are started once. Then, repetition by repetition, every scenario goes through them, in an order that turns
around each time: a machine that drifts drifts for all of them. Exits with 1 when Waypost, or the bare loop it is
measured by, has lost a message, doubled one, or told them out of order; peers that are known to lose are only told.
Tables, JSON and the plot are left in the folder that is named at the end.
"""

import argparse
import asyncio
import functools
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from tests.bench import machine, plot, report
from tests.bench.cores import Cores
from tests.bench.results import Results
from tests.bench.sample import Sample
from tests.bench.scenario import LONG, Scenario, Sizes, Stage
from tests.bench.scenarios import SCENARIOS
from tests.bench.systems import KINDS, System
from tests.integration.store.kit import binary

DOCS = Path(__file__).parents[2] / "docs"
FILES_WANTED = 16_384  # open sockets of the generator, and of a node


class Bench:
    """One run. `say` is told how it goes on."""

    def __init__(
        self,
        product: str,
        scenarios: Sequence[type[Scenario]],
        sizes: Sizes,
        kinds: Sequence[type[System]] = KINDS,
        say: Callable[[str], None] = lambda _: None,
        *,
        is_apart: bool = False,
    ) -> None:
        self.results = Results(frozenset(kind.name for kind in kinds if kind.may_lose))
        self._product = product
        self._scenarios = scenarios
        self._sizes = sizes
        self._kinds = kinds
        self._say = say
        self._cores = Cores() if is_apart else None

    async def run(self) -> None:
        """Measures everything; what was found is in `results`."""
        stage = Stage(self._product, self._kinds, self._say, self._cores)
        started: list[Scenario] = []
        if self._cores is not None:
            self._cores.take_own()
        try:
            running: list[tuple[Scenario, list[str]]] = []
            for kind in self._scenarios:
                scenario = kind(stage, self._sizes)
                started.append(scenario)
                contestants = await scenario.start()
                if contestants:
                    running.append((scenario, contestants))
                else:
                    self._say(f"left out: {kind.name}, nobody is there to take part")
            for repetition in range(1, self._sizes.repetitions + 1):
                for scenario, contestants in running:
                    if repetition <= (scenario.repetitions_max or repetition):
                        await self._repetition(scenario, contestants, repetition)
        finally:
            for scenario in started:
                await scenario.stop()
            stage.stop()
            if self._cores is not None:
                self._cores.leave()

    async def _repetition(self, scenario: Scenario, contestants: list[str], repetition: int) -> None:
        began = time.monotonic()
        for contestant in contestants if repetition % 2 else reversed(contestants):
            try:
                found = await scenario.measure(contestant)
            except Exception as problem:  # noqa: BLE001 - one that fails does not end the run, and is told
                found = {"": Sample({}, problems=[f"{type(problem).__name__}: {problem}"])}
            for case, sample in found.items():
                self.results.add(scenario.name, case, contestant, repetition, sample)
        self._say(f"repetition {repetition}, {scenario.name}: {time.monotonic() - began:.1f} s")


def main() -> None:
    args = _arguments()
    if binary(args.product) is None:
        sys.exit(f"there is no {args.product} on this machine")
    _raise_files()
    sizes = LONG if args.long else Sizes()
    given = {name: value for name in ("repetitions", "seconds") if (value := getattr(args, name)) is not None}
    sizes = msgspec.structs.replace(sizes, **given)
    scenarios = [scenario for scenario in SCENARIOS if args.only is None or scenario.name in args.only]
    kinds = [kind for kind in KINDS if args.systems is None or kind.name in args.systems]
    is_apart = args.apart and Cores.can_be_kept_apart()
    say = functools.partial(print, file=sys.stderr, flush=True)
    bench = Bench(args.product, scenarios, sizes, kinds, say, is_apart=is_apart)
    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bench.run())
    facts = machine.facts(args.product) | {"generator": "on a core of its own" if is_apart else "on any core"}
    _write(args.out, bench.results, scenarios, facts)
    (args.out / "benchmarks.json").write_text(report.as_json(bench.results, facts, sizes))
    if args.docs:
        _write_docs(args.out)
    print(f"{time.monotonic() - began:.0f} s; written to {args.out}/")
    wrong = bench.results.wrong(is_excused=False)
    for said in wrong:
        print(f"FAILED: {said}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


def _write(out: Path, results: Results, scenarios: Sequence[type[Scenario]], facts: dict[str, str]) -> None:
    """Prints the tables, and leaves them in a folder with the plot."""
    text = report.text(results, scenarios, facts)
    print(f"\n{text}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.md").write_text(text)
    if plot.is_possible():
        plot.write(results, scenarios, out / "benchmarks.svg")
    else:
        print("left out: the plot, for want of matplotlib (pip install -e '.[bench]')", file=sys.stderr)


def _write_docs(out: Path) -> None:
    """What a run has left, into the page about it."""
    page = DOCS / "benchmarks.md"
    page.write_text(report.filled(page.read_text(), (out / "benchmarks.md").read_text()))
    if (out / "benchmarks.svg").exists():
        shutil.copy(out / "benchmarks.svg", DOCS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--product", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--only", type=_names([one.name for one in SCENARIOS]), help="scenarios, with commas between")
    parser.add_argument("--systems", type=_names([one.name for one in KINDS]), help="systems, with commas between")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--seconds", type=float, help="of flow, of each system in each case")
    parser.add_argument(
        "--apart", action="store_true", help="the load generator has a core of its own: figures vary less"
    )
    parser.add_argument("--long", action="store_true", help="more repetitions of more seconds")
    parser.add_argument("--docs", action="store_true", help="write tables and plot into docs/ too")
    parser.add_argument("--out", type=Path, default=Path(".bench"), help="where the results are left (.bench)")
    return parser.parse_args()


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(given: str) -> list[str]:
        unknown = [name for name in given.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return given.split(",")

    return names


def _raise_files() -> None:
    """More open files, as far as this user may; the processes that are started have it from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
