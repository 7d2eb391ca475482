"""forget_devices, drop_group, audit_streams, audit_nodes: what they take and leave, and for whom they do nothing."""

import json

import pytest

from service.core.names import ZERO, EntryId
from service.store import Audited, Commit, GroupStep, JobLease, Store, Superseded, TrimCause
from tests.integration.store.kit import Admin, direct, head_of, hold, key_of, listen, numbers_in, send, to_all, to_group

pytestmark = pytest.mark.anyio
FUTURE = 10**14  # Redis ms: everything is older


@pytest.fixture
async def lease(store: Store, admin: Admin) -> JobLease:
    return await hold(store, "devices")


def age(admin: Admin, user: str, device: str, last: int = 1000) -> None:
    """Let it look as if the device had not been seen for long."""
    admin.hset(key_of("d", f"user:{user}", user), device, json.dumps({"first": 1, "last": last, "node": "n"}))


async def devices_of(store: Store, *users: str) -> None:
    for user in users:
        for device in ("phone", "laptop"):
            await store.open_session(user, device, "n1", {}, is_foreign=False)


async def test_idle_devices_are_forgotten_with_their_offsets_and_others_stay(
    store: Store, admin: Admin, lease: JobLease
) -> None:
    await devices_of(store, "alice", "bob")
    age(admin, "alice", "phone", last=1000)
    age(admin, "bob", "phone", last=5000)
    swept = await store.forget_devices([("alice", ""), ("bob", "")], 5000, lease=lease.lease, token=lease.token)

    assert [(one.user, one.cursor, one.seen, one.forgotten) for one in swept] == [
        ("alice", "", 2, 1),
        ("bob", "", 2, 0),
    ]
    assert admin.hkeys(key_of("d", "user:alice", "alice")) == [b"laptop"]
    assert not admin.exists(key_of("o", "user:alice", "alice/phone"))
    assert admin.exists(key_of("o", "user:alice", "alice/laptop"))
    assert admin.hlen(key_of("d", "user:bob", "bob")) == 2


async def test_a_forgotten_device_begins_like_a_new_one(store: Store, admin: Admin, lease: JobLease) -> None:
    ids = await send(store, direct("alice", "alice"), direct("alice", "alice"))
    await devices_of(store, "alice")
    await store.commit([Commit("alice", "phone", {"user:alice": ids[1]})])
    age(admin, "alice", "phone")
    await store.forget_devices([("alice", "")], FUTURE // 2, lease=lease.lease, token=lease.token)
    [inbox, _] = await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    assert (inbox.offset, inbox.head) == (ZERO, ids[1])


async def test_many_devices_take_several_steps(store: Store, admin: Admin, lease: JobLease) -> None:
    name = key_of("d", "user:alice", "alice")
    admin.hset(name, mapping={f"d{n}": json.dumps({"first": 1, "last": 1, "node": ""}) for n in range(3000)})
    todo, forgotten, calls = [("alice", ""), ("bob", "")], 0, 0
    while todo:
        swept = await store.forget_devices(todo, 5000, lease=lease.lease, token=lease.token)
        assert sum(one.seen for one in swept) <= 300
        forgotten += sum(one.forgotten for one in swept)
        todo = [(one.user, one.cursor) for one in swept if one.cursor] + todo[len(swept) :]
        calls += 1
    assert forgotten == 3000
    assert calls > 5
    assert not admin.exists(name)


async def test_a_device_record_that_cannot_be_read_counts_from_now(store: Store, admin: Admin, lease: JobLease) -> None:
    name = key_of("d", "user:alice", "alice")
    admin.hset(name, mapping={"phone": "no JSON", "watch": "[]"})
    now = await store.now_ms()
    [swept] = await store.forget_devices([("alice", "")], now, lease=lease.lease, token=lease.token)
    assert (swept.seen, swept.forgotten) == (2, 0)
    assert all(json.loads(record)["last"] >= now for record in admin.hvals(name))


async def test_who_has_lost_the_lease_forgets_drops_and_mends_nothing(
    store: Store, admin: Admin, lease: JobLease
) -> None:
    await devices_of(store, "alice")
    await left_group(store, "alice")
    await store.trim("group:g", EntryId(FUTURE, 99), TrimCause())
    age(admin, "alice", "phone")
    admin.hdel(key_of("h", "group:g"), "head")
    admin.xadd(key_of("m", "user:n9", "n9.x"), {"beat": "0"})
    admin.hset(lease.lease, "token", "1")
    given = {"lease": lease.lease, "token": lease.token}
    with pytest.raises(Superseded):
        await store.forget_devices([("alice", "")], FUTURE, **given)
    with pytest.raises(Superseded):
        await store.drop_group("g", ["alice"], FUTURE, is_drop=True, **given)
    with pytest.raises(Superseded):
        await store.audit_streams(["group:g"], lease=lease.lease, token=lease.token)
    with pytest.raises(Superseded):
        await store.audit_nodes("devices", ["n9.x"], FUTURE, **given)
    assert admin.hlen(key_of("d", "user:alice", "alice")) == 2
    assert admin.exists(key_of("g", "group:g", "g"))
    assert head_of(admin, "group:g") == ZERO
    assert admin.delete(key_of("m", "user:n9", "n9.x"))


async def left_group(store: Store, *users: str, group: str = "g") -> None:
    """A group in which these were, and all have left."""
    for user in users:
        await store.join(user, group, mailbox="", origin=None)
    await send(store, to_group(users[0], group))
    for user in users:
        await store.leave(user, group, mailbox="", origin=None)


async def test_a_group_whose_former_members_have_everything_goes_and_its_head_stays(
    store: Store, admin: Admin, lease: JobLease
) -> None:
    await devices_of(store, "alice", "bob")
    await left_group(store, "alice", "bob")
    head = head_of(admin, "group:g")
    given = {"lease": lease.lease, "token": lease.token}
    both = ["alice", "bob"]
    assert await store.empty_groups(["g"], FUTURE) == ["g"]
    assert await store.empty_groups(["g"], head.ms) == []
    assert await store.drop_group("g", both, FUTURE, is_drop=False, **given) == GroupStep("owed", 0, "alice")
    for user in both:
        for device in ("phone", "laptop"):
            assert (await store.drop_group("g", both, FUTURE, is_drop=True, **given)).status == "owed"
            await store.commit([Commit(user, device, {"group:g": head})])

    # In the middle of it the youngest leaving is too young.
    assert (await store.drop_group("g", both, head.ms, is_drop=True, **given)).status == "recent"
    assert await store.drop_group("g", both, FUTURE, is_drop=False, **given) == GroupStep("clear", 2, "")
    assert (await store.drop_group("g", both, FUTURE, is_drop=True, **given)).status == "untrimmed"
    await store.trim("group:g", head, TrimCause())
    assert await store.drop_group("g", both, FUTURE, is_drop=True, **given) == GroupStep("dropped", 2, "")
    assert await store.drop_group("g", both, FUTURE, is_drop=True, **given) == GroupStep("dropped", 0, "")

    assert not any(admin.exists(key_of(kind, "group:g")) for kind in "sxz")
    assert not await store.group_exists("g")
    assert admin.hmget(key_of("h", "group:g"), "head", "floor") == [str(head).encode()] * 2
    # Made again: it goes on with the next number, and belongs to who made it. Old offsets get no gap.
    again = await store.join("bob", "g", mailbox="", origin=None)
    assert again.id.n == head.n + 1
    assert admin.hget(key_of("g", "group:g", "g"), "bob").startswith(b"owner|")
    page = await store.page("group:g", head, ["bob"], max_entries=9, max_bytes=999)
    assert [entry.id.n for entry in page.entries] == [head.n + 1]


async def test_a_device_that_is_forgotten_is_owed_nothing(store: Store, admin: Admin, lease: JobLease) -> None:
    await devices_of(store, "alice")
    await left_group(store, "alice")
    given = {"lease": lease.lease, "token": lease.token}
    assert (await store.drop_group("g", ["alice"], FUTURE, is_drop=False, **given)).status == "owed"
    await store.forget_devices([("alice", "")], FUTURE, **given)
    assert (await store.drop_group("g", ["alice"], FUTURE, is_drop=False, **given)).status == "clear"


async def test_a_group_that_somebody_joined_meanwhile_stays(store: Store, admin: Admin, lease: JobLease) -> None:
    await left_group(store, "alice", "bob")
    await store.trim("group:g", EntryId(FUTURE, 99), TrimCause())
    given = {"lease": lease.lease, "token": lease.token}
    await store.join("carol", "g", mailbox="", origin=None)
    assert (await store.drop_group("g", ["alice", "bob"], FUTURE, is_drop=True, **given)).status == "member"
    assert await store.empty_groups(["g"], FUTURE) == []
    # The count may be wrong, the record of who is in it is not.
    admin.hset(key_of("g", "group:g", "g"), "/members", 0)
    await store.trim("group:g", EntryId(FUTURE, 99), TrimCause())
    step = await store.drop_group("g", ["carol", "alice"], FUTURE, is_drop=True, **given)
    assert step == GroupStep("member", 0, "carol")
    assert {b"alice", b"bob", b"carol"} <= set(admin.hkeys(key_of("g", "group:g", "g")))


async def test_a_large_group_goes_in_steps(store: Store, admin: Admin, lease: JobLease) -> None:
    await left_group(store, "alice")
    name = key_of("g", "group:g", "g")
    admin.hset(name, mapping={f"u{n}": "member|1-1,1-2" for n in range(2500)})
    await store.trim("group:g", EntryId(FUTURE, 99), TrimCause())
    given = {"lease": lease.lease, "token": lease.token}
    users = ["alice", *(f"u{n}" for n in range(2500))]
    first = await store.drop_group("g", users[:1000], FUTURE, is_drop=True, **given)
    second = await store.drop_group("g", users[1000:2000], FUTURE, is_drop=True, **given)
    assert (first, second) == (GroupStep("more", 1000, ""), GroupStep("more", 1000, ""))
    assert await store.drop_group("g", users[2000:], FUTURE, is_drop=True, **given) == GroupStep("dropped", 501, "")
    assert not admin.exists(name)


async def test_what_cannot_be_read_keeps_the_group(store: Store, admin: Admin, lease: JobLease) -> None:
    await left_group(store, "alice")
    given = {"lease": lease.lease, "token": lease.token}
    admin.hset(key_of("g", "group:g", "g"), "bob", "rubbish")
    step = await store.drop_group("g", ["alice", "bob"], FUTURE, is_drop=False, **given)
    assert (step.status, step.user) == ("unreadable", "bob")
    admin.hdel(key_of("g", "group:g", "g"), "bob")
    await devices_of(store, "alice")
    admin.hset(key_of("o", "user:alice", "alice/phone"), "group:g", "rubbish")
    assert (await store.drop_group("g", ["alice"], FUTURE, is_drop=False, **given)).status == "owed"


async def test_a_group_without_any_entry_stays_unless_it_is_known_since_when_it_is_empty(
    store: Store, admin: Admin, lease: JobLease
) -> None:
    name = key_of("g", "group:g", "g")
    admin.hset(name, mapping={"/access": "open", "/members": 0, "alice": "owner|0-0,0-0"})
    given = {"lease": lease.lease, "token": lease.token}
    assert (await store.drop_group("g", ["alice"], FUTURE, is_drop=True, **given)).status == "unused"
    admin.hset(name, "/emptied", 5000)
    assert (await store.drop_group("g", ["alice"], 5000, is_drop=True, **given)).status == "recent"
    assert (await store.drop_group("g", ["alice"], 5001, is_drop=True, **given)).status == "dropped"


async def audited(store: Store, lease: JobLease, stream: str) -> list[Audited]:
    [row] = await store.audit_streams([stream], lease=lease.lease, token=lease.token)
    return row


async def test_streams_that_are_in_order_are_left_alone(store: Store, admin: Admin, lease: JobLease) -> None:
    ids = await send(store, *(direct("alice", "alice") for _ in range(6)))
    await store.redact("user:alice", ids[1], "alice", only_sender=True)
    await store.trim("user:alice", ids[0], TrimCause())
    await send(store, to_all("alice"))
    before = admin.hgetall(key_of("h", "user:alice"))
    assert await audited(store, lease, "user:alice") == []
    assert await audited(store, lease, "all") == []
    assert await audited(store, lease, "user:nobody") == []
    await store.trim("user:alice", EntryId(FUTURE, 99), TrimCause())
    assert await audited(store, lease, "user:alice") == []
    assert admin.hget(key_of("h", "user:alice"), "head") == before[b"head"]


async def test_a_head_that_is_missing_or_behind_is_raised(store: Store, admin: Admin, lease: JobLease) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    admin.hdel(key_of("h", "all"), "head")
    assert await audited(store, lease, "all") == [Audited("head_missing", f"none -> {ids[2]}", 1)]
    assert head_of(admin, "all") == ids[2]
    admin.hset(key_of("h", "all"), "head", str(ids[0]))
    assert await audited(store, lease, "all") == [Audited("head_behind", f"{ids[0]} -> {ids[2]}", 1)]
    assert head_of(admin, "all") == ids[2]
    assert await audited(store, lease, "all") == []
    [following] = await send(store, to_all("alice"))
    assert following.n == 4


async def test_an_entry_that_no_publish_made_is_told_and_no_number_is_given_twice(
    store: Store, admin: Admin, lease: JobLease
) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    foreign = f"{ids[2].ms + 9}-0"
    admin.xadd(key_of("s", "all"), {"t": "message"}, id=foreign)
    assert await audited(store, lease, "all") == [Audited("foreign_entry", foreign, 1)]
    assert head_of(admin, "all") == ids[2]


async def test_a_floor_above_the_head_raises_it(store: Store, admin: Admin, lease: JobLease) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    await store.trim("all", ids[2], TrimCause())
    admin.hset(key_of("h", "all"), "head", str(ids[1]))
    admin.delete(key_of("s", "all"))
    assert await audited(store, lease, "all") == [Audited("floor_ahead", f"{ids[1]} -> {ids[2]}", 1)]
    assert head_of(admin, "all") == ids[2]


async def test_holes_and_entries_below_the_floor_are_told(store: Store, admin: Admin, lease: JobLease) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(5)))
    admin.xdel(key_of("s", "all"), str(ids[0]), str(ids[1]))
    assert await audited(store, lease, "all") == [Audited("hole", "1 to 2", 2)]
    admin.hset(key_of("h", "all"), "floor", str(ids[2]))
    assert await audited(store, lease, "all") == [Audited("below_floor", str(ids[2]), 1)]
    assert numbers_in(admin, "all") == [3, 4, 5]
    admin.delete(key_of("s", "all"))
    assert await audited(store, lease, "all") == [Audited("hole", "4 to 5", 2)]


async def test_a_lost_stretch_is_no_hole(store: Store, admin: Admin, lease: JobLease) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(2)))
    await store.trim("all", ids[1], TrimCause())
    await store.reconcile("n1", ["n1"], {"all": EntryId(ids[1].ms + 5, 7)})
    assert await audited(store, lease, "all") == []
    await send(store, to_all("alice"))
    assert await audited(store, lease, "all") == []


async def test_mailboxes_that_are_gone_are_taken_off_the_register(store: Store, admin: Admin, lease: JobLease) -> None:
    gone, there = await listen(store, "all"), await listen(store, "all", node="n2")
    admin.delete(gone)
    assert await audited(store, lease, "all") == [Audited("register_stale", gone, 1)]
    assert admin.hkeys(key_of("h", "all")) == [there.encode()]


async def test_keys_of_another_type_are_told(store: Store, admin: Admin, lease: JobLease) -> None:
    admin.set(key_of("s", "all"), "what")
    [one] = await audited(store, lease, "all")
    assert one.kind == "unreadable"
    assert "WRONGTYPE" in one.detail
    admin.delete(key_of("s", "all"))


async def test_ledgers_bound_how_many_streams_a_call_looks_at(store: Store, admin: Admin, lease: JobLease) -> None:
    streams = [f"user:u{n}" for n in range(5)]
    for stream in streams:
        admin.hset(key_of("h", stream), "head", "5-5")
    rows = await store.audit_streams(streams, lease=lease.lease, token=lease.token)
    assert rows == [[Audited("hole", "1 to 5", 5)]]
    headless = await store.audit_streams(streams, only_headless=True, lease=lease.lease, token=lease.token)
    assert headless == [[]] * 5


async def test_mailboxes_without_an_end_go_and_silent_nodes_too(store: Store, admin: Admin, lease: JobLease) -> None:
    mailbox = await store.create_mailbox("n1")
    lasting = await store.create_mailbox("n2")
    admin.persist(lasting)
    await store.heartbeat("n1", {})
    admin.zadd("wp:nodes", {"n2": 1000})
    names = [mailbox.rpartition(":")[2], lasting.rpartition(":")[2]]
    deleted, silent = await store.audit_nodes("devices", names, 5000, lease=lease.lease, token=lease.token)
    assert (deleted, silent) == ([lasting], ["n2"])
    assert admin.exists(mailbox)
    assert await store.nodes() == ["n1"]
