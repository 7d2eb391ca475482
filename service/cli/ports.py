"""The port that a command serves on: whether it is free, and how several processes share it."""

import socket
import sys
from typing import Any

# There the kernel spreads connections over all sockets of a port. Elsewhere the last one bound may get them all.
IS_SPREAD = sys.platform == "linux"

Address = tuple[socket.AddressFamily, tuple[Any, ...]]


class PortError(Exception):
    """Nobody can serve there; the text is one sentence for the user."""


def resolve(host: str, port: int) -> list[Address]:
    """Every address that `host` stands for. Raises `PortError` when there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise PortError(f"WAYPOST_HOST: {host} is no address: {error.strerror}") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def check(host: str, port: int) -> None:
    """Raise `PortError` when nothing can listen there."""
    for address in resolve(host, port):
        with _bound(host, address) as probe:
            try:
                probe.listen(1)
            except OSError as error:
                raise _refusal(host, port, error) from error


def share(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """For each of `count` processes its sockets, one for each address: bound, and not listening yet.

    Whoever listens on them gets its part of the connections; none is lost with the process, while we keep the socket.
    Raises `PortError` when nothing can listen there.
    """
    check(host, port)  # with SO_REUSEPORT even a port that another supervisor serves on could be bound
    addresses = resolve(host, port)
    if not IS_SPREAD:
        return [[_bound(host, address) for address in addresses]] * count
    return [[_bound(host, address, is_shared=True) for address in addresses] for _ in range(count)]


def _bound(host: str, address: Address, *, is_shared: bool = False) -> socket.socket:
    family, where = address
    bound = socket.socket(family, socket.SOCK_STREAM)
    # As asyncio does it: connections of an earlier one that are still closing are no obstacle.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if is_shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise _refusal(host, int(where[1]), error) from error
    return bound


def _refusal(host: str, port: int, error: OSError) -> PortError:
    return PortError(f"cannot serve on {host} port {port}: {error.strerror}; choose another with WAYPOST_PORT")
