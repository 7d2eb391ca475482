"""Logging: one event a line, on standard error; `key=value` after it, or JSON.

    2026-01-31T09:15:02.114Z warning supervise child_ended child=valkey exit_code=-9 delay_s=0.2 node=edge-1

`Fields` is the one list of what a line may say; a type checker refuses any other. `bound` adds fields to all lines
below it. The way of a line is the standard library's, so that uvicorn's take it too. What becomes of it: `lines.py`.
"""

import contextlib
import logging
import sys
from typing import Unpack

from service.log.choices import ROOT, Choices
from service.log.fields import Fields, Whose

__all__ = ["ROOT", "Choices", "Fields", "Log", "Whose", "bind", "bound", "set_up"]


class Log:
    """A module's log: `log = Log("reader")`, then `log.info("attached", stream=stream, count=3)`.

    An event is a short name in the past tense or of a state, the same for the same happening; docs/operations.md has a
    table of them. A line whose level is not wanted costs one look at a table.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{name}")

    @property
    def is_chatty(self) -> bool:
        """Whether lines of level debug are written: ask where finding out what they say costs something."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, **fields: Unpack[Fields]) -> None:
        """What only somebody who looks for a fault wants to read: one line for each connection or call."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Unpack[Fields]) -> None:
        """What happens seldom and is as it should be: starts, stops."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Unpack[Fields]) -> None:
        """What is not as it should be and mends itself."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, *, traceback: BaseException | None = None, **fields: Unpack[Fields]) -> None:
        """What somebody has to look at. `traceback` is printed in the lines below, in JSON in a field of its own."""
        self._write(logging.ERROR, event, fields, traceback)

    def _write(self, level: int, event: str, fields: Fields, traceback: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=traceback)


def bound(**fields: Unpack[Fields]) -> contextlib.AbstractContextManager[None]:
    """Within it, and in tasks that are begun within it, every line has these fields, unless it says them itself."""
    from structlog.contextvars import bound_contextvars  # noqa: PLC0415 - see set_up

    return bound_contextvars(**fields)


def bind(**fields: Unpack[Fields]) -> None:
    """The same for the rest of this task: for what is found out within `bound`."""
    from structlog.contextvars import bind_contextvars  # noqa: PLC0415 - see set_up

    bind_contextvars(**fields)


def set_up(chosen: Choices) -> None:
    """Send every log line of this process to standard error.

    uvicorn's loggers go the same way (start it with `log_config=None`); its access log is off, since ours says it
    without the query. May be called again.
    """
    from service.log.lines import Lines  # noqa: PLC0415 - commands that log nothing need not wait for structlog

    root = logging.getLogger()
    for before in root.handlers:
        if isinstance(before, Lines):
            before.close()
    root.handlers[:] = [Lines(sys.stderr, chosen)]
    # Other people's libraries speak up only when something is wrong.
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(chosen.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
