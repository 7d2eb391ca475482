"""What trim keeps, what survey tells of it beforehand, measure, ripe, and who has not read what goes."""

import pytest

from service.core.names import ZERO, EntryId
from service.core.retention import Cut, Hold
from service.store import Store, TrimCause, Unread
from tests.integration.store.kit import Admin, key_of, numbers_in, send, to_all, to_group
from tests.integration.store.stock import device, now_ms, stock

pytestmark = pytest.mark.anyio

CAUSE = TrimCause("group:*", "max_entries=3", run="r1")
ENTRY = len("t" + "message" + "f" + "alice" + "o" + "all" + "i" + "m1" + "b" + '"hi"')  # bytes of a stocked entry


async def test_so_many_entries_stay_however_often_it_is_asked(store: Store, admin: Admin) -> None:
    ids = stock(admin, "all", range(10, 0, -1))
    first = await store.trim("all", None, CAUSE, keep=3, limit=4)
    second = await store.trim("all", None, CAUSE, keep=3, limit=4)
    third = await store.trim("all", None, CAUSE, keep=3, limit=4)

    assert (first.removed, first.more, first.before, first.floor) == (4, True, ZERO, ids[3])
    assert (second.removed, second.more, second.before, second.floor) == (3, False, ids[3], ids[6])
    assert (third.removed, third.more, third.floor, third.oldest) == (0, False, ids[6], ids[7])
    assert first.size + second.size == 7 * ENTRY
    assert numbers_in(admin, "all") == [8, 9, 10]
    [line] = (await store.page("all", ZERO, [], max_entries=9, max_bytes=999)).removals
    assert (line.after, line.to, line.count, line.limit) == (ZERO, ids[6], 7, "max_entries=3")


async def test_the_newest_stay_although_they_are_old(store: Store, admin: Admin) -> None:
    ids = stock(admin, "all", [100, 90, 80, 70, 1])
    trimmed = await store.trim("all", EntryId(now_ms(admin) - 50_000, 0), CAUSE, keep=3)
    assert (trimmed.removed, trimmed.floor, trimmed.more) == (2, ids[1], False)
    assert numbers_in(admin, "all") == [3, 4, 5]


async def test_no_more_goes_than_the_size_asks_for(store: Store, admin: Admin) -> None:
    stock(admin, "all", [9, 8, 7, 6, 5])
    assert await store.measure("all", limit=2) == (2 * ENTRY, True)
    # As far as it is measured there is nothing to remove.
    assert (await store.trim("all", None, CAUSE, keep_bytes=3 * ENTRY)).removed == 0
    assert await store.measure("all", limit=9) == (5 * ENTRY, False)
    trimmed = await store.trim("all", None, CAUSE, keep_bytes=3 * ENTRY + 1)
    assert (trimmed.removed, trimmed.size, trimmed.more) == (2, 2 * ENTRY, False)
    assert (await store.trim("all", None, CAUSE, keep_bytes=3 * ENTRY + 1)).removed == 0
    assert numbers_in(admin, "all") == [3, 4, 5]

    await store.trim("all", None, CAUSE, keep=2)  # by another limit: the measure knows it
    stock(admin, "all", [4])
    assert await store.measure("all") == (3 * ENTRY, False)
    await store.trim("all", None, CAUSE)
    assert await store.measure("all") == (0, False)


async def test_what_is_redacted_is_measured_no_more(store: Store, admin: Admin) -> None:
    ids = stock(admin, "all", [9, 8, 7])
    await store.measure("all", limit=2)
    await store.redact("all", ids[0], "alice", only_sender=True)
    assert admin.hget(key_of("b", "all"), "bytes") == b"%d" % ENTRY
    await store.redact("all", ids[2], "alice", only_sender=True)  # not measured yet
    size, _ = await store.measure("all")
    entries = admin.xrange(key_of("s", "all"))
    assert size == sum(len(name) + len(value) for _, fields in entries for name, value in fields.items())


async def test_a_measure_is_of_what_lies_above_the_floor(store: Store, admin: Admin) -> None:
    ids = stock(admin, "all", [9, 8, 7])
    await store.measure("all")
    admin.hset(key_of("h", "all"), "floor", str(ids[2]))  # as another release might have left it
    admin.xtrim(key_of("s", "all"), maxlen=0, approximate=False)
    admin.hset(key_of("b", "all"), mapping={"upto": str(ids[1]), "bytes": "500"})
    stock(admin, "all", [1])
    assert await store.measure("all") == (ENTRY, False)
    assert 0 < admin.ttl(key_of("b", "all")) <= 7 * 86_400


async def test_a_step_ends_after_half_a_megabyte(store: Store, admin: Admin) -> None:
    stock(admin, "all", range(100, 0, -1), body=b'"' + b"x" * 60_000 + b'"')
    trimmed = await store.trim("all", None, CAUSE)
    assert trimmed.more
    assert 8 <= trimmed.removed <= 9
    size, has_more = await store.measure("all")
    assert has_more
    assert size < 600_000


class TestHold:
    """What an inbox keeps because an active device has not acknowledged it."""

    async def test_an_active_device_holds_what_it_lacks_and_an_idle_one_nothing(
        self, store: Store, admin: Admin
    ) -> None:
        ids = stock(admin, "user:bob", [50, 40, 30, 20, 10])
        now = now_ms(admin)
        device(admin, "bob", "phone", seen_ms=now - 5000, offsets={"user:bob": ids[2]})
        device(admin, "bob", "drawer", seen_ms=now - 99_000, offsets={"user:bob": ids[0]})
        hold = Hold("bob", EntryId(now - 60_000, 0), now - 90_000)

        trimmed = await store.trim("user:bob", None, CAUSE, hold=hold)
        assert (trimmed.removed, trimmed.floor, trimmed.is_held) == (3, ids[2], True)
        assert numbers_in(admin, "user:bob") == [4, 5]

        device(admin, "bob", "phone", seen_ms=now, offsets={"user:bob": ids[4]})
        trimmed = await store.trim("user:bob", None, CAUSE, hold=hold)
        assert (trimmed.removed, trimmed.is_held) == (2, False)

    async def test_what_is_too_old_is_held_no_more(self, store: Store, admin: Admin) -> None:
        ids = stock(admin, "user:bob", [50, 40, 30, 20, 10])
        now = now_ms(admin)
        device(admin, "bob", "phone", seen_ms=now, offsets={"user:bob": ids[0]})
        hold = Hold("bob", EntryId(now - 35_000, 0), now - 90_000)
        trimmed = await store.trim("user:bob", None, CAUSE, hold=hold)
        assert (trimmed.removed, trimmed.floor, trimmed.is_held) == (2, ids[1], True)

    async def test_a_device_that_has_nothing_yet_or_cannot_be_read_holds_all(self, store: Store, admin: Admin) -> None:
        stock(admin, "user:bob", [50, 40])
        now = now_ms(admin)
        device(admin, "bob", "new", seen_ms=now, offsets={})
        hold = Hold("bob", EntryId(now - 99_000, 0), now - 90_000)
        assert (await store.trim("user:bob", None, CAUSE, hold=hold)).removed == 0
        admin.hset(f"wp:{{{key_of('d', 'user:bob')[4:].split('}')[0]}}}:d:bob", "new", "[broken")
        trimmed = await store.trim("user:bob", None, CAUSE, hold=hold)
        assert (trimmed.removed, trimmed.is_held) == (0, True)

    async def test_an_offset_of_another_epoch_means_nothing_and_so_all_is_held(
        self, store: Store, admin: Admin
    ) -> None:
        ids = stock(admin, "user:bob", [50, 40])
        now = now_ms(admin)
        device(admin, "bob", "phone", seen_ms=now, offsets={"user:bob": ids[1]})
        name = key_of("o", "user:bob", "bob/phone")
        admin.hset(name, "user:bob", f"{ids[1]} another")
        hold = Hold("bob", EntryId(now - 99_000, 0), now - 90_000)
        assert (await store.trim("user:bob", None, CAUSE, hold=hold)).removed == 0
        for record in ("5", "[]", '{"first":1}'):
            admin.hset(key_of("d", "user:bob", "bob"), "phone", record)
            assert (await store.trim("user:bob", None, CAUSE, hold=hold)).removed == 0

    async def test_who_has_everything_holds_nothing_and_nobody_is_told_so(self, store: Store, admin: Admin) -> None:
        ids = stock(admin, "user:bob", [50, 40, 1])
        now = now_ms(admin)
        device(admin, "bob", "phone", seen_ms=now, offsets={"user:bob": ids[1]})
        hold = Hold("bob", EntryId(now - 99_000, 0), now - 90_000)
        trimmed = await store.trim("user:bob", EntryId(now - 30_000, 0), CAUSE, hold=hold)
        assert (trimmed.removed, trimmed.is_held) == (2, False)


async def test_a_survey_tells_what_a_trim_would_do_and_does_nothing(store: Store, admin: Admin) -> None:
    ids = stock(admin, "all", range(10, 0, -1))
    before = admin.dump(key_of("s", "all"))
    first = await store.survey("all", None, keep=3, limit=4)
    second = await store.survey("all", None, keep=3, limit=4, after=first.last, skipped=first.entries)

    assert (first.entries, first.size, first.last, first.more) == (4, 4 * ENTRY, ids[3], True)
    assert (second.entries, second.last, second.more, second.oldest) == (3, ids[6], False, ids[7])
    assert (second.head, second.floor, second.length) == (ids[9], ZERO, 10)
    assert (second.measured_upto, second.measured) == (None, 0)
    assert abs(second.now_ms - now_ms(admin)) < 10_000
    by_size = await store.survey("all", None, over=2 * ENTRY + 1)
    assert (by_size.entries, by_size.last) == (3, ids[2])
    assert admin.dump(key_of("s", "all")) == before
    assert not admin.exists(key_of("x", "all"), key_of("b", "all"))


async def test_ripe_streams_are_told_from_those_that_need_no_visit(store: Store, admin: Admin) -> None:
    now = now_ms(admin)
    oldest = {
        "group:old": stock(admin, "group:old", [50, 1])[0],
        "group:new": stock(admin, "group:new", [1])[0],
        "group:many": stock(admin, "group:many", [3, 2, 1])[0],
        "group:large": stock(admin, "group:large", [3, 2])[0],
    }
    age, few = Cut(limit="a", upto=EntryId(now - 30_000, 0)), Cut(limit="e", keep=2)
    small = Cut(limit="b", keep_bytes=ENTRY + len("group:large"))
    asked = {stream: [age, few] for stream in oldest} | {"group:large": [small], "group:nobody": [age]}
    assert await store.ripe(asked) == [
        ("group:old", True, oldest["group:old"]),
        ("group:new", False, oldest["group:new"]),
        ("group:many", True, oldest["group:many"]),
        ("group:large", True, oldest["group:large"]),
        ("group:nobody", False, None),
    ]
    await store.measure("group:large")
    assert (await store.ripe({"group:large": [small]}))[0][1]
    await store.trim("group:large", None, CAUSE, keep=1)
    assert not (await store.ripe({"group:large": [small]}))[0][1]


class TestUnread:
    """Who loses what when a stretch goes."""

    async def test_of_an_inbox(self, store: Store, admin: Admin) -> None:
        ids = stock(admin, "user:bob", [50, 40, 30, 20, 10])
        now = now_ms(admin)
        device(admin, "bob", "phone", seen_ms=now, offsets={"user:bob": ids[1]})
        device(admin, "bob", "laptop", seen_ms=now, offsets={"user:bob": ids[4]})
        device(admin, "bob", "drawer", seen_ms=now - 99_000, offsets={"user:bob": ids[0]})
        found = await store.unread("user:bob", ZERO, ids[3], idle_before=now - 90_000, devices_max=9)
        assert found == Unread(devices=1, messages=2, asked=2, is_whole=True)
        found = await store.unread("user:bob", ZERO, ids[3], idle_before=0, devices_max=9)
        assert found == Unread(devices=2, messages=5, asked=3, is_whole=True)
        found = await store.unread("user:bob", ids[2], ids[3], idle_before=0, devices_max=2)
        assert (found.asked, found.is_whole) == (2, False)

    async def test_of_a_group_only_what_is_the_members(self, store: Store, admin: Admin) -> None:
        for user in ("alice", "bob", "carol"):
            await store.open_session(user, "phone", "n", {}, is_foreign=False)
        await store.join("alice", "g", mailbox="", origin=None)
        await store.join("bob", "g", mailbox="", origin=None)
        await send(store, *(to_group("alice", "g") for _ in range(5)))
        await store.leave("bob", "g", mailbox="", origin=None)
        [*_, last] = await send(store, *(to_group("alice", "g") for _ in range(5)))
        # alice: joined at 1, all 13; bob: joined at 2, up to his leaving at 8; carol: nothing.
        found = await store.unread("group:g", ZERO, last, idle_before=0, devices_max=9)
        assert found == Unread(devices=2, messages=12 + 6, asked=2, is_whole=True)

    async def test_of_all_everybody(self, store: Store, admin: Admin) -> None:
        for user in ("alice", "bob", "carol"):
            await store.open_session(user, "phone", "n", {}, is_foreign=False)
        [*_, last] = await send(store, to_all("alice"), to_all("alice"))
        found = await store.unread("all", ZERO, last, idle_before=0, devices_max=9)
        assert found == Unread(devices=3, messages=6, asked=3, is_whole=True)
