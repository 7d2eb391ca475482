"""Requests as bytes, right and wrong in every part: no error of ours, no traceback, and somebody who listens meanwhile
gets every message.
"""

import asyncio
import json
import re
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import ANY_JSON, ODD_NAMES, Listening, bounded, broken
from tests.integration.wire.kit import Net
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio

EXAMPLES = 50  # each of several requests at once, of which those that are cut off take as long as they are waited for
PATIENCE_S = 0.1
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ")

part = st.one_of(
    st.sampled_from(["all", "user:fuzz", "group:fuzz", "fuzz", "1-1", *ODD_NAMES]).map(
        lambda name: name.encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=12),
).map(lambda raw: quote_from_bytes(raw, safe=":").encode())
known = st.sampled_from(
    [
        b"/v1/messages",
        b"/v1/streams",
        b"/v1/streams/%b/messages",
        b"/v1/streams/%b/messages/%b",
        b"/v1/devices/%b/offsets",
        b"/v1/groups/%b",
        b"/v1/groups/%b/members",
        b"/v1/groups/%b/members/%b",
        b"/v1/admin/nodes",
        b"/v1/admin/streams",
        b"/v1/admin/streams/%b",
        b"/v1/admin/streams/%b/entries",
        b"/v1/admin/users/%b/connections",
        b"/livez",
        b"/readyz",
        b"/openapi.json",
        b"/docs/%b",
        b"/v1/connect",
        b"/chat/user/%b",
    ]
)
query = st.lists(
    st.tuples(
        st.sampled_from([b"user", b"token", b"limit", b"after", b"before", b"around", b"with", b"device", b"kind"]),
        part,
    ).map(b"=".join),
    max_size=3,
).map(b"&".join)


@st.composite
def target(draw: st.DrawFn) -> bytes:
    path = draw(known)
    path %= tuple(draw(part) for _ in range(path.count(b"%b")))
    return path + b"?user=fuzz&" + draw(query)


METHODS = [
    b"GET",
    b"GET",
    b"POST",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"get",
    b"BREW",
    b"G\x00T",
    b"",
]
HEADERS = [
    b"Authorization: Bearer x",
    b"Authorization: \xff",
    b"Authorization:",
    b"Origin: null",
    b"Origin: http://[",
    b"Origin: https://x\xe9",
    b"Host: [::1",
    b"Host: a\x00b",
    b"Host:",
    b"Idempotency-Key: k",
    b'Idempotency-Key: "\\',
    b"If-None-Match: *, \xff",
    b"Expect: 100-continue",
    b"Content-Type: \xff/\xff",
    b"Upgrade: websocket",
    b"Connection: upgrade",
    b"Connection: close",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: x",
    b"X-Forwarded-For: 1.2.3.4, \xff",
    b"Forwarded: for=",
    b"Content-Length: -1",
    b"Content-Length: 9e9",
    b"Content-Length: " + b"9" * 30,
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b" folded: yes",
    b"no colon",
    b"X: " + b"a" * 70_000,
    b"\x00: nul",
    b"X: \x00",
]
body = st.one_of(
    st.builds(lambda body: {"to": "group:fuzz", "body": body}, ANY_JSON),
    st.just({"offsets": {"all": "0-0"}}),
    st.just({"open": True}),
    st.dictionaries(
        st.sampled_from(["to", "body", "key", "from", "offsets", "open", "announce", "role"]), ANY_JSON, max_size=4
    ),
)


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in parts) + b"0\r\n\r\n"


@st.composite
def request(draw: st.DrawFn) -> bytes:
    """A request that is right but perhaps for one of its parts."""
    lines = [b"%b %b HTTP/1.1" % (draw(st.sampled_from(METHODS)), draw(target())), b"Host: 127.0.0.1"]
    lines += draw(st.lists(st.sampled_from(HEADERS), max_size=2))
    data = json.dumps(draw(body), ensure_ascii=False).encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(["length", "length", "chunked", "too long", "too short", "none"])):
        case "length":
            lines.append(b"Content-Length: %d" % len(data))
        case "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            data = chunked(data, draw(st.integers(1, 9)))
        case "too long":
            lines.append(b"Content-Length: %d" % (len(data) + draw(st.integers(1, 200_000))))
        case "too short":
            lines.append(b"Content-Length: %d" % draw(st.integers(0, len(data))))
        case _:
            data = b""
    return b"\r\n".join([*lines, b"", data])


raw = st.one_of(
    request(),
    request(),
    broken(request()),
    st.binary(max_size=60),
    st.lists(request(), min_size=2, max_size=4).map(b"".join),
)
together = st.lists(raw, min_size=3, max_size=8)


async def ask(node: NodeProcess, said: bytes) -> None:
    """Says it, and reads what comes until nothing does: no status above 499."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    heard = b""
    try:
        writer.write(said)
        async with asyncio.timeout(10):
            while more := await asyncio.wait_for(reader.read(65_536), PATIENCE_S):
                heard += more
    except (TimeoutError, ConnectionError):
        pass  # it waits for the rest of what was cut off, or for another request
    finally:
        writer.transport.abort()
    found = [int(status) for status in STATUS_LINE.findall(heard)]
    assert all(status < 500 for status in found), f"{said!r} was answered {heard!r}"
    assert not heard or heard.startswith(b"HTTP/1."), f"{said!r} was answered {heard!r}"


@pytest.fixture
async def listening(net: Net) -> Listening:
    return await Listening.begin(net)


@given(requests=together)
@bounded(EXAMPLES)
async def test_no_request_harms_anybody(node: NodeProcess, listening: Listening, requests: list[bytes]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for said in requests:
            tasks.create_task(ask(node, said))
        tasks.create_task(listening.check())
