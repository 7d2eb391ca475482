"""Child processes: started in order, kept alive, stopped in reverse order, none left behind.

The one supervisor of the house. It knows nothing of what its children do but whether they are ready.
"""

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from service.log import Log

log = Log("supervise")

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
# A child that lived this long was well: its next end is a new story, not the same fault again.
LIVED_S = 10.0
# How often a child that is starting is asked whether it is ready.
ASK_S = 0.05

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildFailed(Exception):
    """A child ended or was not ready in time at its first start; the text is one sentence for the user.

    `exit_code` is the child's, negative for a signal; None when it was not ready in time.
    """

    def __init__(self, sentence: str, exit_code: int | None = None) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process to keep alive.

    `environ` is its whole environment, None for ours. `fds` are open in it too, under the same numbers. `is_ready` is
    asked until it says yes, at the first start only: later ones are found out by whoever needs the child. After
    SIGTERM it has `stop_timeout_s` to end.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] | None = None
    fds: Sequence[int] = ()
    is_ready: Callable[[], Awaitable[bool]]
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 30.0


class Supervisor:
    """Keeps children alive from `start` until `stop`.

    `on_started(name, pid)` and `on_ended(name)` are told about every process, for notes that outlive this one.
    Children ignore the terminal (own session): Ctrl-C reaches us alone, and we decide the order.
    """

    def __init__(
        self, *, on_started: Callable[[str, int], None] | None = None, on_ended: Callable[[str], None] | None = None
    ) -> None:
        self._keepers: list[_Keeper] = []
        self._on_started = on_started or (lambda _name, _pid: None)
        self._on_ended = on_ended or (lambda _name: None)

    async def start(self, child: Child) -> None:
        """Start `child` and return when it is ready; from then on it is started again whenever it ends.

        Raises `ChildFailed` when it ends before it is ready, or is not ready in time. Call `stop` in any case.
        """
        keeper = _Keeper(child, self._on_started, self._on_ended)
        self._keepers.append(keeper)
        await keeper.start()

    def start_no_more(self) -> None:
        """From now on a child that ends stays away: for who gives up what children need, and then calls `stop`."""
        for keeper in self._keepers:
            keeper.let_go()

    async def stop(self, *, together: bool = False) -> None:
        """End all children, the last started first or all `together`, and return when none is left.

        May be called again.
        """
        if together:
            await asyncio.gather(*(keeper.stop() for keeper in self._keepers))
            self._keepers.clear()
        while self._keepers:
            await self._keepers[-1].stop()
            self._keepers.pop()

    def hurry(self) -> None:
        """End all children at once, without waiting for what they are at. `stop` still has to be awaited."""
        for keeper in reversed(self._keepers):
            keeper.kill()


class _Keeper:
    """One child's life: running, waiting to be started again, or stopped for good."""

    def __init__(self, child: Child, on_started: Callable[[str, int], None], on_ended: Callable[[str], None]) -> None:
        self._child = child
        self._on_started = on_started
        self._on_ended = on_ended
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        child = self._child
        process = await self._spawn()
        ended = asyncio.create_task(process.wait())
        try:
            limit = time.monotonic() + child.ready_timeout_s
            while not await child.is_ready():
                if ended.done():
                    raise _ended_early(child, process.returncode)
                if time.monotonic() > limit:
                    raise ChildFailed(f"{child.name} was not ready within {child.ready_timeout_s:g} s")
                await asyncio.wait([ended], timeout=ASK_S)
            if ended.done():  # somebody else answered in its place
                raise _ended_early(child, process.returncode)
        finally:
            ended.cancel()
        self._task = asyncio.create_task(self._keep(process, time.monotonic()), name=f"keep {child.name}")

    async def _keep(self, process: asyncio.subprocess.Process, started: float) -> None:
        """Wait for the end of the process and start another, until somebody stops us."""
        delay = BACKOFF_FIRST_S
        while True:
            code = await process.wait()
            _sweep(process.pid)
            if time.monotonic() - started >= LIVED_S:
                delay = BACKOFF_FIRST_S
            # Jitter: children that ended together, of one cause, are not started in one moment again and again.
            pause = delay * random.uniform(0.5, 1.0)
            log.warning("child_ended", child=self._child.name, pid=process.pid, exit_code=code, delay_s=round(pause, 2))
            delay = min(delay * 2, BACKOFF_MAX_S)
            while True:
                await asyncio.sleep(pause)
                try:
                    process = await self._spawn()
                    break
                except OSError as error:  # no memory, no process ids: as passing as any other end
                    log.error("child_not_started", child=self._child.name, error=str(error))
                    pause = BACKOFF_MAX_S
            started = time.monotonic()

    async def _spawn(self) -> asyncio.subprocess.Process:
        child = self._child
        process = await asyncio.create_subprocess_exec(
            *child.command,
            env=child.environ,
            pass_fds=child.fds,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # one prepared system call, nothing that takes a lock
        )
        self._process = process
        self._on_started(child.name, process.pid)
        log.info("child_started", child=child.name, pid=process.pid)
        return process

    async def stop(self) -> None:
        """Ask the child to end, and make it when its time is over."""
        # First of all: it may be about to start another. After the next lines no process comes any more.
        self.let_go()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process = self._process
        if process is not None:
            _signal(process, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), self._child.stop_timeout_s)
            except TimeoutError:
                log.warning("child_killed", child=self._child.name, pid=process.pid, reason="did not end in time")
                _signal(process, signal.SIGKILL)
                await process.wait()
            _sweep(process.pid)
            log.info("child_stopped", child=self._child.name, pid=process.pid, exit_code=process.returncode)
        self._on_ended(self._child.name)

    def let_go(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def kill(self) -> None:
        if self._process is not None:
            _signal(self._process, signal.SIGKILL)


def _sweep(pid: int) -> None:
    """End what the child itself started: a killed store's fork would go on writing its file for nobody."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _ended_early(child: Child, code: int | None) -> ChildFailed:
    return ChildFailed(f"{child.name} ended before it was ready ({_how(code)})", code)


def _how(code: int | None) -> str:
    """How a process ended, for people."""
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _die_with_parent() -> Callable[[], None] | None:
    """What a child calls before it becomes its program: on Linux the kernel then ends it when we are killed.

    SIGKILL, because nothing may survive us, and a store that fsyncs every write loses nothing by it.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # we were killed before the line above
            os._exit(1)

    return prepare
