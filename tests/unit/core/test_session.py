"""One connection's conversation: hello and welcome, live, acknowledging, and how it ends."""

from typing import Any

import pytest

from service.core import frames
from service.core.commands import Close, Commit, Open, Publish
from service.core.names import EntryId
from service.core.session import LIFE, Life
from service.errors import ERRORS, Unavailable, Uncertain, WaypostError
from tests.unit.core.conversation import GROUP, INBOX, Client, ack, at, bare, begun, error, join, new, opened, send

# -- hello -------------------------------------------------------------------------------------------------------------


def test_hello_asks_to_open_the_default_device() -> None:
    client = new()
    assert client.says({"type": "hello"}) == []
    assert client.asked() == [Open("default", {}, None)]
    assert client.session.life is Life.OPENING


def test_hello_may_bring_device_offsets_and_their_epoch() -> None:
    client = new()
    client.says({"type": "hello", "device": "phone", "offsets": {"all": "5-1"}, "epoch": "e0"})
    assert client.asked() == [Open("phone", {"all": EntryId(5, 1)}, "e0")]


def test_offsets_may_follow_hello_and_the_last_frame_of_them_opens() -> None:
    client = new()
    client.says({"type": "hello", "offsets": {"all": "1-1"}, "epoch": "e0", "more": True})
    client.says({"type": "offsets", "offsets": {INBOX: "2-2"}, "more": True})
    assert client.asked() == []
    assert client.session.life is Life.COLLECTING
    client.says({"type": "offsets", "offsets": {"all": "3-3"}})
    assert client.asked() == [Open("default", {"all": EntryId(3, 3), INBOX: EntryId(2, 2)}, "e0")]


def test_more_offsets_than_a_user_can_have_streams_are_refused() -> None:
    client = Client(limits={"streams_per_user": 3})  # so that 8 may come: some of groups left meanwhile
    many = {f"group:{n}": "1-1" for n in range(8)}
    assert client.says({"type": "hello", "offsets": many, "more": True}) == []
    assert bare(client.says({"type": "offsets", "offsets": {"all": "1-1"}})) == [error("bad_request")]
    client.says({"type": "offsets", "offsets": {}})
    [command] = client.asked()
    assert isinstance(command, Open)
    assert len(command.offsets) == 8


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"device": ""}, "bad_name"),
        ({"device": "a/b"}, "bad_name"),
        ({"offsets": {"all": "5"}}, "bad_id"),
        ({"offsets": {"everybody": "5-1"}}, "bad_stream"),
        ({"offsets": {"group:": "5-1"}}, "bad_name"),
    ],
)
def test_a_hello_that_cannot_be_taken_is_refused_and_may_be_said_again(fields: dict[str, Any], code: str) -> None:
    client = new()
    assert bare(client.says({"type": "hello", **fields})) == [error(code)]
    assert client.asked() == []
    client.says({"type": "hello", "device": "phone"})
    assert client.asked() == [Open("phone", {}, None)]


@pytest.mark.parametrize("ref", [1, None])
@pytest.mark.parametrize(
    "frame",
    [
        {"type": "send", "to": "all", "body": 1},
        {"type": "join", "group": "g"},
        {"type": "leave", "group": "g"},
        {"type": "ack", "offsets": {}},
    ],
    ids=lambda frame: str(frame["type"]),
)
def test_before_hello_nothing_else_is_taken(frame: dict[str, Any], ref: int | None) -> None:
    client = new()
    assert bare(client.says({**frame, "ref": ref})) == [error("hello_expected", ref)]
    client.says({"type": "hello", "more": True})
    assert bare(client.says({**frame, "ref": ref})) == [error("hello_expected", ref)], "nor before its last offsets"
    assert client.asked() == []


def test_offsets_before_hello_are_told_that_hello_comes_first() -> None:
    assert bare(new().says({"type": "offsets", "offsets": {}})) == [error("hello_expected")]


@pytest.mark.parametrize("frame", [{"type": "hello"}, {"type": "offsets", "offsets": {}}], ids=["hello", "offsets"])
def test_hello_is_said_once(frame: dict[str, Any]) -> None:
    client = new()
    client.says({"type": "hello"})
    assert bare(client.says(frame)) == [error("hello_twice")], "while the store is asked"
    client.opens()
    assert bare(client.says(frame)) == [error("hello_twice")], "and afterwards"
    assert len(client.asked()) == 1


def test_hello_is_not_said_twice_while_its_offsets_are_coming() -> None:
    client = new()
    assert bare(client.says({"type": "hello", "more": True}, {"type": "hello"})) == [error("hello_twice")]
    assert client.asked() == []


def test_ping_is_answered_at_any_time_of_life() -> None:
    client = new()
    ping, pong = {"type": "ping", "ref": 1}, {"type": "pong", "ref": 1}
    assert client.says(ping) == [pong]
    client.says({"type": "hello", "more": True})
    assert client.says(ping) == [pong]
    client.says({"type": "offsets", "offsets": {}})
    assert client.says(ping) == [pong]
    client.opens()
    assert client.says(ping) == [pong]
    assert client.session.life is Life.OPEN


def test_no_pair_of_the_table_leads_out_of_a_closed_connection() -> None:
    assert all(Life.CLOSED not in (before, after) for (before, _), after in LIFE.items())


# -- welcome -----------------------------------------------------------------------------------------------------------


def test_welcome_tells_where_each_stream_starts_and_what_is_to_come() -> None:
    client = new()
    client.says({"type": "hello", "device": "phone"})
    written = client.opens(user_ann=begun(at(5), start=at(3), head=at(9)))
    assert written == [
        {
            "type": "welcome",
            "user": "ann",
            "device": "phone",
            "node": "n1",
            "epoch": "e1",
            "ping": 25.0,
            "limits": {
                "body_bytes": 100,
                "body_depth": 8,
                "frame_bytes": 200,
                "streams_per_user": 3,
                "unanswered_sends": 8,
                "unanswered_bytes": 1000,
                "welcome_streams": 2,
                "connection_sends_per_s": 0,
                "connection_sends_burst": 0,
            },
            "streams": {INBOX: {"offset": "1003-3", "head": "1009-9", "floor": "0-0", "missed": 6}},
        }
    ]


def test_what_is_missed_is_never_less_than_nothing() -> None:
    client = new()
    client.says({"type": "hello"})
    [welcome] = client.opens(all=begun(at(5), start=at(9), head=at(5)))
    assert welcome["streams"]["all"]["missed"] == 0


@pytest.mark.parametrize(
    ("count", "parts"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (5, [2, 2, 1])],
)
def test_a_long_welcome_is_split_and_only_the_last_part_says_that_no_more_follows(count: int, parts: list[int]) -> None:
    client = Client(limits={"welcome_streams": 2})
    client.says({"type": "hello"})
    written = client.opens(**{f"group_{n}": begun() for n in range(count)})
    assert [frame["type"] for frame in written] == ["welcome", *["streams"] * (len(parts) - 1)]
    assert [len(frame["streams"]) for frame in written] == parts
    assert [frame.get("more", False) for frame in written] == [True] * (len(parts) - 1) + [False]
    assert {stream for frame in written for stream in frame["streams"]} == {f"group:{n}" for n in range(count)}


def test_what_comes_before_welcome_waits_for_it_and_keeps_its_order() -> None:
    client = new()
    client.says({"type": "hello"}, send(1), join(2), send(3), {"type": "ack", "ref": 4, "offsets": {"all": "9-9"}})
    assert client.asked() == [Open("default", {}, None)]
    written = client.opens(all=begun(at(5)))
    assert [frame["type"] for frame in written] == ["welcome", "error"]
    assert bare(written[1:]) == [error("ack_beyond", 4)]
    [first] = client.asked()
    assert isinstance(first, Publish)
    assert (first.to, first.body, first.key) == ("all", b"1", None)


def test_what_is_refused_before_welcome_is_refused_at_once() -> None:
    client = new()
    assert bare(client.says({"type": "hello"}, {"type": "dance", "ref": 1})) == [error("unknown_type", 1)]
    assert client.session.life is Life.OPENING


def test_a_session_that_cannot_be_opened_ends_and_the_client_comes_back() -> None:
    client = new()
    client.says({"type": "hello"}, send(1))
    client.asked()
    client.session.not_opened(Unavailable("the store is away"))
    assert bare(client.hears()) == [error("unavailable")]
    assert client.asked() == [Close(4000, "unavailable")]
    assert client.says({"type": "ping"}) == [], "nothing is taken any more"


@pytest.mark.parametrize(("code", "close"), [("draining", 4002), ("expired", 4102), ("not_allowed", 4105)])
def test_why_a_session_cannot_be_opened_decides_how_it_ends(code: str, close: int) -> None:
    client = new()
    client.says({"type": "hello"})
    client.asked()
    client.session.not_opened(WaypostError(code))
    assert bare(client.hears()) == [error(code)]
    [command] = client.asked()
    assert isinstance(command, Close)
    assert command.code == close


# -- live --------------------------------------------------------------------------------------------------------------


def test_live_is_told_once_when_every_stream_of_welcome_has_been_caught_up() -> None:
    client = new()
    client.says({"type": "hello"})
    client.opens(user_ann=begun(), all=begun())
    assert client.catches_up("all") == []
    assert client.catches_up(INBOX) == [{"type": "live"}]
    assert client.catches_up(INBOX) == []


def test_a_stream_that_falls_behind_before_live_delays_it() -> None:
    client = new()
    client.says({"type": "hello"})
    client.opens(user_ann=begun(), all=begun())
    client.catches_up("all")
    assert client.falls_behind("all") == []
    assert client.catches_up(INBOX) == []
    assert client.catches_up("all") == [{"type": "live"}]


def test_after_live_each_stream_that_fell_behind_tells_when_it_has_caught_up() -> None:
    client = opened()
    assert client.falls_behind("all") == []
    assert client.falls_behind("all") == []
    assert client.catches_up(INBOX) == []
    assert client.catches_up("all") == [{"type": "live", "stream": "all"}]
    assert client.catches_up("all") == []


def test_a_group_joined_later_is_not_waited_for_and_not_told_of() -> None:
    client = new()
    client.says({"type": "hello"})
    client.opens(all=begun())
    client.session.follow("group:new", at(1))
    assert client.catches_up("all") == [{"type": "live"}]
    assert client.catches_up("group:new") == []


def test_a_stream_that_is_no_longer_followed_is_not_waited_for() -> None:
    client = new()
    client.says({"type": "hello"})
    client.opens(all=begun(), group_g=begun())
    client.catches_up("all")
    client.session.unfollow(GROUP)
    assert client.hears() == [{"type": "live"}]


def test_a_stream_that_is_no_longer_followed_is_not_told_of() -> None:
    client = opened()
    client.falls_behind(GROUP)
    client.session.unfollow(GROUP)
    client.session.caught_up(GROUP)
    client.hears_nothing()
    assert GROUP not in client.session.streams


# -- ack ---------------------------------------------------------------------------------------------------------------


def reader() -> Client:
    """A client that has been given `all` up to 9, and whose device has stored 5 of it, and 5 of its inbox."""
    client = new()
    client.says({"type": "hello"})
    client.opens(all=begun(at(5), head=at(9)), user_ann=begun(at(5), head=at(9)))
    client.passed.update({"all": at(9), INBOX: at(3)})
    client.asked()
    return client


def test_an_ack_is_stored_and_without_ref_not_answered() -> None:
    client = reader()
    assert client.says(ack(all="1007-7")) == []
    assert client.asked() == [Commit({"all": at(7)}, None, wants_answer=False)]


def test_an_ack_with_ref_is_answered_once_it_is_stored() -> None:
    client = reader()
    assert client.says(ack(0, all="1007-7")) == []
    assert client.asked() == [Commit({"all": at(7)}, 0, wants_answer=True)]
    client.session.committed(0)
    assert client.hears() == [{"type": "acked", "ref": 0}]


def test_an_ack_that_cannot_be_stored_yet_is_told() -> None:
    client = reader()
    client.session.not_committed(4, Unavailable())
    client.session.not_committed(5, Uncertain("no answer"))
    assert bare(client.hears()) == [error("unavailable", 4), error("uncertain", 5, retry=True)]


@pytest.mark.parametrize("offset", ["1009-9", "1005-5", "0-0"], ids=["all that passed", "what is stored", "nothing"])
def test_up_to_what_has_passed_may_be_acknowledged(offset: str) -> None:
    assert reader().says(ack(1, all=offset)) == []


@pytest.mark.parametrize(
    "offset",
    ["1010-10", "1009-10", "1010-9", "1000-10", "99999-1"],
    ids=["above", "a higher number", "a later time", "a higher number at an earlier time", "a lower number, later"],
)
def test_beyond_what_has_passed_is_refused(offset: str) -> None:
    client = reader()
    assert bare(client.says(ack(1, all=offset))) == [error("ack_beyond", 1)]
    assert client.asked() == []


def test_what_the_device_has_stored_may_be_acknowledged_even_if_it_has_not_passed_here() -> None:
    client = reader()
    assert client.says(ack(1, user_ann="1005-5")) == []
    assert bare(client.says(ack(2, user_ann="1006-6"))) == [error("ack_beyond", 2)]


def test_an_ack_moves_only_forward() -> None:
    client = reader()
    client.says(ack(all="1008-8"))
    client.asked()
    client.says(ack(all="1007-7"))
    client.says(ack(all="1008-8"))
    assert client.asked() == []
    client.says(ack(3, all="1007-7"))
    assert client.asked() == [Commit({}, 3, wants_answer=True)], "with a ref it is answered all the same"


def test_only_the_streams_that_move_are_stored() -> None:
    client = reader()
    client.says(ack(1, all="1008-8", user_ann="1001-1"))
    assert client.asked() == [Commit({"all": at(8)}, 1, wants_answer=True)]


def test_an_ack_is_taken_as_a_whole_or_not_at_all() -> None:
    client = reader()
    assert bare(client.says(ack(1, all="1008-8", user_ann="1006-6"))) == [error("ack_beyond", 1)]
    client.says(ack(2, all="1006-6"))
    assert client.asked() == [Commit({"all": at(6)}, 2, wants_answer=True)]


@pytest.mark.parametrize(
    ("offsets", "code"),
    [
        ({"all": "7"}, "bad_id"),
        ({"all": ""}, "bad_id"),
        ({"everybody": "5-1"}, "bad_stream"),
        ({"group:a/b": "5-1"}, "bad_name"),
        ({"group:g": "0-0"}, "ack_beyond"),
        ({"user:bob": "0-0"}, "ack_beyond"),
    ],
    ids=["half an id", "no id", "no stream", "a bad name", "a group that is not followed", "another's inbox"],
)
def test_what_cannot_be_acknowledged_is_refused(offsets: dict[str, str], code: str) -> None:
    assert bare(reader().says({"type": "ack", "offsets": offsets, "ref": 1})) == [error(code, 1)]


def test_after_its_end_a_stream_is_acknowledged_up_to_what_had_passed() -> None:
    client = reader()
    client.session.unfollow("all")
    del client.passed["all"]
    client.asked()
    assert bare(client.says(ack(1, all="1010-10"))) == [error("ack_beyond", 1)]
    client.says(ack(2, all="1009-9"))
    assert client.asked() == [Commit({"all": at(9)}, 2, wants_answer=True)]


def test_of_streams_that_have_ended_no_more_are_remembered_than_a_user_may_have() -> None:
    client = reader()
    groups = [f"group:{n}" for n in range(4)]
    for group in groups:
        client.session.follow(group, at(1))
        client.passed[group] = at(2)
        client.session.unfollow(group)
        del client.passed[group]
    answers = [bare(client.says({"type": "ack", "ref": 1, "offsets": {group: "1002-2"}})) for group in groups]
    assert answers == [[error("ack_beyond", 1)], [], [], []]


def test_a_joined_group_is_acknowledged_from_the_point_of_joining() -> None:
    client = reader()
    client.session.follow(GROUP, at(3))
    client.passed[GROUP] = at(4)
    client.says(ack(1, group_g="1004-4"))
    assert client.asked() == [Commit({GROUP: at(4)}, 1, wants_answer=True)]


def test_in_another_history_acknowledging_begins_anew() -> None:
    client = reader()
    client.session.restarted("all", EntryId(2000, 2))
    client.passed["all"] = EntryId(2003, 3)
    client.says(ack(1, all="2003-3"))
    assert client.asked() == [Commit({"all": EntryId(2003, 3)}, 1, wants_answer=True)]
    assert bare(client.says(ack(2, all="1005-5"))) == [error("ack_beyond", 2)]


def test_another_history_of_a_stream_that_is_not_followed_means_nothing() -> None:
    client = reader()
    client.session.restarted("group:x", at(1))
    assert "group:x" not in client.session.streams


# -- the end -----------------------------------------------------------------------------------------------------------


def test_what_is_no_frame_ends_the_connection_and_nothing_after_it_is_taken() -> None:
    client = opened()
    client.session.receive(frames.decode(b'{"type":"ping"}\nnonsense\n{"type":"ping"}'))
    assert bare(client.hears()) == [{"type": "pong"}, error("bad_frame")]
    assert client.asked() == [Close(4103, "bad_frame")]
    assert client.session.life is Life.CLOSED
    assert client.says(send(1), {"type": "ping"}) == []
    assert client.asked() == []


def test_a_bad_frame_ends_the_connection_even_before_hello() -> None:
    client = new()
    client.session.receive(frames.decode(b""))
    assert bare(client.hears()) == [error("bad_frame")]
    assert client.asked() == [Close(4103, "bad_frame")]


@pytest.mark.parametrize("code", ["unknown_type", "bad_request"])
def test_other_malformed_frames_are_answered_and_the_connection_goes_on(code: str) -> None:
    client = opened()
    client.session.receive([frames.Malformed(code, "why", 3)])
    assert client.hears() == [{**error(code, 3), "message": "why"}]
    assert client.asked() == []
    assert client.says({"type": "ping"}) == [{"type": "pong"}]


@pytest.mark.parametrize(
    ("code", "close"), [(code, row.close) for code, row in ERRORS.items() if row.close is not None]
)
def test_every_end_is_told_with_its_error_and_its_close_code(code: str, close: int) -> None:
    client = opened()
    client.session.end(code)
    assert bare(client.hears()) == [error(code)]
    assert client.asked() == [Close(close, code)]
    assert client.session.life is Life.CLOSED


def test_what_is_stored_is_answered_before_the_end() -> None:
    client = opened()
    client.says(send(1), send(2))
    client.stored(1, at(1))
    client.session.end("slow")
    assert [frame.get("ref", frame["type"]) for frame in client.hears()] == [1, "error"]


def test_frames_are_written_before_the_connection_is_closed() -> None:
    client = opened()
    client.session.receive(frames.decode(b'{"type":"ping"}\nnonsense'))
    written, commands = client.session.flush()
    assert [type(frame) for frame in written] == [frames.Pong, frames.Error]
    assert [type(command) for command in commands] == [Close]
    assert client.session.flush() == ([], [])
