"""A node that ends tells its clients a few at a time, and serves the others meanwhile."""

from typing import cast

import msgspec
import pytest

from service.config import Settings
from service.node import Node
from service.node.ending import GOODBYES_PER_S, ROUND_S, Ending

pytestmark = pytest.mark.anyio


class Link:
    def __init__(self, told: list[str], name: int) -> None:
        self._told = told
        self.name = name

    def take_no_more(self) -> None:
        self._told.append(f"stop {self.name}")

    def end(self, code: str) -> None:
        self._told.append(f"{code} {self.name}")


class Room:
    """What of a node takes part."""

    def __init__(self, links: int) -> None:
        self.told: list[str] = []
        self.connections = {at: Link(self.told, at) for at in range(links)}
        self.sends = self

    async def finish(self) -> None:
        self.told.append("all is answered")

    def ending(self, drain_s: float) -> Ending:
        return Ending(cast("Node", self), msgspec.structs.replace(Settings(), drain_s=drain_s))

    def rounds(self) -> list[int]:
        """How many were told in each round; what they sent was answered before, and nobody was stopped earlier."""
        sizes = []
        rest = self.told
        while rest:
            size = rest.index("all is answered")
            names = [word.removeprefix("stop ") for word in rest[:size]]
            assert rest[size + 1 : 2 * size + 1] == [f"draining {name}" for name in names]
            sizes.append(size)
            rest = rest[2 * size + 1 :]
        return sizes


async def test_few_are_told_at_once() -> None:
    room = Room(20)
    ending = room.ending(10)
    assert await ending.say_goodbye() == 20
    assert room.rounds() == [20]
    assert (ending.is_announced, ending.has_begun, ending.has_left) == (True, True, False)


async def test_many_are_told_in_rounds() -> None:
    a_round = int(GOODBYES_PER_S * ROUND_S)
    room = Room(3 * a_round)
    assert await room.ending(10).say_goodbye() == 3 * a_round
    assert room.rounds() == [a_round] * 3


async def test_all_are_told_within_half_of_the_time() -> None:
    room = Room(20_001)
    assert await room.ending(4 * ROUND_S).say_goodbye() == 20_001
    assert room.rounds() == [10_001, 10_000]


async def test_nobody_is_told_and_there_is_no_time_to_tell() -> None:
    assert await Room(0).ending(10).say_goodbye() == 0
    room = Room(5000)
    assert await room.ending(0).say_goodbye() == 5000
    assert room.rounds() == [5000]
