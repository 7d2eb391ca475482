"""Tails: the newest entries of streams that somebody is catching up on; all of a stretch, or nothing."""

from service.config import Limits
from service.core.entries import Arrival, Entry
from service.core.names import EntryId
from service.node.connection import Item
from service.node.tails import Tails

BODY = b'"12345678"'
EMPTY_SIZE = len("m" + "ann" + "group:g")  # what counts of an entry beside its body
SIZE = EMPTY_SIZE + len(BODY)


def at(n: int) -> EntryId:
    return EntryId(1000 + n, n)


def item(n: int, stream: str = "group:g", body: bytes | None = BODY) -> Item:
    return Item(Arrival(stream, Entry(at(n), "message", sender="ann", to="group:g", mid="m", body=body)))


def tails(*numbers: int, stream: str = "group:g", entries: int = 64, size: int = 10_000) -> Tails:
    made = Tails(Limits(tail_entries=entries, tail_bytes=size))
    for n in numbers:
        made.add(item(n, stream))
    return made


def between(kept: Tails, after: int, upto: int, stream: str = "group:g") -> list[int] | None:
    items = kept.between(stream, at(after), at(upto))
    return None if items is None else [found.arrival.entry.id.n for found in items]


# -- add, drop, between ------------------------------------------------------------------------------------------------


def test_what_was_added_is_given_in_order() -> None:
    kept = tails(4, 5, 6, 7)
    assert between(kept, 3, 7) == [4, 5, 6, 7]
    assert between(kept, 4, 6) == [5, 6]
    assert between(kept, 6, 7) == [7]


def test_the_very_items_are_given_so_that_their_spelling_is_shared() -> None:
    kept, given = tails(), item(5)
    kept.add(given)
    found = kept.between("group:g", at(4), at(5))
    assert found is not None
    assert found[0] is given


def test_taking_does_not_use_up() -> None:
    kept = tails(4, 5)
    assert between(kept, 3, 5) == between(kept, 3, 5) == [4, 5]


def test_a_stretch_that_is_not_all_here_is_none() -> None:
    kept = tails(4, 5, 6)
    assert between(kept, 2, 6) is None  # 3 was before
    assert between(kept, 4, 7) is None  # 7 is still to come


def test_an_empty_stretch_is_none() -> None:
    kept = tails(4, 5)
    assert between(kept, 5, 5) is None
    assert between(kept, 7, 5) is None


def test_a_stream_that_nothing_was_added_of() -> None:
    assert between(tails(), 1, 2) is None
    assert between(tails(1, 2), 0, 2, stream="all") is None


def test_a_hole_gives_none() -> None:
    kept = tails(4, 5, 7, 8)
    assert between(kept, 3, 8) is None
    assert between(kept, 5, 8) is None
    assert between(kept, 3, 5) == [4, 5]
    assert between(kept, 6, 8) == [7, 8]


def test_ends_that_do_not_touch_do_not_make_up_for_a_hole() -> None:
    kept = tails(4, 4, 6)  # as many as from 4 to 6, and yet not they
    assert between(kept, 3, 6) is None


def test_dropped_is_gone() -> None:
    kept = tails(4, 5)
    kept.drop("group:g")
    assert between(kept, 3, 5) is None
    kept.add(item(6))
    assert between(kept, 5, 6) == [6]
    assert between(kept, 4, 6) is None


def test_dropping_what_is_not_there_is_nothing() -> None:
    kept = tails(4)
    kept.drop("all")
    kept.drop("all")
    assert between(kept, 3, 4) == [4]


def test_streams_do_not_touch_each_other() -> None:
    kept = tails(4, 5)
    for n in (5, 6):
        kept.add(item(n, "all"))
    assert between(kept, 3, 5) == [4, 5]
    assert between(kept, 4, 6, stream="all") == [5, 6]
    kept.drop("group:g")
    assert between(kept, 3, 5) is None
    assert between(kept, 4, 6, stream="all") == [5, 6]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_only_so_many_entries_of_a_stream_are_kept_the_newest() -> None:
    kept = tails(1, 2, 3, 4, 5, entries=3)
    assert between(kept, 2, 5) == [3, 4, 5]
    assert between(kept, 1, 5) is None


def test_the_bound_of_entries_is_for_each_stream() -> None:
    kept = tails(1, 2, 3, entries=3)
    kept.add(item(1, "all"))
    assert between(kept, 0, 3) == [1, 2, 3]
    assert between(kept, 0, 1, stream="all") == [1]


def test_up_to_the_bound_of_bytes_all_is_kept() -> None:
    assert between(tails(1, 2, 3, size=3 * SIZE), 0, 3) == [1, 2, 3]


def test_above_the_bound_of_bytes_nothing_of_any_stream_is_kept() -> None:
    kept = tails(1, 2, size=3 * SIZE)
    kept.add(item(1, "all"))
    kept.add(item(2, "all"))
    assert between(kept, 0, 2) is None
    assert between(kept, 0, 2, stream="all") is None


def test_after_the_bound_of_bytes_it_begins_anew() -> None:
    kept = tails(1, 2, 3, 4, size=3 * SIZE)
    for n in (5, 6, 7):
        kept.add(item(n))
    assert between(kept, 4, 7) == [5, 6, 7]


def test_what_was_dropped_counts_no_more() -> None:
    kept = tails(1, 2, 3, size=3 * SIZE)
    kept.drop("group:g")
    for n in (1, 2, 3):
        kept.add(item(n, "all"))
    assert between(kept, 0, 3, stream="all") == [1, 2, 3]


def test_what_the_bound_of_entries_pushed_out_counts_no_more() -> None:
    kept = tails(*range(1, 100), entries=2, size=3 * SIZE)  # between adding and pushing out there are three
    assert between(kept, 97, 99) == [98, 99]


def test_an_entry_without_a_body_has_a_size_too() -> None:
    kept = tails(size=2 * EMPTY_SIZE)
    for n in (1, 2):
        kept.add(item(n, body=None))
    assert between(kept, 0, 2) == [1, 2]
    kept.add(item(3, body=None))
    assert between(kept, 0, 3) is None
    assert between(kept, 2, 3) is None
