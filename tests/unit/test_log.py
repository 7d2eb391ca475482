"""A log line: one line, whatever is in it."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from service.log import Log, set_up


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged while the test runs; other tests get their logging back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    set_up("info")
    yield written
    root.handlers[:], root.level = before


def test_an_event_is_one_line(lines: io.StringIO) -> None:
    detail = 'two\n"lines" = one'
    Log("reader").warning("doubt", mailbox="m:a.b", lag_ms=1.5, detail=detail, exit_code=None)
    line = lines.getvalue()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning reader doubt mailbox=m:a\.b lag_ms=1\.5 ", line)
    assert line.endswith(f" detail={json.dumps(detail)} exit_code=None\n")
    assert line.count("\n") == 1


def test_the_level_is_the_settings(lines: io.StringIO) -> None:
    Log("reader").debug("attached")
    assert lines.getvalue() == ""


def test_uvicorn_goes_the_same_way_without_its_access_log(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("something\nodd")
    logging.getLogger("uvicorn.access").warning("GET /")
    assert lines.getvalue().endswith(" warning uvicorn.error something\\nodd\n")


def test_a_traceback_follows_its_line(lines: io.StringIO) -> None:
    try:
        int("no")
    except ValueError as error:
        Log("sends").error("crashed", traceback=error)
    first, *rest = lines.getvalue().splitlines()
    assert first.endswith(" error sends crashed")
    assert rest[0].startswith("Traceback")
