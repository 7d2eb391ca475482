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
    assert all(f"    {command} " in done.stdout for command in ("up", "serve", "worker", "token", "key", "migrate"))


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
        ("token",),
        ("token", "--user", "a/b"),
        ("token", "--user", "bob", "--device", ""),
        ("token", "--user", "bob", "--group", "a b"),
        ("token", "--user", "bob", "--group", "**"),
        ("token", "--user", "bob", "--ttl", "soon"),
        ("token", "--user", "bob", "--ttl", "0s"),
        ("key",),
        ("key", "new"),
        ("key", "new", "--scope", ""),
        ("key", "new", "--scope", "send,fly"),
        ("key", "new", "--scope", "send", "--name", "two\nlines"),
        ("key", "new", "--scope", "send", "--name", "x" * 129),
        ("key", "revoke"),
        ("key", "revoke", "0123"),
        ("key", "revoke", "0123456789AB"),
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
    [store, sign_in] = done.stderr.splitlines()
    assert store == "waypost: `serve` needs a store: set WAYPOST_REDIS_URL (`waypost up` brings its own)"
    assert sign_in == (
        "waypost: no way to sign in is configured: set WAYPOST_JWT_SECRETS, WAYPOST_JWT_KEYS or WAYPOST_JWT_JWKS_URL "
        "(or, for trying out on this machine, WAYPOST_DEV=1)"
    )


@pytest.mark.parametrize("way", [{"WAYPOST_DEV": "1"}, {"WAYPOST_JWT_SECRETS": "x" * 32}])
def test_serve_needs_one_way_to_sign_in(way: dict[str, str]) -> None:
    done = waypost("serve", **way)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "needs a store" in done.stderr


def test_serve_with_a_file_of_keys_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "keys.pem").write_text("hello")
    done = waypost("serve", WAYPOST_REDIS_URL="redis://127.0.0.1", WAYPOST_JWT_KEYS=str(tmp_path / "keys.pem"))
    assert done.returncode == 2
    problem = "no public key in PEM (-----BEGIN PUBLIC KEY-----)"
    assert done.stderr == f"waypost: WAYPOST_JWT_KEYS: {tmp_path}/keys.pem: {problem}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("migrate", "status"),
        ("worker",),
        ("worker", "--once", "audit"),
        ("key", "list"),
        ("key", "new", "--scope", "send"),
    ],
)
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
