"""What the reader drops of what it has read: bodies that were taken away while they waited in the mailbox."""

from service.core.entries import Arrival, Entry
from service.core.frames import encode_entry
from service.core.names import EntryId
from service.node.reader import redacted_in, tombstone
from service.store import Beat


def arrival(n: int, stream: str = "all", *, takes_away: int = 0) -> Arrival:
    if takes_away:
        return Arrival(stream, Entry(EntryId(5, n), "redacted", "ann", stream, target=f"5-{takes_away}"))
    return Arrival(stream, Entry(EntryId(5, n), "message", "ann", stream, f"m{n}", b'"secret"'), origin=(1, n))


def test_what_was_taken_away_is_known_by_stream_and_id() -> None:
    first, second = [arrival(1), arrival(1, "group:g")], [arrival(2, takes_away=1), arrival(9, takes_away=4)]
    assert redacted_in([first, Beat(3), None, second]) == {("all", "5-1"), ("all", "5-4")}
    assert redacted_in([first, Beat(3), None]) == set()


def test_a_message_without_its_body_keeps_its_place_and_whose_it_is() -> None:
    left = tombstone(arrival(1))
    assert (left.stream, left.origin, left.by_reference) == ("all", (1, 1), False)
    assert encode_entry("all", left.entry) == (
        b'{"type":"message","stream":"all","id":"5-1","mid":"m1","from":"ann","to":"all","redacted":true}'
    )
    large = Arrival("all", Entry(EntryId(5, 1), "message", "ann", "all", "m1"), by_reference=True)
    assert not tombstone(large).by_reference  # nothing of it is to be read any more
