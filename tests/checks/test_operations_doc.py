"""docs/operations.md has a section with an example for each command that looks, and rows for verdicts and jobs."""

import argparse
import re
from pathlib import Path
from typing import get_args

from service.__main__ import _parser
from service.cli import completion, look, streams
from service.config import JOBS
from service.inspection.why import SAYS, Verdict

TEXT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of the modules that look."""
    subparsers = argparse.ArgumentParser().add_subparsers()
    for module in (streams, look, completion):
        module.add_parser(subparsers)
    return list(subparsers.choices)


def test_every_command_that_looks_has_its_section_with_an_example() -> None:
    looking = re.split(r"^## Looking$", TEXT, flags=re.MULTILINE)[1].split("\n## ")[0]
    sections = dict(re.findall(r"^### `waypost (\w+)`\n(.*?)(?=^### |\Z)", looking, re.MULTILINE | re.DOTALL))
    assert list(sections) == commands(), "docs/operations.md, Looking: one section a command, in the order of --help"
    silent = [name for name, text in sections.items() if not re.search(rf"^    .*waypost {name}\b", text, re.MULTILINE)]
    assert not silent, f"docs/operations.md: show how {silent} is used, indented by four blanks"


def test_every_verdict_has_its_row() -> None:
    told = re.split(r"^### `waypost why`$", TEXT, flags=re.MULTILINE)[1].split("\n### ")[0]
    rows = [name for row in re.findall(r"^\| (`.*?`) \|", told, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(rows) == sorted(get_args(Verdict)) == sorted(SAYS)


def test_every_job_has_its_row() -> None:
    told = re.split(r"^## Scheduled jobs$", TEXT, flags=re.MULTILINE)[1].split("\n### ")[0]
    assert re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE) == list(JOBS)


def test_every_command_tells_its_exit_codes() -> None:
    subparsers = next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    silent = [
        name
        for name in commands()
        if name != "completion" and "Exit code" not in (subparsers.choices[name].description or "")
    ]
    assert not silent, f"say in the description of {silent} which exit codes there are"
