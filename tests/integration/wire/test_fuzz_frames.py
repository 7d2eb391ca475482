"""Frames of all kinds of wrong, from several connections at once: each is answered as /asyncapi.json says or ends its
own connection with a code, and somebody who listens meanwhile gets every message.
"""

import asyncio
import json
from typing import NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ERRORS
from tests.fuzz import ANY_JSON, LISTENED, ODD_NAMES, Listening, bounded, broken, names
from tests.integration.wire.kit import BINARY, CLOSE, CONTINUATION, PATIENCE_S, PING, PONG, TEXT, BareSocket, Net
from tests.schemas import check_frame

pytestmark = pytest.mark.anyio

EXAMPLES = 140
USERS = ("mallory", "listener", "speaker")
STREAMS = [
    f"group:{LISTENED}",
    *(f"user:{user}" for user in USERS),
    "all",
    "",
    ":",
    "group:",
    "user",
    "user:a:b",
    "all:x",
]
# Those of errors that end a connection, and of the WebSocket itself: not UTF-8, too large.
CODES = {1000, 1007, 1009, *(row.close for row in ERRORS.values() if row.close is not None)}

user = names(*USERS)
group = names(LISTENED, "another")
stream = st.one_of(st.sampled_from(STREAMS), st.sampled_from(STREAMS), names("all").map("group:{}".format))
ref = st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=70), st.none())
entry_id = st.one_of(
    st.builds("{}-{}".format, st.integers(0, 2**54), st.integers(0, 50)),
    st.sampled_from(["0-0", "1-1", "-1--1", "01-1", "9" * 30 + "-1"]),
)
offsets = st.dictionaries(stream, entry_id, max_size=3)
anchor = st.one_of(
    st.integers(-1, 50), entry_id, st.sampled_from(["2026-11-23T16:24:16.633Z", "2026-02-30T00:00:00Z", "now"])
)


def frame(
    kind: str, required: dict[str, st.SearchStrategy[object]], **optional: st.SearchStrategy[object]
) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({"type": st.just(kind), **required}, optional={"ref": ref, **optional})


device = names("phone")
valid = st.one_of(
    frame("send", {"to": stream, "body": ANY_JSON}, key=st.text(max_size=66)),
    frame("join", {"group": group}),
    frame("leave", {"group": group}),
    frame("ack", {"offsets": offsets}),
    frame("history", {"stream": stream}, after=anchor, before=anchor, around=anchor, limit=st.integers(-1, 300)),
    frame("history", {"stream": st.just("user:mallory"), "with": user}),
    frame("auth", {"token": st.text(max_size=40)}),
    frame("ping", {}),
    frame("offsets", {"offsets": offsets}, more=st.booleans()),
    frame(
        "hello",
        {},
        device=device,
        offsets=offsets,
        epoch=st.text(max_size=8),
        more=st.booleans(),
        token=st.text(max_size=8),
    ),
)


@st.composite
def half_valid(draw: st.DrawFn) -> dict[str, object]:
    """A frame with one field of another type, of another name, or missing."""
    given = dict(draw(valid))
    name = draw(st.sampled_from(sorted(given)))
    match draw(st.sampled_from(["another value", "another name", "missing"])):
        case "another value":
            given[name] = draw(ANY_JSON)
        case "another name":
            given[draw(st.text(max_size=8))] = given.pop(name)
        case _:
            del given[name]
    return given


def spelt(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


whole = st.one_of(valid.map(spelt), valid.map(spelt), half_valid().map(spelt))
text = st.one_of(
    whole, whole, broken(whole), st.lists(whole, min_size=2, max_size=6).map(b"\n".join), st.binary(max_size=40)
)
said = st.tuples(st.sampled_from([TEXT, TEXT, TEXT, TEXT, BINARY]), text, st.booleans())
HELLO = b'{"type":"hello","device":"phone"}'


class Talk(NamedTuple):
    """What one connection says: opcode, message, and whether it comes in two parts."""

    user: str
    is_greeted: bool
    messages: list[tuple[int, bytes, bool]]


who = st.sampled_from(["mallory"] * 2 * len(ODD_NAMES) + ODD_NAMES)
talk = st.builds(Talk, who, st.sampled_from([True, True, True, False]), st.lists(said, min_size=1, max_size=8))
talks = st.lists(talk, min_size=1, max_size=5)


async def carry_out(bare: BareSocket, talk: Talk) -> None:
    """Says all of it, then `ping`: answered, or the connection has ended with a code of the table."""
    if talk.is_greeted:
        bare.write(TEXT, HELLO)
    for opcode, data, is_in_parts in talk.messages:
        if is_in_parts:
            half = len(data) // 2
            bare.write(opcode, data[:half], is_last=False)
            bare.write(PING, b"between")
            bare.write(CONTINUATION, data[half:])
        else:
            bare.write(opcode, data)
    bare.write(TEXT, b'{"type":"ping","ref":"the end"}')
    while True:
        opcode, payload = await bare.read(PATIENCE_S)
        if opcode == CLOSE:
            code = int.from_bytes(payload[:2])
            assert code in CODES, f"closed with {code} {payload[2:]!r}"
            return
        if opcode == PONG:
            assert payload == b"between"
        elif opcode == TEXT:
            for line in payload.split(b"\n"):
                told = json.loads(line)
                check_frame(told)
                if told.get("ref") == "the end":
                    return


@pytest.fixture
async def listening(net: Net) -> Listening:
    return await Listening.begin(net)


@given(talks=talks)
@bounded(EXAMPLES)
async def test_nothing_that_is_said_harms_anybody_else(net: Net, listening: Listening, talks: list[Talk]) -> None:
    sockets = [await net.bare(f"/v1/connect?user={quote(talk.user)}") for talk in talks]
    try:
        async with asyncio.TaskGroup() as tasks:
            for bare, talk in zip(sockets, talks, strict=True):
                tasks.create_task(carry_out(bare, talk))
            tasks.create_task(listening.check())
    finally:
        for bare in sockets:
            bare.cut()
    await listening.check()
