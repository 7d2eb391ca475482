"""What commands that run other commands of ours share: how one is started, and how signals end it all."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import service
from service.config import Settings
from service.log import Log
from service.supervise import Supervisor

log = Log("children")

# -P leaves out the folder where the user happens to stand: a `service` in it is not ours. The tree is named instead.
PYTHON = (sys.executable, "-P")
TREE = str(Path(service.__file__).resolve().parent.parent)

NODE_READY_TIMEOUT_S = 60.0
NODE_STOP_MARGIN_S = 5.0  # what a node needs to end beside its drain


def node_stop_timeout_s(settings: Settings) -> float:
    """How long a node may take from SIGTERM to its end."""
    return settings.drain_delay_s + settings.drain_s + NODE_STOP_MARGIN_S


def command(*words: str) -> list[str]:
    """The command line of `waypost` with these words, in a process of its own."""
    return [*PYTHON, "-m", "service", *words]


def environ(**changes: str) -> dict[str, str]:
    """Our own environment, handed on and not read, with these settings for a child."""
    path = os.pathsep.join(filter(None, (TREE, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **changes}


async def until_signal(supervisor: Supervisor, starting: Coroutine[Any, Any, None]) -> None:
    """Run `starting`, then wait for the signal to end; it also breaks off the starting.

    Stop the supervisor afterwards, in any case: from the next signal on it hurries. Raises what the starting raises.
    """
    stopping = asyncio.Event()
    _catch_signals(stopping, supervisor)
    tasks = [asyncio.create_task(starting), asyncio.create_task(stopping.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()  # raises what went wrong
            await stopping.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _catch_signals(stopping: asyncio.Event, supervisor: Supervisor) -> None:
    """The first signal stops everything in order, the next one at once."""

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            supervisor.hurry()
        else:
            log.info("stopping", signal=number.name)
            stopping.set()

    loop = asyncio.get_running_loop()
    # Whoever started us with nohup wants us to outlive the terminal. SIGINT is also ignored in the background of a
    # script, which has no Ctrl-C to be spared; who sends it then means it.
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    for number in (signal.SIGINT, signal.SIGTERM, *hang_up):
        loop.add_signal_handler(number, stop, number)
