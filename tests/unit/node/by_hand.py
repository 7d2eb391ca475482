"""An event loop that runs when it is told to, and a clock that stands still: a node's tasks, one turn at a time."""

import asyncio
import heapq
import time
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Self

Callback = Callable[..., object]


class Loop(asyncio.AbstractEventLoop):
    """As much of a loop as tasks, futures, timeouts and sleeps need. There are no sockets: a test answers instead.

    What goes wrong in a task that nobody waits for is kept in `problems`.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.problems: list[str] = []
        self._ready: list[asyncio.Handle] = []
        self._timers: list[asyncio.TimerHandle] = []

    def run(self) -> None:
        """Goes on until nothing can go on without an answer from outside, or without time passing."""
        ready = self._ready
        while ready:
            turn = ready.copy()
            ready.clear()
            for handle in turn:
                if not handle.cancelled():
                    handle._run()

    def pass_time(self, seconds: float) -> None:
        """Moves the clock, and rings what was set to ring by then."""
        self.now += seconds
        while self._timers and self._timers[0].when() <= self.now:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                self._ready.append(timer)
        self.run()

    def timers(self) -> list[tuple[float, str]]:
        """What is set to ring: in how many seconds, and what it calls."""
        found = []
        for timer in self._timers:
            if not timer.cancelled():
                callback = timer._callback  # type: ignore[attr-defined]
                found.append((round(timer.when() - self.now, 3), getattr(callback, "__name__", "")))
        return sorted(found)

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # nothing here makes tasks of generators
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a world is left as it is, tasks and all
        return task

    def call_soon(self, callback: Callback, *args: object, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callback, *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callback, *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    def __enter__(self) -> Self:
        """From now on this is the running loop, and its clock the only one."""
        self._outer, self._outer_clock = events._get_running_loop(), time.monotonic
        events._set_running_loop(self)
        time.monotonic = self.time
        return self

    def __exit__(self, *_: object) -> None:
        events._set_running_loop(self._outer)
        time.monotonic = self._outer_clock
