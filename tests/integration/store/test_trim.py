"""trim: bounded steps, a floor, a ledger, and what it leaves alone."""

import itertools

import pytest

from service.core.names import ZERO, EntryId
from service.store import Store, Superseded, TrimCause, Trimmed
from service.store.keys import job_lease
from tests.integration.store.kit import LAYOUT, Admin, direct, head_of, key_of, numbers_in, send, to_all

pytestmark = pytest.mark.anyio


def told(trimmed: Trimmed) -> Trimmed:
    """What a step did, without how the stream stood before and stands now."""
    return Trimmed(trimmed.removed, trimmed.floor, trimmed.more)


async def test_it_removes_up_to_an_id_and_notes_it(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(5)))
    trimmed = await store.trim("all", ids[2], TrimCause("week", "max_age", run="r1"))

    assert told(trimmed) == Trimmed(removed=3, floor=ids[2], more=False)
    assert numbers_in(admin, "all") == [4, 5]
    [line] = (await store.page("all", ZERO, [], max_entries=9, max_bytes=999)).removals
    assert (line.after, line.to, line.count, line.kind) == (ZERO, ids[2], 3, "trimmed")
    assert (line.policy, line.limit, line.run) == ("week", "max_age", "r1")
    assert line.at >= ids[4].ms


async def test_twice_and_late_change_nothing(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(5)))
    await store.trim("all", ids[2], TrimCause())
    again = await store.trim("all", ids[2], TrimCause())
    late = await store.trim("all", ids[0], TrimCause())

    assert told(again) == told(late) == Trimmed(removed=0, floor=ids[2], more=False)
    assert numbers_in(admin, "all") == [4, 5]
    assert admin.llen(key_of("x", "all")) == 1


async def test_steps_are_bounded_and_share_a_line_within_a_run(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(120)))
    cause = TrimCause("week", "max_age", run="r1")
    first = await store.trim("all", ids[99], cause, limit=50)
    second = await store.trim("all", ids[99], cause, limit=50)
    other = await store.trim("all", ids[109], TrimCause("week", "max_age", run="r2"), limit=50)

    assert told(first) == Trimmed(removed=50, floor=ids[49], more=True)
    assert told(second) == Trimmed(removed=50, floor=ids[99], more=False)
    assert other.removed == 10
    lines = (await store.page("all", ZERO, [], max_entries=9, max_bytes=999)).removals
    assert [(line.after, line.to, line.count, line.run) for line in lines] == [
        (ZERO, ids[99], 100, "r1"),
        (ids[99], ids[109], 10, "r2"),
    ]


async def test_beyond_the_head_counts_as_the_head(store: Store, admin: Admin) -> None:
    *_, last = await send(store, *(to_all("alice") for _ in range(3)))
    trimmed = await store.trim("all", EntryId(last.ms + 99_999, 99), TrimCause())
    [following] = await send(store, to_all("alice"))

    assert told(trimmed) == Trimmed(removed=3, floor=last, more=False)
    assert following.n == 4
    assert numbers_in(admin, "all") == [4]
    assert told(await store.trim("user:nobody", EntryId(5, 5), TrimCause())) == Trimmed(0, ZERO, more=False)


async def test_an_id_made_of_a_time_never_becomes_the_floor(store: Store, admin: Admin) -> None:
    ids = await send(store, to_all("alice"), to_all("alice"))
    admin.hset(key_of("h", "all"), "head", f"{ids[1].ms + 1000}-2")
    later = await send(store, to_all("alice"))
    trimmed = await store.trim("all", EntryId(ids[1].ms + 500, 0), TrimCause())

    assert told(trimmed) == Trimmed(removed=2, floor=ids[1], more=False)
    assert numbers_in(admin, "all") == [later[0].n]


async def test_redactions_below_the_floor_go_too(store: Store, admin: Admin) -> None:
    ids = await send(store, *(direct("alice", "alice") for _ in range(8)))
    for entry in (ids[1], ids[2], ids[3], ids[6]):
        await store.redact("user:alice", entry, "alice", only_sender=True)
    name = key_of("z", "user:alice")
    await store.trim("user:alice", ids[0], TrimCause())
    assert admin.hlen(name) == 4
    # 2 and 3 are redacted: the floor passes over them, and the line says that no entry was there.
    passed = await store.trim("user:alice", ids[2], TrimCause())
    assert told(passed) == Trimmed(removed=0, floor=ids[2], more=False)
    assert sorted(admin.hkeys(name)) == [b"4", b"7"]
    await store.trim("user:alice", ids[7], TrimCause())
    assert not admin.exists(name)


async def test_a_deleted_stream_gets_a_floor(store: Store, admin: Admin) -> None:
    *_, last = await send(store, *(to_all("alice") for _ in range(3)))
    admin.delete(key_of("s", "all"))

    assert told(await store.trim("all", last, TrimCause())) == Trimmed(removed=0, floor=last, more=False)
    assert head_of(admin, "all") == last


async def test_a_floor_is_never_lowered(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    admin.hset(key_of("h", "all"), "floor", str(ids[1]))
    trimmed = await store.trim("all", ids[2], TrimCause(), limit=1)

    assert told(trimmed) == Trimmed(removed=1, floor=ids[1], more=True)


async def test_the_ledger_is_capped(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(1010)))
    for number, entry in enumerate(ids):
        await store.trim("all", entry, TrimCause("all", f"max_entries={number}"))

    assert admin.llen(key_of("x", "all")) == 1000
    admin.lset(key_of("x", "all"), -1, "17")
    [last] = await send(store, to_all("alice"))
    assert (await store.trim("all", last, TrimCause(run="r"))).removed == 1


async def test_the_oldest_lines_of_one_cause_become_one(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(350)))
    for number, entry in enumerate(ids[:300]):
        await store.trim("all", entry, TrimCause("all", "max_age=14d", run=f"r{number}"))
    lines = (await store.page("all", ZERO, [], max_entries=1, max_bytes=1)).removals
    assert len(lines) == 100
    assert (lines[0].after, lines[0].to, lines[0].count, lines[0].run) == (ZERO, ids[200], 201, "r200")
    assert [(line.after, line.to) for line in lines[1:]] == list(itertools.pairwise(ids[200:300]))
    assert (lines[0].policy, lines[0].limit, lines[0].kind) == ("all", "max_age=14d", "trimmed")

    # Of other causes, and of what was lost, none is joined to another.
    for number, entry in enumerate(ids[300:320]):
        await store.trim("all", entry, TrimCause("all", f"max_entries={number % 2}", run="later"))
    admin.lset(key_of("x", "all"), 0, admin.lindex(key_of("x", "all"), 0).replace(b"trimmed", b"lost"))
    await store.trim("all", ids[320], TrimCause("all", "max_age=14d", run="last"))
    lines = (await store.page("all", ZERO, [], max_entries=1, max_bytes=1)).removals
    assert (lines[0].kind, lines[0].after, lines[-1].to) == ("lost", ZERO, ids[320])
    assert len(lines) == 101


async def test_a_worker_whose_lease_was_taken_is_stopped(store: Store, admin: Admin) -> None:
    [entry] = await send(store, to_all("alice"))
    lease = job_lease(LAYOUT.tag("all"), "trim")
    admin.hset(lease, "token", "200")
    admin.expire(lease, 60)
    with pytest.raises(Superseded):
        await store.trim("all", entry, TrimCause(lease=lease, token="100"))
    assert numbers_in(admin, "all") == [1]
    assert (await store.trim("all", entry, TrimCause(lease=lease, token="200"))).removed == 1
    admin.delete(lease)
    with pytest.raises(Superseded):
        await store.trim("all", entry, TrimCause(lease=lease, token="200"))
