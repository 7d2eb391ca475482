"""reconcile: heads are raised, what is missing is noted as lost, and the partitions open."""

import asyncio

import pytest

from migrations import __main__ as migrations
from service.core.names import ZERO, EntryId
from service.core.paging import contradicts
from service.errors import Fenced, Reset, Unavailable
from service.store import Store, StoreOptions
from tests.integration.store.kit import (
    EPOCH_KEYS,
    FOREIGN_RUN,
    LAYOUT,
    Admin,
    Server,
    direct,
    head_of,
    key_of,
    listen,
    send,
    to_all,
)

pytestmark = pytest.mark.anyio


def fence_off(admin: Admin) -> None:
    for fence in EPOCH_KEYS:
        admin.hset(fence, "run", FOREIGN_RUN)


async def test_heads_are_raised_and_the_stretch_is_noted_as_lost(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(2)))
    fence_off(admin)
    known = EntryId(ids[1].ms + 7, 6)
    assert await store.reconcile("n1", ["n1"], {"all": known, "user:new": EntryId(5, 3)})
    following = await send(store, to_all("alice"), direct("new", "new"))

    assert [entry.n for entry in following] == [7, 4]
    [line] = (await store.page("all", ZERO, [], max_entries=9, max_bytes=999)).removals
    assert (line.kind, line.after, line.to, line.count, line.run) == ("lost", ids[1], known, 4, store.run)
    [line] = (await store.page("user:new", ZERO, [], max_entries=9, max_bytes=999)).removals
    assert (line.after, line.to, line.count) == (ZERO, EntryId(5, 3), 3)


async def test_heads_are_never_lowered(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    fence_off(admin)
    # A later millisecond with a lower number cannot be of this history; the number stays all the same.
    await store.reconcile("n1", ["n1"], {"all": ids[0]})
    assert head_of(admin, "all") == ids[2]
    await store.reconcile("n1", ["n1"], {"all": EntryId(ids[2].ms + 50, 1)})
    assert head_of(admin, "all") == EntryId(ids[2].ms + 50, 3)
    assert not admin.exists(key_of("x", "all"))


async def test_a_missing_head_is_taken_from_the_stream_first(store: Store, admin: Admin) -> None:
    *_, last = await send(store, *(to_all("alice") for _ in range(3)))
    admin.delete(key_of("h", "all"))
    fence_off(admin)
    await store.reconcile("n1", ["n1"], {"all": last})

    assert not admin.exists(key_of("x", "all"))
    [following] = await send(store, to_all("alice"))
    assert following.n == 4


async def test_it_opens_when_all_live_nodes_have_come(store: Store, admin: Admin) -> None:
    fence_off(admin)
    assert not await store.reconcile("n1", ["n1", "n2"], {})
    assert not await store.reconcile("n1", ["n1", "n2"], {})
    with pytest.raises(Fenced):
        await send(store, to_all("alice"))
    assert await store.reconcile("n2", ["n1", "n2"], {})
    assert (await store.fence_state()).is_open

    for fence in EPOCH_KEYS:
        assert admin.hkeys(fence) == [b"epoch", b"run"]
    # The other one comes again and finds it open; late ids still count.
    assert await store.reconcile("n1", ["n1", "n2"], {"all": EntryId(5, 5)})
    assert head_of(admin, "all") == EntryId(5, 5)


async def test_it_does_not_wait_for_ever(store: Store, admin: Admin) -> None:
    fence_off(admin)
    assert not await store.reconcile("n1", ["n1", "dead"], {})
    for fence in EPOCH_KEYS:
        since = f"since:{store.run}"
        begun = admin.hget(fence, since)
        assert begun is not None
        admin.hset(fence, since, int(begun) - 2000)
    assert await store.reconcile("n1", ["n1", "dead"], {})
    await send(store, to_all("alice"))


async def test_twice_is_harmless(store: Store, admin: Admin) -> None:
    fence_off(admin)
    for _ in range(2):
        await store.reconcile("n1", ["n1"], {"all": EntryId(5, 5)})

    assert admin.llen(key_of("x", "all")) == 1
    assert head_of(admin, "all") == EntryId(5, 5)


async def test_many_streams_go_in_chunks(store: Store, admin: Admin) -> None:
    fence_off(admin)
    tag = LAYOUT.tag("all")
    streams = [name for name in (f"user:u{n}" for n in range(30_000)) if LAYOUT.tag(name) == tag][:1100]
    assert await store.reconcile("n1", ["n1"], {stream: EntryId(5, n) for n, stream in enumerate(streams, 1)})

    assert len(streams) == 1100
    assert [head_of(admin, stream).n for stream in streams] == list(range(1, 1101))


async def test_a_stream_that_cannot_be_read_does_not_keep_the_partition_closed(store: Store, admin: Admin) -> None:
    fence_off(admin)
    admin.set(key_of("h", "user:broken"), "no hash")
    assert await store.reconcile("n1", ["n1"], {"user:broken": EntryId(5, 5), "all": EntryId(5, 5)})
    assert head_of(admin, "all") == EntryId(5, 5)
    admin.delete(key_of("h", "user:broken"))


async def test_it_does_not_repair_a_reset_or_another_epoch(store: Store, admin: Admin) -> None:
    admin.hset(EPOCH_KEYS[0], "epoch", "another")
    with pytest.raises(Fenced):
        await store.reconcile("n1", ["n1"], {})
    admin.flushall()
    with pytest.raises(Reset):
        await store.reconcile("n1", ["n1"], {})
    assert list(admin.scan_iter()) == []


async def test_the_register_outlives_it(store: Store, admin: Admin) -> None:
    mailbox = await listen(store, "all")
    fence_off(admin)
    await store.reconcile("n1", ["n1"], {"all": EntryId(5, 5)})
    await send(store, to_all("alice"))

    assert admin.xlen(mailbox) == 2


async def test_a_server_that_was_killed_comes_back_with_all_that_was_acknowledged(own_server: Server) -> None:
    await migrations.up(own_server.url)
    store = await Store.connect(own_server.url, options=StoreOptions())
    await store.check_server()
    ids = await send(store, *(to_all("alice", b"%d" % n) for n in range(50)))
    before = store.run
    await asyncio.to_thread(own_server.kill)
    with pytest.raises(Unavailable):
        await send(store, to_all("alice"))
    await asyncio.to_thread(own_server.start)
    with pytest.raises(Fenced):
        await send(store, to_all("alice"))
    state = await store.fence_state()
    assert (state.run, state.is_open) == (before, False)
    assert state.server_run != before
    assert await store.reconcile("n1", ["n1"], {"all": ids[-1]})

    page = await store.page("all", ZERO, [], max_entries=99, max_bytes=9999)
    assert [entry.id for entry in page.entries] == ids
    assert page.removals == ()
    [following] = await send(store, to_all("alice"))
    assert following.n == 51
    await store.close()


async def test_who_comes_late_may_know_a_branch_that_was_lost_and_no_offset_of_it_is_good(
    store: Store, admin: Admin
) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))  # 3 is of this branch, while the node was elsewhere
    known = EntryId(ids[2].ms + 5, 5)
    assert await store.reconcile("n1", ["n1"], {"all": known}, is_late=True)

    page = await store.page("all", ids[2], [], max_entries=9, max_bytes=999)
    assert page.head.n == 5
    assert page.head > known
    [removal] = page.removals
    assert (removal.after, removal.to, removal.count, removal.kind) == (ids[2], page.head, 2, "lost")
    [after] = await send(store, to_all("alice"))
    assert after.n == 6
    for void in (known, EntryId(ids[2].ms + 4, 4), EntryId(ids[2].ms + 3, 3)):
        assert contradicts(await store.page("all", void, [], max_entries=9, max_bytes=999))
    for good in (*ids, removal.to, after):
        assert not contradicts(await store.page("all", good, [], max_entries=9, max_bytes=999))
