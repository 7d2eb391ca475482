"""Logging: one line an event, `key=value` after it, on standard error.

    2026-01-31T09:15:02.114Z warning supervise child_ended child=valkey exit_code=-9 delay_s=0.2

`Fields` is the one list of what a line may say; a type checker refuses any other. Bodies of messages, tokens and
URLs with passwords are not on it.
"""

import datetime
import json
import logging
import re
import sys
from typing import Any, TypedDict, Unpack

ROOT = "waypost"
_PLAIN = re.compile(r"[^\s\"=]+")


class Fields(TypedDict, total=False):
    """What a log line may name. A field means the same thing wherever it stands; names end in their unit."""

    child: str  # a process that `waypost up` or `serve` keeps alive
    close_code: int  # WebSocket close code
    code: str  # a code of service/errors.py
    connection: int  # the connection's number in this node
    connections: int  # how many
    count: int  # of whatever the event names
    delay_s: float  # pause before the next try
    detail: str  # a sentence for people
    device: str
    entry: str  # an entry id
    epoch: str
    error: str  # class and text of an exception
    exit_code: int | None  # negative: ended by that signal
    group: str
    head: str  # an entry id
    job: str  # a scheduled job
    job_run: str  # one run of it
    lag_ms: float  # behind the newest entry
    mailbox: str
    node: str
    offset: str  # an entry id
    path: str  # a file
    pid: int
    position: str  # an entry id
    reason: str  # why, in one word
    run: str  # run id of the store's server
    signal: str
    stream: str
    took_ms: float
    url: str  # where something is served; never one with a password
    user: str
    worker: str  # a process that runs scheduled jobs


class Log:
    """A module's log: `log = Log("reader")`, then `log.info("attached", stream=stream, count=3)`.

    An event is a short name in the past tense or of a state, the same for the same happening.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{name}")

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
        """What somebody has to look at. `traceback` is printed in the lines below."""
        self._write(logging.ERROR, event, fields, traceback)

    def _write(self, level: int, event: str, fields: Fields, traceback: BaseException | None = None) -> None:
        self._logger.log(level, event, extra={"fields": fields}, exc_info=traceback)


class _LineFormatter(logging.Formatter):
    """One line a record: time in UTC, level, where, event, fields."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        stamp = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = record.name.removeprefix(f"{ROOT}.")
        event = record.getMessage().replace("\n", "\\n")
        fields: dict[str, Any] = getattr(record, "fields", {})
        words = [stamp, record.levelname.lower(), name, event, *(f"{key}={_spell(fields[key])}" for key in fields)]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _spell(value: object) -> str:
    """`value` in one word: quoted where it would not read as one."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def set_up(level: str) -> None:
    """Send every log line of this process to standard error, from `level` (as in the settings) on.

    uvicorn's loggers go the same way (start it with `log_config=None`); its access log is off, since a line for each
    request costs more than the request. May be called again.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Other people's libraries speak up only when something is wrong.
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
