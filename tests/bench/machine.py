"""What a run ran on, so that figures can be told apart that cannot be compared."""

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.systems import PEERS
from tests.integration.store.kit import binary


def facts(product: str) -> dict[str, str]:
    """Name → version or number, in the order in which they are told."""
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        product: _first(binary(product), r"v="),
        "uvloop": _package("uvloop"),
        "picows": _package("picows"),
        "node": _first("node", "v"),
        "socket.io": _npm("socket.io"),
        "redis-streams-adapter": _npm("@socket.io/redis-streams-adapter"),
        "python-socketio": _package("python-socketio"),
    }
    return {name: value for name, value in found.items() if value}


def _first(program: str | None, before: str) -> str:
    """The version that a program says it has."""
    if program is None:
        return ""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.split(before, 1)[-1].split()[0]


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _npm(name: str) -> str:
    try:
        return str(json.loads(Path(PEERS, "node_modules", name, "package.json").read_text())["version"])
    except OSError:
        return ""
