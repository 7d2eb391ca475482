"""Looking at real processes: who runs, who works on a data folder, how to wait for a change."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from service.embedded import DataFolder


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Return as soon as `condition()` is true; fail with `what` when it is not in time."""
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def words_of(pid: int) -> list[str]:
    """The command line of `pid`; empty when it has ended, reaped or not."""
    try:
        return list(filter(None, Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")))
    except OSError:
        if Path("/proc/self").exists():
            return []
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.split()


def is_running(pid: int) -> bool:
    return bool(words_of(pid))


def working_on(folder: DataFolder) -> list[int]:
    """The processes whose command line names the folder or its store."""
    shown = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=True)
    own = {str(folder.path), str(folder.store)}
    pids = [int(pid) for pid in shown.stdout.split()]
    return [pid for pid in pids if pid != os.getpid() and own.intersection(words_of(pid))]


def pid_of(folder: DataFolder, child: str) -> int:
    """The process that `up` noted under this name; 0 for none."""
    try:
        return int((folder.path / f"{child}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(folder: DataFolder, *words: str) -> bytes:
    """The store's answer to a command, the last element of one that is a list; empty: no answer."""
    command = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5.0)
            connection.connect(str(folder.socket))
            connection.sendall(command.encode())
            with connection.makefile("rb") as answer:
                return read_answer(answer)
    except OSError:
        return b""


def read_answer(answer: BinaryIO) -> bytes:
    line = answer.readline().strip()
    if line.startswith(b"*"):
        return [read_answer(answer) for _ in range(int(line[1:]))][-1]
    return answer.readline().strip() if line.startswith(b"$") and line != b"$-1" else line
