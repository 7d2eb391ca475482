"""The room of silent sockets: who has to go, and when."""

import asyncio

import pytest

from service.transports.silent import Silent

pytestmark = pytest.mark.anyio


class Socket:
    """Moves as often as it is told to."""

    def __init__(self, moves: int = 0) -> None:
        self.moves = moves
        self.is_cut = False

    def cut(self) -> None:
        assert not self.is_cut
        self.is_cut = True

    def is_moving(self) -> bool:
        self.moves -= 1
        return self.moves >= 0


async def test_of_too_many_the_oldest_goes() -> None:
    room, sockets = Silent(2, 0.2, 20), [Socket() for _ in range(4)]
    for socket in sockets[:2]:
        room.enter(socket)
    await asyncio.sleep(0.11)
    room.enter(sockets[2])
    assert [socket.is_cut for socket in sockets] == [True, False, False, False]
    room.enter(sockets[1])  # its time begins anew: the other one is the oldest now
    await asyncio.sleep(0.11)
    room.enter(sockets[3])
    assert [socket.is_cut for socket in sockets] == [True, False, True, False]
    room.leave(sockets[1])
    assert len(room) == 1
    room.close()
    assert (len(room), sockets[3].is_cut) == (0, True)


async def test_a_crowd_that_comes_at_once_has_a_moment() -> None:
    """After a restart everybody is back in the same second; and of ten times too many the oldest goes all the same."""
    room, crowd = Silent(5, 0.4, 50), [Socket() for _ in range(60)]
    for socket in crowd[:50]:
        room.enter(socket)
    assert not any(socket.is_cut for socket in crowd)
    for socket in crowd[50:]:
        room.enter(socket)
    assert [socket.is_cut for socket in crowd] == [True] * 10 + [False] * 50
    await asyncio.sleep(0.21)
    room.enter(Socket())
    assert (len(room), sum(socket.is_cut for socket in crowd)) == (5, 56)
    room.close()


async def test_each_has_its_time_and_who_moves_gets_more() -> None:
    room = Silent(10, 0.1, 10)
    still, moving, gone = Socket(), Socket(moves=2), Socket()
    for socket in (still, moving, gone):
        room.enter(socket)
    room.leave(gone)
    await asyncio.sleep(0.06)
    late = Socket()
    room.enter(late)
    await asyncio.sleep(0.07)
    assert (still.is_cut, moving.is_cut, late.is_cut) == (True, False, False)
    await asyncio.sleep(0.06)
    assert (moving.is_cut, late.is_cut) == (False, True)
    await asyncio.sleep(0.2)
    assert (moving.is_cut, gone.is_cut, len(room)) == (True, False, 0)
