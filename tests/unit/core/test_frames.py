"""The wire: what clients may send and how it is refused, what they get to the letter."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core import frames
from service.core.entries import Entry, Removal
from service.core.frames import Malformed, decode, encode, encode_entry, one_line
from service.core.names import EntryId
from service.errors import ERRORS, WaypostError

# -- in: good frames ---------------------------------------------------------------------------------------------------


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def decoded(text: str | bytes) -> frames.ClientFrame | Malformed:
    """The one frame in a text frame."""
    [frame] = decode(text if isinstance(text, bytes) else text.encode())
    return frame


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type":"hello"}', frames.Hello()),
        (
            '{"type":"hello","device":"phone","offsets":{"all":"5-1"},"token":"t","epoch":"e1","more":true}',
            frames.Hello("phone", {"all": "5-1"}, "t", "e1", more=True),
        ),
        ('{"type":"offsets","offsets":{}}', frames.Offsets({})),
        ('{"type":"offsets","offsets":{"all":"5-1"},"more":true}', frames.Offsets({"all": "5-1"}, more=True)),
        ('{"type":"join","group":"g1","ref":1}', frames.Join("g1", 1)),
        ('{"type":"leave","group":"g1","ref":"a"}', frames.Leave("g1", "a")),
        ('{"type":"ack","offsets":{"user:ann":"5-1"}}', frames.Ack({"user:ann": "5-1"})),
        ('{"type":"ack","offsets":{},"ref":0}', frames.Ack({}, 0)),
        ('{"type":"history","stream":"all","before":9,"with":"ann"}', frames.AskHistory("all", before=9, with_="ann")),
        ('{"type":"auth","token":"t","ref":1}', frames.Auth("t", 1)),
        ('{"type":"ping"}', frames.Ping()),
        ('{"type":"ping","ref":-7}', frames.Ping(-7)),
        ('{"ref":7,"type":"ping"}', frames.Ping(7)),  # the type need not come first
        (' \t{ "type" : "ping" } ', frames.Ping()),
        ('{"type":"ping","colour":"blue","size":[1,{"a":null}]}', frames.Ping()),  # unknown fields are ignored
        ('{"type":"pi\\u006eg"}', frames.Ping()),
        ('{"type":"ping","ref":"' + "é" * 64 + '"}', frames.Ping("é" * 64)),
        ('{"type":"ping","ref":18446744073709551616}', frames.Ping(2**64)),
    ],
)
def test_a_client_frame_is_decoded(text: str, frame: frames.ClientFrame) -> None:
    assert decoded(text) == frame


def test_a_send_is_decoded() -> None:
    frame = decoded('{"type":"send","ref":7,"to":"user:bob","body":{"a":1},"key":"k1"}')
    assert isinstance(frame, frames.Send)
    assert (frame.to, bytes(frame.body), frame.key, frame.ref) == ("user:bob", b'{"a":1}', "k1", 7)


def test_every_type_of_client_frame_is_tried_here() -> None:
    tags = {str(kind.__struct_config__.tag) for kind in frames.CLIENT_FRAMES}
    assert tags == {"hello", "offsets", "send", "join", "leave", "ack", "history", "auth", "ping"}


@pytest.mark.parametrize(
    "body",
    [
        "null",
        "true",
        "0",
        "-0.0",
        "1e400",
        "1.0",
        "12345678901234567890123456789",
        '""',
        '"\\u0000"',
        '"\\u00e9 \\/ \\ud83d\\ude00"',
        '"é\u2028"',
        "[]",
        "{}",
        '{"b":1, "a":2,"b":3}',
        "[ 1,\t2 ]",
        "[" * 200 + "]" * 200,
    ],
)
def test_the_bytes_of_a_body_are_kept(body: str) -> None:
    frame = decoded(f'{{"type":"send","to":"all","body": {body} }}')
    assert isinstance(frame, frames.Send)
    assert bytes(frame.body).decode() == body


# -- in: several frames, and frames over several lines -----------------------------------------------------------------


def test_a_text_frame_may_hold_several_objects_one_a_line() -> None:
    assert decode(b'{"type":"ping","ref":1}\n{"type":"join","group":"g"}\n{"type":"ping","ref":2}') == [
        frames.Ping(1),
        frames.Join("g"),
        frames.Ping(2),
    ]


def test_blank_lines_and_carriage_returns_between_objects_do_not_matter() -> None:
    assert decode(b'\n{"type":"ping","ref":1}\r\n \t\n\r\n{"type":"ping","ref":2}\n') == [
        frames.Ping(1),
        frames.Ping(2),
    ]


def test_a_refused_line_keeps_its_place_and_the_rest_goes_on() -> None:
    first, second, third = decode(b'{"type":"ping"}\n{"type":"dance","ref":2}\n{"type":"ping","ref":3}')
    assert (first, third) == (frames.Ping(), frames.Ping(3))
    assert isinstance(second, Malformed)
    assert (second.code, second.ref) == ("unknown_type", 2)


def test_nothing_is_read_after_a_line_that_is_no_frame() -> None:
    first, second = decode(b'{"type":"ping"}\nnonsense\n{"type":"ping"}')
    assert first == frames.Ping()
    assert isinstance(second, Malformed)
    assert second.code == "bad_frame"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_one_object_may_be_printed_over_several_lines(newline: str) -> None:
    text = json.dumps({"type": "send", "to": "all", "body": {"a": [1, 2]}, "ref": 4}, indent=2).replace("\n", newline)
    frame = decoded(newline + text + newline)
    assert isinstance(frame, frames.Send)
    assert frame.ref == 4
    assert json.loads(bytes(frame.body)) == {"a": [1, 2]}


def test_what_is_refused_over_several_lines_is_answered_like_any_other() -> None:
    refused = decoded('{\n"type": "dance",\n"ref": 3\n}')
    assert isinstance(refused, Malformed)
    assert (refused.code, refused.ref) == ("unknown_type", 3)


def test_two_objects_over_several_lines_are_no_frame() -> None:
    assert [getattr(frame, "code", "") for frame in decode(b'{\n"type":"ping"\n}\n{\n"type":"ping"\n}')] == [
        "bad_frame"
    ]


# -- in: what is refused -----------------------------------------------------------------------------------------------

SEND = '{"type":"send","to":"all","ref":7,'
DEEP = "[" * 100_000 + "]" * 100_000

# text → the code it is answered with, and the `ref` that is echoed. `bad_frame` ends the connection.
MALFORMED: dict[str, tuple[str | bytes, str, int | str | None]] = {
    # Not JSON, or no object with a type: the end.
    "nothing": ("", "bad_frame", None),
    "a blank": (" ", "bad_frame", None),
    "a line break": ("\n", "bad_frame", None),
    "blank lines": ("\n \r\n", "bad_frame", None),
    "NUL": ("\0", "bad_frame", None),
    "a word": ("hello", "bad_frame", None),
    "half an object": ('{"type":"ping"', "bad_frame", None),
    "something after the object": ('{"type":"ping"} x', "bad_frame", None),
    "two objects in one line": ('{"type":"ping"}{"type":"ping"}', "bad_frame", None),
    "single quotes": ("{'type':'ping'}", "bad_frame", None),
    "a key without quotes": ('{type:"ping"}', "bad_frame", None),
    "a comma too many": ('{"type":"ping",}', "bad_frame", None),
    "a comment": ('{"type":"ping"/* */}', "bad_frame", None),
    "a byte order mark": ('\ufeff{"type":"ping"}', "bad_frame", None),
    "UTF-16": ('{"type":"ping"}'.encode("utf-16-le"), "bad_frame", None),
    "no UTF-8": (b'{"type":"ping","ref":"\xff"}', "bad_frame", None),
    "a body that is no UTF-8": (SEND.encode() + b'"body":"\xff"}', "bad_frame", None),
    "NaN": (SEND + '"body":NaN}', "bad_frame", None),
    "Infinity in a field nobody knows": ('{"type":"ping","x":-Infinity}', "bad_frame", None),
    "a number with a leading zero": (SEND + '"body":01}', "bad_frame", None),
    "a number that ends in its point": (SEND + '"body":1.}', "bad_frame", None),
    "an escape that JSON has not": (SEND + '"body":"\\q"}', "bad_frame", None),
    "a control character in a string": (SEND + '"body":"\x01"}', "bad_frame", None),
    "a tab in a string": (SEND + '"body":"a\tb"}', "bad_frame", None),
    "a line break in a string": (SEND + '"body":"a\nb"}', "bad_frame", None),
    "no value": (SEND + '"body":}', "bad_frame", None),
    "a tower of brackets": (DEEP, "bad_frame", None),
    "a body that is a tower of brackets": (SEND + f'"body":{DEEP}}}', "bad_frame", None),
    "null": ("null", "bad_frame", None),
    "a number": ("5", "bad_frame", None),
    "a string": ('"ping"', "bad_frame", None),
    "an array": ('[{"type":"ping"}]', "bad_frame", None),
    "an object without a type": ('{"ref":7}', "bad_frame", None),
    "an empty object": ("{}", "bad_frame", None),
    "the type null": ('{"type":null,"ref":7}', "bad_frame", None),
    "the type a number": ('{"type":1,"ref":7}', "bad_frame", None),
    "TYPE": ('{"TYPE":"ping"}', "bad_frame", None),
    # An object with a type that nobody knows: an answer.
    "an unknown type": ('{"type":"dance","ref":7}', "unknown_type", 7),
    "the empty type": ('{"type":"","ref":7}', "unknown_type", 7),
    "a type in capitals": ('{"type":"PING","ref":7}', "unknown_type", 7),
    "a server's type": ('{"type":"welcome","ref":"a"}', "unknown_type", "a"),
    "an unknown type without ref": ('{"type":"dance"}', "unknown_type", None),
    "an unknown type, ref null": ('{"type":"dance","ref":null}', "unknown_type", None),
    "an unknown type, ref true": ('{"type":"dance","ref":true}', "unknown_type", None),
    "an unknown type, ref a fraction": ('{"type":"dance","ref":1.5}', "unknown_type", None),
    "an unknown type, ref an object": ('{"type":"dance","ref":{}}', "unknown_type", None),
    "an unknown type, ref beyond any float": ('{"type":"dance","ref":1e400}', "unknown_type", None),
    "an unknown type, ref large": ('{"type":"dance","ref":18446744073709551617}', "unknown_type", 2**64 + 1),
    "an unknown type, a number of thousands of digits": (
        f'{{"type":"dance","ref":7,"x":[{"9" * 5000},"\\ud800"]}}',
        "unknown_type",
        7,
    ),
    "an unknown type, ref of thousands of digits": (f'{{"type":"dance","ref":{"9" * 5000}}}', "unknown_type", None),
    "an unknown type, ref too long": ('{"type":"dance","ref":"%s"}' % ("x" * 65), "unknown_type", None),
    "an unknown type, ref with a line break": ('{"type":"dance","ref":"a\\nb"}', "unknown_type", "a\nb"),
    "an unknown type, ref an emoji of several": ('{"type":"dance","ref":"👩‍👧"}', "unknown_type", "👩‍👧"),
    "an unknown type, half a pair": ('{"type":"dance","ref":7,"x":"\\ud800"}', "unknown_type", 7),
    # An object of a known type with a field that is missing or wrong: an answer.
    "no body": (SEND + '"key":"k"}', "bad_request", 7),
    "no to": ('{"type":"send","body":1,"ref":7}', "bad_request", 7),
    "to is null": ('{"type":"send","to":null,"body":1,"ref":7}', "bad_request", 7),
    "to is a list": ('{"type":"send","to":["all"],"body":1,"ref":7}', "bad_request", 7),
    "key is a number": (SEND + '"body":1,"key":5}', "bad_request", 7),
    "key is empty": (SEND + '"body":1,"key":""}', "bad_request", 7),
    "key is too long": (SEND + '"body":1,"key":"%s"}' % ("k" * 65), "bad_request", 7),
    "half a pair in the body": (SEND + '"body":"\\ud800"}', "bad_request", 7),
    "half a pair in a field nobody knows": ('{"type":"ping","ref":7,"x":"\\udfff!"}', "bad_request", 7),
    "half a pair in the ref": ('{"type":"ping","ref":"\\ud800"}', "bad_request", None),
    "a wrong field and half a pair": ('{"type":"ack","offsets":5,"ref":7,"x":"\\ud800"}', "bad_request", 7),
    "ref is true": ('{"type":"ping","ref":true}', "bad_request", None),
    "ref is a fraction": ('{"type":"ping","ref":1.5}', "bad_request", None),
    "ref is beyond any float": ('{"type":"ping","ref":1e400}', "bad_request", None),
    "ref is a list": ('{"type":"ping","ref":[1]}', "bad_request", None),
    "ref is too long": ('{"type":"ping","ref":"%s"}' % ("x" * 65), "bad_request", None),
    "no group": ('{"type":"join","ref":7}', "bad_request", 7),
    "group is a number": ('{"type":"leave","group":5,"ref":"r"}', "bad_request", "r"),
    "no offsets to acknowledge": ('{"type":"ack","ref":7}', "bad_request", 7),
    "offsets is a list": ('{"type":"ack","offsets":[],"ref":7}', "bad_request", 7),
    "an offset is a number": ('{"type":"ack","offsets":{"all":5},"ref":7}', "bad_request", 7),
    "offsets of hello is null": ('{"type":"hello","offsets":null,"ref":7}', "bad_request", 7),
    "device is a number": ('{"type":"hello","device":1}', "bad_request", None),
    "more is a string": ('{"type":"hello","more":"yes"}', "bad_request", None),
    "the type twice": ('{"type":"ping","type":"join","ref":7}', "bad_request", 7),
}


@pytest.mark.parametrize(("text", "code", "ref"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_answered_exactly_so(text: str | bytes, code: str, ref: int | str | None) -> None:
    refused = decoded(text)
    assert isinstance(refused, Malformed)
    assert (refused.code, refused.ref) == (code, ref)
    assert refused.detail
    assert len(refused.detail) < 200
    # The answer can be written, on one line.
    assert b"\n" not in encode(frames.error_frame(WaypostError(code, refused.detail), refused.ref))


def test_only_what_is_no_frame_at_all_ends_the_connection() -> None:
    codes = {code for _, code, _ in MALFORMED.values()}
    assert {code for code in codes if ERRORS[code].close is not None} == {"bad_frame"}


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    assert decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["type", "to", "body", "key", "ref", "group", "offsets", "x"]), json_values))
def test_whatever_is_an_object_with_a_type_goes_on(fields: dict[str, Any]) -> None:
    refused = decoded(json.dumps(fields))
    is_fatal = isinstance(refused, Malformed) and refused.code == "bad_frame"
    assert is_fatal == (not isinstance(fields.get("type"), str))


# -- out: every frame to the letter ------------------------------------------------------------------------------------

STATE = frames.StreamState("5-1", "9-3", "0-0", 2)

ANSWERS: dict[str, tuple[frames.ServerFrame, str]] = {
    "welcome": (
        frames.Welcome("ann", "phone", "n1", "e1", 25.0, {"body_bytes": 65536}, {"user:ann": STATE}),
        (
            '{"type":"welcome","user":"ann","device":"phone","node":"n1","epoch":"e1","ping":25.0,'
            '"limits":{"body_bytes":65536},'
            '"streams":{"user:ann":{"offset":"5-1","head":"9-3","floor":"0-0","missed":2}}}'
        ),
    ),
    "welcome, more to come": (
        frames.Welcome("ann", "phone", "n1", "e1", 0.5, {}, {}, more=True),
        (
            '{"type":"welcome","user":"ann","device":"phone","node":"n1","epoch":"e1","ping":0.5,"limits":{},'
            '"streams":{},"more":true}'
        ),
    ),
    "streams": (
        frames.Streams({"all": STATE}, more=True),
        '{"type":"streams","streams":{"all":{"offset":"5-1","head":"9-3","floor":"0-0","missed":2}},"more":true}',
    ),
    "streams, the last": (frames.Streams({}), '{"type":"streams","streams":{}}'),
    "message": (
        frames.Message("all", "5-1", "k1", "ann", "all", raw('{"a": 1}')),
        '{"type":"message","stream":"all","id":"5-1","mid":"k1","from":"ann","to":"all","body":{"a": 1}}',
    ),
    "joined": (
        frames.Joined("group:g", "5-1", "ann", "g"),
        '{"type":"joined","stream":"group:g","id":"5-1","user":"ann","group":"g"}',
    ),
    "joined, an answer": (
        frames.Joined("group:g", "5-1", "ann", "g", 7),
        '{"type":"joined","stream":"group:g","id":"5-1","user":"ann","group":"g","ref":7}',
    ),
    "left": (
        frames.Left("group:g", "5-1", "ann", "g"),
        '{"type":"left","stream":"group:g","id":"5-1","user":"ann","group":"g"}',
    ),
    "left, an answer": (
        frames.Left("group:g", "5-1", "ann", "g", "r"),
        '{"type":"left","stream":"group:g","id":"5-1","user":"ann","group":"g","ref":"r"}',
    ),
    "redacted": (
        frames.Redacted("all", "5-2", "5-1", "ann"),
        '{"type":"redacted","stream":"all","id":"5-2","target":"5-1","by":"ann"}',
    ),
    "gap": (
        frames.Gap("all", "0-0", "5-3", 3, frames.Cause("trimmed", "default", "max_age", "2024-05-01T00:00:00.000Z")),
        (
            '{"type":"gap","stream":"all","after":"0-0","to":"5-3","missed":3,"cause":{"kind":"trimmed",'
            '"policy":"default","limit":"max_age","at":"2024-05-01T00:00:00.000Z"}}'
        ),
    ),
    "gap with a next entry and several causes": (
        frames.Gap(
            "all", "0-0", "5-3", 3, frames.Cause("lost"), "6-4", (frames.Cause("trimmed"), frames.Cause("lost"))
        ),
        (
            '{"type":"gap","stream":"all","after":"0-0","to":"5-3","missed":3,"cause":{"kind":"lost"},"next":"6-4",'
            '"causes":[{"kind":"trimmed"},{"kind":"lost"}]}'
        ),
    ),
    "gap between two histories": (
        frames.Gap("all", "9-9", "5-3", None, frames.Cause("epoch")),
        '{"type":"gap","stream":"all","after":"9-9","to":"5-3","missed":null,"cause":{"kind":"epoch"}}',
    ),
    "live": (frames.Live(), '{"type":"live"}'),
    "live again": (frames.Live("all"), '{"type":"live","stream":"all"}'),
    "sent": (
        frames.Sent("all", "5-1", "k1", duplicate=False, durability="fsynced", ref=7),
        '{"type":"sent","stream":"all","id":"5-1","mid":"k1","duplicate":false,"durability":"fsynced","ref":7}',
    ),
    "sent, a repeat without ref": (
        frames.Sent("all", "5-1", "k1", duplicate=True, durability="memory"),
        '{"type":"sent","stream":"all","id":"5-1","mid":"k1","duplicate":true,"durability":"memory"}',
    ),
    "acked": (frames.Acked(7), '{"type":"acked","ref":7}'),
    "acked, ref zero": (frames.Acked(0), '{"type":"acked","ref":0}'),
    "authorised": (frames.Authorised("ann", 60.5, 1), '{"type":"authorised","user":"ann","expires_in":60.5,"ref":1}'),
    "authorised for ever": (frames.Authorised("ann"), '{"type":"authorised","user":"ann"}'),
    "pong": (frames.Pong("x"), '{"type":"pong","ref":"x"}'),
    "pong, ref empty": (frames.Pong(""), '{"type":"pong","ref":""}'),
    "pong without ref": (frames.Pong(), '{"type":"pong"}'),
    "pong with a ref that would break a line": (frames.Pong("a\nb"), '{"type":"pong","ref":"a\\nb"}'),
    "pong with a ref beyond 64 bits": (frames.Pong(2**64), '{"type":"pong","ref":18446744073709551616}'),
    "error": (
        frames.error_frame(WaypostError("not_member"), 7),
        '{"type":"error","code":"not_member","message":"not a member of this group","retry":false,"ref":7}',
    ),
    "error that may pass": (
        frames.error_frame(WaypostError("rate_limited", retry_after=1.5)),
        '{"type":"error","code":"rate_limited","message":"too many requests","retry":true,"retry_after":1.5}',
    ),
}


@pytest.mark.parametrize(("frame", "text"), ANSWERS.values(), ids=ANSWERS)
def test_a_server_frame_is_this_json(frame: frames.ServerFrame, text: str) -> None:
    assert encode(frame).decode() == text


def test_every_type_of_server_frame_is_tried_here() -> None:
    elsewhere = {frames.History}  # in test_history.py
    assert {type(frame) for frame, _ in ANSWERS.values()} | elsewhere == set(frames.ServerFrame.__args__)


# -- out: entries ------------------------------------------------------------------------------------------------------

ID = EntryId(5, 1)


@pytest.mark.parametrize(
    ("stream", "entry", "text"),
    [
        (
            "user:bob",
            Entry(ID, "message", "ann", "user:bob", "k1", b'{ "a":1}', device="phone", trace="00-ab"),
            '{"type":"message","stream":"user:bob","id":"5-1","mid":"k1","from":"ann","to":"user:bob","body":{ "a":1}}',
        ),
        (
            "all",
            Entry(ID, "message", "ann", "all", "k1", b"null"),
            '{"type":"message","stream":"all","id":"5-1","mid":"k1","from":"ann","to":"all","body":null}',
        ),
        (
            "group:g",
            Entry(ID, "joined", "ann", "group:g"),
            '{"type":"joined","stream":"group:g","id":"5-1","user":"ann","group":"g"}',
        ),
        (
            "user:ann",
            Entry(ID, "left", "ann", "group:group:g"),
            '{"type":"left","stream":"user:ann","id":"5-1","user":"ann","group":"group:g"}',
        ),
        (
            "all",
            Entry(EntryId(6, 2), "redacted", "root", "all", target="5-1"),
            '{"type":"redacted","stream":"all","id":"6-2","target":"5-1","by":"root"}',
        ),
    ],
    ids=["direct message", "body null", "joined", "left in an inbox", "redacted"],
)
def test_an_entry_is_this_json(stream: str, entry: Entry, text: str) -> None:
    assert encode_entry(stream, entry).decode() == text


def test_a_redacted_message_keeps_its_place_without_a_body() -> None:
    entry = Entry(ID, "message", "ann", "all", "k1", is_redacted=True)
    assert encode_entry("all", entry) == (
        b'{"type":"message","stream":"all","id":"5-1","mid":"k1","from":"ann","to":"all","redacted":true}'
    )


def test_an_entry_of_a_type_from_the_future_is_given_as_it_was_stored() -> None:
    entry = Entry(ID, "edited", "ann", "group:g", "k1", b'{"a": 1}', target="4-0", extra={"q": "1", "colour": "blue\n"})
    assert json.loads(encode_entry("group:g", entry)) == {
        "type": "edited",
        "stream": "group:g",
        "id": "5-1",
        "from": "ann",
        "to": "group:g",
        "mid": "k1",
        "target": "4-0",
        "body": {"a": 1},
        "q": "1",
        "colour": "blue\n",
    }


def test_an_unknown_entry_cannot_take_another_place_than_its_own() -> None:
    entry = Entry(ID, "unknown", "", "", extra={"type": "message", "stream": "user:bob", "id": "9-9"})
    assert json.loads(encode_entry("all", entry)) == {"type": "unknown", "stream": "all", "id": "5-1"}


json_texts = st.builds(
    lambda value, indent, is_ascii, newline: json.dumps(value, indent=indent, ensure_ascii=is_ascii).replace(
        "\n", newline
    ),
    json_values,
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\r"]),
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(json_texts)
def test_any_body_stays_the_same_json_and_on_one_line(text: str) -> None:
    body = one_line(text.encode())
    assert json.loads(body) == json.loads(text)
    assert len(body) == len(text.encode())
    for kind in ("message", "from_the_future"):
        wire = encode_entry("all", Entry(ID, kind, "ann", "all", "m", body))
        assert b"\n" not in wire
        assert b"\r" not in wire
        assert body in wire
        assert json.loads(wire)["body"] == json.loads(text)


def test_a_body_of_one_line_is_not_touched() -> None:
    body = b'{ "a" : "\\n" }'
    assert one_line(body) is body


# -- out: causes -------------------------------------------------------------------------------------------------------


def test_a_line_of_the_ledger_is_quoted_with_its_time_in_utc() -> None:
    removal = Removal(EntryId(0, 0), ID, 1, "trimmed", 1714521600007, "inboxes", "max_age", "run-1")
    assert frames.cause_of(removal) == frames.Cause("trimmed", "inboxes", "max_age", "2024-05-01T00:00:00.007Z")


def test_what_the_ledger_does_not_know_is_not_quoted() -> None:
    assert frames.cause_of(Removal(EntryId(0, 0), ID, 1, "lost", 0)) == frames.Cause("lost")
