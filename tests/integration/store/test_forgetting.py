"""Stretches of membership are kept while anything of them can be fetched or is owed, and forgotten after that."""

import pytest

from service.core.names import EntryId
from service.core.paging import Gap, lay_out
from service.store import Commit, Store, TrimCause
from tests.integration.store.kit import Admin, head_of, key_of, send, to_group

pytestmark = pytest.mark.anyio
GROUP_KEY = key_of("g", "group:g", "g")


async def join(store: Store, user: str = "bob") -> EntryId:
    return (await store.join(user, "g", mailbox="", origin=None)).id


async def leave(store: Store, user: str = "bob") -> EntryId:
    return (await store.leave(user, "g", mailbox="", origin=None)).id


def record(admin: Admin, user: str = "bob") -> str | None:
    raw = admin.hget(GROUP_KEY, user)
    return None if raw is None else raw.decode()


async def appear(store: Store, *devices: str) -> None:
    """Bob has these devices."""
    for device in devices:
        await store.open_session("bob", device, "n1", {}, is_foreign=False)


async def has(store: Store, device: str, upto: EntryId) -> None:
    """A device of bob has everything of the group up to there."""
    await store.commit([Commit("bob", device, {"group:g": upto})])


async def stay(store: Store) -> tuple[EntryId, EntryId]:
    """Bob joins, is sent two messages, leaves, and another is sent. Returns the stretch."""
    joined = await join(store)
    await send(store, to_group("alice", "g"), to_group("alice", "g"))
    left = await leave(store)
    await send(store, to_group("alice", "g"))
    return joined, left


async def trim(store: Store, upto: EntryId) -> None:
    await store.trim("group:g", upto, TrimCause("week", "max_age"))


@pytest.fixture(autouse=True)
async def alice(store: Store) -> None:
    """She made the group."""
    await join(store, "alice")


async def test_one_that_all_devices_and_the_floor_have_passed_is_forgotten(store: Store, admin: Admin) -> None:
    await appear(store, "phone", "laptop")
    first, second = await stay(store), await stay(store)
    for device in ("phone", "laptop"):
        await has(store, device, first[1])
    await trim(store, first[1])
    third = await join(store)

    assert record(admin) == f"member|{second[0]},{second[1]};{third},"
    assert admin.hget(GROUP_KEY, "/members") == b"2"
    for device in ("phone", "laptop"):
        await has(store, device, second[1])
    await trim(store, second[1])
    left = await leave(store)
    assert record(admin) == f"member|{third},{left}"


async def test_one_above_the_floor_is_kept(store: Store, admin: Admin) -> None:
    await appear(store, "phone")
    joined, left = await stay(store)
    await has(store, "phone", left)
    await trim(store, joined)
    again = await join(store)
    assert record(admin) == f"member|{joined},{left};{again},"


async def test_one_that_a_device_has_not_passed_is_kept_for_the_gap_that_is_owed(store: Store, admin: Admin) -> None:
    await appear(store, "phone", "laptop")
    first, second = await stay(store), await stay(store)
    await has(store, "phone", second[1])
    await has(store, "laptop", first[0])
    await trim(store, head_of(admin, "group:g"))
    third = await join(store)
    assert record(admin) == f"member|{first[0]},{first[1]};{second[0]},{second[1]};{third},"

    page = await store.page("group:g", first[0], ["bob"], max_entries=9, max_bytes=999)
    gaps = [item for item in lay_out(page, "bob", first[0]).items if isinstance(item, Gap)]
    # Exactly what lay within the stretches: two messages and the own `left`; and what came while bob was away is none.
    assert [(gap.after, gap.to, gap.missed) for gap in gaps] == [(*first, 3), (*second, 3)]
    await has(store, "laptop", first[1])  # the gap counts as delivered
    left = await leave(store)
    assert record(admin) == f"member|{second[0]},{second[1]};{third},{left}"


async def test_without_any_device_nothing_is_owed(store: Store, admin: Admin) -> None:
    await stay(store)
    await trim(store, head_of(admin, "group:g"))
    again = await join(store)
    assert record(admin) == f"member|{again},"


async def test_an_offset_of_another_epoch_has_passed_nothing(store: Store, admin: Admin) -> None:
    await appear(store, "phone")
    joined, left = await stay(store)
    admin.hset(key_of("o", "user:bob", "bob/phone"), "group:g", f"{left} other")
    await trim(store, left)
    again = await join(store)
    assert record(admin) == f"member|{joined},{left};{again},"


async def test_with_the_last_one_the_member_is_forgotten(store: Store, admin: Admin) -> None:
    await appear(store, "phone")
    admin.hset(GROUP_KEY, "/announce", "0")  # else the own `left` is above every floor
    await join(store)
    [sent] = await send(store, to_group("alice", "g"))
    await has(store, "phone", sent)
    await trim(store, sent)
    assert await leave(store) == sent

    assert admin.hgetall(GROUP_KEY).keys() == {b"alice", b"/access", b"/announce", b"/members"}
    assert admin.hget(GROUP_KEY, "/members") == b"1"
    assert not await store.is_member("bob", "g")
    page = await store.page("group:g", sent, ["bob", "carol"], max_entries=9, max_bytes=999)
    assert page.stretches == {"bob": (), "carol": ()}
    assert lay_out(page, "bob", sent) == lay_out(page, "carol", sent)
    assert lay_out(page, "bob", sent).has_ended
    opened = await store.open_session("bob", "phone", "n1", {}, is_foreign=False)
    assert [one.stream for one in opened] == ["user:bob", "all"]
    assert not admin.hexists(key_of("o", "user:bob", "bob/phone"), "group:g")

    again = await join(store)
    assert record(admin) == f"member|{again},"
    assert admin.hget(GROUP_KEY, "/members") == b"2"


async def test_whoever_made_the_group_stays_its_owner(store: Store, admin: Admin) -> None:
    admin.hset(GROUP_KEY, "/announce", "0")
    await trim(store, head_of(admin, "group:g"))
    await leave(store, "alice")
    assert record(admin, "alice") == "owner|"
    page = await store.page("group:g", head_of(admin, "group:g"), ["alice"], max_entries=9, max_bytes=999)
    assert page.stretches == {"alice": ()}
    assert not await store.is_member("alice", "g")
    assert "group:g" not in {
        one.stream for one in await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    }
    again = await join(store, "alice")
    assert record(admin, "alice") == f"owner|{again},"


async def test_one_in_which_nothing_was_sent_is_forgotten_at_once(store: Store, admin: Admin) -> None:
    admin.hset(GROUP_KEY, "/announce", "0")
    await appear(store, "phone")
    for _ in range(3):
        await join(store)
        await leave(store)
        assert record(admin) is None


async def test_however_many_are_needed_are_kept(store: Store, admin: Admin) -> None:
    for _ in range(150):
        await join(store)
        await leave(store)
    page = await store.page("group:g", EntryId(0, 0), ["bob"], max_entries=999, max_bytes=99_999)
    assert page.stretches is not None
    assert len(page.stretches["bob"]) == 150


async def test_what_cannot_be_read_is_left_alone(store: Store, admin: Admin) -> None:
    _, left = await stay(store)
    admin.hset(GROUP_KEY, "bob", f"member|odd;{left},odd;1-1,1-1")
    again = await join(store)
    assert record(admin) == f"member|odd;{left},odd;{again},"


async def forget(store: Store) -> None:
    cursor = await store.forget_members("g")
    while cursor:
        cursor = await store.forget_members("g", cursor)


async def test_who_left_for_good_is_forgotten_when_asked_for(store: Store, admin: Admin) -> None:
    await appear(store, "phone")
    joined, left = await stay(store)  # bob, whose phone has nothing of it yet
    many = [f"user{number}" for number in range(600)]
    admin.hset(GROUP_KEY, "/announce", "9")
    for user in many:
        await join(store, user)
    for user in many[1:]:
        await leave(store, user)
    members = admin.hget(GROUP_KEY, "/members")
    await trim(store, head_of(admin, "group:g"))
    await forget(store)
    before = admin.hgetall(GROUP_KEY)
    assert before.keys() == {b"alice", b"bob", b"user0", b"/access", b"/announce", b"/members"}
    assert before[b"/members"] == members == b"2"
    assert record(admin) == f"member|{joined},{left}"
    await forget(store)
    assert admin.hgetall(GROUP_KEY) == before

    await has(store, "phone", left)
    await forget(store)
    assert record(admin) is None


async def test_a_user_whose_keys_cannot_be_read_holds_up_nobody(store: Store, admin: Admin) -> None:
    await stay(store)
    await join(store, "carol")
    await leave(store, "carol")
    await trim(store, head_of(admin, "group:g"))
    admin.set(key_of("d", "user:bob", "bob"), "no hash")
    kept = record(admin)
    await forget(store)
    assert (record(admin), record(admin, "carol")) == (kept, None)
    admin.delete(key_of("d", "user:bob", "bob"))
