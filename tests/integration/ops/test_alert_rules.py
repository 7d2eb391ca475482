"""compose/prometheus.yml and compose/alerts.yml are what Prometheus takes, and fire as compose/alerts_test.yml says."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.ops.conftest import StartNode
from tests.integration.ops.scrape import ask

COMPOSE = Path(__file__).parents[3] / "compose"

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH")


def promtool(*words: str, stdin: str = "") -> str:
    """What promtool says. Fails when it does not agree."""
    done = subprocess.run(
        ["promtool", *words], cwd=COMPOSE, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"promtool {' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_agrees(words: tuple[str, ...]) -> None:
    promtool(*words)


@pytest.mark.anyio
async def test_what_a_node_tells_is_as_prometheus_wants_it(start_node: StartNode) -> None:
    node = start_node()
    told = await asyncio.to_thread(ask, node.url)
    assert await asyncio.to_thread(lambda: promtool("check", "metrics", stdin=told.text)) == ""
