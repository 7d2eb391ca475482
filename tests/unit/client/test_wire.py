"""What comes over the wire, known and unknown."""

import msgspec
import pytest

from service.client.wire import Unknown, WireError, decode, encode, encode_event
from service.core import frames


def test_a_message_holds_one_object_or_several() -> None:
    one = b'{"type":"pong"}'
    assert decode(one) == [frames.Pong()]
    assert decode(one + b"\n\n" + one + b"\n") == [frames.Pong(), frames.Pong()]


def test_what_core_writes_is_read_back() -> None:
    gap = frames.Gap("all", "1-1", "5-4", 3, frames.Cause("trimmed", "all", "max_age 1d"), next="6-5")
    body = msgspec.Raw(b'{"a": [1, 2]}')
    sent: list[frames.ServerFrame] = [
        frames.Message("all", "1-1", "m", "bob", "all", body),
        frames.Message("all", "1-2", "m", "bob", "all", redacted=True),
        frames.Joined("group:g", "1-1", "bob", "g", 7),
        frames.Redacted("all", "1-3", "1-1", "root"),
        gap,
        frames.Live("all"),
        frames.Sent("all", "1-4", "k", False, "fsynced", 9),
        frames.Error("unavailable", "away", True, 9, 1.5),
    ]
    assert decode(b"\n".join(frames.encode(frame) for frame in sent)) == sent


def test_unknown_fields_are_ignored() -> None:
    assert decode(b'{"type":"live","stream":"all","mood":"good"}') == [frames.Live("all")]


def test_an_entry_of_an_unknown_type_keeps_its_place() -> None:
    line = b'{"type":"poll","stream":"all","id":"1-2","body":{"q":"?"}}'
    (entry,) = decode(b" " + line + b"\n")
    assert entry == Unknown("poll", "all", "1-2", line)
    assert encode_event(entry) == line


@pytest.mark.parametrize(
    "line",
    [
        rb'{"type":"message","stream":"all","id":"1-2","mid":"","from":"b","to":"all","body":"\ud800"}',
        b'{"type":"message","stream":"all","id":"1-2","mid":7}',
    ],
)
def test_an_entry_that_cannot_be_read_keeps_its_place_too(line: bytes) -> None:
    assert decode(line) == [Unknown("message", "all", "1-2", line)]


def test_any_other_unknown_type_has_nothing_to_say() -> None:
    assert decode(b'{"type":"weather","stream":"all"}\n{"type":"pong"}') == [frames.Pong()]


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"1",
        b'{"no":"type"}',
        b'{"type":"live","stream":1}',
        b'{"type":"message"}',
        b'{"type":"sent","stream":"all","id":"1-1"}',
        b"\xff",
    ],
)
def test_what_is_not_the_wire(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


def test_what_a_client_says_is_read_by_core() -> None:
    said: list[frames.ClientFrame] = [
        frames.Hello("phone", {"all": "1-1"}, epoch="e", more=True),
        frames.Offsets({"user:ann": "2-2"}),
        frames.Send("all", msgspec.Raw(b'"hi"'), "key", 1),
        frames.Join("g", 2),
        frames.Ack({"all": "1-1"}, 3),
        frames.Ping(),
    ]
    assert frames.decode(b"\n".join(encode(frame) for frame in said)) == said
