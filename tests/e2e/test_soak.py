"""A short soak: a few kinds of fault, one after the other, and a clean verdict. `make soak` is the long one."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.soak import report
from tests.soak.__main__ import soak

pytestmark = pytest.mark.anyio

# The quick ones of every family; the seed gives the order. At a fault each, the run takes about half a minute.
KINDS = (
    "node killed",
    "database killed",
    "database's clients killed",
    "calls carried out late",
    "mailbox entries lost",
    "trimmed",
    "end of the append-only file cut off",
    "replica that is behind promoted",
    "store emptied",
)


async def test_a_short_soak_finds_nothing_wrong(tmp_path: Path) -> None:
    seed = str(int(time.time()) % 1000)  # another order each time; the report names it
    run = await asyncio.to_thread(soak, seed, "valkey", tmp_path / "soak", only=list(KINDS), rounds=1)
    assert report.is_clean(run), report.text(run)
    assert [name for name, _ in run.took] == [fault.name for fault in run.faults]
    assert {fault.name for fault in run.faults} == set(KINDS)
    assert run.verdict is not None
    assert run.verdict.counts["acknowledged"] > 100
    assert run.verdict.counts["came"] > 10 * len(KINDS)
