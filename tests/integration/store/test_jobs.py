"""job_take, job_renew, job_finish: each run happens once, whoever comes late changes nothing, a left run goes on."""

import asyncio

import pytest

from service.errors import Fenced
from service.store import JobLease, JobReport, JobState, Store, StoreOptions, Superseded
from service.store.keys import epoch, job, job_lease
from tests.integration.store.kit import FOREIGN_RUN, LAYOUT, Admin, Server, hold, send, to_all

pytestmark = pytest.mark.anyio
LEASE = job_lease(LAYOUT.tag("retention"), "retention")
JOB = job(LAYOUT.tag("retention"), "retention")


async def test_a_job_that_was_never_seen_is_noted_and_not_run(store: Store, admin: Admin) -> None:
    state = await store.job_state("retention")
    assert state == JobState("", "", is_done=True, lease_ms=0, now_ms=state.now_ms)
    assert await store.take_job("retention", "", "w1", 1000) == "noted"
    noted = await store.job_state("retention")
    assert state.now_ms <= int(noted.slot) <= noted.now_ms
    assert noted.is_done
    assert not admin.exists(LEASE)


async def test_of_all_who_saw_the_same_slot_one_gets_the_run(store: Store, server: Server) -> None:
    await store.take_job("retention", "", "w1", 1000)
    seen = await store.job_state("retention")
    others = [await Store.connect(server.url, options=StoreOptions()) for _ in range(3)]
    for other in others:
        await other.check_server()
    taken = await asyncio.gather(
        *(each.take_job("retention", seen.slot, f"w{n}", 60_000) for n, each in enumerate([store, *others] * 3))
    )
    [lease] = [one for one in taken if isinstance(one, JobLease)]
    assert [one for one in taken if one != lease] == ["held"] * 11
    await store.finish_job(lease, JobReport("retention", lease.run, state="done"))
    # Who still holds the old slot comes too late, now that the lease is free again.
    assert await others[0].take_job("retention", seen.slot, "w9", 60_000) == "done"
    for other in others:
        await other.close()


async def test_a_run_has_a_token_above_every_earlier_one_though_the_clock_was_set_back(
    store: Store, admin: Admin
) -> None:
    first = await hold(store, "retention")
    await store.finish_job(first, JobReport("retention", first.run, state="done"))
    later = str(int(first.token) + 3_600_000_000)
    admin.hset(JOB, "token", later)
    second = await hold(store, "retention")
    assert int(second.token) == int(later) + 1
    assert second.run != first.run
    assert admin.hget(LEASE, "token") == second.token.encode()
    assert 0 < admin.pttl(LEASE) <= 60_000


async def test_a_run_that_was_left_is_resumed_and_its_holder_comes_too_late(store: Store, admin: Admin) -> None:
    first = await hold(store, "retention")
    await store.renew_job(first, 60_000, "half")
    assert not (await store.job_state("retention")).is_done
    assert await store.take_job("retention", "whatever", "w2", 60_000) == "held"
    admin.delete(LEASE)  # as if its time had passed
    # Whatever slot the next one saw: an unfinished run comes first.
    second = await store.take_job("retention", "whatever", "w2", 60_000)

    assert isinstance(second, JobLease)
    assert (second.run, second.progress) == (first.run, "half")
    assert int(second.token) > int(first.token)
    with pytest.raises(Superseded):
        await store.renew_job(first, 60_000, "late")
    with pytest.raises(Superseded):
        await store.renew_job(first, 0, "late")
    with pytest.raises(Superseded):
        await store.finish_job(first, JobReport("retention", first.run, state="done"))
    assert admin.hget(JOB, "progress") == b"half"
    assert admin.hget(LEASE, "token") == second.token.encode()
    assert not admin.exists("wp:jobs")


async def test_a_lease_does_not_last_longer_because_the_clock_was_set_back(store: Store, admin: Admin) -> None:
    lease = await hold(store, "retention", ttl_ms=5000)
    admin.pexpire(LEASE, 3_600_000)  # what an hour back makes of it
    assert await store.take_job("retention", "", "w2", 60_000) == "held"
    assert admin.pttl(LEASE) <= 5000
    assert admin.hget(LEASE, "token") == lease.token.encode()


async def test_an_expired_lease_is_not_renewed_though_nobody_else_took_it(store: Store, admin: Admin) -> None:
    lease = await hold(store, "retention")
    admin.delete(LEASE)  # as if its time had passed
    with pytest.raises(Superseded):
        await store.renew_job(lease, 60_000, "")
    assert not admin.exists(LEASE)


async def test_a_lease_that_is_given_back_is_free_at_once(store: Store, admin: Admin) -> None:
    lease = await hold(store, "retention")
    await store.renew_job(lease, 0, "half")
    state = await store.job_state("retention")
    assert (state.is_done, state.lease_ms) == (False, 0)
    again = await hold(store, "retention", worker="w2")
    assert (again.run, again.progress) == (lease.run, "half")


async def test_a_run_leaves_one_report_also_when_it_is_told_twice(store: Store, admin: Admin) -> None:
    lease = await hold(store, "retention")
    report = JobReport("retention", lease.run, state="done", entries_removed=3, repairs={"x": 2}, errors=["no"])
    await store.finish_job(lease, report)
    await store.finish_job(lease, report)

    assert await store.job_reports(9) == [report]
    assert not admin.exists(LEASE)
    assert (await store.job_state("retention")).is_done
    [(_, fields)] = admin.xrange("wp:jobs")
    assert {name: fields[name] for name in (b"job", b"run", b"state")} == {
        b"job": b"retention",
        b"run": lease.run.encode(),
        b"state": b"done",
    }


async def test_reports_are_capped_newest_first_and_what_cannot_be_read_is_left_out(store: Store, admin: Admin) -> None:
    for number in range(1200):
        admin.xadd("wp:jobs", {"report": f'{{"name":"old","run":"{number}"}}'})
    admin.xadd("wp:jobs", {"report": "no JSON"})
    lease = await hold(store, "retention")
    await store.finish_job(lease, JobReport("retention", lease.run, state="failed"))
    found = await store.job_reports(3)
    assert [(one.name, one.state) for one in found] == [("retention", "failed"), ("old", "running")]
    assert 1000 <= admin.xlen("wp:jobs") < 1200


async def test_jobs_are_fenced(store: Store, admin: Admin) -> None:
    lease = await hold(store, "retention")
    admin.hset(epoch(LAYOUT.tag("retention")), "run", FOREIGN_RUN)
    with pytest.raises(Fenced):
        await store.take_job("retention", "", "w2", 1000)
    with pytest.raises(Fenced):
        await store.renew_job(lease, 1000, "")
    with pytest.raises(Fenced):
        await store.finish_job(lease, JobReport("retention", lease.run, state="done"))


async def test_names_are_walked_to_the_end(store: Store) -> None:
    await send(store, to_all("alice"))
    for number in range(150):
        await store.open_session(f"u{number}", "phone", "n1", {}, is_foreign=False)
    found: list[str] = []
    names, cursor = await store.scan_names("d", "", 10)
    found += names
    while cursor:
        names, cursor = await store.scan_names("d", cursor, 10)
        found += names
    assert sorted(set(found)) == sorted(f"u{number}" for number in range(150))
    assert (await store.scan_names("s", "", 10_000))[0] == ["all"]
