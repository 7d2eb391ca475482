"""Position, live and behind: each rule by itself. Their play together is in `test_delivery_orders.py`."""

import itertools

import pytest

from service.core.delivery import TRANSITIONS, Cursor, Delivery, Event, Place, Step, Track
from service.core.names import ZERO, EntryId


def at(n: int, ms: int | None = None) -> EntryId:
    """The id of entry `n` in a history without surprises; of 0, the id before the first."""
    return EntryId((1000 + n if n else 0) if ms is None else ms, n)


def attached_track(head: EntryId = ZERO) -> Track[str]:
    """A track whose attach was answered with `head`."""
    track = Track[str]("all")
    track.attached(head)
    return track


def live_track(position: EntryId) -> tuple[Track[str], Cursor[str]]:
    """A track at `position` with one live cursor."""
    track = attached_track(position)
    cursor = track.follow("a", position)
    assert track.page(cursor, position, position)
    return track, cursor


def ahead_track(position: EntryId, reached: EntryId) -> tuple[Track[str], Cursor[str]]:
    """A track at `position` with one cursor whose page reached beyond it."""
    track = attached_track(position)
    cursor = track.follow("a", position)
    assert track.page(cursor, reached, reached)
    return track, cursor


def where(track: Track[str]) -> dict[str, Place]:
    """Where each link's cursor is kept; each must be in one place and know it."""
    kept = [
        *((Place.LIVE, cursor) for cursor in track.live.values()),
        *((Place.AHEAD, cursor) for cursor in track.ahead.values()),
        *((Place.BEHIND, cursor) for cursor in track.behind.values()),
    ]
    assert all(cursor.place is place for place, cursor in kept)
    places = {cursor.link: place for place, cursor in kept}
    assert len(places) == len(kept)
    return places


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", TRANSITIONS, ids=lambda pair: f"{pair[0].name} {pair[1].name}")
def test_what_is_in_the_table_happens(pair: tuple[Place, Event]) -> None:
    track, cursor = track_with_cursor_in(pair[0])
    track._move(cursor, pair[1])
    assert where(track) == {"a": TRANSITIONS[pair]}


@pytest.mark.parametrize(
    ("place", "event"),
    [pair for pair in itertools.product(Place, Event) if pair not in TRANSITIONS],
    ids=lambda part: part.name,
)
def test_what_is_not_in_the_table_is_an_error(place: Place, event: Event) -> None:
    track, cursor = track_with_cursor_in(place)
    with pytest.raises(KeyError):
        track._move(cursor, event)
    assert where(track) == {"a": place}


def track_with_cursor_in(place: Place) -> tuple[Track[str], Cursor[str]]:
    if place is Place.LIVE:
        return live_track(at(3))
    if place is Place.AHEAD:
        return ahead_track(at(3), at(5))
    track = attached_track(at(3))
    return track, track.follow("a", at(1))


@pytest.mark.parametrize("head", [at(2), at(3), at(5)], ids=["below", "at the position", "above"])
@pytest.mark.parametrize("place", [Place.LIVE, Place.AHEAD])
def test_a_page_for_a_cursor_that_is_not_behind_is_an_error(place: Place, head: EntryId) -> None:
    track, cursor = track_with_cursor_in(place)
    with pytest.raises(KeyError):
        track.page(cursor, head, head)


# -- a page ------------------------------------------------------------------------------------------------------------


def test_who_begins_to_follow_is_behind() -> None:
    track = attached_track(at(3))
    cursor = track.follow("a", at(1))
    assert where(track) == {"a": Place.BEHIND}
    assert track.passed(cursor) == at(1)


def test_a_page_whose_head_is_the_position_makes_live() -> None:
    track = attached_track(at(3))
    cursor = track.follow("a", at(1))
    assert track.page(cursor, at(3), at(3)) is True
    assert where(track) == {"a": Place.LIVE}
    assert track.passed(cursor) == at(3)


def test_who_must_read_must_until_a_page_makes_it_live() -> None:
    track = attached_track(at(5))
    cursor = track.follow("a", at(1), must_read=True)
    assert not track.page(cursor, at(3), at(5))
    assert cursor.must_read
    assert track.page(cursor, at(5), at(5))
    assert not cursor.must_read, "and may be made live by its head when it falls behind again"


def test_a_page_whose_head_is_below_the_position_makes_nobody_live() -> None:
    track = attached_track(at(3))
    cursor = track.follow("a", at(1))
    assert track.arrived(at(4)) is Step.PUSH  # while the page, read before, is on its way
    assert track.page(cursor, at(3), at(3)) is False
    assert where(track) == {"a": Place.BEHIND}
    assert track.passed(cursor) == at(3), "it reads on from here"


def test_a_page_whose_head_is_above_the_position_leaves_the_cursor_ahead() -> None:
    track, cursor = ahead_track(at(3), at(5))
    assert where(track) == {"a": Place.AHEAD}
    assert track.passed(cursor) == at(5)


def test_a_page_that_does_not_reach_the_head_is_read_on_from() -> None:
    track = attached_track(at(9))
    cursor = track.follow("a", at(1))
    assert track.page(cursor, at(3), at(9)) is False
    assert where(track) == {"a": Place.BEHIND}
    assert track.passed(cursor) == at(3)


def test_a_page_before_the_attach_is_answered_makes_nobody_live() -> None:
    track = Track[str]("all")
    cursor = track.follow("a", at(1))
    assert track.page(cursor, at(3), at(3)) is False
    assert where(track) == {"a": Place.BEHIND}


def test_a_head_of_the_same_number_from_another_time_is_not_the_position() -> None:
    track = attached_track(at(3))
    older, newer = track.follow("a", ZERO), track.follow("b", ZERO)
    assert track.page(older, at(3, ms=500), at(3, ms=500)) is False
    assert track.page(newer, at(3, ms=5000), at(3, ms=5000)) is True
    assert where(track) == {"a": Place.BEHIND, "b": Place.AHEAD}


# -- ahead -------------------------------------------------------------------------------------------------------------


def test_a_cursor_ahead_gets_nothing_until_the_reader_is_where_it_is() -> None:
    track, cursor = ahead_track(at(3), at(5))
    assert track.arrived(at(4)) is Step.PUSH
    assert not track.live
    assert track.settle() == []
    assert track.arrived(at(5)) is Step.PUSH
    assert not track.live, "the entry that it has is not pushed to it"
    assert track.settle() == [cursor]
    assert where(track) == {"a": Place.LIVE}
    assert track.arrived(at(6)) is Step.PUSH
    assert list(track.live) == ["a"]


def test_entries_of_one_millisecond_are_reached_one_by_one() -> None:
    track, cursor = ahead_track(EntryId(1000, 3), EntryId(1000, 5))
    assert track.arrived(EntryId(1000, 4)) is Step.PUSH
    assert track.settle() == []
    assert track.arrived(EntryId(1000, 5)) is Step.PUSH
    assert track.settle() == [cursor]


def test_while_one_is_ahead_the_others_are_pushed_to() -> None:
    track, _ = live_track(at(3))
    ahead = track.follow("b", at(1))
    track.page(ahead, at(4), at(4))
    assert track.arrived(at(4)) is Step.PUSH
    assert list(track.live) == ["a"]
    track.settle()
    assert where(track) == {"a": Place.LIVE, "b": Place.LIVE}


def test_a_cursor_ahead_that_falls_behind_keeps_what_it_has() -> None:
    track, cursor = ahead_track(at(3), at(5))
    assert track.fall_behind("a") == [cursor]
    assert track.passed(cursor) == at(5)


@pytest.mark.parametrize(
    "entry",
    [at(4, ms=9000), at(4, ms=1006)],
    ids=["much later", "above what the cursor has"],
)
def test_numbers_given_out_again_are_not_taken_for_what_a_cursor_ahead_has(entry: EntryId) -> None:
    """The page reached 5, the server lost 4 and 5, and gives them out once more: the cursor has neither of the new."""
    track, cursor = ahead_track(at(3), at(5))
    assert track.attached(at(3)) == []  # the new server knows nothing above the position
    assert track.arrived(entry) is Step.HOLE
    assert track.skip_to(entry) == [cursor]
    assert track.passed(cursor) == at(5), "a page from here shows that it is of another history"


def test_the_last_number_given_out_again_is_not_taken_for_what_a_cursor_ahead_has() -> None:
    track, _ = ahead_track(at(4), at(5))
    assert track.arrived(at(5, ms=at(4).ms)) is Step.HOLE


# -- what the mailbox brings -------------------------------------------------------------------------------------------


def test_the_next_entry_is_pushed_and_moves_the_position() -> None:
    track, cursor = live_track(at(3))
    assert track.arrived(at(4)) is Step.PUSH
    assert track.position == at(4)
    assert track.passed(cursor) == at(4)


def test_the_next_entry_may_be_of_the_same_millisecond() -> None:
    track, _ = live_track(at(3))
    assert track.arrived(at(4, ms=at(3).ms)) is Step.PUSH


@pytest.mark.parametrize("entry", [at(3), at(2), at(3, ms=5)], ids=["the position", "below", "older"])
def test_what_was_dispatched_before_is_dropped(entry: EntryId) -> None:
    track, _ = live_track(at(3))
    assert track.arrived(entry) is Step.HAD
    assert track.position == at(3)
    assert where(track) == {"a": Place.LIVE}


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(at(5), id="a hole"),
        pytest.param(at(3, ms=2000), id="the same number again, later"),
        pytest.param(at(2, ms=2000), id="a lower number, later"),
        pytest.param(at(4, ms=999), id="the next number, earlier"),
        pytest.param(at(6, ms=999), id="a hole, earlier"),
    ],
)
def test_anything_else_puts_everybody_behind_at_what_they_have(entry: EntryId) -> None:
    track, cursor = live_track(at(3))
    ahead = track.follow("b", ZERO)
    track.page(ahead, at(9), at(9))
    assert track.arrived(entry) is Step.HOLE
    assert track.position == at(3), "the entry has not been pushed to anybody"
    assert track.skip_to(entry) == [cursor, ahead]
    assert where(track) == {"a": Place.BEHIND, "b": Place.BEHIND}
    assert (track.passed(cursor), track.passed(ahead)) == (at(3), at(9))
    assert track.position == entry


def test_an_entry_that_is_not_whole_is_read_from_the_stream() -> None:
    track, cursor = live_track(at(3))
    assert track.arrived(at(4), is_whole=False) is Step.HOLE
    assert track.skip_to(at(4)) == [cursor]
    assert track.page(cursor, at(4), at(4)) is True
    assert where(track) == {"a": Place.LIVE}


def test_an_entry_that_is_not_whole_and_was_had_is_dropped() -> None:
    track, _ = live_track(at(3))
    assert track.arrived(at(3), is_whole=False) is Step.HAD


# -- attaching ---------------------------------------------------------------------------------------------------------


def test_the_position_begins_at_the_head_that_the_attach_answers() -> None:
    track = Track[str]("all")
    assert track.position is None
    assert track.attached(at(3)) == []
    assert track.position == at(3)


@pytest.mark.parametrize(
    ("seen", "head", "position"),
    [
        ([at(4), at(5)], at(3), at(5)),
        ([at(4)], at(4), at(4)),
        ([at(2)], at(4), at(4)),
        ([at(5), at(2)], at(3), at(5)),
    ],
    ids=["above the head", "up to the head", "below the head", "in any order"],
)
def test_entries_may_come_before_the_attach_is_answered(seen: list[EntryId], head: EntryId, position: EntryId) -> None:
    track = Track[str]("all")
    cursor = track.follow("a", at(2))
    for entry in seen:
        assert track.arrived(entry) is Step.HAD
    assert track.attached(head) == []
    assert track.position == position
    # What was dispatched to nobody, a page has to bring: one read before it is not enough.
    assert track.page(cursor, at(2), at(2)) is False
    assert track.page(cursor, position, position) is True


def test_attached_again_at_the_position_nobody_moves() -> None:
    track, _ = live_track(at(3))
    assert track.attached(at(3)) == []
    assert where(track) == {"a": Place.LIVE}


def test_attached_again_with_a_higher_head_everybody_reads_pages() -> None:
    track, cursor = live_track(at(3))
    assert track.attached(at(5)) == [cursor]
    assert track.position == at(5)
    assert track.passed(cursor) == at(3)
    assert track.arrived(at(4)) is Step.HAD, "pages bring it"
    assert track.arrived(at(6)) is Step.PUSH


def test_attached_again_with_a_lower_head_everybody_reads_pages_and_the_position_stays() -> None:
    track, cursor = live_track(at(5))
    assert track.attached(at(3)) == [cursor]
    assert track.position == at(5)
    assert track.passed(cursor) == at(5)


# -- the audit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [at(3), at(2), ZERO], ids=["at the position", "below", "empty"])
def test_an_audit_that_finds_nothing_missing_moves_nobody(head: EntryId) -> None:
    track, _ = live_track(at(3))
    assert track.verify(head) == []
    assert where(track) == {"a": Place.LIVE}


def test_an_audit_that_finds_entries_missing_puts_everybody_behind() -> None:
    track, cursor = live_track(at(3))
    assert track.verify(at(5)) == [cursor]
    assert track.position == at(5)
    assert track.passed(cursor) == at(3)


def test_an_audit_before_the_attach_is_answered_means_nothing() -> None:
    track = Track[str]("all")
    assert track.verify(at(5)) == []
    assert track.position is None


# -- links -------------------------------------------------------------------------------------------------------------


def test_a_stalled_link_falls_behind_alone_and_comes_back() -> None:
    track, slow = live_track(at(3))
    quick = track.follow("b", at(3))
    track.page(quick, at(3), at(3))
    assert track.fall_behind("a") == [slow]
    assert where(track) == {"a": Place.BEHIND, "b": Place.LIVE}
    assert track.arrived(at(4)) is Step.PUSH
    assert list(track.live) == ["b"]
    assert (track.passed(slow), track.passed(quick)) == (at(3), at(4))
    assert track.page(slow, at(4), at(4)) is True
    assert where(track) == {"a": Place.LIVE, "b": Place.LIVE}


def test_who_is_behind_or_unknown_does_not_fall_again() -> None:
    track = attached_track(at(3))
    track.follow("a", at(1))
    assert track.fall_behind("a") == []
    assert track.fall_behind("nobody") == []
    assert track.fall_behind() == []


@pytest.mark.parametrize("place", Place)
def test_who_no_longer_follows_is_nowhere(place: Place) -> None:
    track, cursor = track_with_cursor_in(place)
    assert track
    assert list(track.cursors()) == [cursor]
    assert track.unfollow("a") is cursor
    assert track.unfollow("a") is None
    assert where(track) == {}
    assert not track
    assert list(track.cursors()) == []


def test_a_stream_is_tracked_once_and_forgotten_whole() -> None:
    node = Delivery[str]()
    track = node.track("all")
    assert node.track("all") is track
    assert node.positions() == {}
    track.attached(at(3))
    assert node.positions() == {"all": at(3)}
    node.forget("all")
    node.forget("all")
    assert node.positions() == {}
    assert node.track("all").position is None


def test_what_a_page_has_shown_is_known_to_be_given_out_though_its_cursor_is_behind() -> None:
    node = Delivery[str]()
    track = node.track("all")
    cursor = track.follow("a", ZERO)
    track.attached(at(3))
    track.page(cursor, at(4), at(5))  # one that does not reach the head
    assert cursor.place is Place.BEHIND
    assert node.positions() == {"all": at(5)}
