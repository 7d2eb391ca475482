"""Pages laid out: each rule by itself. What a device is told over many pages is in `test_paging_walks.py`."""

from collections.abc import Iterable

import pytest

from service.core.entries import Entry, Page, Redaction, Removal, Stretch
from service.core.names import ZERO, EntryId
from service.core.paging import Gap, Layout, contradicts, lay_out, start_of_membership

ME = "ann"


def at(n: int, ms: int | None = None) -> EntryId:
    """The id of entry `n` in a history without surprises: a second each. 0 is the id before the first."""
    return EntryId(n * 1000 if ms is None else ms, n)


def message(n: int, ms: int | None = None) -> Entry:
    return Entry(at(n, ms), "message", "bob", "all", f"m{n}", b"1")


def joined(n: int, user: str = ME) -> Entry:
    return Entry(at(n), "joined", user, "group:g")


def left(n: int, user: str = ME) -> Entry:
    return Entry(at(n), "left", user, "group:g")


def redaction(n: int, ms: int | None = None) -> Redaction:
    return Redaction(at(n, ms), "root", 0, "bob", "all", f"m{n}")


def trimmed(after: int, to: int, limit: str = "max_age") -> Removal:
    return Removal(at(after), at(to), to - after, "trimmed", 1, "default", limit)


def lost(after: int, to: int) -> Removal:
    return Removal(at(after), at(to), to - after, "lost", 2)


def page_of(
    entries: Iterable[int | Entry],
    *,
    after: EntryId = ZERO,
    head: EntryId | None = None,
    floor: EntryId = ZERO,
    redacted: Iterable[int] = (),
    removals: Iterable[Removal] = (),
    is_last: bool = True,
    stretches: Iterable[Stretch] | None = None,
) -> Page:
    """The page above `after` of a stream that has just these entries; its head is the last unless said otherwise."""
    every = [message(entry) if isinstance(entry, int) else entry for entry in entries]
    below = [entry.id for entry in every if entry.id <= after]
    above = tuple(entry for entry in every if entry.id > after)
    return Page(
        stream="all",
        after=after,
        head=head or every[-1].id,
        floor=floor,
        before=below[-1] if below else None,
        entries=above,
        is_last=is_last,
        redactions={n: redaction(n) for n in redacted},
        removals=tuple(removals),
        stretches=None if stretches is None else {ME: tuple(stretches)},
    )


def told(layout: Layout) -> list[str]:
    """What a layout tells, short: `3`, `3 redacted`, `3 joined`, `gap 4-6`, `epoch 9-4`."""
    lines = []
    for item in layout.items:
        if isinstance(item, Gap):
            kind = "epoch" if item.missed is None else "gap"
            lines.append(f"{kind} {item.after.n}-{item.to.n}")
        else:
            what = " redacted" if item.is_redacted else "" if item.type == "message" else f" {item.type}"
            lines.append(f"{item.id.n}{what}")
    return lines


def laid(page: Page, resume: EntryId = ZERO) -> Layout:
    return lay_out(page, ME, resume)


def only_gap(layout: Layout) -> Gap:
    [gap] = [item for item in layout.items if isinstance(item, Gap)]
    return gap


# -- nothing missing ---------------------------------------------------------------------------------------------------


def test_all_entries_above_the_offset_come_in_order() -> None:
    layout = laid(page_of([1, 2, 3, 4], after=at(2)))
    assert told(layout) == ["3", "4"]
    assert layout == Layout((message(3), message(4)), at(4), has_ended=False)


def test_a_device_that_is_up_to_date_gets_nothing() -> None:
    assert laid(page_of([1, 2], after=at(2))) == Layout((), at(2))


def test_an_empty_stream_is_nothing() -> None:
    assert laid(page_of([], head=ZERO)) == Layout((), ZERO)


def test_a_page_that_is_not_the_last_speaks_only_as_far_as_its_last_entry() -> None:
    layout = laid(page_of([1, 2, 5], head=at(9), is_last=False, removals=[lost(2, 4), lost(6, 8)]))
    assert told(layout) == ["1", "2", "gap 2-4", "5"]
    assert layout.upto == at(5)


def test_a_large_step_of_the_clock_is_no_gap() -> None:
    assert told(laid(page_of([message(1), message(2, 10**12)]))) == ["1", "2"]


# -- trimmed -----------------------------------------------------------------------------------------------------------


def test_what_was_trimmed_is_one_gap_with_bounds_count_cause_and_next() -> None:
    layout = laid(page_of([5, 6], after=at(1), floor=at(4), removals=[trimmed(0, 4)]))
    assert layout.items == (Gap(at(1), at(4), 3, (trimmed(0, 4),), next=at(5)), message(5), message(6))
    assert layout.upto == at(6)


def test_several_removals_are_one_gap_with_several_causes() -> None:
    removals = [trimmed(0, 2, "max_age"), trimmed(2, 4, "max_entries")]
    gap = only_gap(laid(page_of([5], after=at(1), floor=at(4), removals=removals)))
    assert (gap.after, gap.to, gap.missed, gap.causes) == (at(1), at(4), 3, tuple(removals))


def test_only_the_removals_that_the_device_missed_are_quoted() -> None:
    removals = [trimmed(0, 2), trimmed(2, 4)]
    assert only_gap(laid(page_of([5], after=at(2), floor=at(4), removals=removals))).causes == (trimmed(2, 4),)


def test_when_the_ledger_has_forgotten_the_gap_still_has_a_cause() -> None:
    gap = only_gap(laid(page_of([5], after=at(1), floor=at(4))))
    assert gap.causes == (Removal(at(1), at(4), 3, "trimmed", 0),)


def test_up_to_date_and_trimmed_to_empty_is_no_gap() -> None:
    page = page_of([], after=at(4), head=at(4), floor=at(4), removals=[trimmed(0, 4)])
    assert laid(page) == Layout((), at(4))


def test_at_the_floor_is_no_gap() -> None:
    assert told(laid(page_of([5], after=at(4), floor=at(4), removals=[trimmed(0, 4)]))) == ["5"]


def test_trimmed_to_empty_is_a_gap_without_a_next() -> None:
    layout = laid(page_of([], after=at(1), head=at(4), floor=at(4), removals=[trimmed(0, 4)]))
    assert layout == Layout((Gap(at(1), at(4), 3, (trimmed(0, 4),), next=None),), at(4))


def test_a_device_that_never_had_anything_misses_everything_trimmed() -> None:
    gap = only_gap(laid(page_of([5], floor=at(4), removals=[trimmed(0, 4)])))
    assert (gap.after, gap.missed) == (ZERO, 4)


def test_a_floor_made_of_a_time_below_the_first_entry_is_no_gap() -> None:
    """The trim removed nothing: no number lies between the offset and such a floor."""
    assert told(laid(page_of([1, 2], floor=EntryId(500, 0)))) == ["1", "2"]
    assert told(laid(page_of([3], after=at(2), floor=EntryId(2500, 2)))) == ["3"]


# -- lost --------------------------------------------------------------------------------------------------------------


def test_lost_in_the_middle_with_ledger_has_the_exact_bounds() -> None:
    removal = Removal(at(2), at(5, 5500), 3, "lost", 7)
    layout = laid(page_of([1, 2, 6], removals=[removal]))
    assert layout.items == (message(1), message(2), Gap(at(2), at(5, 5500), 3, (removal,), next=at(6)), message(6))


def test_lost_in_the_middle_without_ledger_has_the_exact_numbers() -> None:
    gap = only_gap(laid(page_of([1, 2, 6])))
    assert (gap.after, gap.to.n, gap.missed, gap.next) == (at(2), 5, 3, at(6))
    assert gap.after < gap.to < at(6)
    assert [cause.kind for cause in gap.causes] == ["lost"]


def test_lost_at_the_end_with_ledger() -> None:
    layout = laid(page_of([1, 2], head=at(5), removals=[lost(2, 5)]))
    assert layout.items == (message(1), message(2), Gap(at(2), at(5), 3, (lost(2, 5),), next=None))
    assert layout.upto == at(5)


def test_a_deleted_stream_whose_head_survives_is_lost_up_to_the_head() -> None:
    layout = laid(page_of([], after=at(2), head=at(6)))
    assert layout == Layout((Gap(at(2), at(6), 4, (Removal(at(2), at(6), 4, "lost", 0),)),), at(6))


def test_a_deleted_stream_misses_nothing_for_who_was_up_to_date() -> None:
    assert laid(page_of([], after=at(6), head=at(6))) == Layout((), at(6))


def test_trimmed_and_then_lost_are_two_gaps_each_with_its_cause() -> None:
    layout = laid(page_of([3, 6], floor=at(2), removals=[trimmed(0, 2), lost(3, 5)]))
    assert told(layout) == ["gap 0-2", "3", "gap 3-5", "6"]
    first, second = (item for item in layout.items if isinstance(item, Gap))
    assert (first.causes, first.next) == ((trimmed(0, 2),), at(3))
    assert (second.causes, second.next) == ((lost(3, 5),), at(6))


def test_a_removal_that_begins_where_a_gap_ends_is_not_its_cause() -> None:
    layout = laid(page_of([5], floor=at(2), removals=[trimmed(0, 2), lost(2, 4)]))
    assert [item.causes for item in layout.items if isinstance(item, Gap)] == [(trimmed(0, 2),), (lost(2, 4),)]


@pytest.mark.parametrize("removals", [[], [lost(2, 5)]], ids=["without ledger", "with ledger"])
def test_the_end_of_a_gap_is_an_offset_like_any_other(removals: list[Removal]) -> None:
    gap = only_gap(laid(page_of([1, 2, 6, 7], removals=removals)))
    assert told(laid(page_of([1, 2, 6, 7], after=gap.to, removals=removals))) == ["6", "7"]


# -- redacted ----------------------------------------------------------------------------------------------------------


def test_a_redacted_message_keeps_its_place_with_sender_and_mid() -> None:
    layout = laid(page_of([1, 3], redacted=[2]))
    assert told(layout) == ["1", "2 redacted", "3"]
    assert layout.items[1] == Entry(at(2), "message", "bob", "all", "m2", is_redacted=True)


def test_redacted_at_both_ends() -> None:
    layout = laid(page_of([2], redacted=[1, 3], head=at(3)))
    assert told(layout) == ["1 redacted", "2", "3 redacted"]
    assert layout.upto == at(3)


def test_lost_around_what_was_redacted() -> None:
    layout = laid(page_of([1, 7], redacted=[3, 5], head=at(9)))
    assert told(layout) == ["1", "gap 1-2", "3 redacted", "gap 3-4", "5 redacted", "gap 5-6", "7", "gap 7-9"]
    assert layout.upto == at(9)


def test_the_next_after_a_gap_may_be_a_redacted_message() -> None:
    assert only_gap(laid(page_of([1, 4], redacted=[3], removals=[lost(1, 2)]))).next == at(3)


def test_redacted_and_then_trimmed_is_part_of_the_gap() -> None:
    layout = laid(page_of([4], floor=at(3), removals=[trimmed(0, 3)]))
    assert told(layout) == ["gap 0-3", "4"]


def test_a_redacted_message_above_the_floor_survives_the_trim() -> None:
    assert told(laid(page_of([5], floor=at(3), redacted=[4], removals=[trimmed(0, 3)]))) == [
        "gap 0-3",
        "4 redacted",
        "5",
    ]


def test_a_redacted_message_as_the_offset_is_an_offset_like_any_other() -> None:
    assert told(laid(page_of([1, 3], after=at(2)))) == ["3"]
    assert told(laid(page_of([1, 3], after=at(2), redacted=[2]))) == ["3"]


def test_redacted_at_or_below_the_offset_does_not_come_again() -> None:
    assert told(laid(page_of([4], after=at(3), redacted=[1, 2, 3]))) == ["4"]


# -- another history ---------------------------------------------------------------------------------------------------


def epoch_gap(page: Page, resume: EntryId = ZERO) -> tuple[EntryId, EntryId]:
    """Bounds of the one gap of cause `epoch` that the page must be laid out as."""
    layout = laid(page, resume)
    [gap] = layout.items
    assert isinstance(gap, Gap)
    assert gap.missed is None
    assert [cause.kind for cause in gap.causes] == ["epoch"]
    assert layout.upto == gap.to
    return gap.after, gap.to


FOREIGN = {
    "above the head": page_of([1, 2, 3], after=at(9)),
    "the head's number, later": page_of([1, 2, 3], after=at(3, 3001)),
    "the head's number, earlier": page_of([1, 2, 3], after=at(3, 2999)),
    "a higher number at an earlier time": page_of([1, 2, 3], after=at(7, 2500)),
    "the head's number, earlier, and the stream deleted": page_of([], after=at(3, 2999), head=at(3)),
    "a lower number at a later time, and the stream deleted": page_of([], after=at(2, 3001), head=at(3)),
    "above an empty stream": page_of([], after=at(1), head=ZERO),
    "its number belongs to an earlier entry": page_of([1, 2, 3], after=at(2, 2500)),
    "its number belongs to a later entry": page_of([1, 2, 3], after=at(2, 1500)),
    "its number is below the number before it": page_of([1, 2, 3], after=at(1, 2500)),
    "its number is above the number after it": page_of([1, 2, 3, 4], after=at(3, 1500)),
    "its number belongs to a redacted message": page_of([1, 3], after=at(2, 1500), redacted=[2]),
    "above the floor's number, below its time": page_of([5, 6], after=at(5, 3500), floor=at(4)),
    "below the floor's number, above its time": page_of([7, 8], after=at(2, 4500), floor=at(4), redacted=[5, 6]),
    "the first number at another time": page_of([1, 2], after=at(1, 999)),
}


@pytest.mark.parametrize("page", FOREIGN.values(), ids=FOREIGN)
def test_an_offset_of_another_history_is_told(page: Page) -> None:
    assert contradicts(page)
    assert epoch_gap(page) == (page.after, page.floor)


OWN = {
    "nothing yet": page_of([1, 2, 3]),
    "nothing yet, all trimmed": page_of([], head=at(3), floor=at(3)),
    "an entry": page_of([1, 2, 3], after=at(2)),
    "the head": page_of([1, 2, 3], after=at(3)),
    "the head, trimmed": page_of([], after=at(3), head=at(3), floor=at(3)),
    "the head, deleted": page_of([], after=at(3), head=at(3)),
    "redacted": page_of([1, 3], after=at(2), redacted=[2]),
    "trimmed": page_of([5, 6], after=at(2), floor=at(4)),
    "the floor": page_of([5, 6], after=at(4), floor=at(4)),
    "the floor's number under another time": page_of([5, 6], after=at(4, 3900), floor=at(4)),
    "the floor's number under a later time": page_of([5, 6], after=at(4, 4100), floor=at(4)),
    "in a hole": page_of([1, 5], after=at(3)),
    "in a hole that the ledger knows": page_of([1, 5], after=at(3, 1500), removals=[lost(1, 4)]),
    "the end of a hole that the ledger knows": page_of([1, 5], after=at(4), removals=[lost(1, 4)]),
    "lost at the end": page_of([1], after=at(2), head=at(4)),
    "the head that was raised without a number": page_of([1, 2], after=at(2), head=at(2, 9000)),
}


@pytest.mark.parametrize("page", OWN.values(), ids=OWN)
def test_an_offset_of_this_history_is_not_taken_for_another(page: Page) -> None:
    assert not contradicts(page)
    assert all(item.missed is not None for item in laid(page).items if isinstance(item, Gap))


def test_after_another_history_it_goes_on_from_the_servers_own_offset() -> None:
    assert epoch_gap(page_of([1, 2, 3], after=at(9)), resume=at(2)) == (at(9), at(2))


@pytest.mark.parametrize(
    "resume",
    [at(3), at(8), at(9)],
    ids=["below the floor", "above the head", "the same that is void"],
)
def test_where_the_servers_own_offset_is_void_too_it_goes_on_from_the_floor(resume: EntryId) -> None:
    page = page_of([5, 6], after=at(9), floor=at(4))
    assert epoch_gap(page, resume) == (at(9), at(4))


def test_in_a_group_it_goes_on_from_the_point_of_joining_at_the_earliest() -> None:
    page = page_of([1, 2, joined(3), 4], after=at(9), stretches=[Stretch(at(1), at(2)), Stretch(at(3))])
    assert epoch_gap(page, resume=at(1)) == (at(9), at(3))
    assert epoch_gap(page, resume=at(4)) == (at(9), at(4))
    just_joined = page_of([1, joined(2)], after=at(9), stretches=[Stretch(at(2))])
    assert epoch_gap(just_joined, resume=at(1)) == (at(9), at(2))


def test_a_gap_of_another_history_is_told_once() -> None:
    """Wherever it goes on is not void again, not even when everything is trimmed and the head's time was raised."""
    page = page_of([], after=at(9), head=at(4, 9000), floor=at(4))
    _, to = epoch_gap(page)
    assert laid(page_of([], after=to, head=at(4, 9000), floor=at(4))).items == ()


def test_a_point_of_joining_that_is_void_too_is_not_gone_on_from_again_and_again() -> None:
    """The group's stream was deleted with its head: its numbers begin anew, below and above the point of joining."""
    member = [Stretch(at(2))]
    assert epoch_gap(page_of([], after=at(9), head=ZERO, stretches=member)) == (at(9), ZERO)
    entries = [message(1, 9001), message(2, 9002), message(3, 9003)]
    after = at(9)
    for expected in (at(2), ZERO):
        assert epoch_gap(page_of(entries, after=after, stretches=member), resume=after) == (after, expected)
        after = expected
    assert told(laid(page_of(entries, after=after, stretches=member))) == ["1", "2", "3"]


# -- groups ------------------------------------------------------------------------------------------------------------


def test_a_member_gets_what_came_since_joining_and_not_the_own_joining() -> None:
    page = page_of([1, joined(2), 3, 4], after=at(2), stretches=[Stretch(at(2))])
    layout = laid(page)
    assert told(layout) == ["3", "4"]
    assert not layout.has_ended


def test_nothing_from_before_joining_comes_whatever_the_offset() -> None:
    page = page_of([1, joined(2), 3], after=ZERO, stretches=[Stretch(at(2))])
    assert told(laid(page)) == ["2 joined", "3"]


def test_who_left_while_away_gets_all_up_to_the_own_leaving_and_then_it_ends() -> None:
    page = page_of([joined(1), 2, 3, left(4), 5, 6], after=at(1), stretches=[Stretch(at(1), at(4))])
    layout = laid(page)
    assert told(layout) == ["2", "3", "4 left"]
    assert layout.has_ended


def test_who_left_and_joined_again_while_away_gets_both_stretches_and_nothing_between() -> None:
    page = page_of(
        [joined(1), 2, left(3), 4, joined(5, "bob"), joined(6), 7],
        after=at(1),
        stretches=[Stretch(at(1), at(3)), Stretch(at(6))],
    )
    layout = laid(page)
    assert told(layout) == ["2", "3 left", "6 joined", "7"]
    assert not layout.has_ended


def test_who_was_never_a_member_gets_nothing_and_it_ends() -> None:
    for page in (page_of([1, 2], stretches=[]), page_of([1, 2], head=at(9), is_last=False, stretches=[])):
        layout = laid(page)
        assert layout.items == ()
        assert layout.has_ended


def test_others_members_are_not_this_user() -> None:
    page = page_of([1, 2], stretches=[Stretch(ZERO)])
    assert lay_out(page, "eve", ZERO).items == ()
    assert lay_out(page, "eve", ZERO).has_ended


def test_a_stretch_that_lies_wholly_before_the_offset_is_over() -> None:
    page = page_of([joined(1), left(2), 3], after=at(2), stretches=[Stretch(at(1), at(2))])
    layout = laid(page)
    assert layout.items == ()
    assert layout.has_ended


def test_the_membership_ends_only_where_the_pages_have_come_to() -> None:
    stretches = [Stretch(at(1), at(4))]
    first = laid(page_of([joined(1), 2, 3], after=at(1), head=at(9), is_last=False, stretches=stretches))
    assert told(first) == ["2", "3"]
    assert not first.has_ended
    second = laid(page_of([3, left(4), 5], after=first.upto, head=at(9), is_last=False, stretches=stretches))
    assert told(second) == ["4 left"]
    assert second.has_ended


def test_a_later_stretch_waits_for_its_page() -> None:
    stretches = [Stretch(at(1), at(3)), Stretch(at(6))]
    page = page_of([joined(1), 2, left(3), 4], after=at(1), head=at(7), is_last=False, stretches=stretches)
    layout = laid(page)
    assert told(layout) == ["2", "3 left"]
    assert layout.upto == at(4)
    page = page_of([4, 5, joined(6), 7], after=layout.upto, stretches=stretches)
    assert told(laid(page)) == ["6 joined", "7"]


def test_what_was_trimmed_outside_the_stretches_is_no_gap() -> None:
    page = page_of(
        [8],
        after=at(1),
        floor=at(7),
        removals=[trimmed(0, 7)],
        stretches=[Stretch(at(1), at(3)), Stretch(at(6))],
    )
    layout = laid(page)
    assert told(layout) == ["gap 1-3", "gap 6-7", "8"]
    assert [item.missed for item in layout.items if isinstance(item, Gap)] == [2, 1]


def test_what_was_trimmed_after_leaving_is_no_gap() -> None:
    page = page_of(
        [], after=at(3), head=at(9), floor=at(9), removals=[trimmed(0, 9)], stretches=[Stretch(at(1), at(3))]
    )
    assert laid(page) == Layout((), at(9), has_ended=True)


def test_lost_at_the_end_of_a_stretch_is_a_gap_to_its_end() -> None:
    page = page_of([joined(1), 2, 6], after=at(1), stretches=[Stretch(at(1), at(4))])
    gap = only_gap(laid(page))
    assert (gap.after, gap.to, gap.missed, gap.next) == (at(2), at(4), 2, None)


def test_where_joining_is_not_announced_the_stretch_starts_at_the_head_of_that_moment() -> None:
    page = page_of([1, 2, 3], after=at(2), stretches=[Stretch(at(2))])
    assert told(laid(page)) == ["3"]
    assert told(laid(page_of([1, 2, 3], after=at(1), stretches=[Stretch(at(2))]))) == ["3"], "2 is another's message"


def test_joined_left_and_joined_at_the_same_entry_is_told_once() -> None:
    """The join was announced; leaving and joining again were not, in a group that had become too large for it."""
    page = page_of([1, joined(2), 3], after=at(1), stretches=[Stretch(at(2), at(2)), Stretch(at(2))])
    assert told(laid(page)) == ["2 joined", "3"]


@pytest.mark.parametrize(
    ("stretches", "start"),
    [
        ((), None),
        ((Stretch(at(1)),), at(1)),
        ((Stretch(at(1), at(2)),), None),
        ((Stretch(at(1), at(2)), Stretch(at(5))), at(5)),
    ],
    ids=["never", "a member", "left", "joined again"],
)
def test_a_device_that_has_nothing_starts_with_the_open_stretch(
    stretches: tuple[Stretch, ...], start: EntryId | None
) -> None:
    assert start_of_membership(stretches) == start
