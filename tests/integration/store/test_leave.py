"""leave: the end of a stretch."""

import pytest

from service.core.names import ZERO
from service.errors import WaypostError
from service.store import Store
from tests.integration.store.kit import Admin, key_of, listen, numbers_in, received, send, to_group

pytestmark = pytest.mark.anyio


async def test_it_closes_the_stretch_with_the_left_entry(store: Store, admin: Admin) -> None:
    joined = await store.join("alice", "g", mailbox="", origin=None)
    mailbox = await listen(store, "group:g", "user:alice")
    left = await store.leave("alice", "g", mailbox=mailbox, origin=(1, 2))

    assert (left.head, left.id.n, left.is_new, left.is_announced) == (joined.id, 2, True, True)
    assert not await store.is_member("alice", "g")
    record = admin.hget(key_of("g", "group:g", "g"), "alice")
    assert record is not None
    assert record.decode() == f"owner|{joined.id},{left.id}"
    assert admin.hget(key_of("g", "group:g", "g"), "/members") == b"0"
    assert not admin.exists(key_of("u", "user:alice", "alice"))
    inbox = await store.page("user:alice", ZERO, [], max_entries=9, max_bytes=999)
    assert [(entry.type, entry.to) for entry in inbox.entries] == [("joined", "group:g"), ("left", "group:g")]
    assert [(one.stream, one.origin) for one in await received(store, mailbox)] == [
        ("group:g", (1, 2)),
        ("user:alice", None),
    ]


async def test_twice_and_strangers_are_refused(store: Store, admin: Admin) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    await store.leave("alice", "g", mailbox="", origin=None)
    for user in ("alice", "bob"):
        with pytest.raises(WaypostError, match="not_member"):
            await store.leave(user, "g", mailbox="", origin=None)

    assert numbers_in(admin, "group:g") == [1, 2]
    assert numbers_in(admin, "user:alice") == [1, 2]


async def test_a_large_group_is_not_told_who_leaves(store: Store, admin: Admin) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    await store.join("bob", "g", mailbox="", origin=None)
    admin.hset(key_of("g", "group:g", "g"), "/announce", "1")
    await send(store, to_group("alice", "g"))
    silent = await store.leave("bob", "g", mailbox="", origin=None)

    assert (silent.id, silent.is_announced) == (silent.head, False)
    assert numbers_in(admin, "group:g") == [1, 2, 3]
    page = await store.page("group:g", ZERO, ["bob"], max_entries=9, max_bytes=999)
    assert page.stretches is not None
    assert page.stretches["bob"][0].left == silent.head


async def test_leave_and_come_with_the_calls_swapped(store: Store) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    # Meant as leave, join; executed as join, leave: the join changes nothing, the leave stands.
    await store.join("alice", "g", mailbox="", origin=None)
    await store.leave("alice", "g", mailbox="", origin=None)

    assert not await store.is_member("alice", "g")
    assert (await store.join("alice", "g", mailbox="", origin=None)).is_new
