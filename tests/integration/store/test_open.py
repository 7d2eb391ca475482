"""open_session: where each stream starts, for new devices and known ones, and what brought offsets do."""

import json
from collections.abc import Mapping

import pytest

from migrations import __main__ as migrations
from service.core.names import ZERO, EntryId
from service.errors import WaypostError
from service.store import Commit, OpenedStream, Store, StoreOptions, TrimCause
from tests.integration.store.kit import EPOCH_KEYS, Admin, Server, direct, key_of, send, to_all, to_group, wait_until

pytestmark = pytest.mark.anyio


async def session(
    store: Store, user: str, offsets: Mapping[str, EntryId] | None = None, *, is_foreign: bool = False
) -> dict[str, OpenedStream]:
    opened = await store.open_session(user, "phone", "n1", offsets or {}, is_foreign=is_foreign)
    return {one.stream: one for one in opened}


def stored(admin: Admin, user: str) -> dict[str, str]:
    raw = admin.hgetall(key_of("o", f"user:{user}", f"{user}/phone"))
    return {stream.decode(): value.decode() for stream, value in raw.items()}


async def test_a_new_device_starts_at_floor_joining_and_now(store: Store, admin: Admin) -> None:
    inbox = await send(store, *(direct("alice", "alice") for _ in range(3)))
    await store.trim("user:alice", inbox[0], TrimCause())
    await store.join("bob", "g", mailbox="", origin=None)
    await send(store, to_group("bob", "g"))
    joined = await store.join("alice", "g", mailbox="", origin=None)
    await send(store, to_group("bob", "g"))
    [everybody] = await send(store, to_all("bob"))
    opened = await session(store, "alice")

    assert list(opened) == ["user:alice", "group:g", "all"]
    assert {name: one.offset for name, one in opened.items()} == {
        "user:alice": inbox[0],
        "group:g": joined.id,
        "all": everybody,
    }
    assert all(one.start == one.offset and one.foreign is None for one in opened.values())
    assert (opened["user:alice"].floor, opened["user:alice"].head.n) == (inbox[0], 4)
    assert stored(admin, "alice") == {name: f"{one.offset} {store.epoch}" for name, one in opened.items()}
    raw = admin.hget(key_of("d", "user:alice", "alice"), "phone")
    assert raw is not None
    device = json.loads(raw)
    assert device["node"] == "n1"
    assert device["first"] == device["last"] >= everybody.ms


async def test_a_known_device_goes_on_from_its_offset(store: Store, admin: Admin) -> None:
    await session(store, "alice")
    ids = await send(store, *(to_all("bob") for _ in range(3)))
    joined = await store.join("alice", "g", mailbox="", origin=None)
    await store.commit([Commit("alice", "phone", {"all": ids[1]})])
    opened = await session(store, "alice")
    again = await session(store, "alice")

    assert (opened["all"].offset, opened["all"].head) == (ids[1], ids[2])
    assert opened["user:alice"].offset == ZERO
    # Joined since: it starts there, not at the head.
    assert opened["group:g"].offset == joined.id
    assert again == opened
    raw = admin.hget(key_of("d", "user:alice", "alice"), "phone")
    assert raw is not None
    assert json.loads(raw)["first"] <= json.loads(raw)["last"]


async def test_groups_that_deny_the_user_are_dropped(store: Store, admin: Admin) -> None:
    await store.join("alice", "kept", mailbox="", origin=None)
    await store.join("alice", "left", mailbox="", origin=None)
    await session(store, "alice")
    left = await store.leave("alice", "left", mailbox="", origin=None)
    await store.commit([Commit("alice", "phone", {"group:left": left.id})])
    admin.hset(key_of("u", "user:alice", "alice"), mapping={"left": "1", "never": "1"})
    opened = await session(store, "alice", {"group:other": EntryId(1, 1)})

    assert list(opened) == ["user:alice", "group:kept", "all"]
    assert admin.hkeys(key_of("u", "user:alice", "alice")) == [b"kept"]
    assert set(stored(admin, "alice")) == {"user:alice", "group:kept", "all"}


async def test_what_a_device_missed_before_the_user_left_is_still_its_own(store: Store) -> None:
    await session(store, "alice")  # this device goes away; the rest happens on another
    joined = await store.join("alice", "g", mailbox="", origin=None)
    await send(store, to_group("alice", "g"))
    left = await store.leave("alice", "g", mailbox="", origin=None)
    await store.join("bob", "g", mailbox="", origin=None)
    await send(store, to_group("bob", "g"))
    opened = (await session(store, "alice"))["group:g"]
    stranger = await store.open_session("alice", "new", "n1", {}, is_foreign=False)
    await store.commit([Commit("alice", "phone", {"group:g": left.id})])

    # The end of the membership stands for the head: what others say afterwards is not to be counted.
    assert (opened.offset, opened.start, opened.head) == (joined.id, joined.id, left.id)
    assert "group:g" not in {one.stream for one in stranger}  # a device that was not there missed nothing
    assert "group:g" not in await session(store, "alice")


async def test_joining_again_keeps_what_a_device_missed_of_the_first_time(store: Store) -> None:
    await session(store, "alice")
    first = await store.join("alice", "g", mailbox="", origin=None)
    await send(store, to_group("alice", "g"))
    await store.leave("alice", "g", mailbox="", origin=None)
    await store.join("alice", "g", mailbox="", origin=None)

    assert (await session(store, "alice"))["group:g"].start == first.id


async def test_a_brought_offset_above_the_stored_one_is_an_ack(store: Store, admin: Admin) -> None:
    await session(store, "alice")
    ids = await send(store, *(direct("alice", "alice") for _ in range(3)))
    opened = (await session(store, "alice", {"user:alice": ids[1]}))["user:alice"]

    assert (opened.offset, opened.start, opened.foreign) == (ids[1], ids[1], None)
    assert stored(admin, "alice")["user:alice"] == f"{ids[1]} {store.epoch}"


async def test_a_brought_offset_below_only_moves_the_start(store: Store, admin: Admin) -> None:
    await session(store, "alice")
    ids = await send(store, *(direct("alice", "alice") for _ in range(3)))
    await store.commit([Commit("alice", "phone", {"user:alice": ids[2]})])
    opened = (await session(store, "alice", {"user:alice": ids[0]}))["user:alice"]

    assert (opened.offset, opened.start) == (ids[2], ids[0])
    assert stored(admin, "alice")["user:alice"] == f"{ids[2]} {store.epoch}"


async def test_no_brought_offset_reaches_back_before_the_first_joining(store: Store) -> None:
    await store.join("bob", "g", mailbox="", origin=None)
    await send(store, to_group("bob", "g"))
    first = await store.join("alice", "g", mailbox="", origin=None)
    await store.leave("alice", "g", mailbox="", origin=None)
    [between] = await send(store, to_group("bob", "g"))
    second = await store.join("alice", "g", mailbox="", origin=None)

    opened = (await session(store, "alice", {"group:g": EntryId(1, 1)}))["group:g"]
    assert (opened.offset, opened.start) == (second.id, first.id)
    # In between it may begin: what lies outside the stretches is for the page to leave out.
    assert (await session(store, "alice", {"group:g": between}))["group:g"].start == between


async def test_a_brought_offset_above_the_head_is_answered_as_it_is(store: Store, admin: Admin) -> None:
    [head] = await send(store, direct("alice", "alice"))
    future = EntryId(head.ms + 5, 77)
    opened = (await session(store, "alice", {"user:alice": future}))["user:alice"]

    assert (opened.offset, opened.start, opened.head) == (ZERO, future, head)
    assert stored(admin, "alice")["user:alice"] == f"0-0 {store.epoch}"


async def test_a_brought_offset_whose_number_was_never_given_out_is_no_ack(store: Store, admin: Admin) -> None:
    await session(store, "alice")
    [first] = await send(store, direct("alice", "alice"))
    await store.commit([Commit("alice", "phone", {"user:alice": first})])
    wait_until(lambda: admin.time()[0] * 1000 + admin.time()[1] // 1000 > first.ms, "the next entry is of a later time")
    await send(store, direct("alice", "alice"))
    lost = EntryId(first.ms, 77)  # of a store that went back to older data, and gives the numbers out again
    opened = (await session(store, "alice", {"user:alice": lost}))["user:alice"]

    assert (opened.offset, opened.start) == (first, lost)
    assert stored(admin, "alice")["user:alice"] == f"{first} {store.epoch}"


async def test_a_brought_offset_of_another_epoch_is_not_stored(store: Store, admin: Admin) -> None:
    await session(store, "alice")
    ids = await send(store, *(direct("alice", "alice") for _ in range(3)))
    await store.commit([Commit("alice", "phone", {"user:alice": ids[0]})])
    opened = (await session(store, "alice", {"user:alice": ids[2]}, is_foreign=True))["user:alice"]

    assert (opened.offset, opened.start, opened.foreign) == (ids[0], ids[0], ids[2])
    assert stored(admin, "alice")["user:alice"] == f"{ids[0]} {store.epoch}"


async def test_a_stored_offset_above_the_head_is_of_another_history(store: Store, admin: Admin) -> None:
    await session(store, "alice")
    ids = await send(store, *(direct("alice", "alice") for _ in range(3)))
    await store.commit([Commit("alice", "phone", {"user:alice": ids[2]})])
    admin.delete(key_of("s", "user:alice"), key_of("h", "user:alice"))
    opened = (await session(store, "alice"))["user:alice"]
    again = (await session(store, "alice"))["user:alice"]

    assert (opened.offset, opened.start, opened.head, opened.foreign) == (ZERO, ZERO, ZERO, ids[2])
    assert again.foreign is None


async def test_a_group_whose_stream_and_head_were_deleted_starts_anew(store: Store, admin: Admin) -> None:
    joined = await store.join("alice", "g", mailbox="", origin=None)
    await session(store, "alice")
    admin.delete(key_of("s", "group:g"), key_of("h", "group:g"))
    first, second = (await session(store, "alice"))["group:g"], (await session(store, "alice"))["group:g"]

    assert (first.offset, first.foreign) == (ZERO, joined.id)
    assert (second.offset, second.foreign) == (ZERO, None)
    [new] = await send(store, to_group("alice", "g"))
    assert new.n == 1
    assert new > joined.id


async def test_offsets_of_an_earlier_epoch_stand_while_their_entries_do(
    store: Store, server: Server, admin: Admin
) -> None:
    await session(store, "alice")
    ids = await send(store, *(direct("alice", "alice") for _ in range(4)))
    everybody = await send(store, *(to_all("bob") for _ in range(2)))
    await store.commit([Commit("alice", "phone", {"user:alice": ids[1], "all": everybody[0]})])
    await store.redact("user:alice", ids[1], "alice", only_sender=True)
    admin.xdel(key_of("s", "all"), str(everybody[0]))
    before = store.epoch
    admin.delete(EPOCH_KEYS[3])
    await migrations.up(server.url)
    await store.fence_state()
    opened = await session(store, "alice")

    assert store.epoch != before
    assert (opened["user:alice"].offset, opened["user:alice"].foreign) == (ids[1], None)
    assert (opened["all"].offset, opened["all"].foreign) == (everybody[1], everybody[0])
    assert {value.split()[1] for value in stored(admin, "alice").values()} == {store.epoch}


async def test_a_broken_device_record_is_written_anew(store: Store, admin: Admin) -> None:
    name = key_of("d", "user:alice", "alice")
    for rubbish in ("rubbish", "17"):
        admin.hset(name, "phone", rubbish)
        await session(store, "alice")
        raw = admin.hget(name, "phone")
        assert raw is not None
        assert json.loads(raw)["node"] == "n1"


async def test_thousands_of_groups(store: Store, admin: Admin) -> None:
    made = admin.pipeline()
    for n in range(2000):
        made.hset(key_of("g", f"group:g{n}", f"g{n}"), "alice", "member|1-1,")
        made.hset(key_of("h", f"group:g{n}"), "head", "1-1")
        made.hset(key_of("u", "user:alice", "alice"), f"g{n}", "1")
    made.execute()
    opened = await session(store, "alice")

    assert len(opened) == 2002
    assert opened["group:g1999"].offset == EntryId(1, 1)
    assert len(stored(admin, "alice")) == 2002
    assert await session(store, "alice") == opened


@pytest.mark.parametrize("options", [StoreOptions(devices_max=2)])
async def test_one_device_more_than_the_limit_is_refused(store: Store, admin: Admin) -> None:
    for device in ("phone", "laptop"):
        await store.open_session("alice", device, "n1", {}, is_foreign=False)
    before = {name: admin.dump(name) for name in admin.scan_iter(count=1000)}
    with pytest.raises(WaypostError, match="too_many_devices"):
        await store.open_session("alice", "tablet", "n1", {"all": EntryId(1, 1)}, is_foreign=False)
    assert {name: admin.dump(name) for name in admin.scan_iter(count=1000)} == before
    # Those that are known come as before, other users too; one that is forgotten makes room.
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    await store.open_session("bob", "tablet", "n1", {}, is_foreign=False)
    admin.hdel(key_of("d", "user:alice", "alice"), "laptop")
    await store.open_session("alice", "tablet", "n1", {}, is_foreign=False)


async def test_a_stored_offset_that_cannot_be_read_is_none(store: Store, admin: Admin) -> None:
    await session(store, "alice")
    [told] = await send(store, to_all("bob"))
    admin.hset(key_of("o", "user:alice", "alice/phone"), "all", f"rubbish {store.epoch}")
    assert (await session(store, "alice"))["all"].offset == told
