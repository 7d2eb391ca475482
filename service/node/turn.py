"""A turn: what one look into the mailbox makes the node write, collected and written as one piece for each connection.

A write costs a call of the system, which is most of what a delivery costs; a frame more in it costs next to nothing.
Nothing waits for a timer: a turn ends with what the look has brought. What is collected is bounded: a piece that has
grown to PIECE_BYTES is written before more is added, and sockets that do not take it are noticed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.log import Log

if TYPE_CHECKING:
    from service.node.connection import Connection


# Long enough that the call of the system no longer counts, and short enough to be put together by copying.
PIECE_BYTES = 8192


class Turn:
    """The turn of a node. `connections` are those with something in `out`, once each. `poured` is called at the end."""

    def __init__(self, log: Log, poured: Callable[[], None]) -> None:
        self.is_open = False
        self.connections: list[Connection] = []
        self._log = log
        self._poured = poured

    @contextmanager
    def opened(self) -> Iterator[None]:
        """What is written within is collected, and poured out at the end."""
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False
            self.pour()
            self._poured()

    def add(self, connection: "Connection", data: bytes) -> None:
        """The connection writes this, after what is in its `out`. `Node._push` does the same for many."""
        out = connection.out
        if out is None:
            self.connections.append(connection)
            connection.out = data
        elif len(out) < PIECE_BYTES:
            connection.out = out + data
        else:
            connection.out = data
            connection.send(out)

    def pour(self) -> None:
        """Writes what was collected."""
        connections, self.connections = self.connections, []
        broken = []
        for connection in connections:
            out, send = connection.out, connection.send
            connection.out = None
            try:
                if out is not None and not connection.is_closed:
                    send(out)
            except Exception as error:  # noqa: BLE001 - a bug in one connection is not to cost the others their entries
                self._log.error("push_failed", traceback=error, **connection.who())
                broken.append(connection)
        for connection in broken:
            connection.break_off()
