"""configure_group, delete_group, group, members: who may, what is written, and what a deleted group still is."""

from collections.abc import Awaitable, Iterator

import pytest

from service.core.names import ZERO, EntryId
from service.errors import Unavailable, WaypostError
from service.store import Commit, GroupState, JobLease, Member, Store, StoreOptions, TrimCause
from service.store.clock import Clock
from tests.integration.store.kit import Admin, head_of, hold, key_of, numbers_in, send, to_group

pytestmark = pytest.mark.anyio
FUTURE = 9_999_999_999_999
NAME = key_of("g", "group:g", "g")


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions(announce=10, streams_max=2)


@pytest.fixture
def full(admin: Admin) -> Iterator[None]:
    """A store that is full as soon as the test says so."""
    yield
    admin.config_set("maxmemory", 0)


async def configure(
    store: Store, *, is_open: bool | None = None, announce: int | None = None, by: str = "", group: str = "g"
) -> tuple[GroupState, bool]:
    return await store.configure_group(group, is_open=is_open, announce=announce, by=by, by_key=not by)


async def delete(store: Store, by: str = "") -> None:
    await store.delete_group("g", by=by, by_key=not by)


class TestConfigure:
    async def test_whoever_makes_a_group_owns_it_before_joining(self, store: Store, admin: Admin) -> None:
        made, is_new = await configure(store, is_open=False, announce=0, by="alice")

        assert is_new
        assert made == GroupState("g", False, 0, 0, ZERO, ZERO, "owner", None)
        assert admin.hget(NAME, "alice") == b"owner|"
        assert not await store.is_member("alice", "g")
        assert await configure(store, is_open=True, announce=3, by="alice") == (
            GroupState("g", True, 3, 0, ZERO, ZERO, "owner", None),
            False,
        )
        await configure(store, is_open=False, by="alice")
        with pytest.raises(WaypostError, match="group_closed"):
            await store.join("bob", "g")
        joined = await store.join("alice", "g")
        assert admin.hget(NAME, "alice") == f"owner|{joined.id},".encode()
        assert await store.group("g", "alice") == GroupState("g", False, 3, 1, joined.id, ZERO, "owner", joined.id)

    async def test_a_server_key_makes_a_group_that_nobody_owns(self, store: Store, admin: Admin) -> None:
        made, is_new = await configure(store)
        assert (made, is_new) == (GroupState("g", True, 10, 0, ZERO, ZERO), True)
        await store.join("alice", "g")
        assert admin.hget(NAME, "alice").startswith(b"member|")
        with pytest.raises(WaypostError, match="not_allowed"):
            await configure(store, is_open=False, by="alice")

    async def test_owners_configure_and_nobody_else(self, store: Store, admin: Admin) -> None:
        await store.join("alice", "g")
        await store.join("bob", "g")
        before = admin.hgetall(NAME)
        for by, code in (("bob", "not_allowed"), ("mallory", "not_member")):
            with pytest.raises(WaypostError, match=code):
                await configure(store, is_open=False, by=by)
        with pytest.raises(WaypostError, match="not_allowed"):
            await store.configure_group("g", is_open=False, announce=None, by="", by_key=False)
        assert admin.hgetall(NAME) == before

        state, is_new = await configure(store, is_open=False, by="alice")
        assert (state.is_open, state.announce, state.members, is_new) == (False, 10, 2, False)
        state, _ = await configure(store, announce=1)
        assert (state.is_open, state.announce, state.role) == (False, 1, None)

    async def test_an_owner_who_has_left_or_was_removed_configures_nothing(self, store: Store, admin: Admin) -> None:
        await configure(store, by="alice")
        await store.join("alice", "g")
        await store.leave("alice", "g", by_key=True)
        for record in (None, "owner|"):  # as it is, and when its stretches are forgotten
            if record:
                admin.hset(NAME, "alice", record)
            with pytest.raises(WaypostError, match="not_member"):
                await configure(store, is_open=False, by="alice")
            with pytest.raises(WaypostError, match="not_member"):
                await delete(store, "alice")

    async def test_who_could_not_join_makes_no_group(self, store: Store) -> None:
        for group in ("g1", "g2"):
            await store.join("alice", group)
        with pytest.raises(WaypostError, match="too_many_streams"):
            await configure(store, by="alice")
        assert not await store.group_exists("g")
        assert (await configure(store, is_open=False, by="alice", group="g1"))[1] is False

    async def test_a_full_store_can_close_a_group(self, store: Store, admin: Admin, full: None) -> None:
        await store.join("alice", "g")
        admin.config_set("maxmemory", "100kb")
        assert not (await configure(store, is_open=False, by="alice"))[0].is_open
        await delete(store, "alice")
        await store.leave("alice", "g", by_key=True)
        assert not await store.group_exists("g")

    async def test_a_group_that_nobody_joins_is_dropped_when_it_was_empty_for_long(
        self, store: Store, lease: JobLease
    ) -> None:
        await configure(store, by="alice")
        since = await store.now_ms()
        given = {"lease": lease.lease, "token": lease.token}
        assert (await store.drop_group("g", ["alice"], since - 60_000, is_drop=True, **given)).status == "recent"
        assert (await store.drop_group("g", ["alice"], FUTURE, is_drop=True, **given)).status == "dropped"

    class TestByKeysAlone:
        @pytest.fixture
        def options(self) -> StoreOptions:
            return StoreOptions(groups_create="keys")

        async def test_only_a_key_makes_a_group(self, store: Store) -> None:
            with pytest.raises(WaypostError, match="group_closed"):
                await configure(store, by="alice")
            assert not await store.group_exists("g")
            assert (await configure(store))[1]


@pytest.fixture
async def lease(store: Store) -> JobLease:
    return await hold(store, "groups")


class TestDelete:
    async def test_who_may(self, store: Store, admin: Admin) -> None:
        with pytest.raises(WaypostError, match="no_group"):
            await delete(store)
        with pytest.raises(WaypostError, match="not_member"):
            await delete(store, "alice")
        await store.join("alice", "g")
        await store.join("bob", "g")
        before = admin.hgetall(NAME)
        for by, code in (("bob", "not_allowed"), ("mallory", "not_member")):
            with pytest.raises(WaypostError, match=code):
                await delete(store, by)
        with pytest.raises(WaypostError, match="not_allowed"):
            await store.delete_group("g", by="", by_key=False)
        assert admin.hgetall(NAME) == before
        await delete(store, "alice")
        deleted = admin.hgetall(NAME)
        assert (deleted[b"/access"], deleted[b"/announce"]) == (b"deleted", b"0")
        await delete(store, "alice")
        await delete(store)
        assert admin.hgetall(NAME) == deleted
        assert not await store.group_exists("g")

    async def test_nothing_but_leaving_works_while_members_are_left(self, store: Store, admin: Admin) -> None:
        await store.join("alice", "g")
        await store.join("bob", "g")
        await delete(store)
        before = admin.hgetall(NAME)

        for user in ("alice", "carol"):
            for by_key in (False, True):
                with pytest.raises(WaypostError, match="group_closed"):
                    await store.join(user, "g", by_key=by_key)
            with pytest.raises(WaypostError, match="group_closed"):
                await configure(store, is_open=True, by=user)
        with pytest.raises(WaypostError, match="group_closed"):
            await configure(store, is_open=True)
        with pytest.raises(WaypostError, match="not_member"):
            await store.group("g", "alice")
        with pytest.raises(WaypostError, match="no_group"):
            await store.group("g", None)
        assert admin.hgetall(NAME) == before

        members, cursor = await store.members("g", "", 10)
        assert (sorted(member.user for member in members), cursor) == (["alice", "bob"], "")
        for member in members:
            left = await store.leave(member.user, "g", by_key=True)
            assert (left.id, left.is_announced) == (left.head, False)
        assert numbers_in(admin, "group:g") == [1, 2]
        for user in ("alice", "bob"):
            [*_, told] = (await store.page(f"user:{user}", ZERO, [], max_entries=9, max_bytes=999)).entries
            assert (told.type, told.to) == ("left", "group:g")
        assert admin.hget(NAME, "/emptied")

    async def test_made_anew_it_is_another_group_and_its_numbers_go_on(self, store: Store, admin: Admin) -> None:
        first = await store.join("alice", "g")
        await store.join("bob", "g", by="alice", role="owner")
        await store.leave("bob", "g")  # an owner still, as he left before
        await configure(store, is_open=False, announce=1)
        await delete(store, "alice")
        await store.leave("alice", "g", by_key=True)
        head = head_of(admin, "group:g")

        made = await store.join("carol", "g")
        assert made.id.n == head.n + 1
        assert await store.group("g", "carol") == GroupState("g", True, 10, 1, made.id, ZERO, "owner", made.id)
        await configure(store, is_open=False, by="carol")
        for user in ("alice", "bob"):
            with pytest.raises(WaypostError, match="not_member"):
                await configure(store, is_open=True, by=user)
            with pytest.raises(WaypostError, match="group_closed"):
                await store.join(user, "g")
            assert (await store.join(user, "g", by="carol")).is_new
            assert admin.hget(NAME, user).startswith(b"member|")
        assert (await store.stretches("alice", "g"))[0].joined == first.id
        # The owner of the new one comes back as one.
        await send(store, to_group("carol", "g"))
        await store.leave("carol", "g")
        await store.join("carol", "g")
        assert admin.hget(NAME, "carol").startswith(b"owner|")

    async def test_made_anew_by_configuring_it(self, store: Store, admin: Admin) -> None:
        await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
        joined = await store.join("alice", "g")
        await send(store, to_group("alice", "g"))
        await delete(store, "alice")
        left = await store.leave("alice", "g", by_key=True)

        made, is_new = await configure(store, is_open=False, by="alice")
        assert is_new
        assert (made.is_open, made.announce, made.members, made.role, made.since) == (False, 10, 0, "owner", None)
        assert admin.hget(NAME, "alice") == f"owner|{joined.id},{left.id}".encode()
        assert not (await configure(store, announce=5, by="alice"))[1]
        assert (await store.join("alice", "g")).is_new
        assert (await store.group("g", "alice")).role == "owner"

    async def test_an_owner_of_before_whose_stretches_are_forgotten_is_none(self, store: Store, admin: Admin) -> None:
        await store.join("alice", "g")
        await store.leave("alice", "g")
        admin.hset(NAME, "alice", "owner|")
        await delete(store)
        await store.join("bob", "g")
        await configure(store, is_open=False, by="bob")
        with pytest.raises(WaypostError, match="group_closed"):
            await store.join("alice", "g")

    async def test_the_job_drops_it_when_devices_know(self, store: Store, admin: Admin, lease: JobLease) -> None:
        await store.join("alice", "g")
        await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
        await send(store, to_group("alice", "g"))
        await delete(store, "alice")
        await store.leave("alice", "g", by_key=True)
        head = head_of(admin, "group:g")
        await store.trim("group:g", head, TrimCause(policy="deleted"))
        given = {"lease": lease.lease, "token": lease.token}
        assert await store.empty_groups(["g"], FUTURE) == ["g"]
        assert (await store.drop_group("g", ["alice"], FUTURE, is_drop=True, **given)).status == "owed"
        opened = await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
        assert [one.stream for one in opened] == ["user:alice", "group:g", "all"]  # what it missed is told as a gap
        await store.commit([Commit("alice", "phone", {"group:g": head})])
        assert (await store.drop_group("g", ["alice"], FUTURE, is_drop=True, **given)).status == "dropped"
        assert head_of(admin, "group:g") == head

    async def test_one_that_nobody_ever_was_in_goes_too(self, store: Store, lease: JobLease) -> None:
        await configure(store, by="alice")
        await delete(store, "alice")
        step = await store.drop_group("g", ["alice"], FUTURE, is_drop=True, lease=lease.lease, token=lease.token)
        assert step.status == "dropped"
        with pytest.raises(WaypostError, match="no_group"):
            await delete(store)


async def test_a_group_is_shown_to_members_and_keys(store: Store) -> None:
    with pytest.raises(WaypostError, match="no_group"):
        await store.group("g", None)
    alice = await store.join("alice", "g")
    bob = await store.join("bob", "g")
    assert await store.group("g", "bob") == GroupState("g", True, 10, 2, bob.id, ZERO, "member", bob.id)
    await store.trim("group:g", alice.id, TrimCause())
    assert await store.group("g", None) == GroupState("g", True, 10, 2, bob.id, alice.id)
    left = await store.leave("bob", "g")
    for user in ("bob", "mallory"):
        with pytest.raises(WaypostError, match="not_member"):
            await store.group("g", user)
    again = await store.join("bob", "g")
    assert (await store.group("g", "bob")).since == again.id > left.id


async def test_members_are_those_of_now(store: Store, admin: Admin) -> None:
    assert await store.members("g", "", 10) == ([], "")
    alice = await store.join("alice", "g")
    bob = await store.join("bob", "g")
    await store.join("carol", "g")
    await store.leave("carol", "g")
    admin.hset(NAME, "rubbish", "rubbish,")
    found, cursor = await store.members("g", "", 10)
    assert cursor == ""
    assert sorted(found, key=lambda member: member.user) == [
        Member("alice", "owner", alice.id),
        Member("bob", "member", bob.id),
    ]


async def test_members_of_a_large_group_come_in_pages(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    admin.hset(NAME, mapping={f"u{n}": f"member|1-{n}," for n in range(1, 2000)})
    cursor, seen, pages = "", list[Member](), 0
    while not pages or cursor:
        found, cursor = await store.members("g", cursor, 100)
        seen += found
        pages += 1
        assert len(found) < 300
    assert {member.user for member in seen} == {"alice", *(f"u{n}" for n in range(1, 2000))}
    assert Member("u7", "member", EntryId(1, 7)) in seen
    assert pages > 5


@pytest.mark.parametrize("cursor", ["x", "-1", "1 2", "٣", "1" * 30])
async def test_a_cursor_that_is_none_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(WaypostError, match="bad_request"):
        await store.members("g", cursor, 10)


async def test_a_key_of_another_type_is_refused_before_anything_is_written(store: Store, admin: Admin) -> None:
    admin.set(NAME, "no hash")
    before = {name: admin.dump(name) for name in admin.scan_iter(count=1000)}
    calls: list[Awaitable[object]] = [
        configure(store, is_open=True, by="alice"),
        configure(store),
        delete(store),
        store.group("g", None),
        store.members("g", "", 9),
        store.join("alice", "g", by_key=True),
        store.join("alice", "g", by="bob"),
        store.leave("alice", "g", by="bob"),
    ]
    for call in calls:
        with pytest.raises(WaypostError, match=r"internal|uncertain"):
            await call
    [outcome] = await store.publish([to_group("office", "g", is_system=True)], "")
    assert outcome.code == "internal"
    assert {name: admin.dump(name) for name in admin.scan_iter(count=1000)} == before
    admin.delete(NAME)


async def test_what_comes_late_changes_nothing(store: Store, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.join("alice", "g")
    before = admin.hgetall(NAME)
    store._context.clock.told(await store.now_ms() - 3_600_000)
    with monkeypatch.context() as patch:
        patch.setattr(Clock, "told", lambda *_: None)
        for call in (configure(store, is_open=False, by="alice"), delete(store, "alice")):
            with pytest.raises(Unavailable):
                await call
    assert admin.hgetall(NAME) == before
    # Refused in time, it is asked once more by the time that the refusal told.
    await delete(store, "alice")
    assert not await store.group_exists("g")
