"""A turn: what one look into the mailbox makes the node write, collected and written as one piece for each connection.

A write costs a call of the system, which is most of what a delivery costs; a frame more in it costs next to nothing.
Nothing waits for a timer: a turn ends with what the look has brought. What is collected is bounded: when a turn has
brought a socket's buffer full, all is written, and sockets that do not take it are noticed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.log import Log

if TYPE_CHECKING:
    from service.node.connection import Connection


class Turn:
    """The turn of a node. `connections` are those with something in `out`, once each; `size` is in bytes."""

    def __init__(self, bytes_max: int, log: Log) -> None:
        self.is_open = False
        self.connections: list[Connection] = []
        self.size = 0
        self._bytes_max = bytes_max
        self._log = log

    @contextmanager
    def opened(self) -> Iterator[None]:
        """What is written within is collected, and poured out at the end."""
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False
            self.pour()

    def add(self, connection: "Connection", data: bytes) -> None:
        """The connection writes this, after what is in its `out`."""
        if not connection.out:
            self.connections.append(connection)
        connection.out.append(data)
        self.size += len(data)

    @property
    def is_full(self) -> bool:
        """Whether to pour before more is added."""
        return self.size > self._bytes_max

    def pour(self) -> None:
        """Writes what was collected."""
        connections, self.connections, self.size = self.connections, [], 0
        for connection in connections:
            try:
                out = connection.out
                if not out:
                    continue
                data = out[0] if len(out) == 1 else b"".join(out)
                out.clear()
                if not connection.is_closed:
                    connection.socket.write(data)
            except Exception as error:  # noqa: BLE001 - a bug in one connection is not to cost the others their entries
                self._log.error("push_failed", traceback=error, connection=connection.number)
                connection.break_off()
