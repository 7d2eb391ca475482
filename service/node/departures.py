"""What the log says of connections that come and go: at night somebody wants to know who was disconnected, and why."""

import time

from service.log import Fields, Log
from service.node.connection import CLOSE_LOST, Connection

log = Log("connections")

# Ends that are everyday: the client's own ("" is the reason of those), who was not heard of any more, a node that ends.
EVERYDAY = frozenset({"", "silent", "draining"})


def log_arrival(connection: Connection) -> None:
    """A client has connected."""
    if log.is_chatty:
        log.debug("connection_opened", transport=connection.codec.transport, **connection.who())


def log_departure(connection: Connection, code: int, reason: str) -> None:
    """It has gone; `reason`: why we ended it, "" where we did not."""
    is_everyday = reason in EVERYDAY
    if is_everyday and not log.is_chatty:
        return
    said: Fields = {
        "close_code": code,
        "reason": reason or ("lost" if code == CLOSE_LOST else "client"),
        "transport": connection.codec.transport,
        "duration_s": round(time.monotonic() - connection.since, 3),
        "streams": len(connection.cursors),
        "sends": connection.session.asked,
        "connection": connection.number,
        "user": connection.user,
        "device": connection.session.device,
    }
    if is_everyday:
        log.debug("connection_closed", **said)
    else:
        log.info("connection_closed", **said)
