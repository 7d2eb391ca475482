"""A page cut where the answer to a joining has its place; and where a connection begins that hears of a joining."""

import pytest

from service.core.entries import Removal, Stretch
from service.core.names import ZERO, EntryId
from service.core.paging import Gap, Layout, lay_out, start_of_what_is_lacking, up_to
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


TWO = (Stretch(at(1), at(3)), Stretch(at(6), at(8)))
OPEN = (*TWO, Stretch(at(10)))


@pytest.mark.parametrize(
    ("stretches", "ended", "since", "start"),
    [
        ((), None, 5000, None),
        (TWO, None, None, None),
        (TWO, None, 6000, at(6)),
        (TWO, None, 1000, at(1)),
        (TWO, at(3), 6000, at(6)),
        (TWO, at(7), 6000, at(7)),
        (TWO, at(8), 6000, None),
        (OPEN, None, None, at(10)),
        (OPEN, None, 6000, at(6)),
        (OPEN, at(3), 10000, at(6)),
        (OPEN, at(8), 10000, at(10)),
    ],
    ids=[
        "never a member",
        "it had ended before the session was opened",
        "it has ended since",
        "two have ended since",
        "the one before had come to its end here",
        "some of it has come",
        "it has come",
        "a member, by old news",
        "one has ended since, and the next begun",
        "what was missed lies before the hint",
        "a member, and nothing missed",
    ],
)
def test_a_connection_that_hears_of_a_joining_begins_where_it_lacks_something(
    stretches: tuple[Stretch, ...], ended: EntryId | None, since: int | None, start: EntryId | None
) -> None:
    assert start_of_what_is_lacking(stretches, ended, since) == start
