"""check_server: which servers may be used, and how durable they are."""

import socket
from collections.abc import Iterator

import pytest

from migrations import __main__ as migrations
from service.errors import Reset, Unavailable
from service.store import Store, StoreOptions, StoreRefused
from service.store.nodes import _check_version
from tests.integration.store.kit import Admin, Server, stored, to_all, wait_until

pytestmark = pytest.mark.anyio


async def test_a_good_server(store: Store, admin: Admin) -> None:
    info = admin.info("server")
    assert (store.durability, store.run) == ("fsynced", info["run_id"])
    assert len(store.epoch) == 16
    await store.ping()


async def test_a_server_that_evicts_is_refused(store: Store, admin: Admin) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreRefused, match="noeviction"):
            await store.check_server()
    finally:
        admin.config_set("maxmemory-policy", "noeviction")
    await store.check_server()


@pytest.mark.parametrize(
    ("name", "weak", "strong"), [("appendfsync", "everysec", "always"), ("no-appendfsync-on-rewrite", "yes", "no")]
)
async def test_durability_is_what_the_server_does(
    store: Store, admin: Admin, name: str, weak: str, strong: str
) -> None:
    admin.config_set(name, weak)
    try:
        await store.check_server()
        assert store.durability == "memory"
        [outcome] = await store.publish([to_all("alice")], "")
        assert outcome.durability == "memory"
    finally:
        admin.config_set(name, strong)


async def test_an_empty_server_is_a_reset(server: Server) -> None:
    store = await Store.connect(server.url, options=StoreOptions())
    with pytest.raises(Reset, match="migrate up"):
        await store.check_server()
    await store.close()


async def test_a_server_that_hides_its_settings_promises_little(own_server: Server) -> None:
    await migrations.up(own_server.url)
    own_server.admin.execute_command("ACL", "SETUSER", "hosted", "on", ">pw", "~*", "+@all", "-config")
    store = await Store.connect(f"unix://hosted:pw@{own_server.socket}", options=StoreOptions())
    await store.check_server()
    assert store.durability == "memory"
    await store.close()


async def test_a_wrong_password_is_unavailable(own_server: Server) -> None:
    own_server.admin.execute_command("ACL", "SETUSER", "hosted", "on", ">pw", "~*", "+@all")
    store = await Store.connect(f"unix://hosted:wrong@{own_server.socket}", options=StoreOptions())
    with pytest.raises(Unavailable):
        await store.check_server()
    await store.close()


@pytest.mark.parametrize(
    ("info", "is_good"),
    [
        ({"redis_version": "7.0.15"}, True),
        ({"redis_version": "6.2.7"}, False),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.0"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, False),
        ({"redis_version": "unstable"}, False),
    ],
)
def test_old_versions_are_refused(info: dict[str, str], is_good: bool) -> None:
    if is_good:
        _check_version(info)
    else:
        with pytest.raises(StoreRefused, match="or newer"):
            _check_version(info)


class TestReplicated:
    """A server with one replica, and a store that waits for it."""

    @pytest.fixture
    def pair(self, product: str) -> Iterator[tuple[Server, Server]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        # The last --port wins: here the first server must be reached over TCP.
        primary = Server(product, "--port", port, "--repl-diskless-sync-delay", "0")
        replica = Server(product, "--replicaof", f"127.0.0.1 {port}")
        try:
            primary.start()
            replica.start()
            wait_until(lambda: replica.admin.info("replication")["master_link_status"] == "up", "the replica is in")
            yield primary, replica
        finally:
            replica.remove()
            primary.remove()

    async def test_replicated_only_when_the_replica_has_it(self, pair: tuple[Server, Server]) -> None:
        primary, replica = pair
        await migrations.up(primary.url)
        options = StoreOptions(wait_replicas=1, wait_timeout_ms=5000)
        store = await Store.connect(primary.url, options=options)
        await store.check_server()
        [first] = await store.publish([to_all("alice", key="k")], "")
        [again] = await store.publish([to_all("alice", key="k")], "")
        assert first.durability == "replicated"
        assert replica.admin.xlen(f"wp:{{{store._context.layout.tag('all')}}}:s:all") == 1
        # This very call wrote nothing that a replica could have.
        assert (again.is_duplicate, again.durability) == (True, "fsynced")
        await store.close()

        replica.kill()
        hasty = StoreOptions(wait_replicas=1, wait_timeout_ms=20)
        store = await Store.connect(primary.url, options=hasty)
        await store.check_server()
        [alone] = await store.publish([to_all("alice")], "")
        assert stored(alone).n == 2
        assert alone.durability == "fsynced"
        await store.close()

    async def test_a_replica_refuses_writes(self, pair: tuple[Server, Server]) -> None:
        primary, replica = pair
        await migrations.up(primary.url)
        wait_until(lambda: replica.admin.exists("wp:meta") == 1, "the replica follows")
        store = await Store.connect(replica.url, options=StoreOptions())
        await store.check_server()
        with pytest.raises(Unavailable):
            await store.publish([to_all("alice")], "")
        await store.close()
