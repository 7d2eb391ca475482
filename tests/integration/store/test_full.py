"""A full store refuses what would fill it further, takes no number for it, and can be drained."""

from collections.abc import Iterator

import pytest

from service.core.names import ZERO
from service.errors import WaypostError
from service.store import Commit, Registration, Store, TrimCause
from tests.integration.store.kit import Admin, direct, entries_of, head_of, listen, send, to_all, to_group

pytestmark = pytest.mark.anyio


class Full:
    """Turns the server's memory limit below what it uses."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin

    def begin(self) -> None:
        self.admin.config_set("maxmemory", "100kb")


@pytest.fixture
def full(admin: Admin) -> Iterator[Full]:
    yield Full(admin)
    admin.config_set("maxmemory", 0)


async def test_nothing_is_stored_and_no_number_is_taken(store: Store, admin: Admin, full: Full) -> None:
    [before] = await send(store, to_all("alice"))
    full.begin()
    with pytest.raises(WaypostError, match="storage_full"):
        await send(store, to_all("alice"))
    with pytest.raises(WaypostError, match="storage_full"):
        await store.join("alice", "g", mailbox="", origin=None)

    assert head_of(admin, "all") == before
    admin.config_set("maxmemory", 0)
    [after] = await send(store, to_all("alice"))
    assert after.n == before.n + 1


async def test_all_that_drains_goes_on(store: Store, admin: Admin, full: Full) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    ids = await send(store, *(to_all("alice") for _ in range(4)))
    [own] = await send(store, direct("alice", "alice"))
    await send(store, to_group("alice", "g"))
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    mailbox = await listen(store, "all")
    reader = store.mailbox_reader()
    full.begin()

    assert (await store.page("all", ZERO, [], max_entries=9, max_bytes=999)).entries[-1].id == ids[-1]
    await store.commit([Commit("alice", "phone", {"user:alice": own})])
    assert await reader.lease(mailbox, 1, 0, 60_000) is not None
    assert [number for number, _ in await entries_of(reader, mailbox, 0, block_ms=0, count=9)] == [1]
    other = await store.create_mailbox("n2")
    await store.attach(other, [Registration("all", 1)])
    await store.detach(mailbox, [Registration("all", 1)])
    assert await store.heartbeat("n2", {"load": "1"}) == ["n2"]
    opened = await store.open_session("alice", "tablet", "n1", {}, is_foreign=False)
    assert [one.stream for one in opened] == ["user:alice", "group:g", "all"]
    assert await store.redact("user:alice", own, "alice", only_sender=True) is not None
    await store.leave("alice", "g", mailbox=other, origin=None)
    assert await store.reconcile("n1", ["n1"], {"all": ids[-1]})
    assert (await store.trim("all", ids[1], TrimCause())).removed == 2
    await store.drop_mailbox(mailbox)
    await reader.close()
    raw = admin.hget(f"wp:{{{store._context.layout.user_tag('alice')}}}:o:alice/phone", "user:alice")
    assert raw is not None
    assert raw.decode() == f"{own} {store.epoch}"
