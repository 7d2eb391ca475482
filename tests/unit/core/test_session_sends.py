"""What one connection sends: in which order it takes effect, and where its answer stands among the pushes."""

from typing import Any

import pytest

from service.core import frames
from service.core.commands import ChangeMembership, Publish
from service.core.names import EntryId
from tests.unit.core.conversation import GROUP, INBOX, Client, at, bare, error, join, leave, opened, send, sent

# -- send --------------------------------------------------------------------------------------------------------------


def test_a_send_is_handed_out_with_the_bytes_of_its_body() -> None:
    client = opened()
    client.session.receive(frames.decode(b'{"type":"send","ref":1,"to":"user:bob","body":{ "a":1.0 },"key":"k"}'))
    assert client.asked() == [Publish(1, "user:bob", b'{ "a":1.0 }', "k")]


def test_a_body_over_several_lines_is_put_on_one() -> None:
    client = opened()
    client.session.receive(frames.decode(b'{"type":"send","to":"all","body":[\r\n1,\n2]}'))
    assert client.asked() == [Publish(1, "all", b"[  1, 2]", None)]


def test_sends_go_out_as_they_come() -> None:
    client = opened()
    client.says(send(1), send(2), send(3))
    assert client.numbers() == [1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": "everybody"}, "bad_stream"),
        ({"to": ""}, "bad_stream"),
        ({"to": "user:"}, "bad_name"),
        ({"to": "group:.."}, "bad_name"),
        ({"body": "x" * 99}, "body_too_large"),
    ],
)
def test_a_send_that_cannot_be_taken_is_refused_and_the_connection_goes_on(fields: dict[str, str], code: str) -> None:
    client = opened()
    assert bare(client.says({**send(1), **fields}, send(2))) == [error(code, 1)]
    assert len(client.numbers()) == 1


def test_a_body_of_just_the_limit_is_taken() -> None:
    client = opened()
    assert client.says({**send(1), "body": "x" * 98}) == []
    [command] = client.asked()
    assert isinstance(command, Publish)
    assert len(command.body) == 100


def test_to_all_needs_the_claim() -> None:
    client = Client(permits=lambda _action, stream: stream != "all")
    client.says({"type": "hello"})
    client.opens()
    client.asked()
    assert bare(client.says(send(1))) == [error("not_allowed", 1)]
    assert client.says(send(2, "user:bob")) == []
    assert len(client.numbers()) == 1


@pytest.mark.parametrize("group", ["", "a/b", "..", "x" * 129])
@pytest.mark.parametrize("kind", ["join", "leave"])
def test_a_bad_name_of_a_group_is_refused(kind: str, group: str) -> None:
    client = opened()
    assert bare(client.says({"type": kind, "ref": 1, "group": group})) == [error("bad_name", 1)]
    assert client.asked() == []


def test_the_message_id_is_the_key_or_what_the_node_made() -> None:
    client = opened()
    client.says(send(1, key="k"), send(2))
    assert client.session.mid_of(1, "made.1") == "k"
    assert client.session.mid_of(2, "made.2") == "made.2"
    client.falls_behind("all")
    assert client.stored(1, at(1)) == [sent(1, at(1), mid="k")]
    assert client.stored(2, at(2)) == [sent(2, at(2), mid="made.2")]


# -- sent: in its place among the pushes -------------------------------------------------------------------------------


def test_on_a_live_stream_the_call_says_nothing_and_the_reader_says_sent() -> None:
    client = opened()
    client.says(send(1))
    assert client.stored(1, at(1), durability="replicated") == []
    assert client.dispatches(1, at(1))
    assert client.hears() == [sent(1, at(1), durability="replicated")], "what the call said of durability"


def test_when_the_reader_is_faster_it_says_sent_and_the_call_says_nothing() -> None:
    client = opened()
    client.says(send(1))
    assert client.dispatches(1, at(1))
    assert client.hears() == [sent(1, at(1))]
    assert client.stored(1, at(1)) == []
    assert not client.dispatches(1, at(1)), "answered before: it is pushed like any entry"


def test_on_a_stream_that_is_behind_the_call_says_sent() -> None:
    client = opened()
    client.falls_behind("all")
    client.says(send(1))
    assert client.stored(1, at(1)) == [sent(1, at(1))]
    assert not client.dispatches(1, at(1)), "the pages show it again as a message"


def test_a_stream_that_falls_behind_answers_what_waited_for_the_reader() -> None:
    client = opened()
    client.says(send(1), send(2), send(3, "user:bob"))
    client.stored(1, at(1))
    client.stored(3, at(1), INBOX)
    assert client.falls_behind("all") == [sent(1, at(1))], "2 has no answer yet, 3 waits for the inbox"
    assert client.stored(2, at(2)) == [sent(2, at(2))]


def test_an_entry_that_a_page_brought_before_the_call_was_answered_is_not_waited_for() -> None:
    """Behind, the reader passed over it and a page brought it; live again, the reader is past it for ever."""
    client = opened()
    client.falls_behind("all")
    client.says(send(1))
    client.catches_up("all", at(1))
    assert client.stored(1, at(1)) == [sent(1, at(1))]
    assert client.session._asked.pending == {}


def test_a_leave_that_a_page_brought_before_the_call_was_answered_is_not_waited_for() -> None:
    client = opened()
    client.falls_behind(GROUP)
    client.says(leave(1))
    client.catches_up(GROUP, at(1))
    client.session.left(1, at(1), is_coming=True)
    assert [frame["ref"] for frame in client.hears()] == [1]


def test_an_entry_that_does_not_come_through_the_mailbox_is_not_waited_for() -> None:
    client = opened()
    client.says(send(1))
    assert client.stored(1, at(1), is_coming=False) == [sent(1, at(1))]


def test_a_repeat_is_answered_at_once_as_a_duplicate() -> None:
    client = opened()
    client.says(send(1, key="k"))
    client.session.mid_of(1, "made")
    client.passed["all"] = at(9)
    assert client.stored(1, at(4), is_coming=False, is_duplicate=True) == [sent(1, at(4), mid="k", duplicate=True)]


def test_a_direct_message_is_answered_where_the_sender_finds_it() -> None:
    client = opened()
    client.says(send(1, "user:bob"))
    client.stored(1, at(1), INBOX)
    assert not client.dispatches(1, at(7), "user:bob"), "the copy in another stream is not the answer"
    client.hears_nothing()
    assert client.dispatches(1, at(1), INBOX)
    assert client.hears() == [sent(1, at(1), INBOX)]


def test_an_own_entry_of_a_send_that_was_answered_with_an_error_is_pushed_as_a_message() -> None:
    client = opened()
    client.says(send(1))
    client.fails(1, "uncertain")
    assert not client.dispatches(1, at(1))
    client.hears_nothing()


def test_a_number_that_nobody_sent_is_no_answer() -> None:
    assert not opened().dispatches(77, at(1))


def test_the_own_joining_is_an_entry_like_any_other() -> None:
    client = opened()
    client.says(join(1))
    assert not client.dispatches(1, at(1), GROUP)
    client.session.joined(1, "g", at(1))
    assert len(client.hears()) == 1


def test_answers_keep_the_order_of_the_stream_not_of_the_calls() -> None:
    client = opened()
    client.says(send(1), send(2))
    client.stored(1, at(1))
    client.stored(2, at(2))
    client.dispatches(1, at(1))
    client.dispatches(2, at(2))
    assert [frame["ref"] for frame in client.hears()] == [1, 2]


# -- sent, held until the call says how durable it is ------------------------------------------------------------------


def test_a_held_answer_waits_for_the_call_and_takes_its_durability() -> None:
    client = opened()
    client.says(send(1))
    client.passed["all"] = at(1)  # the reader is there
    assert client.session.hold(1)
    assert client.session.is_held(1)
    assert client.stored(1, at(1), durability="replicated") == []
    assert not client.session.is_held(1)
    assert client.dispatches(1, at(1))
    assert client.hears() == [sent(1, at(1), durability="replicated")]


def test_what_is_answered_or_unknown_or_no_send_is_not_held() -> None:
    client = opened()
    client.says(send(1), join(2))
    client.stored(1, at(1))
    assert not client.session.hold(1)
    assert not client.session.hold(2)
    assert not client.session.hold(3)
    assert not client.session.is_held(3)


def test_a_held_send_that_fails_is_held_no_more() -> None:
    client = opened()
    client.says(send(1))
    client.session.hold(1)
    client.fails(1, "uncertain")
    assert not client.session.is_held(1)
    assert not client.dispatches(1, at(1)), "it is pushed as a message"


def test_a_held_answer_is_given_when_the_stream_falls_behind() -> None:
    client = opened()
    client.says(send(1))
    client.session.hold(1)
    client.stored(1, at(1))
    assert client.falls_behind("all") == [sent(1, at(1))]
    assert client.session._asked.pending == {}


# -- join and leave, in order ------------------------------------------------------------------------------------------


def test_a_join_is_handed_out_and_answered() -> None:
    client = opened()
    client.says(join(5, "new"))
    assert client.asked() == [ChangeMembership(1, "new", is_join=True)]
    client.session.joined(1, "new", at(3))
    assert client.hears() == [
        {"type": "joined", "stream": "group:new", "id": "1003-3", "user": "ann", "group": "new", "ref": 5}
    ]


def test_a_join_waits_for_the_sends_before_it_and_holds_back_what_follows() -> None:
    client = opened()
    client.says(send(1), send(2), join(3, "new"), send(4), send(5))
    assert client.numbers() == [1, 2]
    client.stored(2, at(2))
    assert client.numbers() == []
    client.stored(1, at(1))
    assert client.numbers() == [3]
    client.session.joined(3, "g", at(3))
    assert [frame["ref"] for frame in client.hears()] == [3]
    assert client.numbers() == [4, 5]


def test_changes_of_membership_go_one_after_the_other() -> None:
    client = opened()
    client.says(join(1), leave(2), join(3))
    assert client.asked() == [ChangeMembership(1, "g", is_join=True)]
    client.session.joined(1, "g", at(1))
    client.hears()
    assert client.asked() == [ChangeMembership(2, "g", is_join=False)]
    client.session.left(2, at(2), is_coming=False)
    client.hears()
    assert client.asked() == [ChangeMembership(3, "g", is_join=True)]


def test_a_refused_join_lets_go_what_it_held_back() -> None:
    client = opened()
    client.says(join(1), send(2))
    client.asked()
    assert bare(client.fails(1, "group_closed")) == [error("group_closed", 1)]
    assert client.numbers() == [2]


def test_a_send_that_only_waits_for_the_reader_holds_nothing_back() -> None:
    client = opened()
    client.says(send(1), leave(2))
    client.asked()
    client.stored(1, at(1))
    assert client.numbers() == [2]


def test_the_reader_that_is_faster_than_the_call_lets_go_what_waited() -> None:
    client = opened()
    client.says(send(1), join(2))
    client.asked()
    client.dispatches(1, at(1))
    client.hears()
    assert client.numbers() == [2]
    client.stored(1, at(1))
    assert client.asked() == [], "and not twice"


def left_frame(ref: int, entry: EntryId) -> dict[str, Any]:
    return {"type": "left", "stream": GROUP, "id": str(entry), "user": "ann", "group": "g", "ref": ref}


def test_on_a_live_group_leaving_is_answered_in_its_place() -> None:
    client = opened()
    client.says(leave(1), send(2))
    client.session.left(1, at(3), is_coming=True)
    client.hears_nothing()
    assert client.numbers() == [1, 2], "what follows need not wait for the reader"
    assert client.dispatches(1, at(3), GROUP)
    assert client.hears() == [left_frame(1, at(3))]


def test_when_the_reader_is_faster_it_answers_the_leave() -> None:
    client = opened()
    client.says(leave(1), send(2))
    client.asked()
    assert client.dispatches(1, at(3), GROUP)
    assert client.hears() == [left_frame(1, at(3))]
    assert client.numbers() == [2]
    client.session.left(1, at(3), is_coming=True)
    client.hears_nothing()


def test_leaving_a_group_that_is_behind_or_does_not_announce_is_answered_by_the_call() -> None:
    client = opened()
    client.says(leave(1))
    client.session.left(1, at(3), is_coming=False)
    assert client.hears() == [left_frame(1, at(3))]
    client.falls_behind(GROUP)
    client.says(leave(2))
    client.session.left(2, at(4), is_coming=True)
    assert client.hears() == [left_frame(2, at(4))]


def test_a_leave_that_waits_is_answered_when_the_group_is_no_longer_followed() -> None:
    client = opened()
    client.says(leave(1))
    client.session.left(1, at(3), is_coming=True)
    client.live.discard(GROUP)
    client.session.unfollow(GROUP)
    assert client.hears() == [left_frame(1, at(3))]
