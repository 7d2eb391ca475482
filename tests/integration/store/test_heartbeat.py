"""heartbeat: who is alive."""

import pytest

from service.store import Store
from tests.integration.store.kit import Admin

pytestmark = pytest.mark.anyio


async def test_nodes_are_listed_with_their_facts(store: Store, admin: Admin) -> None:
    assert await store.heartbeat("n2", {}) == ["n2"]
    assert await store.heartbeat("n1", {"address": "10.0.0.1", "connections": "5"}) == ["n1", "n2"]
    assert await store.heartbeat("n1", {"connections": "6"}) == ["n1", "n2"]

    facts = admin.hgetall("wp:node:n1")
    seen = admin.zscore("wp:nodes", "n1")
    assert seen is not None
    assert facts == {b"connections": b"6", b"seen": b"%d" % int(seen)}
    assert 0 < admin.pttl("wp:node:n1") <= 30_000


async def test_the_silent_are_dropped(store: Store, admin: Admin) -> None:
    await store.heartbeat("old", {})
    seen = admin.zscore("wp:nodes", "old")
    assert seen is not None
    admin.zadd("wp:nodes", {"old": seen - 30_100})

    assert await store.heartbeat("new", {}) == ["new"]


async def test_a_node_that_goes_is_forgotten(store: Store, admin: Admin) -> None:
    await store.heartbeat("n1", {})
    await store.heartbeat("n2", {})
    await store.forget_node("n1")
    await store.forget_node("n1")

    assert await store.heartbeat("n2", {}) == ["n2"]
    assert not admin.exists("wp:node:n1")
