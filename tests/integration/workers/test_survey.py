"""The job `survey`: over thousands of streams the numbers are exact, and what is kept of them is bounded."""

import msgspec
import pytest

from service import inspection
from service.core.names import EntryId
from service.store import JobReport, Store
from tests.integration.store.kit import Admin, Server, key_of, send, to_all, to_group
from tests.integration.store.stock import device, now_ms, stock
from tests.integration.workers.conftest import MakeShift
from tests.integration.workers.kit import run_job
from workers.runs import Progress, Shift

pytestmark = pytest.mark.anyio
USERS = 3000
KEPT = 40


@pytest.fixture
def admin(server: Server) -> Admin:
    return server.admin


async def fill(store: Store, admin: Admin) -> None:
    """`USERS` inboxes, of u<n> with n % 50 + 1 messages; every tenth user has a phone that has read the first of
    them. A group whose member lacks 120, and `all`.
    """
    for n in range(USERS):
        ids = stock(admin, f"user:u{n}", [-0.001 * number for number in range(n % 50 + 1)])
        if n % 10 == 0:
            device(admin, f"u{n}", "phone", seen_ms=now_ms(admin), offsets={f"user:u{n}": ids[0]})
    joined = await store.join("alice", "g")
    await send(store, *(to_group("alice", "g", b'"%s"' % (b"x" * 2000)) for _ in range(120)), to_all("alice"))
    device(admin, "alice", "phone", seen_ms=now_ms(admin), offsets={"group:g": joined.id, "all": EntryId(0, 0)})


async def test_exact_numbers_over_thousands_of_streams(make_shift: MakeShift, admin: Admin) -> None:
    shift = await make_shift(survey_rows=KEPT)
    store = shift.store
    await fill(store, admin)
    report = await run_job(shift, "survey")
    assert (report.state, report.errors) == ("done", [])
    assert (report.streams_seen, report.devices_seen) == (USERS + 3, USERS // 10 + 1)

    found = await inspection.survey(store, shift.settings, "lag", limit=1000)
    totals = {total.kind: total for total in found.totals}
    stocked = sum(n % 50 + 1 for n in range(USERS))
    assert (totals["user"].streams, totals["user"].entries) == (USERS + 1, stocked + 1)  # and alice's, who joined
    assert (totals["group"].streams, totals["group"].entries) == (1, 121)
    assert (totals["all"].streams, totals["all"].entries) == (1, 1)
    assert totals["user"].rate_per_min == pytest.approx((stocked + 1) / 5)
    one = {stream: (await store.stream_facts(stream)).bytes for stream in ("group:g", "all")}
    assert (totals["group"].bytes, totals["all"].bytes) == (one["group:g"], one["all"])

    # Who lacks most: the group's member, then the users with the most messages.
    rows = found.streams.streams
    assert len(rows) == KEPT
    assert (rows[0].stream, rows[0].lag_messages, rows[0].lag_device) == ("group:g", 120, "alice/phone")
    assert [row.lag_messages for row in rows[1:]] == [40] * (KEPT - 1)  # n % 50 == 40, one read
    assert len(found.devices) == KEPT
    assert (found.devices[0].user, found.devices[0].stream, found.devices[0].lag_messages) == ("alice", "group:g", 120)
    assert found.devices[0].loses_by == "max_age=30d"
    assert found.survey_as_of is not None

    by_entries = (await inspection.streams_by(store, shift.settings, "entries", limit=10)).streams
    assert [row.entries for row in by_entries] == [121] + [50] * 9
    by_bytes = (await inspection.streams_by(store, shift.settings, "bytes", limit=1)).streams
    assert by_bytes[0].stream == "group:g"
    by_rate = (await inspection.streams_by(store, shift.settings, "rate", limit=1)).streams
    assert (by_rate[0].stream, by_rate[0].rate_per_min) == ("group:g", 121 / 5)
    assert (await inspection.streams_by(store, shift.settings, "wait", limit=1)).streams[0].waiting_s > 0
    groups = await inspection.streams_by(store, shift.settings, "entries", limit=10, kind="group")
    assert [row.stream for row in groups.streams] == ["group:g"]

    # Whatever there is, so many rows are kept.
    sizes = {field: len(value) for field, value in admin.hgetall("wp:survey").items()}
    assert set(sizes) == {b"totals", b"entries", b"bytes", b"rate", b"lag", b"wait", b"devices"}
    assert max(sizes.values()) < KEPT * 300


async def test_a_run_that_was_left_begins_anew(shift: Shift, admin: Admin) -> None:
    for n in range(300):
        stock(admin, f"user:u{n}", [1.0])
    lease = await shift.store.take_job("survey", "", "worker:gone", 60_000)
    if lease == "noted":
        slot = (await shift.store.job_state("survey")).slot
        lease = await shift.store.take_job("survey", slot, "worker:gone", 60_000)
    assert not isinstance(lease, str)
    left = Progress("d 5", shift.store.run, JobReport("survey", lease.run, streams_seen=77))
    await shift.store.renew_job(lease, 0, msgspec.json.encode(left).decode())
    report = await run_job(shift, "survey")
    assert (report.state, report.resumed, report.streams_seen) == ("done", 1, 300)
    found = await inspection.survey(shift.store, shift.settings, "entries", limit=1000)
    assert sum(total.entries for total in found.totals) == 300


async def test_before_the_first_run_nothing_is_known(shift: Shift) -> None:
    found = await inspection.survey(shift.store, shift.settings, "lag", limit=10)
    assert (found.survey_as_of, found.totals, found.streams.streams, found.devices) == (None, (), (), ())


async def test_a_key_of_another_type_costs_the_others_nothing(shift: Shift, admin: Admin) -> None:
    ids = stock(admin, "user:bob", [5.0, 1.0])
    stock(admin, "user:odd", [5.0])
    admin.delete(key_of("h", "user:odd"))
    admin.set(key_of("h", "user:odd"), "x")
    admin.set(key_of("h", "user:a/b"), "no stream")
    device(admin, "bob", "phone", seen_ms=now_ms(admin), offsets={"user:bob": ids[0], "user:odd": ids[0]})
    report = await run_job(shift, "survey")
    assert (report.state, report.errors, report.streams_seen) == ("done", [], 1)
    found = await inspection.survey(shift.store, shift.settings, "lag", limit=10)
    assert [(one.stream, one.lag_messages) for one in found.devices] == [("user:bob", 1)]
    admin.delete(key_of("h", "user:odd"), key_of("h", "user:a/b"))
