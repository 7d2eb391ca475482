"""A turn: what one look into the mailbox makes the node write goes out as one piece for each connection."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from service.auth import Principal
from service.config import Settings
from service.core import frames
from service.core.entries import Arrival, Entry
from service.core.names import EntryId
from service.core.session import Life
from service.node import Node
from service.node.connection import Connection
from tests.integration.lines import PlainCodec
from tests.unit.node.door import Door
from tests.unit.node.stored import Stored

pytestmark = pytest.mark.anyio
STREAM = "group:g"


class Socket:
    """Keeps each write. `at_write` is called before one is kept."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.code = 0
        self.at_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        self.at_write()
        assert self.code == 0, "written to after its end"
        self.written.append(data)

    buffered_bytes = 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.code = code

    def said(self) -> list[list[object]]:
        """Per write what it told: bodies of messages, types of other frames."""
        told = [[msgspec.json.decode(line) for line in data.splitlines()] for data in self.written]
        return [[frame.get("body", frame["type"]) for frame in each] for each in told]


def node() -> Node:
    return Node(Door(Stored()), Settings(node="n", dev=True))


def live(node: Node, user: str) -> tuple[Connection, Socket]:
    """A connection that is live on the group, which stands at 0."""
    socket = Socket()
    connection = node.connect(socket, PlainCodec(), Principal(user=user))
    connection.session.life = Life.OPEN
    track = node.delivery.track(STREAM)
    track.position = EntryId(1, 0)
    cursor = track.follow(connection, EntryId(1, 0))
    connection.follow(cursor, EntryId(1, 0))
    assert track.page(cursor, EntryId(1, 0), EntryId(1, 0))
    return connection, socket


def message(n: int, body: bytes | None = None, origin: tuple[int, int] | None = None) -> Arrival:
    return Arrival(STREAM, Entry(EntryId(1, n), "message", "ann", STREAM, f"m{n}", body or b"%d" % n), origin)


async def test_all_of_a_turn_is_one_write_for_each_connection_in_order() -> None:
    made = node()
    sockets = [live(made, user)[1] for user in ("ann", "bob", "cid")]
    with made.turn.opened():
        for n in (1, 2, 3):
            made.dispatch(message(n))
        assert [socket.written for socket in sockets] == [[], [], []]
    assert [socket.said() for socket in sockets] == [[[1, 2, 3]]] * 3
    made.dispatch(message(4))
    made.turn.pour()
    assert sockets[0].said() == [[1, 2, 3], [4]]


async def test_the_answer_to_an_own_send_stands_in_its_place() -> None:
    made = node()
    ann, socket = live(made, "ann")
    ann.receive([frames.Send(STREAM, msgspec.Raw(b"2"), None, 7)])
    await asyncio.sleep(0)
    with made.turn.opened():
        made.dispatch(message(1))
        made.dispatch(message(2, origin=(ann.number, 1)))
        made.dispatch(message(3))
    assert socket.said() == [[1, "sent", 3]]


async def test_what_is_written_otherwise_comes_after_what_the_turn_has_for_the_connection() -> None:
    made = node()
    ann, socket = live(made, "ann")
    with made.turn.opened():
        made.dispatch(message(1))
        ann.receive([frames.Ping(1)])
        assert socket.written == []
    ann.receive([frames.Ping(2)])
    assert socket.said() == [[1, "pong"], ["pong"]]


async def test_a_piece_that_has_grown_large_is_written_before_the_turn_goes_on() -> None:
    made = node()
    ann, socket = live(made, "ann")
    _, other = live(made, "bob")
    large = b'"%s"' % (b"x" * 4096)
    with made.turn.opened():
        for n in (1, 2):
            made.dispatch(message(n, large))
        assert socket.written == []
        socket.at_write = ann.paused
        for n in range(3, 8):
            made.dispatch(message(n, large))
    assert [len(write) for write in socket.said()] == [2, 1]  # and from then on it is behind: pages bring the rest
    assert not ann.is_live(STREAM)
    assert made.delivery.tracks[STREAM].behind[ann].passed == EntryId(1, 3)
    assert [len(write) for write in other.said()] == [2, 2, 2, 1]


async def test_connections_with_different_things_to_write_get_each_their_own() -> None:
    made = node()
    phones = [live(made, f"u{number}") for number in range(6)]
    with made.turn.opened():
        for n in range(1, 40):
            for number, (connection, _) in enumerate(phones):
                if n % (number + 2) == 0:
                    connection.receive([frames.Ping(n)])
            made.dispatch(message(n))
    for number, (_, socket) in enumerate(phones):
        expected = [told for n in range(1, 40) for told in (["pong", n] if n % (number + 2) == 0 else [n])]
        assert socket.said() == [expected]


async def test_a_connection_that_ends_within_a_turn_is_told_before_its_close_and_nothing_after() -> None:
    made = node()
    ann, socket = live(made, "ann")
    bob, other = live(made, "bob")
    with made.turn.opened():
        made.dispatch(message(1))
        ann.end("draining")
        made.dispatch(message(2))
    assert socket.said() == [[1, "error"]]
    assert socket.code == 4002
    assert other.said() == [[1, 2]]
    assert not bob.is_closed


async def test_a_socket_that_is_gone_is_not_written_to() -> None:
    made = node()
    ann, socket = live(made, "ann")
    with made.turn.opened():
        made.dispatch(message(1))
        ann.closed()
    assert socket.written == []


async def test_a_socket_that_fails_costs_the_others_nothing() -> None:
    made = node()
    _, broken = live(made, "ann")
    _, whole = live(made, "bob")

    def fail() -> None:
        raise OSError("a bug")

    broken.at_write = fail
    with made.turn.opened():
        made.dispatch(message(1))
    assert broken.code == 1011
    assert whole.said() == [[1]]
