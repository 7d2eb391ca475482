"""The conversation, turn by turn: greeting, sending, acknowledging, and the end of connections."""

import msgspec
import pytest

from service.client.backoff import Backoff
from service.client.events import Connected, Disconnected, GaveUp
from service.client.inbox import EVENTS_MOST
from service.core import frames
from service.core.frames import Sent
from tests.unit.client.model import ME, message, said, welcome
from tests.unit.client.talk import START, Talk, opened


@pytest.fixture
def talk() -> Talk:
    return Talk()


# -- greeting ----------------------------------------------------------------------------------------------------------


def test_the_first_hello_brings_nothing(talk: Talk) -> None:
    (hello,) = talk.open()
    assert (hello["type"], hello["device"], hello["offsets"], hello["epoch"]) == ("hello", "phone", {}, None)
    assert talk.events() == [Connected(ME, "d", "node", "e1")]
    assert talk.state.trouble == ""


def test_the_next_one_brings_what_was_taken(talk: Talk) -> None:
    talk.open()
    talk.hear(message("all", "2-1"), message("all", "2-2"))
    talk.events()
    talk.hear(message("all", "2-3"))  # handed out, not taken
    talk.cut()
    (hello,) = talk.open()
    assert hello["offsets"] == {"user:ann": "1-0", "all": "2-2"}
    assert hello["epoch"] == "e1"


def test_offsets_of_an_earlier_run(talk: Talk) -> None:
    talk = Talk(offsets={"all": "2-2"}, epoch="e0")
    (hello,) = talk.open({"all": "2-2"}, epoch="e0")
    assert (hello["offsets"], hello["epoch"]) == ({"all": "2-2"}, "e0")
    talk.hear(message("all", "3-3"))
    assert talk.entries() == ["3-3"]
    assert talk.state.offsets == ("e0", {"all": "3-3"})


def test_many_offsets_go_in_several_frames() -> None:
    offsets = {f"group:{'x' * 100}{n}": f"1-{n}" for n in range(1000)}
    messages = Talk(offsets=offsets).state.begin()
    assert all(len(part) < 65_536 for part in messages)
    greeting = said(messages)
    assert [frame["type"] for frame in greeting] == ["hello", *["offsets"] * (len(greeting) - 1)]
    assert [frame["more"] for frame in greeting] == [True] * (len(greeting) - 1) + [False]
    assert {stream: offset for frame in greeting for stream, offset in frame["offsets"].items()} == offsets


def test_a_welcome_in_several_frames(talk: Talk) -> None:
    talk.state.begin()
    talk.hear(welcome({"all": "1-0"}, more=True))
    assert talk.state.life.name == "LISTING"
    talk.hear(frames.Streams({"group:g": frames.StreamState("5-5", "5-5", "0-0", 0)}, more=True), frames.Streams({}))
    assert talk.state.life.name == "OPEN"
    talk.hear(message("group:g", "6-6"))
    assert talk.entries() == ["6-6"]


@pytest.mark.parametrize("frame", [message("all", "1-1"), frames.Streams({}), frames.Live()])
def test_anything_else_is_no_welcome(talk: Talk, frame: frames.ServerFrame) -> None:
    talk.state.begin()
    talk.hear(frame)
    assert "did not begin with a welcome" in talk.state.ending


def test_a_second_welcome_ends_the_connection() -> None:
    talk = opened()
    talk.hear(welcome(START))
    assert "a welcome in mid-conversation" in talk.state.ending


@pytest.mark.parametrize("data", [b"{", b'{"type":"message","stream":"all","id":"x","mid":"","from":"b","to":"all"}'])
def test_what_is_not_the_wire_ends_the_connection(data: bytes) -> None:
    talk = opened()
    talk.state.receive(data, talk.now)
    assert talk.state.ending.startswith("the server sent what is not the wire")
    talk.cut()
    assert talk.state.gave_up is None


# -- sending -----------------------------------------------------------------------------------------------------------


def send(talk: Talk, to: str = "all") -> int:
    number = talk.state.number()
    talk.state.submit(frames.Send(to, msgspec.Raw(b"1"), f"k{number}", number))
    talk.says()
    return number


def test_sent_stands_for_the_own_entry() -> None:
    talk = opened()
    number = send(talk)
    sent = Sent("all", "2-2", "k1", False, "fsynced", number)
    talk.hear(message("all", "2-1"), sent, message("all", "2-3"))
    assert talk.entries() == ["2-1", "2-2", "2-3"]
    assert [operation.answer for operation in talk.state.outbox.settled()] == [sent]


def test_sent_may_overtake_the_pages() -> None:
    talk = opened()
    number = send(talk)
    talk.hear(Sent("all", "5-3", "k1", False, "fsynced", number), message("all", "2-1"), message("all", "2-2"))
    talk.hear(message("all", "5-3", "k1", ME), message("all", "6-4"))
    assert not talk.state.ending
    assert talk.entries() == ["2-1", "2-2", "5-3", "6-4"]


def test_sent_of_a_repeat_is_not_counted_twice() -> None:
    talk = opened()
    number = send(talk)
    talk.cut()
    talk.open()
    talk.says()
    talk.hear(message("all", "2-1", "k1", ME), Sent("all", "2-1", "k1", True, "fsynced", number))
    assert talk.entries() == ["2-1"]
    assert not talk.state.outbox


def test_nothing_is_sent_before_the_welcome(talk: Talk) -> None:
    talk.state.submit(frames.Join("g", talk.state.number()))
    talk.state.begin()
    assert talk.state.flush(talk.now) == []
    assert talk.state.due(talk.now) is None


# -- acknowledging -----------------------------------------------------------------------------------------------------


def test_acknowledgements_of_half_a_second_go_together() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"))
    talk.events()
    assert talk.says() == []
    assert talk.state.due(talk.now) == pytest.approx(talk.now + 0.5)
    talk.hear(message("all", "2-2"), message("user:ann", "2-1"), message("user:ann", "2-2"))
    for _ in range(2):
        talk.state.next_event()
        talk.state.took()
    talk.state.next_event()  # not taken yet
    heard = talk.says(0.5)
    assert [frame["offsets"] for frame in heard] == [{"user:ann": "2-1"}, {"all": "2-2"}]
    assert talk.acks() == {}


def test_who_does_not_acknowledge_brings_nothing_and_hears_nothing_twice() -> None:
    talk = opened(acknowledges=False)
    talk.hear(message("all", "2-1"), message("all", "2-2"))
    assert talk.entries() == ["2-1", "2-2"]
    assert talk.acks() == {}
    talk.cut()
    (hello,) = talk.open()
    assert hello["offsets"] == {}
    talk.hear(message("all", "2-1"), message("all", "2-2"), message("all", "2-3"))
    assert talk.entries() == ["2-3"]
    talk.state.leave()
    assert talk.state.has_left


def test_who_only_sends_takes_everything_at_once() -> None:
    talk = Talk(is_listening=False)
    talk.open()
    talk.hear(message("all", "2-1"), message("all", "2-2"))
    assert talk.events() == []
    assert talk.acks() == {"all": "2-2"}


def test_leaving_confirms_what_was_taken_and_no_more() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"), message("all", "2-2"))
    assert talk.state.next_event() is not None
    talk.state.took()
    assert talk.state.next_event() is not None
    talk.state.leave()
    (ack,) = talk.says()
    assert ack["offsets"] == {"all": "2-1"}
    answers = [talk.state.has_left]
    talk.hear(frames.Acked(ack["ref"]))
    assert [*answers, talk.state.has_left] == [False, True]
    assert talk.state.next_event() is None


@pytest.mark.parametrize("code", ["ack_beyond", "unavailable"])
def test_a_refused_confirmation_is_an_answer_too(code: str) -> None:
    talk = opened()
    talk.hear(message("all", "2-1"))
    talk.events()
    talk.acks()
    talk.state.leave()
    (ack,) = talk.says()
    assert ack["offsets"] == {"all": "2-1"}, "once more, and this time answered"
    talk.hear(frames.Error(code, "", False, ack["ref"]))
    assert talk.state.has_left


def test_without_a_connection_there_is_nothing_to_confirm() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"))
    talk.events()
    talk.cut()
    talk.state.leave()
    assert talk.state.has_left


def test_a_refused_acknowledgement_ends_nothing() -> None:
    talk = opened()
    talk.hear(frames.Error("ack_beyond", "", False))
    assert not talk.state.ending
    talk.cut()
    assert talk.state.trouble == "the connection was lost"


# -- a program that is behind ------------------------------------------------------------------------------------------


def test_reading_stops_while_the_program_is_behind() -> None:
    talk = opened()
    talk.hear(*[message("all", f"2-{n}") for n in range(1, EVENTS_MOST + 1)])
    assert not talk.state.may_read
    talk.state.next_event()
    assert talk.state.may_read


def test_who_waits_for_an_answer_reads_on() -> None:
    talk = opened()
    talk.hear(*[message("all", f"2-{n}") for n in range(1, EVENTS_MOST + 1)])
    number = send(talk, "user:bob")
    readings = [talk.state.may_read]
    talk.hear(Sent("user:ann", "2-1", "k", False, "fsynced", number))
    readings.append(talk.state.may_read)
    assert readings == [True, False]


# -- the end of connections --------------------------------------------------------------------------------------------


def test_pings(talk: Talk) -> None:
    assert talk.state.patience == 10.0
    talk.open()
    assert talk.state.patience == 50.0
    assert talk.says() == []
    assert talk.says(25.0) == [{"type": "ping", "ref": None}]
    assert talk.says(24.0) == []
    assert talk.says(1.0) == [{"type": "ping", "ref": None}]
    talk.hear(frames.Pong())
    assert talk.events() == [Connected(ME, "d", "node", "e1")]


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1011, 1012, 4000, 4001, 4002, 4003, 4099])
def test_codes_after_which_to_come_back(code: int | None) -> None:
    talk = opened()
    assert talk.cut(code) == pytest.approx(0.2)
    assert talk.state.gave_up is None
    (event,) = talk.events()
    assert isinstance(event, Disconnected)
    assert event.code == code
    assert talk.state.trouble == event.reason


@pytest.mark.parametrize("code", [1009, 4100, 4101, 4102, 4103, 4104, 4105, 4106, 4107, 4199])
def test_codes_after_which_not_to(code: int) -> None:
    talk = opened()
    operation = talk.state.submit(frames.Join("g", talk.state.number()))
    talk.cut(code)
    assert isinstance(talk.state.gave_up, GaveUp)
    assert talk.state.gave_up.close_code == code
    assert operation.problem is talk.state.gave_up
    assert talk.events() == []


def test_a_refused_hello_is_final_unless_it_says_otherwise(talk: Talk) -> None:
    talk.state.begin()
    talk.hear(frames.Error("bad_name", "not a name: '..'", False))
    assert talk.state.ending == "bad_name: not a name: '..'"
    talk.cut(1000)
    assert str(talk.state.gave_up) == "bad_name: not a name: '..'"


def test_a_store_that_is_away_is_waited_for(talk: Talk) -> None:
    talk.state.begin()
    talk.hear(frames.Error("unavailable", "out of reach", True, retry_after=5.0))
    assert not talk.state.ending
    assert talk.cut(4000) == pytest.approx(5.0)
    assert talk.events() == [Disconnected("unavailable: out of reach", 4000)]


def test_the_error_before_the_close_says_why() -> None:
    talk = opened()
    talk.hear(frames.Error("draining", "this node is shutting down", True))
    talk.cut(4002)
    assert talk.events() == [Disconnected("draining: this node is shutting down", 4002)]
    talk.open()
    talk.cut(1006)
    assert talk.state.trouble == "the connection was lost"


def test_absence_is_told_once_and_pauses_grow(talk: Talk) -> None:
    pauses = [talk.cut(None) for _ in range(9)]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])
    assert len(talk.events()) == 1
    talk.open()
    assert talk.cut() == pytest.approx(10), "a connection that is lost at once is no sign of better times"
    talk.open()
    talk.now += 5
    assert talk.cut() == pytest.approx(0.2)
    assert [type(event) for event in talk.events()] == [Connected, Disconnected] * 2


def test_jitter_takes_any_part_of_a_pause() -> None:
    assert Backoff(lambda: 0.0).pause() == 0.0
    assert Backoff(lambda: 0.5).pause() == pytest.approx(0.1)
    assert Backoff(lambda: 0.5).pause(at_least=3600) == 10.0, "nobody waits for an hour"
