"""A join or leave is held up on its way for longer than anybody waits, and let go when its user has gone on."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist
from tests.e2e.kit import true
from tests.integration.store.kit import Server, key_of, numbers_in
from tests.integration.wire.kit import join, leave
from tests.proxy import Proxy
from tests.service import Frame, Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]
CALL_TIMEOUT_S = 1.0


async def until_done(change: Callable[[Phone, str], Awaitable[Frame]], phone: Phone) -> Frame:
    """Asks until the store is in reach, as a client does."""
    while (answer := await change(phone, "g")).get("code") == "unavailable":
        assert answer["retry"]
        await asyncio.sleep(0.02)
    return answer


@pytest.mark.parametrize("cut", [False, True], ids=["no answer in time", "connection lost"])
@pytest.mark.parametrize("verb", ["join", "leave"])
async def test_a_join_or_leave_that_is_carried_out_late_changes_nothing(
    database: Server, proxy: Proxy, start_nodes: StartNodes, verb: str, *, cut: bool
) -> None:
    [node] = start_nodes("a", call_timeout_s=CALL_TIMEOUT_S)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    await join(alice, "g")
    held, then = (join, leave) if verb == "join" else (leave, join)
    if verb == "leave":
        await join(bob, "g")

    late = proxy.hold_calls(f"{verb}_v4", cut=cut)
    asked = time.monotonic()
    answer = await held(bob, "g")
    assert (answer["code"], answer["retry"]) == ("uncertain", True)
    # Also where the connection was lost at once: who is told so may go on, for nothing comes after it.
    assert time.monotonic() - asked >= 0.9 * CALL_TIMEOUT_S
    if verb == "join":
        assert (await until_done(held, bob))["type"] == "joined"
    assert (await until_done(then, bob))["type"] == ("left" if verb == "join" else "joined")
    await insist(alice, "group:g", "meanwhile", key="k1")
    record, numbers = database.admin.hgetall(key_of("g", "group:g", "g")), numbers_in(database.admin, "group:g")

    late.release()
    await true(lambda: late.carried_out == 1, "the late call reaches the store")
    assert database.admin.hgetall(key_of("g", "group:g", "g")) == record
    assert numbers_in(database.admin, "group:g") == numbers
    await insist(alice, "group:g", "after", key="k2")
    await alice.send_all("user:bob", ["mark"])
    await bob.wait("message", body="mark")
    mine = ["meanwhile", "after"] if verb == "leave" else []
    await bob.until(lambda: len(bob.bodies("group:g")) >= len(mine), "what is bob's")
    assert bob.bodies("group:g") == mine
    assert bob.gaps() == []
