"""What one connection sends, when it fails, and what bounds it."""

from typing import Any

import pytest

from service.core.commands import ChangeMembership
from service.core.session import CALL_FAILURES
from service.errors import Unavailable, Uncertain
from tests.unit.core.conversation import Client, ack, at, bare, begun, error, join, leave, opened, send

# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "retry"),
    [(send(1), False), (send(1, key="k"), True), (join(1), True), (leave(1), True)],
    ids=["send", "send with key", "join", "leave"],
)
def test_what_is_uncertain_may_be_repeated_only_where_that_is_harmless(frame: dict[str, Any], retry: bool) -> None:
    client = opened()
    client.says(frame)
    client.session.failed(1, Uncertain())
    assert bare(client.hears()) == [error("uncertain", 1, retry=retry)]


@pytest.mark.parametrize("code", sorted(CALL_FAILURES))
def test_when_a_call_fails_what_waited_behind_it_fails_too(code: str) -> None:
    client = opened()
    client.says(join(1), send(2), leave(3), send(4))
    assert bare(client.fails(1, code)) == [
        error(code, 1, retry=True if code == "uncertain" else None),
        *(error("unavailable", ref) for ref in (2, 3, 4)),
    ]
    assert client.asked() == [ChangeMembership(1, "g", is_join=True)]
    assert client.session._asked.pending == {}
    client.says(send(5))
    assert client.numbers() == [5], "what is sent from now on is tried again"


def test_when_a_send_fails_a_join_that_waited_for_it_fails_too() -> None:
    client = opened()
    client.says(send(1), join(2), send(3))
    assert bare(client.fails(1, "unavailable")) == [error("unavailable", ref) for ref in (1, 2, 3)]
    assert client.numbers() == [1]


@pytest.mark.parametrize("code", ["not_member", "key_reused", "group_closed", "too_many_streams", "bad_request"])
def test_a_refusal_of_one_request_stops_nothing(code: str) -> None:
    assert code not in CALL_FAILURES
    client = opened()
    client.says(send(1, key="k"), join(2), send(3))
    assert bare(client.fails(1, code)) == [error(code, 1)]
    assert client.numbers() == [1, 2]


def test_a_failure_is_told_once() -> None:
    client = opened()
    client.says(send(1))
    client.fails(1, "unavailable")
    assert client.fails(1, "unavailable") == []
    assert client.stored(1, at(1)) == []


def test_what_has_been_answered_cannot_fail() -> None:
    client = opened()
    client.says(send(1))
    client.stored(1, at(1))
    assert client.fails(1, "uncertain") == []
    assert client.dispatches(1, at(1))


def test_whether_a_group_exists_is_not_told_except_on_the_old_paths() -> None:
    client = opened()
    client.says(send(1, "group:x"))
    assert bare(client.fails(1, "no_group")) == [error("not_member", 1)]
    old = Client(tells_absence=True)
    old.says({"type": "hello"})
    old.opens()
    old.says(send(1, "group:x"))
    assert bare(old.fails(1, "no_group")) == [error("no_group", 1)]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_client_with_too_many_unanswered_sends_is_not_read() -> None:
    client = opened(unanswered_sends=3)
    client.says(send(1), send(2))
    assert client.is_read()
    client.says(send(3))
    assert not client.is_read()
    client.fails(2, "not_member")
    assert client.is_read()


def test_a_client_with_too_many_unanswered_bytes_is_not_read() -> None:
    client = opened(unanswered_bytes=150)
    client.says({**send(1), "body": "x" * 90})
    assert client.is_read()
    client.says({**send(2), "body": "x" * 90})
    assert not client.is_read()
    client.stored(1, at(1), is_coming=False)
    assert client.is_read()


def test_acks_that_wait_for_their_answer_count_as_unanswered() -> None:
    client = opened(unanswered_sends=3)
    client.says(ack(1), ack(2), ack(), ack())
    assert client.is_read(), "without a ref nothing is to be answered"
    client.says(send(3))
    assert not client.is_read()
    client.session.committed(1)
    assert client.is_read()
    client.says(ack(4))
    assert not client.is_read()
    client.session.not_committed(2, Unavailable())
    assert client.is_read()
    client.says({"type": "ack", "offsets": {"all": "9999-9"}, "ref": 5})
    assert client.is_read(), "what was refused has its answer"


def test_what_waits_for_the_reader_or_behind_a_join_counts_as_unanswered() -> None:
    client = opened(unanswered_sends=3)
    client.says(send(1), join(2), send(3))
    client.stored(1, at(1))
    assert not client.is_read()
    client.dispatches(1, at(1))
    assert client.is_read()


def test_what_waits_for_welcome_counts_by_number_and_by_bytes() -> None:
    many = Client(limits={"unanswered_sends": 2})
    many.says({"type": "hello"}, send(1))
    assert many.is_read()
    many.says({"type": "ack", "offsets": {}})
    assert not many.is_read()

    large = Client(limits={"unanswered_bytes": 150})
    large.says({"type": "hello"}, {**send(1), "body": "x" * 90})
    assert large.is_read()
    large.says({**send(2), "body": "x" * 90})
    assert not large.is_read()
    large.opens(all=begun())
    assert not large.is_read(), "still unanswered"
    large.stored(1, at(1))
    large.stored(2, at(2))
    assert large.is_read()
    assert large.session._asked.bytes == 0


@pytest.mark.parametrize(
    "frame",
    [join(1, "x" * 60), leave(1, "x" * 60), {"type": "ack", "offsets": {"group:" + "x" * 60: "1-1"}}],
    ids=lambda frame: str(frame["type"]),
)
def test_every_frame_that_waits_for_welcome_counts_its_bytes(frame: dict[str, Any]) -> None:
    client = Client(limits={"unanswered_bytes": 60})
    client.says({"type": "hello"}, frame)
    assert not client.is_read()


def test_nothing_is_left_of_what_has_been_answered() -> None:
    client = opened()
    client.says(send(1), send(2), join(3, "new"), send(4), leave(5), send(6))
    client.stored(1, at(1))
    client.dispatches(1, at(1))
    client.dispatches(2, at(2))
    client.stored(2, at(2))
    client.session.joined(3, "g", at(3))
    client.fails(4, "not_member")
    client.session.left(5, at(4), is_coming=False)
    client.fails(6, "unavailable")
    client.hears()
    session = client.session
    assert (
        session._asked.pending,
        list(session._asked.waiting),
        session._asked.bytes,
        session._asked.unstored,
        session._asked.changing,
    ) == (
        {},
        [],
        0,
        0,
        0,
    )
