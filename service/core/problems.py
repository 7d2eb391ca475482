"""How a refusal is told over HTTP: the body of `application/problem+json` (RFC 9457), with the codes of the wire."""

import msgspec

from service.errors import ERRORS, WaypostError


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a refusal. Decide by `code`; `retry`: the same request may work later."""

    code: str
    title: str
    status: int
    detail: str
    retry: bool
    retry_after: float | None = None  # seconds, where known


def problem_of(refusal: WaypostError) -> Problem:
    """The body that tells this refusal."""
    row = ERRORS[refusal.code]
    return Problem(refusal.code, row.text, row.http, refusal.detail, refusal.retry, refusal.retry_after)
