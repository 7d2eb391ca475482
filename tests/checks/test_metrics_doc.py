"""docs/operations.md says what the code does: a row for each metric, and for each alert a section of what to do."""

import re
from pathlib import Path
from typing import get_args

from service.config import JOBS
from service.errors import ERRORS
from service.metrics import METRICS
from service.metrics.table import CODES, FUNCTIONS, JOB_STATES, Metric
from service.metrics.table import JOBS as JOBS_COUNTED
from service.store.functions import FUNCTIONS as LOADED
from service.store.records import JobReport

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
RULES = (ROOT / "compose" / "alerts.yml").read_text(encoding="utf-8")
TESTS = (ROOT / "compose" / "alerts_test.yml").read_text(encoding="utf-8")

ALERT = re.compile(r"^      - alert: (\w+)\n(.*?)(?=^      - alert: |^  - name: |\Z)", re.MULTILINE | re.DOTALL)
ALERTS = dict(ALERT.findall(RULES))
SECTIONS = dict(re.findall(r"^### Alert (\w+)\n(.*?)(?=^##|\Z)", DOC, re.MULTILINE | re.DOTALL))
UNITS = ("_seconds", "_bytes", "_total", "_entries", "_messages", "_fds")
WITHOUT_UNIT = re.compile(
    r"waypost_(connections(_limit|_behind)?|streams_(behind|attached)|sends_waiting|ready|not_ready|nodes"
    r"|job_last_(state|errors))"
)


def row_of(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def test_every_metric_has_its_row() -> None:
    rows = re.findall(r"^\| `waypost_\w+` \|.*\|$", DOC, re.MULTILINE)
    expected = [row_of(metric) for metric in METRICS.values()]
    lacking = [row for row in expected if row not in rows]
    assert not lacking, "write into the table of docs/operations.md:\n" + "\n".join(lacking)
    strange = [row for row in rows if row not in expected]
    assert not strange, "take out of the table of docs/operations.md:\n" + "\n".join(strange)


def test_names_say_their_unit() -> None:
    for metric in METRICS.values():
        assert metric.name.startswith("waypost_")
        assert metric.name.endswith(UNITS) or WITHOUT_UNIT.fullmatch(metric.name), metric.name
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.bounds) == (metric.kind == "histogram"), metric.name


def test_no_label_says_whose_something_is() -> None:
    for metric in METRICS.values():
        for label, values in metric.labels.items():
            assert label not in ("user", "stream", "device", "group", "node", "le", "job", "instance"), metric.name
            assert 1 < len(values) <= 50, f"{metric.name}: {label}"
            assert all(re.fullmatch(r"[a-z0-9_]+", value) for value in values), f"{metric.name}: {label}"


def test_values_of_labels_are_those_of_the_code() -> None:
    assert tuple(ERRORS) == CODES
    assert set(FUNCTIONS) - {"plain"} == LOADED.keys(), "mend FUNCTIONS in service/metrics/table.py"
    assert JOBS_COUNTED == JOBS
    assert get_args(JobReport.__annotations__["state"]) == JOB_STATES


def test_every_alert_leads_to_a_section_and_every_section_is_of_an_alert() -> None:
    assert ALERTS
    assert list(ALERTS) == list(SECTIONS), "docs/operations.md: a `### Alert <name>` for each rule, in their order"
    for name, rule in ALERTS.items():
        assert f"runbook: docs/operations.md#alert-{name.lower()}\n" in rule
        assert re.search(r"severity: (page|warn)\n", rule), name
        assert "summary: " in rule, name
        assert "description: " in rule, name
    for name, section in SECTIONS.items():
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in section, f"docs/operations.md: say {part} under Alert {name}"


def test_every_alert_is_shown_to_fire() -> None:
    shown = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", TESTS))
    assert shown == ALERTS.keys(), "write tests into compose/alerts_test.yml"


def test_rules_speak_of_metrics_that_there_are() -> None:
    named = set(re.findall(r"\bwaypost_\w+", RULES))
    known = {metric.name + end for metric in METRICS.values() for end in ("", "_bucket", "_count", "_sum")}
    assert named <= known
