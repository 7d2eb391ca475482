"""A server that may throw away keys is not used: what it evicts would be gone without a word."""

import pytest

from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist, run_cli
from tests.e2e.kit import true
from tests.integration.store.kit import Server
from tests.service import Phone

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("database", ["valkey"], indirect=True)
async def test_a_node_does_not_start_on_a_server_that_evicts(database: Server) -> None:
    database.admin.config_set("maxmemory-policy", "allkeys-lru")
    code, said = await run_cli(database, "serve")
    assert code == 1
    assert "maxmemory-policy is allkeys-lru" in said
    assert "noeviction" in said


async def test_a_policy_changed_under_way_stops_sends_until_it_is_changed_back(
    database: Server, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a", beat_s=0.2)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    await alice.send_all("user:bob", ["before"])
    database.admin.config_set("maxmemory-policy", "volatile-ttl")
    await true(lambda: any("volatile-ttl" in reason for reason in node.reasons() or []), "the node says what is wrong")
    refused = await alice.send("user:bob", "meanwhile", key="k")
    assert (refused["code"], refused["retry"]) == ("unavailable", True)

    database.admin.config_set("maxmemory-policy", "noeviction")
    await true(node.is_ready, "ready again")
    await insist(alice, "user:bob", "meanwhile", key="k")
    await bob.wait("message", body="meanwhile")
    assert bob.bodies() == ["before", "meanwhile"]
    assert bob.closed is alice.closed is None
