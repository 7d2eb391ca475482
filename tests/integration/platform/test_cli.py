"""The command line: what it says about a wrong command, wrong settings, and a store that is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import service
from service.embedded import DataFolder

TREE = Path(service.__file__).parents[1]


def waypost(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`waypost` with these words and settings, run to its end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    return subprocess.run(
        [sys.executable, "-m", "service", *words],
        cwd=TREE,
        env=environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_the_commands() -> None:
    done = waypost("--help")
    assert done.returncode == 0
    assert all(f"    {command} " in done.stdout for command in ("up", "serve", "worker", "migrate"))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("fly",),
        ("migrate",),
        ("migrate", "down"),
        ("worker", "--once", "fly"),
        ("serve", "--processes", "0"),
        ("serve", "--processes", "257"),
        ("serve", "--processes", "two"),
    ],
)
def test_a_wrong_command_is_refused(words: tuple[str, ...]) -> None:
    done = waypost(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: waypost")


@pytest.mark.parametrize("command", ["up", "serve"])
def test_wrong_settings_are_said_all_at_once(command: str) -> None:
    done = waypost(command, WAYPOST_PROT="1", WAYPOST_PORT="x")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "waypost: WAYPOST_PROT: no such setting; did you mean WAYPOST_PORT?",
        "waypost: WAYPOST_PORT: Expected int",
    ]


@pytest.mark.parametrize("words", [("serve",), ("serve", "--processes", "2")])
def test_serve_says_what_it_lacks(words: tuple[str, ...]) -> None:
    done = waypost(*words)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "waypost: `serve` needs a store: set WAYPOST_REDIS_URL (`waypost up` brings its own)",
        "waypost: no way to sign in is configured: set WAYPOST_DEV=1",
    ]


@pytest.mark.parametrize("words", [("migrate", "status"), ("worker",), ("worker", "--once", "audit")])
def test_without_a_store(folder: DataFolder, words: tuple[str, ...]) -> None:
    done = waypost(*words, WAYPOST_DATA_DIR=str(folder.path))
    assert (done.returncode, done.stderr) == (1, "waypost: no store: set WAYPOST_REDIS_URL or give --redis-url\n")


@pytest.mark.parametrize("action", ["status", "up"])
def test_migrate_with_a_store_that_does_not_answer(tmp_path: Path, action: str) -> None:
    done = waypost("migrate", action, "--redis-url", f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert done.stderr.startswith("waypost: ")
    assert "Traceback" not in done.stderr


def test_json_is_of_one_report() -> None:
    done = waypost("worker", "--json")
    assert (done.returncode, done.stderr) == (2, "waypost: --json goes with --once JOB\n")


def test_a_worker_with_a_wrong_url_says_so() -> None:
    done = waypost("worker", "--redis-url", "http://127.0.0.1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("waypost: not the URL of a store")
