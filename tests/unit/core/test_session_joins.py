"""The answer to a join, from which numbers count anew: what is to come of an earlier membership comes before it."""

from typing import Any

from service.core.names import EntryId
from tests.unit.core.conversation import GROUP, Client, at, bare, error, join, leave, opened, send, sent


def reading(upto: int, **limits: int) -> Client:
    """A client that reads pages of the group, whose membership has ended, and that has them up to number `upto`."""
    client = opened(**limits)
    client.falls_behind(GROUP)
    client.passed[GROUP] = at(upto)
    return client


def joins(client: Client, ref: int, number: int, entry: EntryId) -> list[dict[str, Any]]:
    client.says(join(ref))
    client.session.joined(number, "g", entry)
    return client.hears()


def leaves(client: Client, ref: int, number: int, entry: EntryId, *, is_coming: bool = True) -> list[dict[str, Any]]:
    client.says(leave(ref))
    client.session.left(number, entry, is_coming=is_coming)
    return client.hears()


def passes(client: Client, entry: EntryId) -> list[dict[str, Any]]:
    """A page brings everything up to here."""
    client.passed[GROUP] = entry
    client.session.passed_on(GROUP)
    return client.hears()


def joined(ref: int, entry: EntryId) -> dict[str, Any]:
    return {"type": "joined", "stream": GROUP, "id": str(entry), "user": "ann", "group": "g", "ref": ref}


def left(ref: int, entry: EntryId) -> dict[str, Any]:
    return {**joined(ref, entry), "type": "left"}


def test_who_has_everything_before_a_joining_is_answered_at_once() -> None:
    assert joins(reading(5), 1, 1, at(5)) == [joined(1, at(5))], "in a group too large to announce: the head"
    assert joins(reading(7), 1, 1, at(5)) == [joined(1, at(5))], "joined again, without having left"


def test_the_answer_to_a_join_waits_until_pages_have_passed_what_lies_before() -> None:
    client = reading(1)
    assert joins(client, 1, 1, at(5)) == []
    assert client.session.due(GROUP) == at(5)
    assert passes(client, at(4)) == []
    assert passes(client, at(5)) == [joined(1, at(5))]
    assert client.session.due(GROUP) is None
    assert passes(client, at(6)) == [], "and once"
    assert (client.session._asked.pending, client.session._asked.bytes) == ({}, 0)


def test_a_page_beyond_the_joining_has_it_answered_too() -> None:
    """An offset of another history: a gap of cause `epoch` leads to wherever the server knows to go on."""
    client = reading(1)
    joins(client, 1, 1, at(5))
    assert passes(client, at(9)) == [joined(1, at(5))]


def test_to_fall_behind_does_not_bring_the_answer_forward() -> None:
    client = opened()
    client.passed[GROUP] = at(1)
    assert joins(client, 1, 1, at(5)) == [], "live, and the reader has yet to come to the own leaving"
    assert client.falls_behind(GROUP) == []
    assert passes(client, at(5)) == [joined(1, at(5))]


def test_to_fall_behind_after_the_place_of_the_answer_gives_it() -> None:
    client = opened()
    client.passed[GROUP] = at(1)
    joins(client, 1, 1, at(5))
    client.passed[GROUP] = at(6)
    assert client.falls_behind(GROUP) == [joined(1, at(5))]


def test_the_end_of_the_membership_before_has_it_answered_and_says_where_the_next_begins() -> None:
    client = opened()
    client.passed[GROUP] = at(1)
    assert leaves(client, 1, 1, at(3)) == []
    assert joins(client, 2, 2, at(5)) == []
    assert client.dispatches(1, at(3), GROUP)
    assert client.session.unfollow(GROUP) == at(5)
    assert client.hears() == [left(1, at(3)), joined(2, at(5))]


def test_an_end_without_a_joining_that_waits_begins_nothing() -> None:
    client = reading(1)
    assert client.session.unfollow(GROUP) is None


def test_a_group_that_is_followed_no_more_meanwhile_keeps_nobody_waiting() -> None:
    client = reading(1)
    joins(client, 1, 1, at(5))
    del client.passed[GROUP]
    client.session.passed_on(GROUP)
    assert client.hears() == [joined(1, at(5))]


def test_a_leave_is_not_answered_before_the_join_before_it() -> None:
    client = reading(1)
    joins(client, 1, 1, at(5))
    assert leaves(client, 2, 2, at(7), is_coming=False) == []
    assert client.falls_behind(GROUP) == []
    assert passes(client, at(5)) == [joined(1, at(5)), left(2, at(7))]
    assert client.session._asked.pending == {}


def test_joins_and_leaves_in_a_row_are_answered_each_in_its_place() -> None:
    client = reading(1)
    joins(client, 1, 1, at(5))
    leaves(client, 2, 2, at(7))
    joins(client, 3, 3, at(9))
    assert client.session.due(GROUP) == at(5)
    assert passes(client, at(5)) == [joined(1, at(5)), left(2, at(7))]
    assert client.session.due(GROUP) == at(9)
    assert passes(client, at(9)) == [joined(3, at(9))]


def test_the_end_of_one_membership_gives_the_answer_to_the_next_joining_alone() -> None:
    client = reading(1)
    joins(client, 1, 1, at(5))
    leaves(client, 2, 2, at(7))
    joins(client, 3, 3, at(9))
    assert client.session.unfollow(GROUP) == at(5)
    assert client.hears() == [joined(1, at(5)), left(2, at(7))]
    client.session.follow(GROUP, at(5))
    assert passes(client, at(9)) == [joined(3, at(9))]


def test_a_join_that_is_asked_twice_is_answered_twice() -> None:
    client = reading(1)
    joins(client, 1, 1, at(5))
    joins(client, 2, 2, at(5))
    assert passes(client, at(5)) == [joined(1, at(5)), joined(2, at(5))]


def test_what_was_sent_after_the_join_takes_effect_meanwhile_and_is_answered_as_ever() -> None:
    client = reading(1)
    client.says(join(1), send(2, GROUP), send(3))
    assert client.numbers() == [1]
    client.session.joined(1, "g", at(5))
    assert client.numbers() == [2, 3]
    assert client.stored(2, at(6), GROUP) == [sent(2, at(6), GROUP)], "overtaking what is to come in pages"
    client.stored(3, at(1))
    assert client.dispatches(3, at(1))
    assert client.hears() == [sent(3, at(1))]


def test_another_stream_has_nothing_to_do_with_it() -> None:
    client = reading(1)
    joins(client, 1, 1, at(5))
    client.passed["all"] = at(9)
    client.session.passed_on("all")
    assert client.falls_behind("all") == []
    assert client.session.due("all") is None


def test_a_join_that_waits_counts_as_unanswered() -> None:
    client = reading(1, unanswered_sends=1)
    joins(client, 1, 1, at(5))
    assert not client.is_read()
    passes(client, at(5))
    assert client.is_read()


def test_a_connection_that_ends_does_not_tell_of_a_joining_whose_place_has_not_come() -> None:
    """The client would bring it as its offset, and so acknowledge what it never got of the membership before."""
    client = reading(1)
    joins(client, 1, 1, at(5))
    client.session.end("draining")
    assert bare(client.hears()) == [error("draining")]
