"""compose/prometheus.yml and compose/alerts.yml are what Prometheus takes, and fire as compose/alerts_test.yml says."""

import asyncio
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.integration.ops.conftest import StartNode
from tests.integration.ops.scrape import ask
from tests.integration.store.kit import wait_until
from tests.service import free_port

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


class Prometheus:
    """A Prometheus with the shipped configuration, that scrapes this node instead of the one in it."""

    def __init__(self, folder: Path, target: str) -> None:
        self.port = free_port()
        text = (COMPOSE / "prometheus.yml").read_text().replace("127.0.0.1:8000", target)
        (folder / "prometheus.yml").write_text(text.replace("scrape_interval: 4s", "scrape_interval: 1s"))
        shutil.copy(COMPOSE / "alerts.yml", folder)
        self.process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
                *(f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"),
            ]
        )

    def asked(self, path: str) -> Any:  # noqa: ANN401 - whatever it answers
        """The data of an answer, None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def value_of(self, series: str) -> float | None:
        """The one sample of a series, None while there is none."""
        found = self.asked(f"query?query={series}")
        return float(found["result"][0]["value"][1]) if found and found["result"] else None

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.mark.anyio
async def test_prometheus_scrapes_a_node_and_its_rules_are_well(start_node: StartNode, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on the PATH")
    node = start_node()
    prometheus = Prometheus(tmp_path, node.url.removeprefix("http://"))

    def scrape_and_look() -> Any:  # noqa: ANN401 - see above
        wait_until(lambda: prometheus.value_of("waypost_ready") == 1, "it has scraped the node", 30)
        assert prometheus.value_of("up") == 1
        assert prometheus.value_of("waypost_connections_limit") == 20_000
        return prometheus.asked("rules")

    try:
        rules = await asyncio.to_thread(scrape_and_look)
    finally:
        prometheus.end()
    found = [rule for group in rules["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in found} <= {"ok", "unknown"}
    assert len(found) == (COMPOSE / "alerts.yml").read_text().count("- alert: ")
