"""The supervisor: order, readiness, restarts with back-off, and nothing left behind."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import service
from service.supervise import BACKOFF_FIRST_S, Child, ChildFailed, Supervisor
from tests.integration.platform.processes import is_running, wait_until

pytestmark = pytest.mark.anyio


class Notes:
    """A supervisor and what it tells about its processes."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.moments: list[float] = []
        self.ended: list[str] = []
        self.supervisor = Supervisor(on_started=self._note, on_ended=self.ended.append)

    def _note(self, name: str, pid: int) -> None:
        self.started.append((name, pid))
        self.moments.append(time.monotonic())

    async def pids(self, count: int) -> list[int]:
        """The processes so far, once there were `count` starts."""
        # In a thread: the supervisor lives in this loop.
        await asyncio.to_thread(wait_until, lambda: len(self.started) >= count, f"{count} starts")
        return [pid for _, pid in self.started]


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def sleeper(name: str, seconds: float = 600) -> Child:
    return Child(name=name, command=("sleep", str(seconds)), is_ready=yes)


def python(name: str, code: str, marker: Path, stop_timeout_s: float = 10.0) -> Child:
    """A child that runs `code` and is ready once the file that is its argument exists."""

    async def is_ready() -> bool:
        return await asyncio.to_thread(marker.exists)

    command = (sys.executable, "-c", code, str(marker))
    return Child(name=name, command=command, is_ready=is_ready, stop_timeout_s=stop_timeout_s)


async def test_children_stop_in_reverse_order() -> None:
    notes = Notes()
    await notes.supervisor.start(sleeper("store"))
    await notes.supervisor.start(sleeper("node"))
    assert [name for name, _ in notes.started] == ["store", "node"]
    assert all(is_running(pid) for _, pid in notes.started)
    await notes.supervisor.stop()
    assert notes.ended == ["node", "store"]
    assert not any(is_running(pid) for _, pid in notes.started)
    await notes.supervisor.stop()


WAITING = """
import pathlib, signal, sys, time
own = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: own.with_suffix(".asked").touch())
own.touch()
while len(list(own.parent.glob("*.asked"))) < 2:
    time.sleep(0.01)
own.with_suffix(".done").touch()
"""


def done_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.done"))


async def test_children_that_stop_together_need_not_wait_for_each_other(tmp_path: Path) -> None:
    notes = Notes()
    for name in ("one", "two"):  # each ends when both have been asked to
        await notes.supervisor.start(python(name, WAITING, tmp_path / name))
    await notes.supervisor.stop(together=True)
    assert sorted(notes.ended) == ["one", "two"]
    assert done_in(tmp_path) == ["one.done", "two.done"]


async def test_a_child_has_the_descriptors_it_was_given() -> None:
    hear, tell = os.pipe()
    supervisor = Supervisor()
    code = "import os, sys; os.write(int(sys.argv[1]), b'here')"
    await supervisor.start(
        Child(name="node", command=(sys.executable, "-c", code, str(tell)), fds=[tell], is_ready=yes)
    )
    assert await asyncio.to_thread(os.read, hear, 100) == b"here"
    await supervisor.stop()
    os.close(hear)
    os.close(tell)


async def test_a_child_that_keeps_dying_is_started_again_later_each_time() -> None:
    notes = Notes()
    await notes.supervisor.start(sleeper("brief", 0.1))
    await notes.pids(4)
    await notes.supervisor.stop()
    pauses = [after - before - 0.1 for before, after in zip(notes.moments, notes.moments[1:], strict=False)]
    # Jitter takes up to half of a pause away.
    assert all(pause >= BACKOFF_FIRST_S * 2**nth * 0.5 for nth, pause in enumerate(pauses)), pauses


async def test_a_killed_child_is_started_again() -> None:
    notes = Notes()
    await notes.supervisor.start(sleeper("node"))
    (first,) = await notes.pids(1)
    os.kill(first, signal.SIGKILL)
    _, second = await notes.pids(2)
    assert is_running(second)
    await notes.supervisor.stop()
    assert not is_running(second)


async def test_no_child_comes_after_stop() -> None:
    notes = Notes()
    await notes.supervisor.start(sleeper("node"))
    (first,) = await notes.pids(1)
    os.kill(first, signal.SIGKILL)
    # Stopped at some moment of the restart, a different one for each pause.
    await asyncio.sleep(0.05)
    await notes.supervisor.stop()
    await asyncio.sleep(2 * BACKOFF_FIRST_S)
    assert not any(is_running(pid) for _, pid in notes.started)


async def test_no_child_is_started_again_once_it_is_said() -> None:
    notes = Notes()
    await notes.supervisor.start(sleeper("node"))
    notes.supervisor.start_no_more()
    await asyncio.sleep(0)  # a turn of the loop
    assert "keep node" not in {task.get_name() for task in asyncio.all_tasks()}
    assert is_running(notes.started[0][1])
    await notes.supervisor.stop()
    assert not is_running(notes.started[0][1])


async def test_a_child_that_ends_at_its_start_is_a_failure() -> None:
    supervisor = Supervisor()
    with pytest.raises(ChildFailed, match=r"node ended before it was ready \(exit code 1\)") as failure:
        await supervisor.start(Child(name="node", command=("false",), is_ready=no))
    assert failure.value.exit_code == 1
    await supervisor.stop()


async def test_a_child_that_is_not_ready_in_time_is_a_failure_and_ended() -> None:
    notes = Notes()
    with pytest.raises(ChildFailed, match=r"node was not ready within 0\.2 s"):
        await notes.supervisor.start(Child(name="node", command=("sleep", "600"), is_ready=no, ready_timeout_s=0.2))
    await notes.supervisor.stop()
    assert not is_running(notes.started[0][1])


async def test_a_start_that_is_called_off_leaves_nothing() -> None:
    notes = Notes()
    starting = asyncio.create_task(notes.supervisor.start(Child(name="node", command=("sleep", "600"), is_ready=no)))
    (pid,) = await notes.pids(1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await notes.supervisor.stop()
    assert not is_running(pid)


DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
time.sleep(600)
"""


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    notes = Notes()
    await notes.supervisor.start(python("deaf", DEAF, tmp_path / "ready", stop_timeout_s=0.3))
    await notes.supervisor.stop()
    assert not is_running(notes.started[0][1])


async def test_the_impatient_need_not_wait(tmp_path: Path) -> None:
    notes = Notes()
    await notes.supervisor.start(python("deaf", DEAF, tmp_path / "ready", stop_timeout_s=600))
    stopping = asyncio.create_task(notes.supervisor.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    notes.supervisor.hurry()
    await asyncio.wait_for(stopping, 10)


FORKING = """
import os, subprocess, sys, time
grandchild = subprocess.Popen(["sleep", "600"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(grandchild.pid))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""


async def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    notes = Notes()
    marker = tmp_path / "ready"
    await notes.supervisor.start(python("forking", FORKING, marker))
    grandchild = int(marker.read_text())
    assert is_running(grandchild)
    await notes.supervisor.stop()
    wait_until(lambda: not is_running(grandchild), "the grandchild has ended")


PARENT = """
import asyncio, sys
from service.supervise import Child, Supervisor

async def yes():
    return True

async def main():
    supervisor = Supervisor(on_started=lambda name, pid: print(pid, flush=True))
    await supervisor.start(Child(name="node", command=("sleep", "600"), is_ready=yes))
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's; elsewhere the next `up` cleans up")
async def test_children_end_with_a_killed_supervisor() -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(service.__file__).parents[1])}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, env=environ
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    await parent.wait()
    wait_until(lambda: not is_running(pid), "the child has ended")
