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
from service.store.connection import reply_error


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
