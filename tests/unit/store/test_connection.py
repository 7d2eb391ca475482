"""What error replies of a server mean."""

import pytest
from redis.exceptions import (
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from service.errors import Reset, Unavailable, Uncertain, WaypostError
from service.metrics.table import CALL_OUTCOMES
from service.store.connection import name_of, outcome_of, reply_error


@pytest.mark.parametrize(
    "error",
    [
        BusyLoadingError("Redis is loading the dataset in memory"),
        ReadOnlyError("You can't write against a read only replica."),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
        ResponseError("BUSY Redis is busy running a script."),
        ResponseError("MISCONF Errors writing to the AOF file"),
        ResponseError("CLUSTERDOWN The cluster is down"),
    ],
)
@pytest.mark.parametrize("is_write", [True, False])
def test_refused_before_anything_was_done(error: RedisError, is_write: bool) -> None:
    assert type(reply_error(error, is_write=is_write)) is Unavailable


def test_a_full_store_and_a_missing_function() -> None:
    for error in (OutOfMemoryError("command not allowed"), ResponseError("OOM command not allowed")):
        assert reply_error(error, is_write=True).code == "storage_full"
    assert isinstance(reply_error(ResponseError("Function not found"), is_write=True), Reset)


def test_any_other_error_of_a_write_may_come_after_it_wrote() -> None:
    error = ResponseError("WRONGTYPE Operation against a key")
    assert isinstance(reply_error(error, is_write=True), Uncertain)
    read = reply_error(error, is_write=False)
    assert (type(read), read.code) == (WaypostError, "internal")


@pytest.mark.parametrize(
    ("function", "reply", "outcome"),
    [
        ("publish", [b"ok", b""], "ok"),
        ("join", [b"not_member"], "refused"),
        ("page", [b"fenced", b"e1"], "fenced"),
        ("page", [b"reset"], "reset"),
        ("publish", ResponseError("ERR Function not found"), "reset"),
        ("publish", ResponseError("ERR something in the middle"), "uncertain"),
        ("publish", OutOfMemoryError("OOM command not allowed"), "storage_full"),
        ("plain", ResponseError("ERR no such key"), "refused"),
        ("plain", ResponseError("MASTERDOWN no master"), "unavailable"),
        ("plain", [], "ok"),
        ("plain", None, "ok"),
        ("plain", [b"a name"], "ok"),
    ],
)
def test_a_call_is_counted_by_what_became_of_it(function: str, reply: object, outcome: str) -> None:
    assert outcome_of(function, reply, is_write=True) == outcome
    assert outcome in CALL_OUTCOMES


def test_a_call_is_counted_by_its_function() -> None:
    assert name_of(("FCALL", "publish_v4", 0, b"")) == "publish"
    assert name_of(("FCALL_RO", "keep_bookmark_v1", 0, b"")) == "keep_bookmark"
    assert name_of(("XRANGE", "x", "-", "+")) == "plain"
