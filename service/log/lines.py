"""What becomes of an event: a line of text or JSON, by a chain of structlog's processors; floods are suppressed."""

import contextvars
import datetime
import json
import logging
import re
import textwrap
import time
from collections.abc import Callable
from typing import TextIO

from structlog.contextvars import merge_contextvars
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, plain_traceback
from structlog.processors import JSONRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from service.log.choices import ROOT, Choices

LIBRARY_SAID = "said"  # the event of a line that a library writes: its words are the detail
# From `info` on, so many lines of one event in so many seconds: enough to see what it is, and too few to fill a disk
# with a storm of reconnects. Who asks for `debug` wants every line.
FLOOD_LINES = 20
FLOOD_S = 10.0

_PLAIN = re.compile(r"[^\s\"=]+")
_RESET, _DIM, _BOLD, _CYAN = "\x1b[0m", "\x1b[2m", "\x1b[1m", "\x1b[36m"
_LEVELS = {"debug": _DIM, "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31;1m", "critical": "\x1b[31;1m"}


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines, and says at the end what it has suppressed."""

    def __init__(self, stream: TextIO, chosen: Choices) -> None:
        super().__init__(stream)
        self._flood = Flood()
        if chosen.log_format == "json":
            rendering: tuple[Processor, ...] = (JSONRenderer(default=str),)
        else:
            has_colours = chosen.log_format == "auto" and stream.isatty()
            rendering = (_indent_traceback, _text_renderer(has_colours=has_colours))
        self.setFormatter(
            ProcessorFormatter(
                foreign_pre_chain=(_laid_out(chosen.node), merge_contextvars),
                processors=(ProcessorFormatter.remove_processors_meta, _node_last, format_exc_info, *rendering),
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, unless there are too many of its kind; before it what there is to say of such."""
        self._tell(self._flood.tell())
        if self._flood.lets_pass(record):
            super().emit(record)

    def close(self) -> None:
        """Nothing more comes: what was suppressed is said now."""
        self._tell(self._flood.tell(is_last=True))
        super().close()

    def _tell(self, suppressed: list[logging.LogRecord]) -> None:
        for record in suppressed:  # not about what is being done at this moment
            contextvars.Context().run(super().emit, record)


class _Count:
    """Lines of one event since some moment."""

    __slots__ = ("level", "lines", "since")

    def __init__(self, level: int, since: float) -> None:
        self.level = level
        self.since = since
        self.lines = 0


class Flood:
    """How many lines of one event there were lately. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, str], _Count] = {}  # by logger and event: there are as many as in the code
        self._look_at = 0.0

    def lets_pass(self, record: logging.LogRecord) -> bool:
        """Whether it is one of the first of its kind. Call `tell` before."""
        if record.levelno < logging.INFO:
            return True
        count = self._counts.setdefault((record.name, _event_of(record)), _Count(record.levelno, self._clock()))
        count.lines += 1
        return count.lines <= FLOOD_LINES

    def tell(self, *, is_last: bool = False) -> list[logging.LogRecord]:
        """A line for each event of which some were suppressed, and whose time is over (`is_last`: for all)."""
        now = self._clock()
        if now < self._look_at and not is_last:
            return []
        over = {kind: count for kind, count in self._counts.items() if is_last or now - count.since >= FLOOD_S}
        for kind in over:
            del self._counts[kind]
        self._look_at = min((count.since for count in self._counts.values()), default=now) + FLOOD_S
        return [
            logging.makeLogRecord(
                {
                    "name": name,
                    "levelno": count.level,
                    "levelname": logging.getLevelName(count.level),
                    "msg": event,
                    "fields": {"suppressed": count.lines - FLOOD_LINES},
                }
            )
            for (name, event), count in over.items()
            if count.lines > FLOOD_LINES
        ]


# -- the chain: an event as a dict, from one processor to the next -----------------------------------------------------


def _event_of(record: logging.LogRecord) -> str:
    return str(record.msg) if hasattr(record, "fields") else LIBRARY_SAID


def _laid_out(node: str) -> Processor:
    """The first of the chain: what every line says, then its fields, in order."""

    def lay_out(_logger: object, _method: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        stamp = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        laid_out: EventDict = {
            "time": stamp.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{ROOT}."),
            "event": _event_of(record),
            **getattr(record, "fields", {"detail": event["event"]}),
        }
        laid_out.setdefault("node", node)
        laid_out.update((key, value) for key, value in event.items() if key != "event")
        return laid_out

    return lay_out


def _node_last(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Whoever reads text looks for what is particular first."""
    event["node"] = event.pop("node")
    return event


def _indent_traceback(_logger: object, _method: str, event: EventDict) -> EventDict:
    """A line that begins with a blank belongs to the one above."""
    if "exception" in event:
        event["exception"] = textwrap.indent(event["exception"], "    ")
    return event


def _spell(value: object) -> str:
    """`value` in one word: quoted where it would not read as one."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if not text.isprintable():  # a terminal obeys some of those
        return json.dumps(text)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _text_renderer(*, has_colours: bool) -> ConsoleRenderer:
    def part(style: str, key_style: str | None = None) -> KeyValueColumnFormatter:
        reset = _RESET if has_colours else ""
        style, key_style = (style, key_style) if has_colours else ("", None if key_style is None else "")
        return KeyValueColumnFormatter(key_style, style, reset, _spell)

    def level(key: str, value: object) -> str:
        del key
        return f"{_LEVELS.get(str(value), '')}{value}{_RESET}" if has_colours else str(value)

    return ConsoleRenderer(
        columns=[
            Column("time", part(_DIM)),
            Column("level", level),
            Column("logger", part(_DIM)),
            Column("event", part(_BOLD)),
            Column("", part("", _CYAN)),
        ],
        exception_formatter=plain_traceback,  # others show the values of variables, and some are secrets
        sort_keys=False,
    )
