"""A page cut where the answer to a joining has its place."""

from service.core.entries import Removal, Stretch
from service.core.names import ZERO
from service.core.paging import Gap, Layout, lay_out, up_to
from tests.unit.core.test_paging import ME, at, joined, laid, left, message, page_of, told, trimmed

BOTH = [Stretch(at(1), at(3)), Stretch(at(6))]


def test_the_page_ends_before_the_own_joining_whose_answer_comes_instead() -> None:
    layout = laid(page_of([joined(1), 2, left(3), 4, joined(5, "bob"), joined(6), 7], after=at(1), stretches=BOTH))
    cut = up_to(layout, at(6), ME)
    assert told(cut) == ["2", "3 left"]
    assert (cut.upto, cut.has_ended) == (at(6), False)


def test_a_page_that_does_not_come_so_far_stays_as_it_is() -> None:
    layout = laid(page_of([2, left(3)], after=at(1), head=at(7), is_last=False, stretches=BOTH))
    assert up_to(layout, at(6), ME) is layout


def test_what_has_ended_at_an_earlier_page_goes_on_with_the_next() -> None:
    """Left once more: that is for the page above the joining to tell."""
    stretches = [BOTH[0], Stretch(at(6), at(8))]
    page = page_of([joined(1), 2, left(3), 4, 5, joined(6), 7, left(8)], after=at(1), stretches=stretches)
    layout = laid(page)
    assert layout.has_ended
    assert not up_to(layout, at(6), ME).has_ended
    assert up_to(layout, at(8), ME).has_ended, "nothing lies above"


def test_where_joining_is_not_announced_anothers_message_at_its_place_is_kept() -> None:
    """Left and joined at the same head, which is the last message of the time before."""
    layout = laid(page_of([1, 2, 3, 4], after=at(1), stretches=[Stretch(at(1), at(3)), Stretch(at(3))]))
    assert told(up_to(layout, at(3), ME)) == ["2", "3"]


def test_what_was_trimmed_of_the_time_after_is_told_after() -> None:
    page = page_of([9], after=at(1), floor=at(8), removals=[trimmed(0, 8)], stretches=BOTH)
    cut = up_to(laid(page), at(6), ME)
    assert told(cut) == ["gap 1-3"]
    assert cut.upto == at(6)
    assert told(laid(page_of([9], after=cut.upto, floor=at(8), removals=[trimmed(0, 8)], stretches=BOTH))) == [
        "gap 6-8",
        "9",
    ]


def test_a_step_into_another_history_is_told_whole() -> None:
    """It goes beyond the joining, and no number of it means anything."""
    page = page_of([1, message(2, 9)], after=at(9, 1), stretches=[Stretch(ZERO, at(1)), Stretch(at(2, 9))])
    layout = lay_out(page, ME, ZERO)
    assert layout == Layout((Gap(at(9, 1), at(2, 9), None, (Removal(at(9, 1), at(2, 9), 0, "epoch", 0),)),), at(2, 9))
    assert up_to(layout, at(2, 9), ME) is layout
