"""The benchmark itself, with real processes and tiny sizes, so that it cannot rot."""

import json
import sys

import pytest

from tests.bench import report
from tests.bench.__main__ import Bench
from tests.bench.cores import Cores
from tests.bench.scenario import Sizes
from tests.bench.scenarios import SCENARIOS
from tests.bench.systems import Floor, Waypost
from tests.integration.store.kit import binary

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the CPU clocks of other processes, as Linux has them"),
]

TINY = Sizes(
    repetitions=1,
    seconds=0.05,
    warm_s=0.02,
    receivers=4,
    pairs=2,
    devices=3,
    missed=20,
    streams=4,
    dropped=5,
    idle=5,
    idlers=("waypost",),
    rest_s=0.05,
    groups=3,
    batch=3,
    entries=(200, 300),
    inboxes=(10, 20),
    rounds=2,
)


async def test_every_scenario_runs_and_loses_nothing() -> None:
    assert binary("valkey") is not None
    said: list[str] = []
    bench = Bench("valkey", SCENARIOS, TINY, (Floor, Waypost), said.append, is_apart=Cores.can_be_kept_apart())
    await bench.run()
    assert bench.results.wrong(is_excused=False) == []
    found = {scenario.name: {one.contestant for one in bench.results.of(scenario.name)} for scenario in SCENARIOS}
    assert found == {
        "fan-out": {"floor", "waypost"},
        "direct": {"floor", "waypost"},
        "direct-2": {"waypost"},
        "replay": {"waypost", "plain loop"},
        "reconnect": {"floor", "waypost"},
        "idle": {"waypost"},
        "publish": {"waypost", "pipelined XADD"},
        "growth": {"waypost", "pipelined XADD"},
        "bytes": {"waypost"},
    }
    assert len(json.loads(report.as_json(bench.results, {}, TINY))["results"]) > 20
    assert not [line for line in said if line.startswith("left out")]
