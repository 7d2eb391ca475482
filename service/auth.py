"""Who somebody is, and what they may do: token → `Principal`, `may(principal, action, stream)`."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from service.config import Settings
from service.core.names import check_name, may_be_read, parse_stream
from service.errors import WaypostError

Action = Literal["send", "read", "redact"]


class Principal(msgspec.Struct, frozen=True):
    """Somebody who is signed in: a user and what the sign-in allows beyond what every user may."""

    user: str
    can_broadcast: bool = False


def sign_in(query: Mapping[str, str], authorization: str | None, settings: Settings) -> Principal:
    """Who comes with this query string and `Authorization` header.

    In dev mode `?user=<id>` is taken at its word, and everybody may send to `all`. Tokens are not known to this
    release. Raises `unauthorised`, with what is wrong as its detail; the same request would end the same way again.
    """
    if not settings.dev:
        raise WaypostError("unauthorised", "this release signs in by ?user= in dev mode only, and dev mode is off")
    user = query.get("user")
    if not user:
        given = authorization is not None or "token" in query
        detail = "tokens are not known to this release" if given else "no sign-in was given"
        raise WaypostError("unauthorised", f"{detail}; in dev mode ?user=<id> signs in")
    try:
        return Principal(check_name(user), can_broadcast=True)
    except WaypostError as error:
        raise WaypostError("unauthorised", error.detail) from error


def sign_in_chat(user: str, settings: Settings) -> Principal:
    """Who comes on a `/chat/…` path, which names the user and has no other sign-in. Raises `unauthorised`."""
    if not settings.dev:
        raise WaypostError("unauthorised", "the /chat paths are open in dev mode only, and dev mode is off")
    try:
        return Principal(check_name(user), can_broadcast=True)
    except WaypostError as error:
        raise WaypostError("unauthorised", error.detail) from error


def may(principal: Principal, action: Action, stream: str) -> bool:
    """Whether `principal` may do `action` to `stream`. Raises `bad_stream`, `bad_name` for what is no stream.

    Anyone may send to a user, holders of the claim `broadcast` to `all`. An inbox is read by its owner, `all` by
    everybody, and messages are redacted in what one may read (only the sender's: that the store knows). For a group
    the answer is yes here: only the store knows its members, and it refuses with `not_member`.
    """
    kind, _ = parse_stream(stream)
    match action:
        case "send":
            return kind != "all" or principal.can_broadcast
        case "read" | "redact":
            return may_be_read(stream, principal.user)
