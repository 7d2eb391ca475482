"""The data folder and its store: one owner, addresses of any length, orphans of a killed owner."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.embedded import SOCKET_PATH_BYTES_MAX, DataFolder, EmbeddedError
from service.supervise import Child, Supervisor
from tests.integration.platform.processes import ask, is_running, pid_of, wait_until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def store_of(folder: DataFolder) -> AsyncIterator[Supervisor]:
    """The folder's store, running under a supervisor."""
    with folder.hold():
        await folder.end_orphans()
        supervisor = Supervisor(on_started=folder.remember, on_ended=folder.forget)
        try:
            await supervisor.start(Child(name="valkey", command=folder.command(), is_ready=folder.is_ready))
            yield supervisor
        finally:
            await supervisor.stop()


async def test_it_runs_as_the_shipped_file_says(folder: DataFolder) -> None:
    async with store_of(folder):
        for name, value in {
            "appendonly": b"yes",
            "appendfsync": b"always",
            "maxmemory-policy": b"noeviction",
            "stream-node-max-bytes": b"768",
            "port": b"0",
            "save": b"",
        }.items():
            assert ask(folder, "CONFIG", "GET", name) == value, name
        assert stat.S_IMODE(folder.socket.stat().st_mode) == 0o700
    assert not folder.socket.exists()
    assert not (folder.path / "valkey.pid").exists()


async def test_a_killed_store_comes_back_with_its_data(folder: DataFolder) -> None:
    async with store_of(folder):
        assert ask(folder, "SET", "here", "still") == b"+OK"
        first = pid_of(folder, "valkey")
        os.kill(first, signal.SIGKILL)
        # In a thread: the supervisor lives in this loop.
        await asyncio.to_thread(wait_until, lambda: ask(folder, "GET", "here") == b"still", "the store answers again")
        assert pid_of(folder, "valkey") not in (0, first)


async def test_a_second_start_finds_all_data(folder: DataFolder) -> None:
    async with store_of(folder):
        assert ask(folder, "SET", "here", "still") == b"+OK"
    async with store_of(folder):
        assert ask(folder, "GET", "here") == b"still"


async def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / ("long" * 20) / "data")
    assert len(str(folder.path / "valkey.sock")) > SOCKET_PATH_BYTES_MAX
    assert len(str(folder.socket)) <= SOCKET_PATH_BYTES_MAX
    assert folder.socket == DataFolder(folder.path).socket
    async with store_of(folder):
        assert ask(folder, "PING") == b"+PONG"
        assert stat.S_IMODE(folder.socket.parent.stat().st_mode) == 0o700
    folder.socket.parent.rmdir()


async def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / ("long" * 20) / "data")
    folder.socket.parent.mkdir(mode=0o777)
    folder.socket.parent.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError, match="is not this user's alone"), folder.hold():
            pass
    finally:
        folder.socket.parent.rmdir()


async def test_the_second_owner_is_refused_and_told_who_the_first_is(folder: DataFolder) -> None:
    second = DataFolder(folder.path)
    refused = pytest.raises(EmbeddedError, match=rf"in use by `waypost up`, process {os.getpid()}")
    with folder.hold(), refused, second.hold():
        pass
    with second.hold():
        pass


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EmbeddedError, match="cannot use the data folder"),
        DataFolder(tmp_path / "file" / "data").hold(),
    ):
        pass


async def test_an_orphaned_store_is_ended_and_its_data_found(folder: DataFolder) -> None:
    with folder.hold():
        # What `up` leaves behind where no kernel ends its children: a store, and the note about it.
        orphan = await asyncio.create_subprocess_exec(*folder.command(), start_new_session=True)
        folder.remember("valkey", orphan.pid)
        wait_until(lambda: ask(folder, "SET", "here", "still") == b"+OK", "the orphan answers")
    async with store_of(folder):
        assert await orphan.wait() == 0
        assert ask(folder, "GET", "here") == b"still"


async def test_a_stranger_with_the_noted_pid_is_left_alone(folder: DataFolder) -> None:
    sleep = "import time; time.sleep(600)"
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", sleep, f"{folder.path}-of-another")
    with folder.hold():
        folder.remember("valkey", stranger.pid)
        (folder.path / "node.pid").write_text("not a number")
        await folder.end_orphans()
        assert is_running(stranger.pid)
        assert not list(folder.path.glob("*.pid"))
    stranger.kill()
    await stranger.wait()


async def test_a_large_log_is_set_aside(folder: DataFolder) -> None:
    folder.path.mkdir()
    folder.log.write_bytes(b"x" * 1_048_577)
    with folder.hold():
        assert not folder.log.exists()
    assert folder.log.with_suffix(".log.1").exists()


async def test_a_missing_store_is_not_ready(folder: DataFolder) -> None:
    assert not await folder.is_ready()


def test_the_secret_of_tokens_is_made_once_and_for_its_owner_alone(folder: DataFolder) -> None:
    assert folder.secret() is None
    with folder.hold():
        made = folder.make_secret()
        assert folder.make_secret() == made
    assert DataFolder(folder.path).secret() == made
    assert len(made) == 43
    assert [(path.name, path.stat().st_mode & 0o777) for path in folder.path.glob("jwt*")] == [("jwt-secret", 0o600)]


def test_a_secret_that_was_written_half_is_made_anew(folder: DataFolder) -> None:
    with folder.hold():
        (folder.path / "jwt-secret.new").write_text("half")
        path = folder.path / "jwt-secret"
        path.touch(0o600)
        assert folder.secret() is None
        assert len(folder.make_secret()) == 43
        path.chmod(0o604)
        with pytest.raises(EmbeddedError, match="open to others"):
            folder.make_secret()
        path.unlink()
        path.mkdir()
        with pytest.raises(EmbeddedError, match="cannot read"):
            folder.secret()
