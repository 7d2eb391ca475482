"""join and leave by somebody else: owners and server keys put users in and take them out; roles; closed groups."""

import pytest

from service.core.names import ZERO
from service.errors import Uncertain, WaypostError
from service.store import Role, Store, StoreOptions
from tests.integration.store.kit import Admin, key_of, listen, numbers_in, received, send, to_group

pytestmark = pytest.mark.anyio


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions(members_max=3)


async def record_of(admin: Admin, user: str) -> str:
    raw = admin.hget(key_of("g", "group:g", "g"), user)
    return raw.decode() if raw else ""


async def close(store: Store) -> None:
    await store.configure_group("g", is_open=False, announce=None, by="", by_key=True)


async def test_an_owner_puts_somebody_into_a_closed_group_and_nobody_else_may(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    await store.join("bob", "g")
    await close(store)
    for by, code in (("bob", "not_allowed"), ("mallory", "not_member")):
        with pytest.raises(WaypostError, match=code):
            await store.join("carol", "g", by=by)
    assert not admin.exists(key_of("u", "user:carol", "carol"), key_of("s", "user:carol"))

    joined = await store.join("carol", "g", by="alice")
    assert joined.is_new
    assert await record_of(admin, "carol") == f"member|{joined.id},"
    [told] = (await store.page("user:carol", ZERO, [], max_entries=9, max_bytes=999)).entries
    assert (told.type, told.sender, told.to) == ("joined", "carol", "group:g")
    # Whoever was put in stays, and may say so again.
    assert (await store.join("carol", "g")).id == joined.id


async def test_nobody_puts_anybody_into_a_group_that_is_not_there(store: Store) -> None:
    with pytest.raises(WaypostError, match="not_member"):
        await store.join("carol", "g", by="alice")
    assert not await store.group_exists("g")


async def test_a_sign_in_may_open_a_closed_group_but_makes_none(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    await close(store)
    with pytest.raises(WaypostError, match="group_closed"):
        await store.join("bob", "g")
    assert (await store.join("bob", "g", may_enter=True)).is_new
    assert (await record_of(admin, "bob")).startswith("member|")


async def test_the_owner_who_left_comes_back_into_the_closed_group_and_who_was_removed_does_not(
    store: Store, admin: Admin
) -> None:
    await store.join("alice", "g")
    await store.join("bob", "g")
    await close(store)
    await store.leave("alice", "g")
    assert (await store.join("alice", "g")).is_new
    await store.leave("alice", "g")
    # The record may have lost its stretches by now.
    admin.hset(key_of("g", "group:g", "g"), "alice", "owner|")
    again = await store.join("alice", "g")
    assert await record_of(admin, "alice") == f"owner|{again.id},"
    await store.join("bob", "g", by_key=True, role="owner")
    await store.leave("alice", "g", by="bob")
    assert (await record_of(admin, "alice")).startswith("member|")
    await store.leave("bob", "g", by_key=True)
    for user in ("alice", "bob"):
        with pytest.raises(WaypostError, match="group_closed"):
            await store.join(user, "g")


async def test_being_removed_looks_like_leaving(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    joined = await store.join("bob", "g")
    mailbox = await listen(store, "group:g", "user:bob")
    removed = await store.leave("bob", "g", mailbox=mailbox, origin=(3, 4), by="alice")

    assert await record_of(admin, "bob") == f"member|{joined.id},{removed.id}"
    assert not admin.exists(key_of("u", "user:bob", "bob"))
    in_group, in_inbox = await received(store, mailbox)
    assert (in_group.stream, in_group.entry.id, in_group.origin) == ("group:g", removed.id, (3, 4))
    for entry in (in_group.entry, in_inbox.entry):
        assert (entry.type, entry.sender, entry.to) == ("left", "bob", "group:g")
    assert in_inbox.stream == "user:bob"


async def test_who_may_remove_whom(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    await store.join("bob", "g")
    for by, code in (("bob", "not_allowed"), ("mallory", "not_member")):
        with pytest.raises(WaypostError, match=code):
            await store.leave("alice", "g", by=by)
    assert numbers_in(admin, "group:g") == [1, 2]
    with pytest.raises(WaypostError, match="not_found"):
        await store.leave("carol", "g", by="alice")
    with pytest.raises(WaypostError, match="not_found"):
        await store.leave("carol", "g", by_key=True)
    with pytest.raises(WaypostError, match="not_member"):
        await store.leave("carol", "g")
    # Oneself, by name: it is leaving.
    assert (await store.leave("bob", "g", by="bob")).is_new
    with pytest.raises(WaypostError, match="not_member"):
        await store.leave("bob", "g", by="bob")
    assert (await store.leave("alice", "g", by_key=True)).is_new


async def test_a_role_is_given_with_the_membership_or_later(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    second = await store.join("bob", "g", by="alice", role="owner")
    assert await record_of(admin, "bob") == f"owner|{second.id},"
    before = numbers_in(admin, "group:g")
    roles: tuple[Role, ...] = ("member", "member", "owner")
    for role in roles:
        again = await store.join("bob", "g", by="alice", role=role)
        assert (again.id, again.is_new) == (second.id, False)
        assert await record_of(admin, "bob") == f"{role}|{second.id},"
    assert (await store.join("bob", "g", by_key=True, role="member")).id == second.id
    # Without one, it is left as it is; an owner may step back.
    await store.join("alice", "g", by_key=True)
    assert (await record_of(admin, "alice")).startswith("owner|")
    await store.join("alice", "g", by="alice", role="member")
    assert (await record_of(admin, "alice")).startswith("member|")
    assert numbers_in(admin, "group:g") == before
    assert admin.hget(key_of("g", "group:g", "g"), "/members") == b"2"


async def test_nobody_takes_a_role(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    await store.join("bob", "g")
    for by in ("", "bob"):
        with pytest.raises(WaypostError, match="not_allowed"):
            await store.join("bob", "g", by=by, role="owner")
    assert (await record_of(admin, "bob")).startswith("member|")


async def test_a_role_outlives_the_membership(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    await store.join("bob", "g", by="alice", role="owner")
    await store.leave("bob", "g")
    await close(store)
    await store.join("bob", "g")
    assert (await record_of(admin, "bob")).startswith("owner|")


async def test_a_full_group_lets_nobody_in(store: Store, admin: Admin) -> None:
    for user in ("alice", "bob", "carol"):
        await store.join(user, "g")
    for by_key in (False, True):
        with pytest.raises(WaypostError, match="group_full"):
            await store.join("dave", "g", by_key=by_key)
    assert not admin.exists(key_of("u", "user:dave", "dave"), key_of("s", "user:dave"))
    assert not (await store.join("carol", "g")).is_new
    await store.leave("carol", "g")
    assert (await store.join("dave", "g")).is_new


async def test_a_record_that_cannot_be_read_begins_anew(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    admin.hset(key_of("g", "group:g", "g"), "bob", "rubbish")
    joined = await store.join("bob", "g")
    assert await record_of(admin, "bob") == f"member|{joined.id},"
    await send(store, to_group("bob", "g"))


async def test_what_is_cut_at_the_inbox_can_be_said_again(store: Store, admin: Admin) -> None:
    # The inbox refuses every id: its head was set back behind what the stream has seen.
    await store.join("alice", "g")
    admin.xadd(key_of("s", "user:bob"), {"t": "message"}, id="9999999999999-9")
    admin.hset(key_of("h", "user:bob"), "head", "1-1")
    with pytest.raises(Uncertain):
        await store.join("bob", "g", by="alice", role="owner")
    again = await store.join("bob", "g", by="alice", role="owner")
    assert (again.is_new, again.id.n) == (False, 2)
    assert await record_of(admin, "bob") == f"owner|{again.id},"
    assert admin.hget(key_of("g", "group:g", "g"), "/members") == b"2"

    with pytest.raises(Uncertain):
        await store.leave("bob", "g", by="alice")
    assert not await store.is_member("bob", "g")
    assert admin.hexists(key_of("u", "user:bob", "bob"), "g")  # a superset of the truth
    with pytest.raises(WaypostError, match="not_found"):
        await store.leave("bob", "g", by="alice")
    assert numbers_in(admin, "group:g") == [1, 2, 3]
    assert admin.hget(key_of("g", "group:g", "g"), "/members") == b"1"
