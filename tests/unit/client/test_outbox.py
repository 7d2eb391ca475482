"""What is sent, when, and what becomes of it."""

import msgspec
import pytest

from service.client.events import Closed, GaveUp, Refused
from service.client.outbox import Bounds, Operation, Outbox
from service.core import frames
from service.core.frames import Error, Sent
from tests.unit.client.model import said

BOUNDS = Bounds(operations=3, frame_bytes=500)


class Sends:
    """An outbox, and what is said of it in few words."""

    def __init__(self) -> None:
        self.outbox = Outbox(jitter=lambda: 1.0)
        self.now = 0.0

    def send(self, number: int, body: bytes = b"1", key: str = "") -> Operation:
        operation = Operation(number, frames.Send("all", msgspec.Raw(body), key or f"k{number}", number))
        self.outbox.add(operation)
        return operation

    def batch(self, *, is_live: bool = True) -> list[int]:
        return [frame["ref"] for frame in said([self.outbox.batch(self.now, BOUNDS, is_live=is_live)])]

    def sent(self, number: int) -> None:
        self.outbox.answered(Sent("all", f"1-{number}", f"k{number}", False, "fsynced", number))

    def fails(self, number: int, retry_after: float | None = None) -> None:
        self.outbox.refused(Error("unavailable", "", True, number, retry_after), self.now)


@pytest.fixture
def sends() -> Sends:
    return Sends()


def nothing(sends: Sends) -> bool:
    return not sends.outbox.batch(sends.now, BOUNDS, is_live=True)


def test_a_batch_goes_when_the_one_before_is_answered(sends: Sends) -> None:
    for number in range(1, 6):
        sends.send(number)
    assert sends.batch() == [1, 2, 3]
    sends.sent(1)
    sends.sent(3)
    assert nothing(sends)
    sends.sent(2)
    assert sends.batch() == [4, 5]
    assert [operation.number for operation in sends.outbox.settled()] == [1, 3, 2]
    assert sends.outbox.settled() == []


def test_a_batch_is_bounded_by_bytes(sends: Sends) -> None:
    sends.send(1, b'"%s"' % (b"x" * 300))
    sends.send(2, b'"%s"' % (b"x" * 300))
    assert sends.batch() == [1]
    sends.sent(1)
    assert sends.batch() == [2]


def test_what_no_frame_can_hold_is_refused_here(sends: Sends) -> None:
    large, small = sends.send(1, b'"%s"' % (b"x" * 600)), sends.send(2)
    assert sends.batch() == [2]
    assert isinstance(large.problem, Refused)
    assert large.problem.code == "body_too_large"
    assert not small.is_settled


def test_what_failed_is_repeated_in_order_after_a_pause(sends: Sends) -> None:
    first, second = sends.send(1), sends.send(2)
    sends.batch()
    sends.fails(1)
    sends.fails(2)
    sends.send(3)
    assert nothing(sends)
    assert sends.outbox.due(sends.now) == pytest.approx(0.2)
    sends.now = 0.2
    assert sends.outbox.due(sends.now) is None
    assert sends.batch() == [1, 2, 3]
    sends.fails(1)
    assert sends.outbox.due(sends.now) is None, "the batch is not answered yet"
    sends.fails(2)
    sends.fails(3)
    assert sends.outbox.due(sends.now) == pytest.approx(0.2 + 0.4)
    assert (first.tries, second.tries) == (2, 2)


def test_the_server_may_ask_for_a_longer_pause(sends: Sends) -> None:
    sends.send(1)
    sends.batch()
    sends.fails(1, retry_after=3.0)
    assert sends.outbox.due(sends.now) == pytest.approx(3.0)


def test_an_answer_makes_pauses_short_again(sends: Sends) -> None:
    sends.send(1)
    for _ in range(5):
        sends.batch()
        sends.fails(1)
        sends.now += 20
    sends.batch()
    sends.sent(1)
    sends.send(2)
    sends.batch()
    sends.fails(2)
    assert sends.outbox.due(sends.now) == pytest.approx(sends.now + 0.2)


def test_a_final_refusal_names_its_code(sends: Sends) -> None:
    operation = sends.send(1)
    sends.batch()
    sends.outbox.refused(Error("key_reused", "another body", False, 1), 0.0)
    assert isinstance(operation.problem, Refused)
    assert (operation.problem.code, operation.problem.detail) == ("key_reused", "another body")
    assert not sends.outbox


def test_after_a_cut_the_unanswered_go_first(sends: Sends) -> None:
    for number in range(1, 6):
        sends.send(number)
    sends.batch()
    sends.sent(2)
    sends.outbox.lost()
    assert sends.batch() == [1, 3, 4]


def test_a_leave_that_had_its_effect_is_done() -> None:
    outbox = Outbox(jitter=lambda: 0.0)
    leaving = Operation(1, frames.Leave("g", 1))
    outbox.add(leaving)
    outbox.batch(0.0, BOUNDS, is_live=True)
    outbox.lost()
    outbox.batch(0.0, BOUNDS, is_live=True)
    outbox.refused(Error("not_member", "", False, 1), 0.0)
    assert leaving.is_settled
    assert leaving.problem is None


def test_leaving_what_one_is_not_in_is_refused() -> None:
    outbox = Outbox(jitter=lambda: 0.0)
    leaving = Operation(1, frames.Leave("g", 1))
    outbox.add(leaving)
    outbox.batch(0.0, BOUNDS, is_live=True)
    outbox.refused(Error("not_member", "", False, 1), 0.0)
    assert isinstance(leaving.problem, Refused)


def test_what_is_withdrawn_is_not_sent_again(sends: Sends) -> None:
    first, second = sends.send(1), sends.send(2)
    sends.batch()
    third = sends.send(3)
    sends.outbox.withdraw(first)
    sends.outbox.withdraw(third)
    sends.outbox.lost()
    assert sends.batch() == [2]
    sends.sent(2)
    assert sends.outbox.settled() == [second]
    assert not sends.outbox


def test_after_long_absence_the_replay_comes_first(sends: Sends) -> None:
    operation = sends.send(1)
    sends.batch()
    sends.outbox.lost()
    sends.now = 60.0
    assert not sends.outbox.batch(sends.now, BOUNDS, is_live=False)
    assert sends.batch(is_live=True) == [1]
    assert not operation.is_settled


def test_what_is_found_in_the_replay_is_not_sent_again(sends: Sends) -> None:
    operation = sends.send(1)
    sends.batch()
    sends.outbox.lost()
    sends.outbox.saw(frames.Message("all", "7-7", "k1", "ann", "all"))
    sends.now = 60.0
    assert nothing(sends)
    assert operation.answer == Sent("all", "7-7", "k1", True, "memory", 1)


def test_a_message_with_the_same_key_to_somebody_else_is_another(sends: Sends) -> None:
    operation = sends.send(1)
    sends.batch()
    sends.outbox.lost()
    sends.outbox.saw(frames.Message("user:ann", "7-7", "k1", "ann", "user:bob"))
    sends.now = 60.0
    assert sends.batch() == [1]
    assert operation.seen is None


@pytest.mark.parametrize("problem", [GaveUp("no"), Closed("gone")])
def test_the_end_tells_everybody(sends: Sends, problem: GaveUp | Closed) -> None:
    first, second = sends.send(1), sends.send(2)
    sends.outbox.batch(0.0, Bounds(operations=1), is_live=True)
    sends.outbox.end(problem)
    assert first.problem is second.problem is problem
    assert sends.outbox.settled() == [first, second]


def test_an_answer_to_nothing_is_let_pass(sends: Sends) -> None:
    sends.sent(5)
    sends.fails(6)
    sends.outbox.answered(Sent("all", "1-1", "k", False, "memory", "text"))
    assert not sends.outbox
