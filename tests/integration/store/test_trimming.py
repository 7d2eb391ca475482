"""Trimming by policy over a real store: what goes, in which order, why; and a plan that says the same beforehand."""

from collections.abc import Sequence

import pytest

from service.config import Retention
from service.core.names import ZERO, EntryId
from service.core.retention import Policy
from service.store import Store, TrimCause
from service.trimming import StreamPlan, StreamTrimmed, plan_stream, ripe_streams, trim_stream
from tests.integration.store.kit import Admin, key_of, numbers_in
from tests.integration.store.stock import device, now_ms, stock

pytestmark = pytest.mark.anyio

ENTRY = len("t" + "message" + "f" + "alice" + "o" + "group:g" + "i" + "m1" + "b" + '"hi"')


async def plan_then_trim(
    store: Store, admin: Admin, stream: str, *policies: Policy
) -> tuple[StreamPlan, StreamTrimmed]:
    """Both must agree, and the plan must have changed nothing."""
    settings = Retention(policies=policies, device_idle_max=90)
    now = now_ms(admin)
    before = admin.dump(key_of("s", stream))
    plan = await plan_stream(store, stream, settings, now)
    assert admin.dump(key_of("s", stream)) == before
    done = await trim_stream(store, stream, settings, TrimCause(run="r1"), now)
    assert (plan.entries, plan.size, plan.policy, plan.is_held) == (done.entries, done.size, done.policy, done.is_held)
    assert (plan.upto or done.after) == done.floor
    assert plan.kept == admin.xlen(key_of("s", stream))
    again = await trim_stream(store, stream, settings, TrimCause(run="r1"), now)
    assert (again.entries, again.floor) == (0, done.floor)
    return plan, done


async def causes(store: Store, stream: str) -> list[tuple[str, str, int]]:
    """The ledger: policy, limit and count of each line."""
    page = await store.page(stream, ZERO, [], max_entries=1, max_bytes=1)
    return [(removal.policy, removal.limit, removal.count) for removal in page.removals]


async def test_each_limit_takes_its_part_and_is_named(store: Store, admin: Admin) -> None:
    stock(admin, "group:g", [99, 98, 97, *range(20, 0, -1)])
    policy = Policy(match="group:*", max_age_s=60, max_entries=15, max_bytes=12 * ENTRY)
    plan, done = await plan_then_trim(store, admin, "group:g", policy)
    # From the tenth on the mid has a character more, so eleven of twelve fit.
    assert plan.limits == {"max_age=1m": 3, "max_entries=15": 5, f"max_bytes={12 * ENTRY}B": 4}
    assert done.entries == 12
    assert await causes(store, "group:g") == [("group:*", limit, count) for limit, count in plan.limits.items()]
    assert numbers_in(admin, "group:g") == list(range(13, 24))


async def test_a_policy_of_one_stream_wins_over_that_of_its_kind(store: Store, admin: Admin) -> None:
    for stream in ("group:g", "group:legal"):
        stock(admin, stream, [99, 1])
    policies = (Policy(match="group:*", max_age_s=60), Policy(match="group:legal", source="here"))
    plan, _ = await plan_then_trim(store, admin, "group:legal", *policies)
    assert (plan.entries, plan.policy, plan.source, plan.horizon_s) == (0, "group:legal", "here", None)
    plan, _ = await plan_then_trim(store, admin, "group:g", *policies)
    assert (plan.entries, plan.horizon_s) == (1, 60)


async def test_without_a_policy_thirty_days_are_kept(store: Store, admin: Admin) -> None:
    stock(admin, "all", [31 * 86_400, 29 * 86_400])
    plan, _ = await plan_then_trim(store, admin, "all")
    assert (plan.limits, plan.source, plan.kept) == ({"max_age=30d": 1}, "built in", 1)
    assert plan.oldest_age_s == pytest.approx(29 * 86_400, abs=5)


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (Policy(match="user:*", max_age_s=30, hold_unread_s=60), [3, 4, 5, 6]),
        (Policy(match="user:*", max_entries=1, hold_unread_s=60), [3, 4, 5, 6]),
        (Policy(match="user:*", max_bytes=1, hold_unread_s=60), [3, 4, 5, 6]),
        (Policy(match="user:*", max_age_s=30, hold_unread_s=43), [4, 5, 6]),
        (Policy(match="user:*", max_age_s=30), [5, 6]),
        (Policy(match="user:*", max_age_s=30, min_keep=3, hold_unread_s=31), [4, 5, 6]),
    ],
)
async def test_what_is_unread_is_held_against_every_limit_up_to_an_age(
    store: Store, admin: Admin, policy: Policy, left: Sequence[int]
) -> None:
    ids = stock(admin, "user:bob", [99, 50, 45, 40, 20, 10])
    device(admin, "bob", "phone", seen_ms=now_ms(admin), offsets={"user:bob": ids[1]})
    device(admin, "bob", "drawer", seen_ms=now_ms(admin) - 91_000, offsets={"user:bob": ZERO})
    plan, _ = await plan_then_trim(store, admin, "user:bob", policy)
    assert numbers_in(admin, "user:bob") == left
    assert plan.is_held == (policy.hold_unread_s in {43, 60})


async def test_a_policy_that_changes_between_runs_is_kept_from_then_on(store: Store, admin: Admin) -> None:
    stock(admin, "group:g", range(10, 0, -1))
    _, first = await plan_then_trim(store, admin, "group:g", Policy(match="group:*", max_entries=8))
    _, wider = await plan_then_trim(store, admin, "group:g", Policy(match="group:*", max_entries=9))
    _, narrow = await plan_then_trim(store, admin, "group:g", Policy(match="group:g", max_entries=2))
    assert (first.entries, wider.entries, narrow.entries) == (2, 0, 6)
    assert await causes(store, "group:g") == [("group:*", "max_entries=8", 2), ("group:g", "max_entries=2", 6)]


async def test_redacted_messages_go_with_those_around_them(store: Store, admin: Admin) -> None:
    ids = stock(admin, "group:g", range(10, 0, -1))
    for entry in ids[2:5]:
        await store.redact("group:g", entry, "alice", only_sender=True)
    _, done = await plan_then_trim(store, admin, "group:g", Policy(match="group:*", max_entries=6))
    # Seven messages and three `redacted` entries are there: four go, and the numbers between them.
    assert (done.entries, done.floor) == (4, ids[6])
    assert admin.hlen(key_of("z", "group:g")) == 0


async def test_an_idle_or_empty_stream_is_looked_at_too(store: Store, admin: Admin) -> None:
    stock(admin, "group:g", [99, 98])
    await plan_then_trim(store, admin, "group:g", Policy(match="group:*", max_age_s=60))
    plan, done = await plan_then_trim(store, admin, "group:g", Policy(match="group:*", max_age_s=60, max_bytes=1))
    assert (plan.entries, plan.kept, plan.oldest_age_s, plan.horizon_s) == (0, 0, None, None)
    assert done.oldest is None


async def test_only_ripe_streams_are_visited(store: Store, admin: Admin) -> None:
    stock(admin, "group:old", [99, 1])
    [young] = stock(admin, "group:young", [1])
    settings = Retention(policies=(Policy(match="group:*", max_age_s=60),))
    found = await ripe_streams(store, settings, now_ms(admin), ["group:old", "group:young"])
    assert [(stream, is_ripe) for stream, is_ripe, _ in found] == [("group:old", True), ("group:young", False)]
    assert found[1][2] == young


async def test_a_large_stream_is_trimmed_in_many_steps_with_one_line(store: Store, admin: Admin) -> None:
    ids = stock(admin, "group:g", [100 - number / 1000 for number in range(5000)])
    _, done = await plan_then_trim(store, admin, "group:g", Policy(match="group:*", max_entries=10))
    assert (done.entries, done.after, done.floor) == (4990, ZERO, ids[4989])
    assert done.oldest == ids[4990]
    assert isinstance(done.floor, EntryId)
    assert await causes(store, "group:g") == [("group:*", "max_entries=10", 4990)]
