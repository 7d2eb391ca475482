"""What clients should not say: each has its code, its `ref` back, and costs nobody else anything."""

import asyncio
import json
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Net, client_frame, join
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio

FRAME_MAX = 131_072
WS_MAX = 1_048_576
HELLO = b'{"type":"hello"}'


class Bad(NamedTuple):
    """What is said, and what comes back. `close`: the connection ends with this code."""

    what: str
    said: bytes
    code: str
    ref: object = None
    close: int | None = None
    opcode: int = TEXT


def no_json(what: str, said: bytes, opcode: int = TEXT) -> Bad:
    return Bad(what, said, "bad_frame", None, 4103, opcode)


def body(text: bytes) -> bytes:
    return b'{"type":"send","ref":1,"to":"user:nobody","body":%b}' % text


TABLE = [
    # Not JSON, or no object with a type: the connection ends with 4103.
    no_json("nothing", b""),
    no_json("blanks", b" \t "),
    no_json("line breaks", b"\n\n\n"),
    no_json("words", b"hello"),
    no_json("half an object", b'{"type":"ping"'),
    no_json("two objects in a line", b'{"type":"ping"}{"type":"ping"}'),
    no_json("something after the object", b'{"type":"ping"} x'),
    no_json("single quotes", b"{'type':'ping'}"),
    no_json("a trailing comma", b'{"type":"ping",}'),
    no_json("a comment", b'{"type":"ping"/* hi */}'),
    no_json("a byte order mark", b'\xef\xbb\xbf{"type":"ping"}'),
    no_json("NUL", b'\x00{"type":"ping"}'),
    no_json("a raw tab in a string", b'{"type":"ping","ref":"a\tb"}'),
    no_json("a list", b'[{"type":"ping"}]'),
    no_json("a string", b'"ping"'),
    no_json("a number", b"5"),
    no_json("null", b"null"),
    no_json("true", b"true"),
    no_json("no type", b'{"ref":1}'),
    no_json("an empty object", b"{}"),
    no_json("a type that is a number", b'{"type":5,"ref":1}'),
    no_json("a type that is null", b'{"type":null}'),
    no_json("a type that is a list", b'{"type":["ping"]}'),
    no_json("NaN", body(b"NaN")),
    no_json("Infinity", body(b"-Infinity")),
    no_json("a number with a leading zero", body(b"01")),
    no_json("a number without an end", body(b"1e")),
    no_json("a bad escape", body(b'"\\q"')),
    no_json("a short escape", body(b'"\\u12"')),
    no_json("a raw line break in a string", body(b'"a\nb"')),
    no_json("nesting without measure", body(b"[" * 30_000 + b"]" * 30_000)),
    no_json("nesting of nothing but openings", b'{"a":' * 20_000),
    no_json("binary rubbish", bytes(range(256)), BINARY),
    no_json("invalid UTF-8 in the body of a binary frame", body(b'"\xff"'), BINARY),
    no_json("an overlong encoding in a binary frame", body(b'{"\xc0\x80":1}'), BINARY),
    no_json("half of a surrogate pair as UTF-8", body(b'"\xed\xa0\x80"'), BINARY),
    # A type that nobody knows.
    Bad("unknown type", b'{"type":"dance","ref":"r"}', "unknown_type", "r"),
    Bad("type in another case", b'{"type":"Ping","ref":2}', "unknown_type", 2),
    Bad("empty type", b'{"type":"","ref":3}', "unknown_type", 3),
    Bad("long type", b'{"type":"%b","ref":4}' % (b"x" * 9999), "unknown_type", 4),
    Bad("type of the server", b'{"type":"welcome","ref":5}', "unknown_type", 5),
    Bad("unknown type with half of a surrogate pair", b'{"type":"\\ud800","ref":6}', "unknown_type", 6),
    # Fields that are missing or of the wrong type.
    Bad("send without to", b'{"type":"send","ref":1,"body":1}', "bad_request", 1),
    Bad("send without body", b'{"type":"send","ref":1,"to":"all"}', "bad_request", 1),
    Bad("send to a number", b'{"type":"send","ref":1,"to":5,"body":1}', "bad_request", 1),
    Bad("send to null", b'{"type":"send","ref":"x","to":null,"body":1}', "bad_request", "x"),
    Bad("send to many", b'{"type":"send","ref":1,"to":["all"],"body":1}', "bad_request", 1),
    Bad("key that is a number", b'{"type":"send","ref":1,"to":"all","body":1,"key":5}', "bad_request", 1),
    Bad("empty key", b'{"type":"send","ref":1,"to":"all","body":1,"key":""}', "bad_request", 1),
    Bad("long key", b'{"type":"send","ref":1,"to":"all","body":1,"key":"%b"}' % (b"k" * 65), "bad_request", 1),
    Bad("join without group", b'{"type":"join","ref":1}', "bad_request", 1),
    Bad("join of a number", b'{"type":"join","ref":1,"group":1}', "bad_request", 1),
    Bad("leave of a list", b'{"type":"leave","ref":1,"group":["g"]}', "bad_request", 1),
    Bad("ack without offsets", b'{"type":"ack","ref":1}', "bad_request", 1),
    Bad("ack with a list", b'{"type":"ack","ref":1,"offsets":["all"]}', "bad_request", 1),
    Bad("ack with a number", b'{"type":"ack","ref":1,"offsets":{"all":5}}', "bad_request", 1),
    Bad("hello with a device of another type", b'{"type":"hello","ref":1,"device":{}}', "bad_request", 1),
    # A ref that cannot be given back is left out.
    Bad("ref that is a float", b'{"type":"ping","ref":1.5}', "bad_request"),
    Bad("ref that is true", b'{"type":"ping","ref":true}', "bad_request"),
    Bad("ref that is a list", b'{"type":"ping","ref":[1]}', "bad_request"),
    Bad("ref that is too long", b'{"type":"ping","ref":"%b"}' % (b"r" * 65), "bad_request"),
    Bad("ref with half of a surrogate pair", b'{"type":"ping","ref":"\\udfff"}', "bad_request"),
    Bad(
        "ref with more digits than a number can be read with",
        b'{"type":"ping","ref":%b}' % (b"9" * 9999),
        "bad_request",
    ),
    # What JSON allows and no string can hold.
    Bad("half of a surrogate pair in a body", body(b'"\\ud800"'), "bad_request", 1),
    Bad("half of a surrogate pair in a name of a body", body(b'{"a\\udc00b":1}'), "bad_request", 1),
    Bad(
        "half of a surrogate pair in a stream",
        b'{"type":"send","ref":1,"to":"user:\\ud800","body":1}',
        "bad_request",
        1,
    ),
    # Streams, names and ids.
    Bad("stream without a kind", b'{"type":"send","ref":1,"to":"bob","body":1}', "bad_stream", 1),
    Bad("stream of another kind", b'{"type":"send","ref":1,"to":"room:g","body":1}', "bad_stream", 1),
    Bad("empty stream", b'{"type":"send","ref":1,"to":"","body":1}', "bad_stream", 1),
    Bad("all in another case", b'{"type":"send","ref":1,"to":"ALL","body":1}', "bad_stream", 1),
    Bad("user without a name", b'{"type":"send","ref":1,"to":"user:","body":1}', "bad_name", 1),
    Bad("user with a slash", b'{"type":"send","ref":1,"to":"user:a/b","body":1}', "bad_name", 1),
    Bad("user with NUL", b'{"type":"send","ref":1,"to":"user:a\\u0000b","body":1}', "bad_name", 1),
    Bad("user with a brace", b'{"type":"send","ref":1,"to":"user:{10}","body":1}', "bad_name", 1),
    Bad("user not in NFC", b'{"type":"send","ref":1,"to":"user:e\\u0301","body":1}', "bad_name", 1),
    Bad("user of 129 characters", b'{"type":"send","ref":1,"to":"user:%b","body":1}' % (b"u" * 129), "bad_name", 1),
    Bad("user with a line break", b'{"type":"send","ref":1,"to":"user:a\\n","body":1}', "bad_name", 1),
    Bad("group of dots", b'{"type":"join","ref":1,"group":".."}', "bad_name", 1),
    Bad("group without a name", b'{"type":"join","ref":1,"group":""}', "bad_name", 1),
    Bad("group with a blank", b'{"type":"leave","ref":1,"group":"a b"}', "bad_name", 1),
    Bad("id without a number", b'{"type":"ack","ref":1,"offsets":{"all":"5"}}', "bad_id", 1),
    Bad("id below nothing", b'{"type":"ack","ref":1,"offsets":{"all":"-1-1"}}', "bad_id", 1),
    Bad("id with Arabic digits", '{"type":"ack","ref":1,"offsets":{"all":"١-١"}}'.encode(), "bad_id", 1),  # noqa: RUF001
    Bad("id beyond 16 digits", b'{"type":"ack","ref":1,"offsets":{"all":"1-%b"}}' % (b"9" * 17), "bad_id", 1),
    Bad("id that asks for what is to come", b'{"type":"ack","ref":1,"offsets":{"all":"$"}}', "bad_id", 1),
    Bad("stream of an ack that is none", b'{"type":"ack","ref":1,"offsets":{"x":"1-1"}}', "bad_stream", 1),
    # What is there, but not for this connection.
    Bad("ack of the future", b'{"type":"ack","ref":1,"offsets":{"all":"9999999999999-999999"}}', "ack_beyond", 1),
    Bad("hello once more", b'{"type":"hello"}', "hello_twice"),
    Bad("group that is not there", b'{"type":"send","ref":1,"to":"group:no-such","body":1}', "not_member", 1),
    Bad("leaving what one is not in", b'{"type":"leave","ref":1,"group":"no-such"}', "not_member", 1),
    Bad("body above its limit", body(b'"%b"' % (b"x" * 65_535)), "body_too_large", 1),
    # Sizes.
    Bad("frame above its limit", b'{"type":"ping"%b}' % (b" " * FRAME_MAX), "too_large", None, 4104),
    Bad("binary frame above its limit", bytes(FRAME_MAX + 1), "too_large", None, 4104, BINARY),
    Bad("frame just below the limit of the library", b" " * WS_MAX, "too_large", None, 4104),
]


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.what.replace(" ", "_"))
async def test_bad_input_is_answered_with_its_code(net: Net, alice: str, bad: Bad) -> None:
    phone = await net.open(alice)
    seen = len(phone.frames)
    await phone.websocket.send(bad.said, text=bad.opcode == TEXT)
    error = await phone.wait("error")
    assert (error["code"], error.get("ref")) == (bad.code, bad.ref)
    assert error["message"]
    assert error["retry"] is False
    if bad.close is None:
        await phone.say(type="ping", ref="still here")
        await phone.wait("pong", ref="still here")
    else:
        assert await phone.ends() == bad.close
    answers = [frame for frame in phone.frames[seen:] if frame["type"] != "pong"]
    assert len(answers) == 1, answers


@pytest.mark.parametrize("bad", [bad for bad in TABLE if bad.code == "bad_frame"], ids=lambda bad: bad.what)
async def test_what_is_no_frame_ends_the_connection_before_hello_too(net: Net, alice: str, bad: Bad) -> None:
    phone = await net.dial(alice)
    await phone.websocket.send(bad.said, text=bad.opcode == TEXT)
    assert await phone.ends() == 4103
    assert [frame["code"] for frame in phone.frames] == ["bad_frame"]


# -- below JSON: sizes, encodings and frames ---------------------------------------------------------------------------


async def closes_with(phone: Phone) -> tuple[int, list[str]]:
    """The close code, and the codes of the errors that were told before."""
    return await phone.ends(), [frame["code"] for frame in phone.frames if frame["type"] == "error"]


async def test_frame_of_128_kib_is_the_largest(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    frame = '{"type":"ping","ref":1}'
    await phone.websocket.send(frame.ljust(FRAME_MAX))
    await phone.wait("pong", ref=1)
    await phone.websocket.send(frame.ljust(FRAME_MAX + 1))
    assert await closes_with(phone) == (4104, ["too_large"])


async def test_frame_above_1_mib_is_refused_by_the_library(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.websocket.send(" " * (WS_MAX + 1))
    assert await closes_with(phone) == (1009, [])


async def test_fragments_that_add_up_to_more_than_1_mib_are_refused_by_the_library(net: Net, alice: str) -> None:
    phone = await net.open(alice)

    async def fragments() -> None:
        await phone.websocket.send(" " * 100_000 for _ in range(12))

    await asyncio.gather(fragments(), return_exceptions=True)
    assert await closes_with(phone) == (1009, [])


@pytest.mark.parametrize("said", [b"\xff", b'{"type":"ping","ref":"\xed\xa0\x80"}', body(b'"\xff"'), body(b'"\xc3"')])
async def test_text_that_is_not_utf_8_is_refused_by_the_library(net: Net, alice: str, said: bytes) -> None:
    phone = await net.open(alice)
    await phone.websocket.send(said, text=True)
    assert await closes_with(phone) == (1007, [])


async def test_what_comes_in_one_go_with_text_that_is_not_utf_8_does_no_harm(net: Net, alice: str) -> None:
    bare, phone = await net.bare(f"/v1/connect?user={alice}"), await net.open(alice)
    auth, ping = b'{"type":"auth","token":"x"}', b"after the end"
    bare._writer.write(b"".join(client_frame(TEXT, said) for said in (HELLO, auth, b"\xff")) + client_frame(PING, ping))
    await phone.send(f"user:{alice}", "meanwhile")
    while (told := await bare.read())[0] in (TEXT, PONG):
        pass
    assert told == (CLOSE, struct.pack("!H", 1007) + b"not UTF-8")


async def test_text_whose_fragments_split_a_character_is_text(net: Net, alice: str) -> None:
    bare = await net.bare(f"/v1/connect?user={alice}")
    said = '{"type":"ping","ref":"ü"}'.encode()
    at = said.index(b"\xc3") + 1
    bare.write(TEXT, said[:at], is_last=False)
    bare.write(PING, b"between")
    bare.write(CONTINUATION, said[at:])
    assert [await bare.read(), await bare.read()] == [(PONG, b"between"), (TEXT, '{"type":"pong","ref":"ü"}'.encode())]


async def test_binary_frame_that_holds_json_is_taken_for_what_it_says(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.websocket.send('{"type":"send","ref":1,"to":"user:%s","body":"é"}' % alice, text=False)
    await phone.wait("sent", ref=1)
    assert (await net.open(alice, "laptop")).bodies() == ["é"]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (bytes((0x83, 0x80, 0, 0, 0, 0)), 1002),  # an opcode that is reserved
        (bytes((0xC1, 0x80, 0, 0, 0, 0)), 1002),  # a reserved bit
        (bytes((0x81, 0x02)) + b"hi", 1002),  # not masked
        (bytes((0x80, 0x80, 0, 0, 0, 0)), 1002),  # a continuation of nothing
        (bytes((0x89, 0xFE, 0x00, 0x7E, 0, 0, 0, 0)) + b"x" * 126, 1002),  # a ping of more than 125 bytes
        (bytes((0x81, 0xFF)) + struct.pack("!Q", 1 << 62) + bytes(4), 1009),  # the length of a small planet
    ],
)
async def test_what_is_no_websocket_frame_ends_the_connection(net: Net, alice: str, what: bytes, code: int) -> None:
    bare = await net.bare(f"/v1/connect?user={alice}")
    bare._writer.write(what)
    opcode, payload = await bare.read()
    assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, code)


# -- numbers and nesting that JSON allows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    ["9" * 9999, "1e999", "-1E-9999", "0." + "3" * 9999, "[" * 800 + "]" * 800, '{"a":' * 800 + "1" + "}" * 800],
)
async def test_unknown_field_may_hold_whatever_json_allows(net: Net, alice: str, field: str) -> None:
    phone = await net.open(alice)
    await phone.websocket.send('{"type":"ping","ref":1,"extra":%s}' % field)
    await phone.wait("pong", ref=1)


@pytest.mark.parametrize("depth", [100, 128, 129, 500, 900, 1000])
async def test_body_nested_too_deep_is_refused_and_any_other_can_be_read_by_everybody(
    net: Net, alice: str, bob: str, depth: int
) -> None:
    """Whatever depth is taken from the sender must be readable on every later way: from mailbox and page."""
    receiver = await net.bare(f"/v1/connect?user={bob}")  # no JSON library of ours has to read it
    receiver.write(TEXT, b'{"type":"hello"}')
    phone = await net.open(alice)
    nested = "[" * depth + "]" * depth
    await phone.websocket.send('{"type":"send","ref":1,"to":"user:%s","body":%s}' % (bob, nested))
    await phone.until(lambda: phone.answer_to(1) or phone.closed, "an answer or the end")
    if depth > 128:
        answer = phone.answer_to(1)
        assert phone.closed == (4103, "bad_frame") if answer is None else answer["code"] == "bad_request"
        return
    pager = await net.bare(f"/v1/connect?user={bob}")
    pager.write(TEXT, b'{"type":"hello","device":"pager"}')
    for one in (receiver, pager):
        payload = b""
        while b'"message"' not in payload:
            _, payload = await one.read()
        assert nested.encode() in payload


# -- and the others ----------------------------------------------------------------------------------------------------


async def test_others_go_on_undisturbed_while_one_says_all_of_it(
    net: Net, alice: str, bob: str, fresh: Callable[[str], str], group: str
) -> None:
    sender, receiver = await net.open(alice), await net.open(bob)
    for member in (sender, receiver):
        await join(member, group)
    mallory = fresh("mallory")
    for number, bad in enumerate(TABLE):
        phone = await net.open(mallory)
        await phone.websocket.send(bad.said, text=bad.opcode == TEXT)
        assert (await sender.send(f"group:{group}", number))["type"] == "sent"
        phone.cut()
    await receiver.wait("message", body=len(TABLE) - 1)
    assert receiver.bodies(f"group:{group}") == list(range(len(TABLE)))
    for phone in (sender, receiver):
        assert [frame for frame in phone.frames if frame["type"] in ("error", "live", "gap")] == [{"type": "live"}]


async def test_node_is_ready_and_in_no_doubt_after_all_of_it(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    node: NodeProcess = start_node()
    net = net.at(node)
    receiver = await net.open(bob)
    for bad in TABLE:
        phone = await net.open(alice)
        said = bad.said.replace(b"user:nobody", b"user:" + bob.encode())
        await phone.websocket.send(said, text=bad.opcode == TEXT)
        await phone.until(lambda one=phone: one.closed or len(one.frames) > 2, "an answer")  # type: ignore[misc]
        phone.cut()
    sender = await net.open(alice)
    await sender.send(f"user:{bob}", "mark")
    await receiver.wait("message", body="mark")
    assert receiver.bodies() == ["mark"]
    assert node.is_ready()
    assert not [line for line in node.said().splitlines() if line.split(" ")[1] != "info"]


async def test_error_names_what_is_wrong_without_repeating_the_body(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.websocket.send('{"type":"send","ref":1,"to":5,"body":"a secret"}')
    assert "a secret" not in json.dumps(await phone.wait("error"))
