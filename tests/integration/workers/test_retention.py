"""The job `retention`: every stream by its policy, a report that adds up, and a run that changes nothing twice."""

import functools

import pytest

from service import trimming
from service.config import Retention
from service.core.names import ZERO
from service.core.retention import Policy
from tests.integration.store.kit import Admin, Server, key_of, numbers_in
from tests.integration.store.stock import device, now_ms, stock
from tests.integration.workers.conftest import MakeShift
from tests.integration.workers.kit import run_job, take
from workers import __main__ as workers
from workers import retention
from workers.runs import Lost, Run, Stopped, carry_out

pytestmark = pytest.mark.anyio

POLICIES = Retention(
    policies=(Policy(match="group:*", max_age_s=60), Policy(match="user:*", max_entries=2)), device_idle_max=90
)


@pytest.fixture
def admin(server: Server) -> Admin:
    return server.admin


async def test_every_stream_by_its_policy_idle_ones_too(make_shift: MakeShift, admin: Admin) -> None:
    shift = await make_shift(retention=POLICIES)
    for number in range(1200):
        stock(admin, f"group:s{number}", [99, 98, 1])
    stock(admin, "group:young", [5])
    bobs = stock(admin, "user:bob", [5, 4, 3, 2])
    stock(admin, "all", [200])
    device(admin, "bob", "phone", seen_ms=now_ms(admin), offsets={"user:bob": bobs[0], "all": ZERO})
    device(admin, "bob", "drawer", seen_ms=now_ms(admin) - 99_000, offsets={"user:bob": ZERO})

    report = await run_job(shift, "retention")
    assert (report.streams_seen, report.streams_trimmed, report.entries_removed) == (1203, 1201, 2402)
    assert report.unread_removed == 1
    assert report.is_unread_whole
    assert report.oldest_kept_ms is not None
    assert abs(report.oldest_kept_ms - (now_ms(admin) - 200_000)) < 20_000
    assert report.errors == []
    assert {len(numbers_in(admin, f"group:s{number}")) for number in range(1200)} == {1}
    assert numbers_in(admin, "user:bob") == [3, 4]
    page = await shift.store.page("user:bob", ZERO, [], max_entries=9, max_bytes=999)
    [removal] = page.removals
    assert (removal.policy, removal.limit, removal.count, removal.run) == ("user:*", "max_entries=2", 2, report.run)

    again = await run_job(shift, "retention")
    assert (again.streams_trimmed, again.entries_removed, again.bytes_removed) == (0, 0, 0)


async def test_when_there_are_more_devices_than_may_be_asked_the_report_says_so(
    make_shift: MakeShift, admin: Admin
) -> None:
    few = Retention(policies=POLICIES.policies, unread_devices=1)
    shift = await make_shift(retention=few)
    for user in ("bob", "carol"):
        stock(admin, f"user:{user}", [5, 4, 3, 2])
        device(admin, user, "phone", seen_ms=now_ms(admin), offsets={f"user:{user}": ZERO})
    report = await run_job(shift, "retention")
    assert (report.streams_trimmed, report.unread_removed, report.is_unread_whole) == (2, 2, False)


async def test_a_stream_of_another_type_is_an_error_of_its_own(make_shift: MakeShift, admin: Admin) -> None:
    shift = await make_shift(retention=POLICIES)
    stock(admin, "group:good", [99, 1])
    stock(admin, "group:bad", [99, 1])
    admin.delete(key_of("x", "group:bad"))
    admin.set(key_of("x", "group:bad"), "no ledger")
    report = await run_job(shift, "retention")
    assert report.errors_count == 1
    assert report.errors[0].startswith("group:bad: ")
    assert numbers_in(admin, "group:good") == [2]
    admin.delete(key_of("x", "group:bad"))


async def test_a_run_that_lost_its_lease_in_the_middle_of_a_stream_removes_nothing_more(
    make_shift: MakeShift, admin: Admin
) -> None:
    shift = await make_shift(retention=POLICIES)
    stock(admin, "group:g", [99] * 1000)
    run = await take(shift)
    trim, steps = shift.store.trim, 0

    async def stolen(*args: object, **named: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 3:
            admin.hset(run.lease, "token", "another's")
        return await trim(*args, **named)  # type: ignore[arg-type]

    shift.store.trim = stolen  # type: ignore[assignment,method-assign]
    with pytest.raises(Lost):
        await carry_out(run, retention.run, shift)
    assert len(numbers_in(admin, "group:g")) == 500
    assert await shift.store.job_reports(9) == []


async def test_streams_that_are_asked_for_do_not_end_a_run_that_was_left(
    make_shift: MakeShift, admin: Admin, server: Server
) -> None:
    shift = await make_shift(retention=POLICIES)
    stock(admin, "group:g", [99, 1])
    stock(admin, "group:other", [99, 1])

    async def leave(run: Run, *_: object) -> None:
        raise Stopped

    left = await carry_out(await take(shift), leave, shift)
    assert left.state == "cancelled"
    only = functools.partial(retention.run_on, streams=["group:g"])
    with pytest.raises(workers.JobLeft):
        await workers.once(shift.settings, "retention", only)
    assert len(numbers_in(admin, "group:other")) == 2
    report = await workers.once(shift.settings, "retention")
    assert (report.streams_seen, report.entries_removed, report.resumed > 0) == (2, 2, True)
    report = await workers.once(shift.settings, "retention", only)
    assert (report.streams_seen, report.entries_removed, report.resumed) == (1, 0, 0)


async def test_odd_keys_are_told_and_cost_the_others_nothing(
    make_shift: MakeShift, admin: Admin, server: Server
) -> None:
    shift = await make_shift(retention=POLICIES)
    stock(admin, "group:g", [99, 1])
    odd = ("wp:{3}:s:foo", key_of("s", "group:text"), "wp:{3}:s:user:a/b")
    for name in odd:
        admin.set(name, "of another type")
    report = await run_job(shift, "retention")
    assert (report.entries_removed, report.errors_count) == (1, 3)
    plan = await trimming.plan(shift.store, POLICIES)
    assert sorted(plan.unreadable) == ["foo", "group:text", "user:a/b"]
    admin.delete(*odd)
