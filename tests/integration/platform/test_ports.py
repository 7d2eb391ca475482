"""One port for several processes: each has a socket of its own, and a port that somebody has is refused."""

import socket
import sys
from collections.abc import Iterator

import pytest

from service.cli import ports
from tests.integration.platform.processes import free_port


def serve_one(listeners: list[list[socket.socket]]) -> int:
    """Makes a connection; which of the listeners has it."""
    for one in listeners:
        one[0].setblocking(False)
    with socket.create_connection(one[0].getsockname()):
        while True:
            for at, (listener, *_) in enumerate(listeners):
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    continue
                return at


@pytest.fixture
def shares() -> Iterator[list[list[socket.socket]]]:
    """A port for two, of whom nobody listens yet."""
    made = ports.share("127.0.0.1", free_port(), 2)
    yield made
    for one in made:
        one[0].close()


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is spread elsewhere")
def test_connections_are_spread_over_those_who_listen(shares: list[list[socket.socket]]) -> None:
    first, second = shares
    first[0].listen()
    assert {serve_one([first]) for _ in range(20)} == {0}  # nothing waits for who does not listen yet
    second[0].listen()
    assert {serve_one(shares) for _ in range(40)} == {0, 1}


def test_where_the_kernel_spreads_nothing_all_listen_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "IS_SPREAD", False)
    first, second = ports.share("127.0.0.1", free_port(), 2)
    assert first == second
    with first[0]:
        first[0].listen()
        assert serve_one([first]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is shared in this way elsewhere")
def test_a_port_that_others_share_is_taken(shares: list[list[socket.socket]]) -> None:
    shares[0][0].listen()
    port = shares[0][0].getsockname()[1]
    said = f"cannot serve on 127.0.0.1 port {port}: Address already in use; choose another with WAYPOST_PORT"
    with pytest.raises(ports.PortError, match=said):
        ports.share("127.0.0.1", port, 2)
    with pytest.raises(ports.PortError, match=said):
        ports.check("127.0.0.1", port)


def test_a_host_that_is_no_address_is_said() -> None:
    with pytest.raises(ports.PortError, match="WAYPOST_HOST: no address is no address: "):
        ports.check("no address", free_port())
