"""What the end of a connection means for a client: whether to come back, and how to say why it ended."""

from service.errors import CLOSE_TRY_AGAIN, ERRORS

TOO_BIG = 1009  # RFC 6455: one of our messages, or of the server's, is larger than the other side takes

_REASONS = {
    1000: "the server closed the connection",
    1001: "the server is going away",
    1006: "the connection was lost",
    1011: "the server met an error",
    1012: "the server restarts",
    TOO_BIG: "a message was too large",
    CLOSE_TRY_AGAIN: "the service is not ready",
    **{row.close: f"{code}: {row.text}" for code, row in ERRORS.items() if row.close is not None},
}

# HTTP statuses of a refused upgrade after which the same request may go well: time-outs, and too many requests.
_PASSING_STATUSES = frozenset({408, 425, 429})


def is_final(code: int | None) -> bool:
    """Whether coming back as we are would end the same way."""
    return code is not None and (4100 <= code < 4200 or code == TOO_BIG)


def is_final_status(status: int) -> bool:
    """Whether a server that answered the upgrade with this HTTP status would do so again."""
    return 300 <= status < 500 and status not in _PASSING_STATUSES


def explain(code: int | None, reason: str = "") -> str:
    """Why a connection ended, for people: what our table says of the code, else what came with it."""
    known = _REASONS.get(code) if code is not None else None
    if known is not None:
        return known
    if code is None:
        return reason or "the connection was lost"
    return f"{reason or 'the server closed the connection'} ({code})"
