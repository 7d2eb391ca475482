"""A log line: one line, whatever is in it."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
import pytest

from service.config import Settings
from service.log import Log, bound, set_up
from service.log.lines import FLOOD_LINES, FLOOD_S, Flood

Format = Literal["auto", "text", "json"]
Begin = Callable[[Format], io.StringIO]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """What is logged from then on; other tests get their logging back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    written = Terminal()

    def set_up_as(log_format: Format) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", written)
        set_up(msgspec.structs.replace(Settings(), log_format=log_format, node="edge-1"))
        return written

    yield set_up_as
    root.handlers[:], root.level = before


@pytest.fixture
def lines(begin: Begin) -> io.StringIO:
    return begin("text")


def decoded(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def fail(log: Log) -> None:
    password = "hunter2"
    try:
        int(f"no\n\x1b[2J{len(password)}")
    except ValueError as error:
        log.error("crashed", traceback=error)


def test_an_event_is_one_line(lines: io.StringIO) -> None:
    detail = 'two\n"lines" = one'
    Log("reader").warning("doubt", mailbox="m:a.b", lag_ms=1.5, detail=detail, exit_code=None)
    line = lines.getvalue()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning reader doubt mailbox=m:a\.b lag_ms=1\.5 ", line)
    assert line.endswith(f" detail={json.dumps(detail)} exit_code=None node=edge-1\n")
    assert line.count("\n") == 1


def test_in_json_every_line_is_an_object_with_the_same_beginning(begin: Begin) -> None:
    written = begin("json")
    Log("reader").warning("doubt", mailbox="m:a.b", detail="two\nlines\u2028three", exit_code=None)
    logging.getLogger("uvicorn.error").warning("something\nodd")
    fail(Log("sends"))
    doubt, library, crash = decoded(written)
    assert list(doubt)[:4] == list(library)[:4] == list(crash)[:4] == ["time", "level", "logger", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", doubt.pop("time"))
    assert doubt == {
        "level": "warning",
        "logger": "reader",
        "event": "doubt",
        "mailbox": "m:a.b",
        "detail": "two\nlines\u2028three",
        "exit_code": None,
        "node": "edge-1",
    }
    assert (library["event"], library["detail"], library["node"]) == ("said", "something\nodd", "edge-1")
    assert crash["exception"].startswith("Traceback")
    assert crash["exception"].rstrip().splitlines()[-1].startswith("ValueError")


def test_nothing_that_a_terminal_obeys_comes_from_a_field(lines: io.StringIO) -> None:
    Log("reader").warning("doubt", detail="\x1b[2J", user="\x9b2J", stream="user:Ünï\u202e")
    assert r'detail="\u001b[2J" user="\u009b2J" stream="user:\u00dcn\u00ef\u202e"' in lines.getvalue()


@pytest.mark.parametrize("log_format", ["auto", "text"])
def test_there_are_colours_on_a_terminal_where_they_are_wanted(begin: Begin, log_format: Format) -> None:
    written = begin(log_format)
    Log("reader").warning("doubt", mailbox="m")
    fail(Log("sends"))
    assert ("\x1b[33mwarning\x1b[0m" in written.getvalue()) == (log_format == "auto")
    plain = re.sub(r"\x1b\[[\d;]*m", "", written.getvalue())
    assert "Z warning reader doubt mailbox=m node=edge-1\n" in plain


def test_the_level_is_the_settings(lines: io.StringIO) -> None:
    Log("reader").debug("attached")
    assert lines.getvalue() == ""
    assert not Log("reader").is_chatty


def test_uvicorn_goes_the_same_way_without_its_access_log(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("something\nodd")
    logging.getLogger("uvicorn.access").warning("GET /")
    assert lines.getvalue().endswith(' warning uvicorn.error said detail="something\\nodd" node=edge-1\n')


def test_a_traceback_follows_its_line_without_values_of_variables(lines: io.StringIO) -> None:
    fail(Log("sends"))
    first, *rest = lines.getvalue().splitlines()
    assert first.endswith(" error sends crashed node=edge-1")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)
    assert "= 'hunter2'" not in lines.getvalue()
    assert "\x1b" not in lines.getvalue()


def test_what_is_bound_is_on_every_line_below_unless_the_line_says_it_itself(begin: Begin) -> None:
    written, log = begin("json"), Log("api")
    with bound(request="r1", user="bob"):
        log.info("taken")
        log.info("taken", user="alice")
    log.info("taken")
    assert [(line.get("request"), line.get("user")) for line in decoded(written)] == [
        ("r1", "bob"),
        ("r1", "alice"),
        (None, None),
    ]


def test_a_flood_of_one_event_does_not_drown_the_others(begin: Begin) -> None:
    written, log = begin("json"), Log("reader")
    with bound(request="r1"):
        for _ in range(FLOOD_LINES + 5):
            log.warning("doubt")
        log.info("attached")
    begin("json")  # as at the end of the process: what was suppressed is said
    *doubts, attached, told = decoded(written)
    assert [line["event"] for line in doubts] == ["doubt"] * FLOOD_LINES
    assert attached["event"] == "attached"
    told.pop("time")
    assert told == {"level": "warning", "logger": "reader", "event": "doubt", "suppressed": 5, "node": "edge-1"}


def test_after_a_flood_lines_come_again_and_how_many_did_not() -> None:
    now = 100.0
    flood = Flood(lambda: now)
    doubt = logging.makeLogRecord({"name": "waypost.reader", "msg": "doubt", "levelno": logging.WARNING, "fields": {}})
    passed = 0
    for _ in range(FLOOD_LINES + 3):
        assert flood.tell() == []
        passed += flood.lets_pass(doubt)
    assert passed == FLOOD_LINES
    now += FLOOD_S
    [told] = flood.tell()
    assert (told.msg, told.levelno, vars(told)["fields"]) == ("doubt", logging.WARNING, {"suppressed": 3})
    assert flood.lets_pass(doubt)
    now += FLOOD_S
    assert flood.tell() == []


def test_who_asks_for_debug_gets_every_line() -> None:
    record = logging.makeLogRecord({"name": "waypost.api", "msg": "request", "levelno": logging.DEBUG, "fields": {}})
    flood = Flood(lambda: 0.0)
    assert all(flood.lets_pass(record) for _ in range(10 * FLOOD_LINES))


def test_lines_of_a_library_are_one_kind() -> None:
    flood = Flood(lambda: 0.0)
    said = [
        logging.makeLogRecord({"name": "asyncio", "msg": f"task {at}", "levelno": logging.ERROR}) for at in range(1000)
    ]
    assert sum(map(flood.lets_pass, said)) == FLOOD_LINES
