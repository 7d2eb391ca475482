"""What comes, entry by entry: counted, handed out once, and acknowledged."""

from service.client.wire import Unknown
from service.core import frames
from service.core.frames import Gap, Joined, Left, Message
from tests.unit.client.model import ME, message, packed
from tests.unit.client.talk import START, Talk, opened

# -- counting ----------------------------------------------------------------------------------------------------------


def test_several_lines_and_streams_in_order() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"), message("user:ann", "2-1"), message("all", "2-2"), frames.Live())
    assert talk.entries() == ["2-1", "2-1", "2-2"]
    assert talk.state.is_live


def test_a_hole_ends_the_connection_and_is_filled_by_the_next() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"), message("all", "2-3"), message("all", "2-4"))
    assert "missing before 2-3" in talk.state.ending
    assert talk.entries() == ["2-1"]
    talk.cut(1000)
    assert talk.state.gave_up is None
    talk.open({**START, "all": "2-1"})
    talk.hear(message("all", "2-2"), message("all", "2-3"))
    assert talk.entries() == ["2-2", "2-3"]


def test_a_hole_that_stays_becomes_a_gap() -> None:
    talk = opened()
    talk.hear(message("all", "2-4"))
    talk.cut(1000)
    talk.open()
    talk.hear(message("all", "2-4"), message("all", "2-5"))
    assert not talk.state.ending
    gap, entry, following = [event for event in talk.events() if isinstance(event, Gap | Message)]
    assert isinstance(gap, Gap)
    assert (gap.after, gap.missed, gap.cause.kind, gap.next) == ("1-0", 3, "lost", "2-4")
    assert [getattr(event, "id", "") for event in (entry, following)] == ["2-4", "2-5"]


def test_a_number_alone_decides_nothing() -> None:
    talk = opened()
    talk.hear(message("all", "5-1"), message("all", "4-2"))
    assert "missing before 4-2" in talk.state.ending


def test_entries_of_unknown_types_count() -> None:
    talk = opened()
    talk.state.receive(b'{"type":"poll","stream":"all","id":"2-1"}\n' + packed(message("all", "2-2")), talk.now)
    poll, following = talk.events()
    assert isinstance(poll, Unknown)
    assert isinstance(following, Message)
    assert talk.acks() == {"all": "2-2"}


def test_an_announced_gap_counts() -> None:
    talk = opened()
    gap = Gap("all", "1-0", "5-4", 4, frames.Cause("trimmed"), next="6-5")
    talk.hear(gap, gap, message("all", "6-5"))
    assert talk.entries() == ["1-0..5-4", "6-5"]
    assert talk.acks() == {"all": "6-5"}


def test_a_gap_alone_is_acknowledged() -> None:
    talk = opened()
    talk.hear(Gap("all", "1-0", "5-4", 4, frames.Cause("trimmed")))
    talk.events()
    assert talk.acks() == {"all": "5-4"}


def test_a_gap_after_a_hole_is_no_gap() -> None:
    talk = opened()
    talk.hear(Gap("all", "3-2", "5-4", 2, frames.Cause("trimmed")))
    assert talk.state.ending


def test_what_was_handed_out_before_it_was_trimmed_is_not_missing() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"), message("all", "2-2"))
    talk.cut()
    talk.open()  # nothing was taken, and all of it is gone meanwhile
    talk.hear(Gap("all", "1-0", "3-3", 3, frames.Cause("trimmed")), message("all", "4-4"))
    assert talk.entries() == ["2-1", "2-2", "2-2..3-3", "4-4"]


# -- another history ---------------------------------------------------------------------------------------------------


def test_another_epoch_begins_with_a_gap() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"), message("all", "2-2"), message("all", "2-3"))
    talk.events()
    talk.cut()
    (hello,) = talk.open({**START, "all": "2-1"}, epoch="e2")
    assert hello["epoch"] == "e1"
    talk.hear(Gap("all", "2-3", "2-1", None, frames.Cause("epoch")))
    # The first of these is the one that was handed out in the old history, too; the other took the number of another.
    talk.hear(message("all", "2-2"), message("all", "9-3"), message("all", "9-4"))
    assert talk.entries() == ["2-3..2-1", "9-3", "9-4"]
    assert talk.acks() == {"all": "9-4"}
    assert talk.state.offsets == ("e1", {"user:ann": "1-0"}), "the inbox has not left the old history"


def test_until_the_gap_is_taken_the_old_offset_is_brought_and_the_gap_told_once() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"))
    talk.events()
    talk.cut()
    gap = Gap("all", "2-1", "1-0", None, frames.Cause("epoch"))
    talk.open({**START, "all": "1-0"}, epoch="e2")
    talk.hear(gap)
    talk.cut()
    (hello,) = talk.open({**START, "all": "1-0"}, epoch="e2")
    assert (hello["offsets"], hello["epoch"]) == ({"user:ann": "1-0", "all": "2-1"}, "e1")
    talk.hear(gap, message("all", "9-1"))
    assert talk.entries() == ["2-1..1-0", "9-1"]
    assert talk.acks() == {"all": "9-1"}


def test_what_is_let_pass_after_an_epoch_is_acknowledged() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"), message("all", "2-2"))
    talk.events()
    talk.cut()
    talk.open({**START, "all": "1-0"}, epoch="e2")
    talk.hear(Gap("all", "2-2", "1-0", None, frames.Cause("epoch")), message("all", "2-1"), message("all", "2-2"))
    assert talk.entries() == ["2-2..1-0"]
    assert talk.acks() == {"all": "2-2"}


# -- groups ------------------------------------------------------------------------------------------------------------


def test_after_joining_numbers_count_from_the_answer() -> None:
    talk = opened()
    operation = talk.state.submit(frames.Join("g", talk.state.number()))
    talk.says()
    talk.hear(Joined("group:g", "7-7", ME, "g", operation.number), message("group:g", "8-8"))
    assert operation.answer == Joined("group:g", "7-7", ME, "g", operation.number)
    assert talk.entries() == ["7-7", "8-8"]
    assert talk.acks() == {"group:g": "8-8"}


def test_joining_twice_moves_nothing_back() -> None:
    talk = opened()
    first = talk.state.submit(frames.Join("g", talk.state.number()))
    talk.says()
    talk.hear(Joined("group:g", "7-7", ME, "g", first.number), message("group:g", "8-8"))
    second = talk.state.submit(frames.Join("g", talk.state.number()))
    talk.says()
    talk.hear(Joined("group:g", "7-7", ME, "g", second.number), message("group:g", "9-9"))
    assert second.answer is not None
    assert talk.entries() == ["7-7", "8-8", "9-9"]


def test_a_group_that_another_device_joined_counts_from_what_comes_first() -> None:
    talk = opened()
    talk.hear(message("group:g", "8-8"), message("group:g", "8-9"))
    assert talk.entries() == ["8-8", "8-9"]
    talk.hear(message("group:g", "8-11"))
    assert talk.state.ending


def test_who_left_and_came_back_counts_from_the_own_joined() -> None:
    talk = Talk()
    talk.open({"group:g": "1-0"})
    talk.hear(Left("group:g", "2-1", ME, "g"), Joined("group:g", "5-9", ME, "g"), message("group:g", "6-10"))
    assert talk.entries() == ["2-1", "5-9", "6-10"]
    talk.hear(Joined("group:g", "7-12", "bob", "g"))
    assert talk.state.ending, "somebody else's is an entry like any other"


def test_what_has_been_left_is_not_acknowledged() -> None:
    talk = Talk()
    talk.open({"group:g": "1-0", "all": "1-0"})
    talk.hear(message("all", "2-1"), message("group:g", "2-1"), Left("group:g", "3-2", ME, "g"))
    assert talk.entries() == ["2-1", "2-1", "3-2"]
    assert talk.acks() == {"all": "2-1"}


def test_an_answer_to_leave_may_overtake_the_pages() -> None:
    talk = Talk()
    talk.open({"group:g": "1-0"})
    operation = talk.state.submit(frames.Leave("g", talk.state.number()))
    talk.says()
    talk.hear(Left("group:g", "5-3", ME, "g", operation.number))
    assert operation.is_settled
    talk.hear(message("group:g", "2-1"), message("group:g", "2-2"), Left("group:g", "5-3", ME, "g"))
    assert talk.entries() == ["2-1", "2-2", "5-3"]


def test_streams_that_a_welcome_does_not_name_are_forgotten() -> None:
    talk = Talk()
    talk.open({"group:g": "1-0", "all": "1-0"})
    talk.cut()
    talk.open({"all": "1-0"})
    talk.cut()
    (hello,) = talk.open({"all": "1-0"})
    assert hello["offsets"] == {"all": "1-0"}


def test_what_waits_survives_the_connection() -> None:
    talk = opened()
    talk.hear(message("all", "2-1"), message("all", "2-2"))
    talk.cut()
    talk.open()
    talk.hear(message("all", "2-1"), message("all", "2-2"), message("all", "2-3"))
    assert talk.entries() == ["2-1", "2-2", "2-3"]
