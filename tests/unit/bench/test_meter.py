"""The benchmark finds what is lost, doubled, out of order or otherwise strange, and nothing where all is well."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.bench.clients import Client, WaypostClient, text_of
from tests.bench.meter import Meter, order_of
from tests.bench.sample import Sample
from tests.bench.systems import System

pytestmark = pytest.mark.anyio


class MadeUp(System):
    """No processes: its clients hand over to each other. `way` says what becomes of the number n for a receiver: the
    numbers that come in its place.
    """

    name = "made up"
    keeps = "no"
    client = Client

    def __init__(self, way: Callable[[Client, int], Sequence[int]]) -> None:
        super().__init__("none")
        self.way = way
        self.receivers: list[Client] = []

    async def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    @property
    def server_pids(self) -> list[int]:
        return []


class Hand(Client):
    """A client whose sends arrive in the next turn of the loop."""

    ANSWERS = True

    def __init__(self, user: str, system: MadeUp) -> None:
        super().__init__(user)
        self.system = system

    def send(self, to: str, number: int) -> None:
        asyncio.get_running_loop().call_soon(self.arrive, number)

    def arrive(self, number: int) -> None:
        for receiver in self.system.receivers:
            for came in self.system.way(receiver, number):
                receiver.take(text_of(came).encode())
        self.answered(self)


async def measured(way: Callable[[Client, int], Sequence[int]]) -> Sample:
    """A short flow from one to three others, four messages in flight."""
    system = MadeUp(way)
    sender, *receivers = [Hand(name, system) for name in ("ada", "bob", "cy", "dan")]
    system.receivers = list(receivers)
    meter = Meter(system, [sender, *receivers], {"group:g": (sender, receivers)}, 4)
    return await meter.measure(0.05, warm_s=0.01, quiet_s=0.1)


async def test_a_flow_as_it_should_be_is_clean() -> None:
    sample = await measured(lambda _, number: [number])
    assert sample.is_clean, sample.wrong
    assert sample.wrong == ""
    assert sample.figures["per_s"] > 0
    assert sample.figures["us"] == 0  # it has no processes
    assert sample.figures["p99_ms"] >= sample.figures["p50_ms"] > 0


async def test_what_one_receiver_lacks_is_lost() -> None:
    sample = await measured(lambda client, number: [] if client.user == "bob" and number in (7, 8) else [number])
    assert (sample.lost, sample.doubled, sample.unordered) == (2, 0, 0)
    assert not sample.is_clean
    assert sample.wrong == "2 lost"


async def test_what_was_sent_last_and_does_not_come_is_lost_too() -> None:
    sample = await measured(lambda _, number: [number] if number < 5 else [])
    assert sample.lost == 4 * 3  # what was in flight then, to three receivers


async def test_what_comes_twice_is_doubled() -> None:
    sample = await measured(
        lambda client, number: [number, number] if client.user == "cy" and number == 5 else [number]
    )
    assert (sample.lost, sample.doubled, sample.unordered) == (0, 1, 0)


async def test_what_comes_again_later_is_doubled() -> None:
    sample = await measured(lambda client, number: [number, 2] if client.user == "cy" and number == 9 else [number])
    assert (sample.lost, sample.doubled, sample.unordered) == (0, 1, 0)


async def test_what_was_overtaken_is_out_of_order_and_not_lost() -> None:
    swapped = {3: [], 4: [4, 3]}
    sample = await measured(lambda client, number: swapped.get(number, [number]) if client.user == "dan" else [number])
    assert (sample.lost, sample.doubled, sample.unordered) == (0, 0, 1)
    assert sample.wrong == "1 out of order"


async def test_a_number_that_nobody_sent_is_a_problem() -> None:
    sample = await measured(lambda client, number: [number, 999_999] if number == 5 else [number])
    assert sample.lost == sample.doubled == 0
    assert sample.problems == [f"{user}: heard 999999, which nobody has sent yet" for user in ("bob", "cy", "dan")]
    assert sample.wrong == "bob: heard 999999, which nobody has sent yet (and 2 more)"


async def test_a_sender_may_see_its_own_messages_and_they_do_not_count() -> None:
    def way(client: Client, number: int) -> list[int]:
        if client.user == "bob":
            senders[0].take(text_of(number).encode())
        return [number]

    system = MadeUp(way)
    senders = [Hand("ada", system)]
    bob = Hand("bob", system)
    system.receivers = [bob]
    meter = Meter(system, [*senders, bob], {"user:bob": (senders[0], [bob])}, 2)
    assert (await meter.measure(0.02, warm_s=0.0)).is_clean


async def test_what_is_raised_in_a_callback_is_a_problem() -> None:
    """Picows would log it, and cut the connection."""

    def fail(_client: Client, _number: int) -> None:
        raise ValueError("strange")

    phone = WaypostClient("bob")
    phone.heard = fail
    phone.receive(text_of(1).encode())
    assert phone.problems == ["bob: ValueError('strange')"]


async def test_a_connection_that_is_lost_is_a_problem() -> None:
    phone = WaypostClient("bob")
    phone.ended()
    assert phone.problems == ["bob: the connection was lost"]
    with pytest.raises(RuntimeError, match="lost"):
        await phone._ready
    gone = WaypostClient("cy")
    gone.close()
    gone.ended()
    assert gone.problems == []


@pytest.mark.parametrize("frame", ['{"type":"error","code":"rate"}', '{"type":"gap","stream":"user:bob"}'])
async def test_an_error_or_a_gap_is_a_problem_and_fails_who_waits(frame: str) -> None:
    phone = WaypostClient("bob")
    phone.receive(frame.encode())
    assert phone.problems == [f"bob: was told {frame}"]
    with pytest.raises(RuntimeError, match="was told"):
        await phone._ready


async def test_numbers_that_came_are_judged() -> None:
    assert order_of([1, 2, 3], 1, 3) == (0, 0, 0)
    assert order_of([1, 3], 1, 4) == (2, 0, 0)
    assert order_of([1, 2, 2, 3], 1, 3) == (0, 1, 0)
    assert order_of([1, 3, 2], 1, 3) == (0, 0, 1)
    assert order_of([], 1, 2) == (2, 0, 0)
