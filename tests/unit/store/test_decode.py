"""From raw replies to records: whatever stands in a stream, no number is lost."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.core.entries import Arrival, Entry, Stretch
from service.core.names import EntryId
from service.store import decode
from service.store.records import Beat

FIELDS = st.lists(
    st.tuples(st.sampled_from([b"t", b"f", b"o", b"i", b"b", b"x", b"s", b"n", b"c", b"l", b"beat"]), st.binary())
)


@given(FIELDS)
def test_no_entry_of_a_stream_raises(fields: list[tuple[bytes, bytes]]) -> None:
    entry = decode.entry(b"5-7", [part for pair in fields for part in pair], "all")
    assert entry.id == EntryId(5, 7)


PLACE = ["all", 5, 7, 3, 4]  # stream, ms, n, connection and send
VALUES = st.one_of(
    st.sampled_from(["message", "redacted", "1-1", "[1]", ""]), st.integers(-(2**63), 2**63), st.text(), st.none()
)


def received(*records: object) -> list[Arrival] | Beat | None:
    return decode.received([b"r", msgspec.msgpack.encode(records)])


@given(FIELDS)
def test_no_entry_of_a_mailbox_raises(fields: list[tuple[bytes, bytes]]) -> None:
    found = decode.received([part for pair in fields for part in pair])
    assert found is None or isinstance(found, list | Beat)


@given(st.lists(st.lists(VALUES, max_size=9).map(lambda values: [*PLACE, *values]), max_size=3))
def test_no_record_of_a_mailbox_raises(records: list[list[object]]) -> None:
    found = received(*records)
    assert found is None or all(isinstance(arrival, Arrival) for arrival in found)  # type: ignore[union-attr]


@given(st.binary())
def test_no_line_raises(raw: bytes) -> None:
    assert decode.redaction(raw) is None
    assert decode.removal(raw) is None


def test_a_whole_entry() -> None:
    fields = [
        b"t",
        b"message",
        b"f",
        b"a",
        b"o",
        b"user:b",
        b"i",
        b"m",
        b"b",
        b"{}",
        b"d",
        b"p",
        b"r",
        b"9-9",
        b"p",
        b"tr",
    ]
    assert decode.entry(b"5-7", fields, "user:a") == Entry(
        EntryId(5, 7), "message", "a", "user:b", "m", b"{}", "p", trace="tr"
    )


def test_a_body_of_several_lines_becomes_one_for_it_shares_frames_with_others() -> None:
    fields = [b"t", b"message", b"f", b"a", b"o", b"all", b"b", b"[1,\r\n2]"]
    assert decode.entry(b"5-7", fields, "all").body == b"[1,  2]"


def test_an_arrival_by_reference() -> None:
    entry = Entry(EntryId(5, 7), "message", "a", "all")
    large = [*PLACE, "message", "a", "all", "", "", "", "", 1]
    assert received(large) == [Arrival("all", entry, (3, 4), by_reference=True)]
    assert decode.received([b"beat", b"12"]) == Beat(12)


def test_a_record_without_a_type_is_the_one_before_it_in_another_stream() -> None:
    first, copy = ["user:b", 5, 7, 0, 0, "message", "a", "user:b", "m", "[1,\n2]"], ["user:a", 5, 9, 3, 4]
    assert received(first, copy) == [
        Arrival("user:b", Entry(EntryId(5, 7), "message", "a", "user:b", "m", b"[1, 2]")),
        Arrival("user:a", Entry(EntryId(5, 9), "message", "a", "user:b", "m", b"[1, 2]"), (3, 4)),
    ]
    assert received(copy, first) is None


def test_a_record_that_is_not_whole_counts_as_lost_with_all_that_came_with_it() -> None:
    whole = [*PLACE, "message", "a", "all", "m", "1"]
    assert received(whole) is not None
    for broken in (
        [*PLACE, "message", "a", "all", "m"],
        [*PLACE, "message", "a", "all", "m", "no JSON"],
        [*PLACE, "redacted", "a", "all", "", "", "rubbish"],
        ["all", "5-7", 3, 4, 5, "message", "a", "all", "m", "1"],
    ):
        assert received(whole, broken) is None


def test_stretches() -> None:
    assert decode.stretches(None) == ()
    assert decode.stretches(b"member|") == ()
    assert decode.stretches(b"owner|1-2,3-4;5-6,") == (
        Stretch(EntryId(1, 2), EntryId(3, 4)),
        Stretch(EntryId(5, 6)),
    )
    assert decode.stretches(b"owner|rubbish,1-2") == ()
