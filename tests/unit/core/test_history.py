"""Looking back: anchors as they are spelt, questions that are refused, and what was read as one user is told it.

The store is not here: `tests/integration/store/test_history.py` asks a real one.
"""

import json
from collections.abc import Iterable

import pytest

from service.core import frames
from service.core.anchors import Anchor, Moment, parse_anchor
from service.core.entries import Entry, Redaction, Removal, Stretch
from service.core.frames import AskHistory
from service.core.history import History, Past, answer, ask, asked, is_of
from service.core.names import PART_MAX, ZERO, EntryId
from service.errors import WaypostError
from tests.unit.core.conversation import error, opened

ME = "ann"
NOW = 10**12


def at(n: int) -> EntryId:
    """The id of entry `n` in a history without surprises: a second each."""
    return EntryId(n * 1000, n)


def message(n: int, sender: str = "bob", to: str = "all") -> Entry:
    return Entry(at(n), "message", sender, to, f"m{n}", b"1")


def past(
    entries: Iterable[int | Entry],
    *,
    head: int,
    split: EntryId | None = None,
    low: EntryId | None = None,
    high: EntryId | None = None,
    floor: int = 0,
    before: EntryId | None = None,
    after: EntryId | None = None,
    redacted: Iterable[int] = (),
    removals: Iterable[Removal] = (),
    stretches: tuple[Stretch, ...] | None = None,
) -> Past:
    return Past(
        now=NOW,
        head=at(head),
        floor=at(floor),
        split=at(head) if split is None else split,
        before=before,
        after=after,
        entries=tuple(message(entry) if isinstance(entry, int) else entry for entry in entries),
        low=low,
        high=high,
        redactions={n: Redaction(at(n), "root", 0, "bob", "all", f"m{n}") for n in redacted},
        removals=tuple(removals),
        stretches=stretches,
    )


def told(read: Past, anchor: Anchor | None = None, *, limit: int = 50, stream: str = "all") -> History:
    return answer(read, ME, ask(stream, ME, anchor or Anchor("newest"), limit))


def numbers(found: History) -> list[int]:
    return [entry.id.n for entry in found.entries]


def gaps(found: History) -> list[tuple[int, int]]:
    return [(gap.after.n, gap.to.n) for gap in found.gaps]


# -- anchors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelt", "found"),
    [
        (0, 0),
        (17, 17),
        (2**80, PART_MAX),
        ("0-0", ZERO),
        ("1795451045726-2", EntryId(1795451045726, 2)),
        ("1970-01-01T00:00:01Z", Moment(1000, 1000)),
        ("1970-01-01t00:00:01.5z", Moment(1500, 1500)),
        ("1970-01-01 00:00:01.0015Z", Moment(1001, 1002)),
        ("1970-01-01T01:00:00.000001+01:00", Moment(0, 1)),
        ("1969-12-31T23:59:59.9999Z", Moment(-1, 0)),
        ("9999-12-31T23:59:59-14:00", Moment(253402351199000, 253402351199000)),
    ],
)
def test_an_anchor_is_a_number_an_id_or_a_time(spelt: int | str, found: EntryId | int | Moment) -> None:
    assert parse_anchor(spelt, None, None) == Anchor("after", found)
    assert parse_anchor(None, spelt, None) == Anchor("before", found)
    assert parse_anchor(None, None, spelt) == Anchor("around", found)


@pytest.mark.parametrize(
    "spelt",
    [
        *(-1, "", "17", "newest", "5-", "-5", "5-1-1", "05-1", "5-01", "5-0", f"{2**53}-1", "5-1 ", "٣-1"),
        *("2026-11-23", "2026-11-23T16:24:16", "2026-13-23T16:24:16Z", "2026-11-23T16:24Z", "20261123T162416Z"),
        *("0000-01-01T00:00:00Z", "2026-11-23T16:24:16+25:00", "2026-W47-1T16:24:16Z"),
    ],
)
def test_anything_else_is_a_bad_anchor(spelt: int | str) -> None:
    with pytest.raises(WaypostError, match="bad_anchor"):
        parse_anchor(None, spelt, None)


def test_no_anchor_is_the_newest_and_two_are_none() -> None:
    assert parse_anchor(None, None, None) == Anchor("newest")
    for given in ((1, 2, None), (None, 1, 2), (0, 0, 0)):
        with pytest.raises(WaypostError, match="bad_request"):
            parse_anchor(*given)


@pytest.mark.parametrize(
    ("anchor", "split"),
    [
        (Anchor("newest"), ("id", EntryId(PART_MAX, PART_MAX))),
        (Anchor("after", at(5)), ("id", at(5))),
        (Anchor("before", at(5)), ("id", EntryId(5000, 4))),
        (Anchor("around", at(5)), ("id", EntryId(5000, 4))),
        (Anchor("before", ZERO), ("id", ZERO)),
        (Anchor("after", 5), ("n", 5)),
        (Anchor("around", 5), ("n", 4)),
        (Anchor("before", 0), ("n", 0)),
        (Anchor("after", Moment(8, 9)), ("ms", 8)),
        (Anchor("before", Moment(8, 9)), ("ms", 8)),
        (Anchor("before", Moment(8, 8)), ("ms", 7)),
        (Anchor("around", Moment(8, 8)), ("ms", 7)),
        (Anchor("around", Moment(0, 0)), ("ms", 0)),
        (Anchor("after", Moment(-5, -5)), ("ms", 0)),
    ],
)
def test_where_an_anchor_splits_the_stream(anchor: Anchor, split: tuple[str, EntryId | int]) -> None:
    assert anchor.split == split


# -- questions ---------------------------------------------------------------------------------------------------------


def test_a_question_says_how_many_each_way() -> None:
    assert [(q.back, q.is_forward) for side in ("newest", "before") for q in [ask("all", ME, Anchor(side), 9)]] == [
        (9, False),
        (9, False),
    ]
    after, around = ask("all", ME, Anchor("after", 1), 9), ask("all", ME, Anchor("around", 1), 9)
    assert [(after.back, after.is_forward), (around.back, around.is_forward)] == [(0, True), (4, True)]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (AskHistory("user:bob"), "not_allowed"),
        (AskHistory("bob"), "bad_stream"),
        (AskHistory("group:a/b"), "bad_name"),
        (AskHistory("all", limit=0), "bad_request"),
        (AskHistory("all", limit=-1), "bad_request"),
        (AskHistory("all", limit=201), "bad_request"),
        (AskHistory("all", after=1, before=2), "bad_request"),
        (AskHistory("all", after="soon"), "bad_anchor"),
        (AskHistory("all", with_="bob"), "bad_request"),
        (AskHistory("group:g", with_="bob"), "bad_request"),
        (AskHistory("user:ann", with_="a/b"), "bad_name"),
        (AskHistory("user:ann", with_=""), "bad_name"),
    ],
)
def test_a_question_is_refused_before_the_store_is_asked(frame: AskHistory, code: str) -> None:
    with pytest.raises(WaypostError) as refused:
        asked(frame, ME)
    assert refused.value.code == code


# -- what was read, and what it means ----------------------------------------------------------------------------------


def test_what_was_read_to_both_ends_is_all_there_is() -> None:
    found = told(past([1, 2, 3], head=3))
    assert (numbers(found), gaps(found), found.looked_at) == ([1, 2, 3], [], 3)
    assert (found.found_oldest, found.found_newest, found.first, found.last) == (True, True, at(1), at(3))


def test_where_reading_stopped_an_end_was_not_found() -> None:
    below = past([4, 5], head=9, split=EntryId(6000, 5), low=EntryId(4000, 3))
    found = told(below, Anchor("before", at(6)))
    assert (numbers(found), found.found_oldest, found.found_newest) == ([4, 5], False, False)
    above = past([4, 5], head=9, split=at(3), high=at(5), before=at(3), after=at(4))
    found = told(above, Anchor("after", at(3)))
    assert (numbers(found), found.found_oldest, found.found_newest) == ([4, 5], False, False)


def test_more_redacted_messages_than_were_asked_for_are_cut_each_way() -> None:
    redacted = range(1, 10)
    assert numbers(told(past([10], head=10, redacted=redacted), limit=4)) == [7, 8, 9, 10]
    found = told(past([10], head=10, split=ZERO, redacted=redacted), Anchor("after", 0), limit=4)
    assert (numbers(found), found.found_oldest, found.found_newest) == ([1, 2, 3, 4], True, False)
    around = told(past([10], head=10, split=at(4), redacted=redacted), Anchor("around", 5), limit=4)
    assert (numbers(around), around.first, around.last) == ([3, 4, 5, 6], at(3), at(6))
    assert around.entries[0].is_redacted


def test_a_gap_beyond_the_last_that_fits_is_told_by_the_next_answer() -> None:
    lost = Removal(at(2), at(4), 2, "lost", 1)
    found = told(past([1, 2, 5, 6], head=6, split=ZERO, removals=[lost]), Anchor("after", 0), limit=2)
    assert (numbers(found), gaps(found), found.last) == ([1, 2], [], at(2))
    found = told(past([5, 6], head=6, split=at(2), before=at(2), after=at(5), removals=[lost]), Anchor("after", at(2)))
    assert (numbers(found), gaps(found), found.gaps[0].next, found.first) == ([5, 6], [(2, 4)], at(5), EntryId(2000, 3))


def test_a_gap_below_the_floor_is_told_as_far_as_it_is_the_users() -> None:
    found = told(past([4, 5], head=5, floor=3))
    assert (numbers(found), gaps(found), found.found_oldest) == ([4, 5], [(0, 3)], True)
    mine = (Stretch(at(2)),)
    found = told(past([4, 5], head=5, floor=3, stretches=mine), stream="group:g")
    assert (numbers(found), gaps(found), found.found_oldest) == ([4, 5], [(2, 3)], True)


def test_whoever_has_left_is_told_of_no_head_and_no_floor_above_that() -> None:
    mine = (Stretch(at(2), at(4)),)
    found = told(past([3, 4], head=9, floor=7, stretches=mine), stream="group:g")
    assert (found.head, found.floor, found.found_newest) == (at(4), at(4), True)
    assert gaps(found) == [(2, 4)]
    with pytest.raises(WaypostError, match="bad_anchor"):
        told(past([], head=9, stretches=mine), Anchor("after", at(6)), stream="group:g")
    # An id between two memberships is not looked at: whether it exists is not theirs to know.
    twice = (Stretch(at(2), at(4)), Stretch(at(8)))
    strange = EntryId(6001, 6)
    found = told(
        past([9], head=9, split=strange, before=at(6), stretches=twice), Anchor("after", strange), stream="group:g"
    )
    assert numbers(found) == [9]


def test_a_membership_record_that_cannot_be_read_entitles_to_nothing() -> None:
    found = told(past([], head=9, stretches=()), stream="group:g")
    assert (found.entries, found.gaps, found.head) == ((), (), ZERO)


@pytest.mark.parametrize("side", ["after", "before", "around"])
def test_ids_of_another_history_are_bad_anchors(side: str) -> None:
    foreign = [
        (EntryId(5001, 5), {"before": at(5), "after": at(6)}),
        (EntryId(4999, 5), {"before": at(4), "after": at(5)}),
        (EntryId(99_000, 5), {"before": at(9)}),
        (EntryId(5000, 99), {"before": at(5), "after": at(6)}),
        (EntryId(3001, 3), {"before": at(2), "after": at(4), "redacted": [3]}),
        (
            EntryId(2999, 3),
            {"before": at(2), "after": at(4), "removals": [Removal(at(2), at(3), 1, "lost", 1, "fork")]},
        ),
    ]
    for entry, facts in foreign:
        with pytest.raises(WaypostError, match="another history"):
            told(past([], head=9, split=entry, **facts), Anchor(side, entry))  # type: ignore[arg-type]


def test_whose_an_id_is() -> None:
    stretches = (Stretch(at(2), at(4)), Stretch(at(8)))
    assert [n for n in range(1, 11) if is_of(stretches, at(n))] == [2, 3, 4, 8, 9, 10]


# -- in the conversation -----------------------------------------------------------------------------------------------


def test_the_frame_of_an_answer_is_this_json() -> None:
    told_frame = frames.History("all", (), "0-0", "5-1", True, False, (), 0, ref=7)
    assert json.loads(frames.encode(told_frame)) == {
        "type": "history", "stream": "all", "messages": [], "floor": "0-0", "head": "5-1",
        "found_oldest": True, "found_newest": False, "gaps": [], "looked_at": 0, "ref": 7,
    }  # fmt: skip


def test_looking_back_waits_for_nothing_holds_nothing_up_and_counts_as_unanswered() -> None:
    client = opened(unanswered_sends=2)
    assert (
        client.says({"type": "send", "ref": 1, "to": "all", "body": 1}, {"type": "history", "ref": 2, "stream": "all"})
        == []
    )
    assert len(client.asked()) == 2
    assert not client.is_read()
    client.session.looked_back(frames.error_frame(WaypostError("unavailable"), 2))
    assert client.is_read()
    [answered] = client.hears()
    assert (answered["ref"], answered["code"]) == (2, "unavailable")


def test_a_question_that_is_refused_at_once_is_not_waited_for() -> None:
    client = opened(unanswered_sends=1)
    for _ in range(3):
        [refused] = client.says({"type": "history", "ref": 1, "stream": "user:bob"})
        assert {**refused, "message": ""} == {**error("not_allowed", 1), "message": ""}
    assert client.is_read()
    assert client.asked() == []


@pytest.mark.parametrize("field", ["after", "before", "around", "stream", "with"])
def test_what_is_longer_than_it_can_mean_is_refused_unread(field: str) -> None:
    frame = {"type": "history", "ref": 1, "stream": "all", field: "9" * 300}
    [refused] = frames.decode(json.dumps(frame).encode())
    assert isinstance(refused, frames.Malformed)
    assert refused.code == "bad_request"
