"""The one table of errors: code, text, HTTP status, close code, and whether the same thing may work later.

Every refusal that a client can see is a row here. `docs/protocol.md` lists the same rows, checked by a test.
"""

from typing import NamedTuple


class ErrorRow(NamedTuple):
    """What a code means to a client.

    `close` is the WebSocket close code when this error ends the connection, None when the connection goes on.
    `retry` says whether the same request may succeed later as it is.
    """

    text: str
    http: int
    close: int | None
    retry: bool


ERRORS: dict[str, ErrorRow] = {
    # The connection ends; the client comes back after a pause (4000-4099).
    "slow": ErrorRow("the connection drained nothing for too long", 503, 4001, True),
    "draining": ErrorRow("this node is shutting down; reconnect to another", 503, 4002, True),
    "rate_limited": ErrorRow("too many requests", 429, 4003, True),
    # The connection ends; coming back as you are would end the same way (4100-4199).
    "unauthorised": ErrorRow("no valid sign-in was given", 401, 4101, False),
    "expired": ErrorRow("the sign-in has expired", 401, 4102, False),
    "bad_frame": ErrorRow("not a JSON object with a type", 400, 4103, False),
    "too_large": ErrorRow("the frame is larger than the limit", 413, 4104, False),
    "forbidden": ErrorRow("not allowed", 403, 4105, False),
    "hello_timeout": ErrorRow("no hello in time", 408, 4106, False),
    "too_many_connections": ErrorRow("too many connections", 429, 4107, False),
    # The request is refused; the connection goes on.
    "unknown_type": ErrorRow("no frame of this type exists", 400, None, False),
    "bad_request": ErrorRow("a field is missing or has the wrong type", 400, None, False),
    "bad_name": ErrorRow("not a valid name", 400, None, False),
    "bad_stream": ErrorRow("not a stream: user:<id>, group:<id> or all", 400, None, False),
    "bad_id": ErrorRow("not an entry id: <ms>-<n>", 400, None, False),
    "bad_anchor": ErrorRow("not a place in this stream: a number, an entry id or an RFC 3339 time", 400, None, False),
    "hello_expected": ErrorRow("the first frame must be hello", 400, None, False),
    "hello_twice": ErrorRow("hello was already said on this connection", 400, None, False),
    "body_too_large": ErrorRow("the body is larger than the limit", 413, None, False),
    "not_member": ErrorRow("not a member of this group", 403, None, False),
    "no_group": ErrorRow("no such group (told to server keys, and on /chat; else `not_member`)", 404, None, False),
    "group_closed": ErrorRow("this group is closed", 403, None, False),
    "not_allowed": ErrorRow("not allowed with this sign-in", 403, None, False),
    "too_many_streams": ErrorRow("the user is in as many groups as the limit allows", 409, None, False),
    "too_many_devices": ErrorRow("the user has as many devices as the limit allows", 409, None, False),
    "group_full": ErrorRow("the group has as many members as the limit allows", 409, None, False),
    "key_reused": ErrorRow("this key was used before with another body", 409, None, False),
    "ack_beyond": ErrorRow("acknowledged beyond what was delivered", 409, None, False),
    "not_found": ErrorRow("no such entry", 404, None, False),
    "bad_http": ErrorRow("not a request that can be read (HTTP only)", 400, None, False),
    "head_too_large": ErrorRow("more headers than the limit allows (HTTP only)", 431, None, False),
    "no_path": ErrorRow("nothing is at this path (HTTP only)", 404, None, False),
    "method_not_allowed": ErrorRow("this path takes another method (HTTP only)", 405, None, False),
    "storage_full": ErrorRow("the store is full; not stored", 507, None, True),
    "unavailable": ErrorRow("the store is out of reach; not stored", 503, None, True),
    "uncertain": ErrorRow("no answer from the store; may be stored", 503, None, False),
    "internal": ErrorRow("an error in the service; not stored", 500, None, True),
}

# Close codes that stand for no error of a request.
CLOSE_TRY_AGAIN = 4000  # reconnect with back-off: the store was away while the session was being opened


class WaypostError(Exception):
    """A refusal with a code of the table above.

    `detail` is one sentence for people, without bodies or tokens; `retry` overrides the table's word.
    `retry_after` is in seconds, None where nothing is known.
    """

    def __init__(
        self, code: str, detail: str = "", *, retry: bool | None = None, retry_after: float | None = None
    ) -> None:
        row = ERRORS[code]
        super().__init__(f"{code}: {detail or row.text}")
        self.code = code
        self.detail = detail or row.text
        self.retry = row.retry if retry is None else retry
        self.retry_after = retry_after

    def for_client(self) -> "WaypostError":
        """The same refusal in the table's words: the store's own may name an address."""
        return WaypostError(self.code, retry=self.retry, retry_after=self.retry_after)


class Unavailable(WaypostError):
    """Nothing was written. The same call may be made again."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("unavailable", detail)


class Fenced(Unavailable):
    """The server is not the one that the store's epoch key names: reconcile first. Nothing was written."""


class Reset(Unavailable):
    """The store was emptied or never migrated: `waypost migrate up` decides. Nothing was written."""


class Uncertain(WaypostError):
    """The call may have been carried out, once. Only a call that is harmless twice may be repeated.

    `has_answered`: the store answered, with an error from the middle of the call. `open_for_s`: the call may still be
    on its way, and be carried out that much later; 0 where that is not known, or does no harm.
    """

    def __init__(self, detail: str = "", *, has_answered: bool = False) -> None:
        super().__init__("uncertain", detail)
        self.has_answered = has_answered
        self.open_for_s = 0.0
