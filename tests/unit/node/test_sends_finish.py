"""`Sends.finish`: what is queued now is answered, however much others go on to send."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.config import Settings
from service.core.names import EntryId
from service.errors import Unavailable
from service.metrics import Numbers
from service.node import Node
from service.node.sends import Sends
from service.store import Outcome, Outgoing, Store

pytestmark = pytest.mark.anyio


class SlowStore:
    """Each call waits to be let go."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[None]] = []

    async def publish(self, batch: list[Outgoing], _mailbox: str) -> list[Outcome]:
        gate = asyncio.get_running_loop().create_future()
        self.calls.append(gate)
        await gate
        return [Outcome(None, EntryId(1, 1), None, False, "memory") for _ in batch]


async def turns(condition: Any) -> None:  # noqa: ANN401 - any callable
    """Lets the loop turn until it is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it is what the loop itself does
            await asyncio.sleep(0)


async def test_who_ends_waits_for_what_was_sent_and_not_for_what_others_go_on_to_send() -> None:
    store = SlowStore()
    node = SimpleNamespace(
        fence=SimpleNamespace(is_open=True),
        reader=SimpleNamespace(mailbox=""),
        nodes_alive=1,
        attachments=SimpleNamespace(expect=lambda _given: None),
        out_of_reach=lambda _problem: None,
        numbers=Numbers(),
    )
    sends = Sends(cast("Node", node), cast("Store", store), Settings())
    running = asyncio.create_task(sends.run())
    await sends.finish()  # nothing was sent
    posts = []

    def post() -> None:
        posts.append(asyncio.create_task(sends.post("alice", "all", b"1", None, is_system=False)))

    post()
    await turns(lambda: len(store.calls) == 1)  # one is on its way
    post()
    await asyncio.sleep(0)  # and one waits for it
    finishing = asyncio.create_task(sends.finish())
    await asyncio.sleep(0)
    store.calls[0].set_result(None)
    await turns(lambda: len(store.calls) == 2)
    post()  # somebody goes on to send
    await asyncio.sleep(0)
    assert not finishing.done()
    store.calls[1].set_result(None)
    await turns(finishing.done)
    await turns(lambda: len(store.calls) == 3)
    assert [one.done() for one in posts] == [True, True, False]

    late = asyncio.create_task(sends.finish())
    store.calls[2].set_exception(Unavailable())  # a refusal is an answer
    await turns(late.done)
    await asyncio.gather(*posts, return_exceptions=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
