"""The jobs themselves, on real data: whom they forget, drop and mend, and what they say about it."""

import json

import msgspec
import pytest

from service.config import Retention
from service.core.names import EntryId, group_stream
from service.store import Commit, Store, TrimCause
from tests.integration.store.kit import Admin, Server, direct, head_of, key_of, send, to_all, to_group
from tests.integration.workers.conftest import MakeShift
from tests.integration.workers.kit import run_job
from workers.runs import Shift

pytestmark = pytest.mark.anyio
DAY_MS = 86_400_000


@pytest.fixture
def admin(server: Server) -> Admin:
    return server.admin


async def age_device(store: Store, admin: Admin, user: str, device: str, days: int) -> None:
    last = await store.now_ms() - days * DAY_MS
    record = json.dumps({"first": 1, "last": last, "node": "n1"})
    admin.hset(key_of("d", f"user:{user}", user), device, record)


def age_group(admin: Admin, group: str, days: int) -> None:
    """Let it look as if everything in the group had happened earlier: entries, head, who left when, offsets."""
    stream = group_stream(group)

    def older(id_: str) -> str:
        ms, _, n = id_.partition("-")
        return f"{int(ms) - days * DAY_MS}-{n}"

    entries = admin.xrange(key_of("s", stream))
    admin.delete(key_of("s", stream))
    for raw, fields in entries:
        admin.xadd(key_of("s", stream), fields, id=older(raw.decode()))
    admin.hset(key_of("h", stream), "head", older(admin.hget(key_of("h", stream), "head").decode()))
    name = key_of("g", stream, group)
    for field, value in admin.hgetall(name).items():
        if not field.startswith(b"/"):
            role, _, stretches = value.decode().partition("|")
            parts = [",".join(older(one) if one else "" for one in s.split(",")) for s in stretches.split(";")]
            admin.hset(name, field, f"{role}|{';'.join(parts)}")
    for offsets in admin.scan_iter("wp:*:o:*", count=1000):
        stored = admin.hget(offsets, stream)
        if stored is not None:
            at, _, epoch = stored.decode().partition(" ")
            admin.hset(offsets, stream, f"{older(at)} {epoch}")


async def test_devices_are_forgotten_after_their_time(shift: Shift, admin: Admin) -> None:
    store = shift.store
    for number in range(120):
        for device in ("phone", "laptop"):
            await store.open_session(f"u{number}", device, "n1", {}, is_foreign=False)
        await age_device(store, admin, f"u{number}", "phone", days=91 if number % 2 else 89)
    report = await run_job(shift, "devices")
    assert (report.devices_seen, report.devices_forgotten) == (240, 60)
    assert admin.hkeys(key_of("d", "user:u1", "u1")) == [b"laptop"]
    assert not admin.exists(key_of("o", "user:u1", "u1/phone"))
    assert admin.hlen(key_of("d", "user:u2", "u2")) == 2
    assert (await run_job(shift, "devices")).devices_forgotten == 0


async def test_groups_are_dropped_after_their_time_when_nobody_is_owed_anything(
    make_shift: MakeShift, admin: Admin
) -> None:
    shift = await make_shift(retention=Retention(group_empty_max=10 * 86_400))
    store = shift.store
    for user in ("alice", "bob"):
        await store.open_session(user, "phone", "n1", {}, is_foreign=False)
    for group in ("old", "owed", "young", "alive"):
        for user in ("alice", "bob"):
            await store.join(user, group, mailbox="", origin=None)
        await send(store, *(to_group("alice", group) for _ in range(3)))
        for user in ("alice", "bob")[: 1 if group == "alive" else 2]:
            await store.leave(user, group, mailbox="", origin=None)
        if group != "owed":
            for user in ("alice", "bob"):
                await store.commit([Commit(user, "phone", {group_stream(group): head_of(admin, group_stream(group))})])
        if group != "young":
            age_group(admin, group, days=11)
    head = head_of(admin, "group:old")

    report = await run_job(shift, "groups")
    assert (report.groups_seen, report.groups_dropped, report.streams_trimmed, report.entries_removed) == (4, 1, 1, 7)
    assert not await store.group_exists("old")
    assert [await store.group_exists(group) for group in ("owed", "young", "alive")] == [True] * 3
    assert admin.hmget(key_of("h", "group:old"), "head", "floor") == [str(head).encode()] * 2
    # What is owed was not even trimmed: bob still reads all of his time in the group.
    assert admin.xlen(key_of("s", "group:owed")) == 7

    # Once his device is forgotten nothing is owed any more.
    for user in ("alice", "bob"):
        await age_device(store, admin, user, "phone", days=91)
    assert (await run_job(shift, "devices")).devices_forgotten == 2
    assert (await run_job(shift, "groups")).groups_dropped == 1
    assert not await store.group_exists("owed")


async def test_a_group_with_many_former_members_is_walked(make_shift: MakeShift, admin: Admin) -> None:
    shift = await make_shift(retention=Retention(group_empty_max=1))
    await shift.store.join("alice", "g", mailbox="", origin=None)
    await shift.store.leave("alice", "g", mailbox="", origin=None)
    age_group(admin, "g", days=1)
    name = key_of("g", "group:g", "g")
    admin.hset(name, mapping={f"u{number}": "member|1-1,1-2" for number in range(1000)})
    await shift.store.open_session("u500", "phone", "n1", {}, is_foreign=False)
    admin.hset(key_of("o", "user:u500", "u500/phone"), "group:g", f"0-1 {shift.store.epoch}")

    assert (await run_job(shift, "groups")).groups_dropped == 0
    assert admin.hlen(name) == 1003  # nothing was taken away from a group that stays
    admin.hdel(key_of("o", "user:u500", "u500/phone"), "group:g")
    assert (await run_job(shift, "groups")).groups_dropped == 1
    assert not admin.exists(name)


async def test_the_audit_mends_and_reports(shift: Shift, admin: Admin) -> None:
    store = shift.store
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    await send(store, *(direct(f"u{number}", f"u{number}") for number in range(250)))
    mailbox = await store.create_mailbox("n1")
    admin.persist(mailbox)
    admin.zadd("wp:nodes", {"n9": 1000})
    admin.delete(key_of("h", "all"))
    await store.trim("user:u7", EntryId(10**14, 1), TrimCause())
    admin.hset(key_of("h", "user:u8"), f"{mailbox}x", "1")
    for number in range(10, 15):
        admin.xtrim(key_of("s", f"user:u{number}"), maxlen=0)
    admin.set(key_of("h", "user:u250"), "what")

    report = await run_job(shift, "audit")
    assert report.repairs == {
        "head_missing": 1,
        "register_stale": 1,
        "mailbox_without_ttl": 1,
        "node_silent": 1,
    }
    assert report.findings == {"hole": 5, "unreadable": 1}
    assert report.streams_seen == 252  # the 250, `all`, and the one that cannot be read
    assert head_of(admin, "all") == ids[2]
    assert any("user:u12: 1 to 1" in example for example in report.examples)
    admin.delete(key_of("h", "user:u250"))
    again = await run_job(shift, "audit")
    assert (again.repairs, again.findings) == ({}, {"hole": 5})


async def test_an_idle_store_costs_next_to_nothing(shift: Shift) -> None:
    for name in ("retention", "devices", "groups", "audit"):
        report = await run_job(shift, name)
        assert msgspec.structs.replace(report, duration_ms=0) == msgspec.structs.replace(
            type(report)(name=name, run=report.run, worker="worker:one", state="done"), started_ms=report.started_ms
        )
