"""What a client tells the program that uses it: events to iterate over, and errors to catch."""

import msgspec

from service.client.wire import Entry
from service.core.frames import Gap, Live, Sent
from service.errors import ERRORS


class Connected(msgspec.Struct, frozen=True):
    """The server has welcomed us. What was missed comes now; `Live` says when it has all come."""

    user: str
    device: str
    node: str
    epoch: str


class Disconnected(msgspec.Struct, frozen=True):
    """The connection is gone, or the first one could not be made; the client tries again by itself, for ever.

    Told once for each time of absence, however many tries it takes. `code` is the WebSocket close code, None where
    there was none.
    """

    reason: str
    code: int | None = None


# `Sent` is an event too, in the place of the entry that we ourselves sent: the numbers of a stream have no holes.
Event = Entry | Sent | Gap | Live | Connected | Disconnected


class Refused(Exception):
    """The server refuses what was asked, for good: the same again would be refused again.

    `code` is one of `service/errors.py` (or one that a newer server knows), `detail` a sentence for people.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        row = ERRORS.get(code)
        self.code = code
        self.detail = detail or (row.text if row is not None else "")
        super().__init__(f"{code}: {self.detail}" if self.detail else code)


class GaveUp(Exception):
    """The client cannot go on as it is (wrong sign-in, wrong address, a protocol error): it does not reconnect.

    `close_code` is the WebSocket close code or the HTTP status that said so, None for neither.
    """

    def __init__(self, reason: str, close_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.close_code = close_code


class Closed(Exception):
    """The client was closed before this was answered. A send may have been stored: repeat it with the same key."""
