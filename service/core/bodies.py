"""What a message may say: its body, as it came from a client."""

from typing import Protocol

from service.core import frames
from service.errors import WaypostError


class BodyLimits(Protocol):
    """The limits of a body: how many bytes, and how many brackets within each other."""

    @property
    def body_bytes(self) -> int:
        """In bytes of JSON text."""

    @property
    def body_depth(self) -> int:
        """Brackets within each other."""


def check_body(raw: bytes, limits: BodyLimits) -> bytes:
    """The body on one line, otherwise as it was sent. `raw` is JSON. Raises `body_too_large`, `bad_request`."""
    body = frames.one_line(raw)
    if len(body) > limits.body_bytes:
        raise WaypostError("body_too_large", f"{len(body)} bytes; the limit is {limits.body_bytes}")
    deepest = limits.body_depth
    if body.count(b"[") + body.count(b"{") > deepest and frames.depth(body) > deepest:
        raise WaypostError("bad_request", f"the body nests deeper than {deepest}")
    return body
