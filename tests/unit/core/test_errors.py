"""The table of errors: codes, close codes and HTTP statuses tell a client the same."""

import http

import pytest

from service.core.frames import encode, error_frame
from service.errors import CLOSE_TRY_AGAIN, ERRORS, ErrorRow, Fenced, Reset, Unavailable, Uncertain, WaypostError

rows = pytest.mark.parametrize(("code", "row"), ERRORS.items(), ids=ERRORS)


@rows
def test_the_range_of_the_close_code_says_whether_to_come_back(code: str, row: ErrorRow) -> None:
    if row.close is not None:
        assert 4000 < row.close < 4200
        assert row.retry == (row.close < 4100)


@pytest.mark.parametrize(
    ("code", "close"),
    [
        ("slow", 4001),
        ("draining", 4002),
        ("rate_limited", 4003),
        ("unauthorised", 4101),
        ("expired", 4102),
        ("bad_frame", 4103),
        ("too_large", 4104),
        ("forbidden", 4105),
        ("hello_timeout", 4106),
        ("too_many_connections", 4107),
    ],
)
def test_the_close_codes_are_those_of_the_protocol(code: str, close: int) -> None:
    assert ERRORS[code].close == close


def test_no_close_code_stands_for_two_errors() -> None:
    codes = [row.close for row in ERRORS.values() if row.close is not None]
    assert len(codes) == len(set(codes)) == 10
    assert CLOSE_TRY_AGAIN not in codes
    assert 4000 <= CLOSE_TRY_AGAIN < 4100


@rows
def test_every_error_has_a_text_for_people(code: str, row: ErrorRow) -> None:
    assert len(row.text) > 5
    assert row.text == row.text.strip()
    assert code.isidentifier()
    assert code == code.lower()


def test_no_text_stands_for_two_errors() -> None:
    assert len({row.text for row in ERRORS.values()}) == len(ERRORS)


@rows
def test_the_http_status_is_an_error_and_fits_what_may_be_retried(code: str, row: ErrorRow) -> None:
    assert http.HTTPStatus(row.http).value >= 400
    if row.retry:
        assert row.http in (429, 500, 503, 507), "a client that may try again is told so by the status"
    if row.http == 507:
        assert code == "storage_full"


def test_the_same_http_status_is_given_whether_or_not_a_group_exists() -> None:
    assert ERRORS["not_member"].http == ERRORS["not_allowed"].http == ERRORS["group_closed"].http == 403


def test_an_exception_says_what_the_table_says() -> None:
    problem = WaypostError("key_reused")
    assert (problem.code, problem.detail, problem.retry) == ("key_reused", ERRORS["key_reused"].text, False)
    assert str(problem) == f"key_reused: {ERRORS['key_reused'].text}"
    assert problem.retry_after is None


def test_an_exception_may_say_it_better_than_the_table() -> None:
    problem = WaypostError("uncertain", "the link broke", retry=True, retry_after=2.5)
    assert (problem.detail, problem.retry, problem.retry_after) == ("the link broke", True, 2.5)
    assert encode(error_frame(problem, 3)) == (
        b'{"type":"error","code":"uncertain","message":"the link broke","retry":true,"ref":3,"retry_after":2.5}'
    )


def test_a_code_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(KeyError):
        WaypostError("no_such_code")


@pytest.mark.parametrize("kind", [Unavailable, Fenced, Reset])
def test_nothing_was_written_and_it_may_be_tried_again(kind: type[Unavailable]) -> None:
    problem = kind("why")
    assert isinstance(problem, Unavailable)
    assert (problem.code, problem.retry, problem.detail) == ("unavailable", True, "why")


def test_what_may_have_been_written_is_not_to_be_repeated_blindly() -> None:
    problem = Uncertain()
    assert (problem.code, problem.retry) == ("uncertain", False)
    assert not isinstance(problem, Unavailable)
