"""What cannot be understood, or is not allowed: each with the exact answer; and what it does to the connection."""

import asyncio
import json
from typing import Any

import pytest

from tests.integration.http.web import Caller, check_problem, fetch, path_of
from tests.integration.store.kit import Server, key_of
from tests.integration.wire.kit import Net
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio

ME = "user=bad-input"
SEND = f"/v1/messages?{ME}"
OFFSETS = f"/v1/devices/phone/offsets?{ME}"
GROUP = f"/v1/groups/none?{ME}"
MEMBER = f"/v1/groups/none/members/somebody?{ME}"
HISTORY = f"/v1/streams/all/messages?{ME}"
TO_ME = b'"to":"user:bad-input"'
JSON = "the body is not JSON that can be read: "

# Method, path with its query, body, code, detail.
NO_TOKENS = "in dev mode without WAYPOST_JWT_… settings no token is known; ?user=<id> signs in"
ANOTHER = "`from` may only name the user who is signed in"
HALF = "a string in the body holds half of a surrogate pair"

ROWS: list[tuple[str, str, bytes | None, str, str]] = [
    # Who it is
    ("GET", "/v1/streams", None, "unauthorised", "no sign-in was given; in dev mode ?user=<id> signs in"),
    ("POST", "/v1/messages", b"{", "unauthorised", "no sign-in was given; in dev mode ?user=<id> signs in"),
    ("GET", "/v1/streams?user=", None, "unauthorised", "no sign-in was given; in dev mode ?user=<id> signs in"),
    ("GET", "/v1/streams?user=a&user=b", None, "unauthorised", "user is given twice"),
    ("GET", "/v1/streams?user=a%2Fb", None, "unauthorised", "not a name: 'a/b'"),
    ("GET", "/v1/streams?user=%FF", None, "unauthorised", "not a name: '\ufffd'"),
    ("GET", "/v1/streams?token=x", None, "unauthorised", NO_TOKENS),
    # Bodies
    ("POST", SEND, b"", "bad_request", "the request needs a body, a JSON object"),
    ("POST", SEND, None, "bad_request", "the request needs a body, a JSON object"),
    ("POST", SEND, b"hello", "bad_request", JSON + "JSON is malformed: invalid character (byte 0)"),
    ("POST", SEND, b"{", "bad_request", JSON + "Input data was truncated"),
    ("POST", SEND, b"{}x", "bad_request", "Object missing required field `to`"),
    ("POST", SEND, b"[]", "bad_request", "Expected `object`, got `array`"),
    ("POST", SEND, b"null", "bad_request", "Expected `object`, got `null`"),
    ("POST", SEND, b'"to"', "bad_request", "Expected `object`, got `str`"),
    ("POST", SEND, b"\xff\xfe", "bad_request", "the body is not UTF-8"),
    ("POST", SEND, b"{" + TO_ME + b',"body":"\xff"}', "bad_request", "the body is not UTF-8"),
    ("POST", SEND, b'{"to":"user:a","body":"\\ud800"}', "bad_request", HALF),
    ("POST", SEND, b"\xef\xbb\xbf{}", "bad_request", JSON + "JSON is malformed: invalid character (byte 0)"),
    ("POST", SEND, b"[" * 60_000, "bad_request", "Expected `object`, got `array`"),
    ("POST", SEND, b'{"x":' + b"[" * 60_000, "bad_request", "the body nests too deep"),
    ("POST", SEND, b"{" + TO_ME + b',"body":' + b"[" * 60_000, "bad_request", "the body nests too deep"),
    (
        "POST",
        SEND,
        b"{" + TO_ME + b',"body":' + b"[" * 129 + b"]" * 129 + b"}",
        "bad_request",
        "the body nests deeper than 128",
    ),
    (
        "POST",
        SEND,
        b"{" + TO_ME + b',"body":NaN}',
        "bad_request",
        JSON + "JSON is malformed: invalid character (byte 30)",
    ),
    ("POST", SEND, b"{" + TO_ME + b"}", "bad_request", "Object missing required field `body`"),
    ("POST", SEND, b'{"body":1}', "bad_request", "Object missing required field `to`"),
    ("POST", SEND, b'{"to":5,"body":1}', "bad_request", "Expected `str`, got `int` - at `$.to`"),
    ("POST", SEND, b'{"to":"nothing","body":1}', "bad_stream", "not a stream: 'nothing'"),
    ("POST", SEND, b'{"to":"user:","body":1}', "bad_name", "not a name: ''"),
    ("POST", SEND, b'{"to":"user:a/b","body":1}', "bad_name", "not a name: 'a/b'"),
    ("POST", SEND, b"{" + TO_ME + b',"body":1,"key":""}', "bad_request", "Expected `str` of length >= 1 - at `$.key`"),
    (
        "POST",
        SEND,
        b"{" + TO_ME + b',"body":1,"key":7}',
        "bad_request",
        "Expected `str | null`, got `int` - at `$.key`",
    ),
    (
        "POST",
        SEND,
        b"{" + TO_ME + b',"body":1,"from":7}',
        "bad_request",
        "Expected `str | null`, got `int` - at `$.from`",
    ),
    ("POST", SEND, b"{" + TO_ME + b',"body":1,"from":"bob"}', "not_allowed", ANOTHER),
    ("POST", SEND, b"{" + TO_ME + b',"body":1,"from":"a/b"}', "bad_name", "not a name: 'a/b'"),
    # Offsets
    ("PUT", OFFSETS, b"{}", "bad_request", "Object missing required field `offsets`"),
    ("PUT", OFFSETS, b'{"offsets":[]}', "bad_request", "Expected `object`, got `array` - at `$.offsets`"),
    ("PUT", OFFSETS, b'{"offsets":{"all":5}}', "bad_request", "Expected `str`, got `int` - at `$.offsets[...]`"),
    ("PUT", OFFSETS, b'{"offsets":{"all":"5"}}', "bad_id", "not an entry id: '5'"),
    ("PUT", OFFSETS, b'{"offsets":{"all":"01-5"}}', "bad_id", "not an entry id: '01-5'"),
    ("PUT", OFFSETS, b'{"offsets":{"all":"9007199254740993-1"}}', "bad_id", "above 2^53: '9007199254740993-1'"),
    ("PUT", OFFSETS, b'{"offsets":{"":"0-0"}}', "bad_stream", "not a stream: ''"),
    ("PUT", OFFSETS, b'{"offsets":{"user:bob":"0-0"}}', "not_allowed", "an inbox is its owner's alone"),
    ("PUT", OFFSETS, b'{"offsets":{"group:none":"0-0"}}', "not_member", "not a member of this group"),
    ("PUT", OFFSETS.replace("phone", "."), b'{"offsets":{}}', "bad_name", "not a name: '.'"),
    # Groups
    ("PUT", GROUP, b'{"open":"yes"}', "bad_request", "Expected `bool | null`, got `str` - at `$.open`"),
    ("PUT", GROUP, b'{"announce":-1}', "bad_request", "Expected `int` >= 0 - at `$.announce`"),
    ("PUT", GROUP.replace("none", "%20"), b"{}", "bad_name", "not a name: ' '"),
    ("PUT", GROUP.replace("none", "a%0A"), b"{}", "bad_name", "not a name: 'a\\n'"),
    ("PUT", GROUP.replace("none", "%E2%84%AB"), b"{}", "bad_name", "not in Unicode NFC: '\u212b'"),
    ("PUT", GROUP.replace("none", "x" * 129), b"{}", "bad_name", f"not a name: '{'x' * 40}'"),
    ("PUT", GROUP.replace("none", "%C2%BD"), b"{}", "bad_name", "neither letter nor digit: '½'"),
    ("PUT", MEMBER, b'{"role":"boss"}', "bad_request", "None of the values there are - at `$.role`"),
    ("PUT", MEMBER, b'{"role":7}', "bad_request", "Expected `str | null`, got `int` - at `$.role`"),
    ("PUT", MEMBER.replace("somebody", "%2E%2E"), b"{}", "bad_name", "not a name: '..'"),
    ("GET", MEMBER, None, "not_member", "not a member of this group"),
    # Queries
    ("GET", HISTORY + "&limit=0", None, "bad_request", "limit is to be from 1 to 200"),
    ("GET", HISTORY + "&limit=+5", None, "bad_request", "limit is to be a number"),
    ("GET", HISTORY + "&limit=5&limit=5", None, "bad_request", "limit is given twice"),
    ("GET", HISTORY + "&after=1&after=2", None, "bad_request", "after is given twice"),
    ("GET", HISTORY + "&after=1&before=2", None, "bad_request", "only one of after, before and around"),
    ("GET", HISTORY + "&with=bob", None, "bad_request", "with is for the own inbox"),
    ("GET", HISTORY + "&after=%00", None, "bad_anchor", "neither a number, an entry id nor an RFC 3339 time: '\\x00'"),
    ("GET", HISTORY.replace("all", "user:bob"), None, "not_allowed", "an inbox is its owner's alone"),
    ("GET", HISTORY.replace("all", "%ff"), None, "bad_stream", "not a stream: '\ufffd'"),
    ("DELETE", f"/v1/streams/all/messages/7?{ME}", None, "bad_id", "not an entry id: '7'"),
    ("DELETE", f"/v1/streams/all/messages/1-7?{ME}", None, "not_found", "no such entry"),
    # Paths and methods
    ("GET", "/v1", None, "no_path", "nothing is at this path (HTTP only)"),
    ("GET", "/v1/streams/", None, "no_path", "nothing is at this path (HTTP only)"),
    ("GET", "//v1/streams", None, "no_path", "nothing is at this path (HTTP only)"),
    ("GET", "/V1/streams", None, "no_path", "nothing is at this path (HTTP only)"),
    ("GET", "/v1/groups//members", None, "no_path", "nothing is at this path (HTTP only)"),
    ("GET", "/v1/messages", None, "method_not_allowed", "this path takes another method (HTTP only)"),
    ("PATCH", GROUP, b"{}", "method_not_allowed", "this path takes another method (HTTP only)"),
    ("OPTIONS", GROUP, None, "method_not_allowed", "this path takes another method (HTTP only)"),
    ("HEAD", SEND, None, "method_not_allowed", ""),
    ("BREW", "/livez", None, "method_not_allowed", "this path takes another method (HTTP only)"),
]


@pytest.mark.parametrize(("method", "path", "body", "code", "detail"), ROWS)
async def test_each_has_its_answer(
    node: NodeProcess, method: str, path: str, body: bytes | None, *, code: str, detail: str
) -> None:
    answer = await fetch(node, path, method, body)
    if method == "HEAD":
        assert (answer.status, answer.json) == (405, {})
        return
    check_problem(answer, code)
    assert answer.json["detail"] == detail


async def test_the_methods_of_a_path_are_told(node: NodeProcess) -> None:
    for path, allowed in ((GROUP, {"GET", "HEAD", "PUT", "DELETE"}), (SEND, {"POST"}), ("/livez", {"GET", "HEAD"})):
        answer = await fetch(node, path, "PATCH", b"")
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/livez", "/readyz", HISTORY, f"/v1/streams?{ME}", "/v1/admin/nodes"])
async def test_head_is_get_without_a_body(node: NodeProcess, path: str) -> None:
    got, asked = await fetch(node, path), await fetch(node, path, "HEAD")
    assert (asked.status, asked.json) == (got.status, {}) == (200, {})
    assert asked.headers["content-type"] == got.headers["content-type"] == "application/json"
    assert asked.headers["cache-control"] == got.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "", "x"])
async def test_a_body_is_json_whatever_it_is_called(node: NodeProcess, alice: str, kind: str) -> None:
    body = json.dumps({"to": f"user:{alice}", "body": kind}).encode()
    answer = await fetch(node, f"/v1/messages?user={alice}", "POST", body, {"Content-Type": kind})
    assert answer.status == 201


@pytest.mark.parametrize(
    ("origin", "may"), [("http://localhost:5173", True), ("https://evil.example", False), ("null", False)]
)
async def test_pages_of_strangers_may_not(node: NodeProcess, alice: str, origin: str, *, may: bool) -> None:
    body = json.dumps({"to": f"user:{alice}", "body": 1}).encode()
    answer = await fetch(node, f"/v1/messages?user={alice}", "POST", body, {"Origin": origin})
    if may:
        assert answer.status == 201
    else:
        check_problem(answer, "forbidden")
    assert answer.headers["access-control-allow-origin"] is None
    page = await Caller(node, alice).gets(path_of("streams", f"user:{alice}", "messages"))
    assert len(page["messages"]) == int(may)


# -- the connection ----------------------------------------------------------------------------------------------------


class Socket:
    """An HTTP connection by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, node: NodeProcess) -> "Socket":
        return cls(*await asyncio.open_connection("127.0.0.1", node.port))

    def ask(self, method: str, path: str, *headers: str) -> None:
        self.writer.write("\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode())

    async def answer(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """The next answer: status, headers and JSON."""
        async with asyncio.timeout(10):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(status.split()[1]), headers, json.loads(body or b"{}")

    async def refused(self, code: str, *, is_last: bool) -> None:
        """The next answer is this refusal, after which the connection ends, or goes on."""
        status, headers, said = await self.answer()
        assert (said["code"], said["status"]) == (code, status)
        assert headers["content-type"] == "application/problem+json"
        assert (headers.get("connection") == "close") == is_last
        if is_last:
            async with asyncio.timeout(10):
                assert await self.reader.read() == b""
        else:
            self.ask("GET", "/livez")
            assert (await self.answer())[0] == 200

    async def pour(self) -> None:
        """Sends for as long as anybody takes it."""
        while True:
            self.writer.write(chunk(b"x" * 100_000))
            await self.writer.drain()

    def close(self) -> None:
        self.writer.close()


BODY = b'{"to":"user:bad-input","body":1}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_a_refusal_leaves_the_connection_as_it_was(node: NodeProcess) -> None:
    socket = await Socket.open(node)
    for path, body, code in ((SEND, b"x" * 1000, "bad_request"), ("/v1/messages", b"y" * 100_000, "unauthorised")):
        socket.ask("POST", path, f"Content-Length: {len(body)}")
        socket.writer.write(body)
        await socket.refused(code, is_last=False)
    socket.ask("DELETE", f"/v1/streams/all/messages/x?{ME}", "Content-Length: 5")  # a body that nobody asked for
    socket.writer.write(b"hello")
    await socket.refused("bad_id", is_last=False)
    socket.close()


async def test_what_says_that_it_is_too_long_is_refused_before_it_comes(node: NodeProcess) -> None:
    for path, code in ((SEND, "too_large"), ("/v1/messages", "unauthorised")):
        socket = await Socket.open(node)
        socket.ask("POST", path, f"Content-Length: {1 << 40}")
        await socket.refused(code, is_last=True)
        socket.close()


async def test_what_is_too_long_hears_so_while_it_still_sends(node: NodeProcess) -> None:
    socket = await Socket.open(node)
    socket.ask("POST", SEND, "Content-Length: 3000000")
    for _ in range(30):
        socket.writer.write(b"x" * 100_000)
        await socket.writer.drain()
    await socket.refused("too_large", is_last=True)
    socket.close()


async def test_a_body_in_chunks(net: Net, node: NodeProcess, alice: str) -> None:
    body = json.dumps({"to": f"user:{alice}", "body": "in chunks"}).encode()
    socket = await Socket.open(node)
    for _ in range(2):
        socket.ask("POST", f"/v1/messages?user={alice}", "Transfer-Encoding: chunked")
        for at in range(len(body)):
            socket.writer.write(chunk(body[at : at + 1]))
            await socket.writer.drain()
        socket.writer.write(chunk(b""))
        assert (await socket.answer())[0] == 201
    socket.ask("POST", SEND, "Transfer-Encoding: chunked")
    socket.writer.write(chunk(b"nonsense") + chunk(b""))
    await socket.refused("bad_request", is_last=False)
    socket.ask("POST", SEND, "Transfer-Encoding: chunked")
    for _ in range(3):
        socket.writer.write(chunk(b" " * 50_000))
    await socket.refused("too_large", is_last=True)
    socket.close()
    assert (await net.open(alice)).bodies() == ["in chunks"] * 2


async def test_chunks_without_end_are_cut_off(node: NodeProcess) -> None:
    socket = await Socket.open(node)
    socket.ask("POST", "/v1/messages", "Transfer-Encoding: chunked")
    status, headers, _ = await socket.answer()
    assert (status, headers["connection"]) == (401, "close")
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionError):
            await socket.pour()
    socket.close()


async def test_who_waits_to_be_asked_for_the_body(node: NodeProcess) -> None:
    socket = await Socket.open(node)
    socket.ask("POST", SEND, "Expect: 100-continue", f"Content-Length: {len(BODY)}")
    async with asyncio.timeout(5):
        assert (await socket.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    socket.writer.write(BODY)
    assert (await socket.answer())[0] == 201
    socket.ask("POST", SEND, "Expect: 100-continue", "Content-Length: 900000")
    await socket.refused("too_large", is_last=True)  # and not asked for it
    socket.close()
    socket = await Socket.open(node)
    socket.ask("POST", "/v1/messages", "Expect: 100-continue", "Content-Length: 9")
    await socket.refused("unauthorised", is_last=True)
    socket.close()


async def test_one_request_after_the_other_without_waiting(node: NodeProcess) -> None:
    socket = await Socket.open(node)
    for _ in range(5):
        socket.ask("POST", SEND, f"Content-Length: {len(BODY)}")
        socket.writer.write(BODY)
    assert [(await socket.answer())[0] for _ in range(5)] == [201] * 5
    socket.close()


async def test_who_goes_in_the_middle_of_a_body_costs_nothing(node: NodeProcess) -> None:
    for _ in range(3):
        socket = await Socket.open(node)
        socket.ask("POST", SEND, "Content-Length: 1000")
        socket.writer.write(b"{")
        await socket.writer.drain()
        await asyncio.sleep(0.05)
        socket.writer.transport.abort()
    assert (await fetch(node, "/livez")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        ("Idempotency-Key: a", "Idempotency-Key: b"),
        ("Idempotency-Key: ",),
        ('Idempotency-Key: "',),
        (f"Idempotency-Key: {'k' * 65}",),
    ],
)
async def test_headers_that_are_no_key(node: NodeProcess, headers: tuple[str, ...]) -> None:
    socket = await Socket.open(node)
    socket.ask("POST", SEND, *headers, f"Content-Length: {len(BODY)}")
    socket.writer.write(BODY)
    await socket.refused("bad_request", is_last=False)
    socket.close()


async def test_a_key_of_the_store_that_cannot_be_read_costs_its_owner_alone(
    node: NodeProcess, database: Server, alice: str, bob: str
) -> None:
    database.admin.set(key_of("u", f"user:{alice}", alice), "no hash")
    answer = await Caller(node, alice)("GET", path_of("streams"))
    check_problem(answer, "internal")
    assert answer.json["retry"] is True
    assert "wp:" not in answer.json["detail"]
    assert (await Caller(node, bob).gets(path_of("streams")))["streams"]
    database.admin.delete(key_of("u", f"user:{alice}", alice))
