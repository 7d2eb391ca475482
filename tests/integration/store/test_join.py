"""join: what it writes, what it answers, and whom it refuses."""

import pytest

from service.core.names import ZERO
from service.errors import WaypostError
from service.store import Membership, Store, StoreOptions
from tests.integration.store.kit import Admin, head_of, key_of, listen, numbers_in, received, send, to_group

pytestmark = pytest.mark.anyio


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions(announce=3, streams_max=4)


async def join(store: Store, user: str, group: str, *, by_key: bool = False) -> Membership:
    return await store.join(user, group, mailbox="", origin=None, by_key=by_key)


async def test_the_first_who_joins_makes_and_owns_the_group(store: Store, admin: Admin) -> None:
    assert not await store.group_exists("g")
    joined = await join(store, "alice", "g")
    await join(store, "bob", "g")

    assert await store.group_exists("g")
    assert await store.is_member("alice", "g")
    assert not await store.is_member("carol", "g")
    record = {name.decode(): value.decode() for name, value in admin.hgetall(key_of("g", "group:g", "g")).items()}
    assert record.pop("alice") == f"owner|{joined.id},"
    assert record.pop("bob").startswith("member|")
    assert record == {"/access": "open", "/members": "2"}
    assert admin.hgetall(key_of("u", "user:alice", "alice")) == {b"g": b"1"}


async def test_the_stretch_starts_at_the_own_joined_entry(store: Store) -> None:
    first = await join(store, "alice", "g")
    second = await join(store, "bob", "g")
    page = await store.page("group:g", ZERO, ["bob"], max_entries=9, max_bytes=999)

    assert (first.head, first.id.n, first.is_new, first.is_announced) == (ZERO, 1, True, True)
    assert second.head == first.id
    assert [entry.id for entry in page.entries] == [first.id, second.id]
    assert page.stretches is not None
    assert page.stretches["bob"][0].joined == second.id
    [told] = (await store.page("user:bob", ZERO, [], max_entries=9, max_bytes=999)).entries
    assert (told.type, told.sender, told.to) == ("joined", "bob", "group:g")


async def test_twice_adds_nothing_and_answers_the_first_id(store: Store, admin: Admin) -> None:
    first = await join(store, "alice", "g")
    await send(store, to_group("alice", "g"))
    again = await join(store, "alice", "g")

    assert (again.id, again.is_new) == (first.id, False)
    assert again.head == head_of(admin, "group:g")
    assert numbers_in(admin, "group:g") == [1, 2]
    assert numbers_in(admin, "user:alice") == [1]
    assert admin.hget(key_of("g", "group:g", "g"), "/members") == b"1"


async def test_both_streams_mailboxes_are_told_and_the_groups_entry_names_the_origin(store: Store) -> None:
    mailbox = await listen(store, "group:g", "user:alice")
    await store.join("alice", "g", mailbox=mailbox, origin=(4, 5))
    assert [(one.stream, one.origin, one.entry.type) for one in await received(store, mailbox)] == [
        ("group:g", (4, 5), "joined"),
        ("user:alice", None, "joined"),
    ]


async def test_a_large_group_is_not_told_who_joins(store: Store, admin: Admin) -> None:
    for user in ("u1", "u2", "u3"):
        assert (await join(store, user, "g")).is_announced
    silent = await join(store, "u4", "g")

    assert (silent.id, silent.is_announced, silent.is_new) == (silent.head, False, True)
    assert numbers_in(admin, "group:g") == [1, 2, 3]
    assert numbers_in(admin, "user:u4") == [1]
    assert (await join(store, "u4", "g")).id == silent.id
    admin.hset(key_of("g", "group:g", "g"), "/announce", "10")
    assert (await join(store, "u5", "g")).is_announced


async def test_a_closed_group_lets_only_keys_in(store: Store, admin: Admin) -> None:
    await join(store, "alice", "g")
    admin.hset(key_of("g", "group:g", "g"), "/access", "closed")
    with pytest.raises(WaypostError, match="group_closed"):
        await join(store, "bob", "g")

    assert numbers_in(admin, "group:g") == [1]
    assert not admin.exists(key_of("u", "user:bob", "bob"), key_of("s", "user:bob"))
    assert (await join(store, "bob", "g", by_key=True)).is_new


async def test_one_above_the_limit_is_refused(store: Store) -> None:
    for n in range(4):
        await join(store, "alice", f"g{n}")
    with pytest.raises(WaypostError, match="too_many_streams"):
        await join(store, "alice", "g4")

    assert not await store.group_exists("g4")
    assert not (await join(store, "alice", "g3")).is_new
    await store.leave("alice", "g0", mailbox="", origin=None)
    assert (await join(store, "alice", "g4")).is_new


async def test_joining_again_opens_a_second_stretch_and_keeps_the_role(store: Store, admin: Admin) -> None:
    first = await join(store, "alice", "g")
    left = await store.leave("alice", "g", mailbox="", origin=None)
    again = await join(store, "alice", "g")

    record = admin.hget(key_of("g", "group:g", "g"), "alice")
    assert record is not None
    assert record.decode() == f"owner|{first.id},{left.id};{again.id},"
    assert (await join(store, "alice", "g")).id == again.id


async def test_an_unreadable_stream_is_refused_before_anything_is_written(store: Store, admin: Admin) -> None:
    admin.set(key_of("s", "user:alice"), "no stream")
    with pytest.raises(WaypostError):
        await join(store, "alice", "g")

    assert not await store.group_exists("g")
    assert not admin.exists(key_of("u", "user:alice", "alice"))
    admin.delete(key_of("s", "user:alice"))


class TestGroupsMadeByKeys:
    """With `groups_create = keys`, a user cannot make a group by joining one that is not there."""

    @pytest.fixture
    def options(self) -> StoreOptions:
        return StoreOptions(groups_create="keys")

    async def test_only_a_key_makes_a_group(self, store: Store) -> None:
        with pytest.raises(WaypostError, match="group_closed"):
            await join(store, "alice", "g")
        assert not await store.group_exists("g")
        await join(store, "alice", "g", by_key=True)
        assert (await join(store, "bob", "g")).is_new
