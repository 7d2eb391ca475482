"""docs/operations.md says what the log says: a row for each event, and one for each reason of `/readyz`."""

import ast
import re
from collections import defaultdict
from pathlib import Path

from service.log import Fields
from service.log.lines import LIBRARY_SAID

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "operations.md"
LEVELS = ("debug", "info", "warning", "error")
ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
READY = re.compile(r"^\| `([^`]+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def section(title: str) -> str:
    """What stands under a heading of the second rank."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOC.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/operations.md: write the section {title!r}"
    return found[1]


def constants(node: ast.expr) -> list[str]:
    """The texts that an expression may come to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return constants(node.body) + constants(node.orelse)
    raise AssertionError(f"line {node.lineno}: name the event where it is logged, so that it can be looked for")


def calls(path: Path) -> list[tuple[str, ast.expr]]:
    """Every writing to a log: level and event."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            of = node.func.value
            name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
            if name in ("log", "_log"):
                found.append((node.func.attr, node.args[0]))
    return found


def events() -> dict[str, set[str]]:
    """Every event of the code, with its levels."""
    found: dict[str, set[str]] = defaultdict(set)
    for room in ("service", "workers", "migrations"):
        for path in (ROOT / room).rglob("*.py"):
            for level, event in calls(path):
                for name in constants(event):
                    found[name].add(level)
    found[LIBRARY_SAID] = {"warning", "error"}
    return dict(found)


def test_every_event_has_its_row_with_its_levels() -> None:
    said = {name: set(levels.split(", ")) for name, levels, _, _ in ROW.findall(section("Logs"))}
    logged = events()
    wrong = [f"{name}: write its levels {sorted(logged[name])}" for name in logged if said.get(name) != logged[name]]
    wrong += [f"{name}: nothing logs it, take the row out" for name in said.keys() - logged.keys()]
    assert not wrong, "mend the table of events under Logs in docs/operations.md:\n" + "\n".join(sorted(wrong))


def test_every_event_is_explained_and_found_by_the_alphabet() -> None:
    rows = ROW.findall(section("Logs"))
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert not [row[0] for row in rows if not row[3].strip()], "say in the last column what it means"
    unknown = {field for row in rows for field in re.findall(r"`(\w+)`", row[2])} - Fields.__annotations__.keys()
    assert not unknown, f"no fields of service/log/fields.py: {unknown}"


def reasons() -> set[str]:
    """How each reason begins that a node gives for not being ready."""
    tree = ast.parse((ROOT / "service" / "node" / "node.py").read_text())
    [asked] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "not_ready"]
    found = set()
    for node in ast.walk(asked):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
            said = node.args[0]
            first = said.values[0] if isinstance(said, ast.JoinedStr) else said
            assert isinstance(first, ast.Constant)
            found.add(str(first.value).strip())
    return found


def test_every_reason_for_not_being_ready_has_its_row() -> None:
    said = {reason.removesuffix("…").strip() for reason, _, todo in READY.findall(section("Readiness")) if todo.strip()}
    assert said == reasons(), "mend the table under Readiness in docs/operations.md: the reason, why, what to do"
