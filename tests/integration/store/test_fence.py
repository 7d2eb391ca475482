"""The fence: no function that is bound to an epoch does anything on a store or server that is another."""

from collections.abc import Awaitable, Callable

import pytest

from service.core.anchors import parse_anchor
from service.core.history import Question
from service.core.names import ZERO, EntryId
from service.errors import Fenced, Reset
from service.store import Commit, FenceState, Registration, Store, StoreOptions, TrimCause
from service.store.functions import library
from tests.integration.store.kit import EPOCH_KEYS, FOREIGN_RUN, Admin, direct, key_of, listen, send, to_all

pytestmark = pytest.mark.anyio

Call = Callable[[Store, str], Awaitable[object]]

CALLS: dict[str, Call] = {
    "publish": lambda store, mailbox: store.publish([direct("alice", "bob")], mailbox),
    "page": lambda store, _: store.page("all", ZERO, [], max_entries=1, max_bytes=1),
    "history": lambda store, _: store.history(
        None, Question("all", parse_anchor(None, None, None), 9), max_bytes=9, looked_max=9
    ),
    "redact": lambda store, _: store.redact("all", EntryId(1, 1), "alice", only_sender=False),
    "trim": lambda store, _: store.trim("all", EntryId(9, 9), TrimCause()),
    "attach": lambda store, mailbox: store.attach(mailbox, [Registration("user:bob", 9)]),
    "detach": lambda store, mailbox: store.detach(mailbox, [Registration("all", 9)]),
    "open_session": lambda store, _: store.open_session("alice", "phone", "n1", {}, is_foreign=False),
    "commit": lambda store, _: store.commit([Commit("alice", "phone", {"all": EntryId(1, 1)})]),
    "join": lambda store, mailbox: store.join("bob", "g", mailbox=mailbox, origin=None),
    "leave": lambda store, mailbox: store.leave("alice", "g", mailbox=mailbox, origin=None),
    "configure_group": lambda store, _: store.configure_group("g", is_open=False, announce=None, by="", by_key=True),
    "delete_group": lambda store, _: store.delete_group("g", by="", by_key=True),
    "group": lambda store, _: store.group("g", "alice"),
    "progress": lambda store, _: store.progress("alice", "phone", limit=10),
}


def everything(admin: Admin) -> dict[bytes, object]:
    return {name: admin.dump(name) for name in admin.scan_iter()}


async def furnish(store: Store) -> str:
    await send(store, to_all("alice"))
    await store.join("alice", "g", mailbox="", origin=None)
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    return await listen(store, "all")


@pytest.mark.parametrize("name", CALLS)
async def test_another_servers_run_is_refused(store: Store, admin: Admin, name: str) -> None:
    mailbox = await furnish(store)
    for fence in EPOCH_KEYS:
        admin.hset(fence, "run", FOREIGN_RUN)
    before = everything(admin)
    with pytest.raises(Fenced, match=store.epoch):
        await CALLS[name](store, mailbox)

    assert everything(admin) == before


@pytest.mark.parametrize("name", CALLS)
async def test_another_epoch_is_refused(store: Store, admin: Admin, name: str) -> None:
    mailbox = await furnish(store)
    for fence in EPOCH_KEYS:
        admin.hset(fence, "epoch", "another")
    before = everything(admin)
    with pytest.raises(Fenced, match="another"):
        await CALLS[name](store, mailbox)

    assert everything(admin) == before
    await store.fence_state()
    assert store.epoch == "another"
    await CALLS["publish"](store, mailbox)


@pytest.mark.parametrize("name", CALLS)
async def test_a_store_that_was_emptied_is_refused(store: Store, admin: Admin, name: str) -> None:
    admin.flushall()
    with pytest.raises(Reset):
        await CALLS[name](store, "wp:{10}:m:n1.x")

    assert list(admin.scan_iter()) == []


async def test_every_partition_that_a_call_touches_is_looked_at(store: Store, admin: Admin) -> None:
    admin.hset(key_of("e", "user:alice")[: -len(":user:alice")], "run", FOREIGN_RUN)
    with pytest.raises(Fenced):
        await store.publish([to_all("carol"), direct("alice", "bob")], "")

    assert not admin.exists(key_of("s", "all"), key_of("s", "user:bob"))
    assert (await store.publish([direct("carol", "bob")], ""))[0].code is None


async def test_the_state_of_the_fence(store: Store, admin: Admin) -> None:
    run = store.run
    assert await store.fence_state() == FenceState(store.epoch, run, run, is_open=True)
    admin.hset(EPOCH_KEYS[7], "run", FOREIGN_RUN)
    assert await store.fence_state() == FenceState(store.epoch, FOREIGN_RUN, run, is_open=False)
    admin.hset(EPOCH_KEYS[7], "epoch", "another")
    with pytest.raises(Reset):
        await store.fence_state()
    admin.delete(EPOCH_KEYS[7])
    with pytest.raises(Reset):
        await store.fence_state()
    admin.delete("wp:meta")
    with pytest.raises(Reset):
        await store.fence_state()


async def test_a_fence_without_a_run_is_closed(store: Store, admin: Admin) -> None:
    admin.hdel(EPOCH_KEYS[0], "run")
    state = await store.fence_state()

    assert (state.run, state.is_open) == ("", False)


async def test_a_missing_function_is_a_reset(store: Store, admin: Admin) -> None:
    admin.function_delete(library("publish"))
    try:
        with pytest.raises(Reset, match="migrate up"):
            await send(store, to_all("alice"))
        with pytest.raises(Reset, match="publish"):
            await store.check_server()
    finally:
        admin.function_flush()  # the next test's migration loads them all


async def test_a_store_that_was_never_read_says_so(store: Store, options: StoreOptions) -> None:
    fresh = await Store.connect(f"unix://{store._context.link._factory.connection_kwargs['path']}", options=options)
    with pytest.raises(Exception, match="not reached yet"):
        await fresh.page("all", ZERO, [], max_entries=1, max_bytes=1)
    await fresh.fence_state()
    assert (await fresh.page("all", ZERO, [], max_entries=1, max_bytes=1)).is_last
    await fresh.close()
