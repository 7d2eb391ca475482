"""From raw replies to records: whatever stands in a stream, no number is lost."""

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


@given(FIELDS)
def test_no_entry_of_a_mailbox_raises(fields: list[tuple[bytes, bytes]]) -> None:
    arrival = decode.arrival([part for pair in fields for part in pair])
    assert arrival is None or isinstance(arrival, Arrival | Beat)


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
    fields = [b"s", b"all", b"n", b"5-7", b"t", b"message", b"f", b"a", b"o", b"all", b"l", b"1", b"c", b"3.4"]
    arrival = decode.arrival(fields)
    assert arrival == Arrival("all", Entry(EntryId(5, 7), "message", "a", "all"), (3, 4), by_reference=True)
    assert decode.arrival([b"beat", b"12"]) == Beat(12)


def test_stretches() -> None:
    assert decode.stretches(None) == ()
    assert decode.stretches(b"member|") == ()
    assert decode.stretches(b"owner|1-2,3-4;5-6,") == (
        Stretch(EntryId(1, 2), EntryId(3, 4)),
        Stretch(EntryId(5, 6)),
    )
    assert decode.stretches(b"owner|rubbish,1-2") == ()
