"""What is answered over HTTP before there is a request that anybody could handle."""

import asyncio

import msgspec

from service.core.problems import problem_of
from service.errors import WaypostError
from service.transports.security_headers import HEADERS

LINGER_S = (
    2.0  # how long a client that is still sending is listened to: cut off earlier, it would never read the answer
)

_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


def refusal(code: str, detail: str) -> bytes:
    """A whole HTTP/1.1 answer, with which the connection ends: `application/problem+json`, as all refusals are."""
    told = problem_of(WaypostError(code, detail))
    body = msgspec.json.encode(told)
    lines = [
        b"HTTP/1.1 %d %s" % (told.status, _PHRASES[told.status]),
        b"content-type: application/problem+json",
        b"content-length: %d" % len(body),
        b"cache-control: no-store",
        b"connection: close",
        *(b"%s: %s" % header for header in HEADERS),
    ]
    return b"\r\n".join((*lines, b"", body))


def answer_and_end(transport: asyncio.Transport, answer: bytes) -> None:
    """The last answer. What still comes is for the caller's protocol to throw away; soon the socket is closed."""
    transport.write(answer)
    if transport.can_write_eof():
        transport.write_eof()
    asyncio.get_running_loop().call_later(LINGER_S, transport.abort)
