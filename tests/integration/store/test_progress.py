"""progress: the streams of a user, page by page, and how far a device has come in each. Writes nothing."""

import pytest

from service.core.names import ZERO, EntryId
from service.errors import WaypostError
from service.store import Commit, Store, StreamProgress, TrimCause
from tests.integration.store.kit import Admin, direct, key_of, send, to_all, to_group

pytestmark = pytest.mark.anyio


async def progress(store: Store, device: str = "phone", *, limit: int = 50) -> dict[str, StreamProgress]:
    """All of alice's streams, `limit` at a time."""
    found, after = await store.progress("alice", device, limit=limit)
    while after:
        more, after = await store.progress("alice", device, after=after, limit=limit)
        found += more
    return {one.stream: one for one in found}


async def test_somebody_of_whom_nothing_is_known_has_two_empty_streams(store: Store, admin: Admin) -> None:
    before = admin.dbsize()
    assert await store.progress("alice", "phone", limit=50) == (
        [StreamProgress("user:alice", ZERO, ZERO, ZERO), StreamProgress("all", ZERO, ZERO, ZERO)],
        "",
    )
    assert admin.dbsize() == before


async def test_a_known_device_stands_where_it_acknowledged(store: Store) -> None:
    joined = await store.join("alice", "g")
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    first, last = await send(store, to_group("alice", "g"), to_group("alice", "g"))
    await send(store, direct("bob", "alice"))
    await store.commit([Commit("alice", "phone", {"group:g": first})])

    found = await progress(store)
    assert list(found) == ["user:alice", "all", "group:g"]
    assert found["group:g"] == StreamProgress("group:g", last, ZERO, first)
    assert (found["user:alice"].head.n, found["user:alice"].offset) == (2, ZERO)
    # Another device has not come by yet: it would begin where it may.
    assert (await progress(store, "laptop"))["group:g"].offset == joined.id


async def test_where_a_device_would_begin(store: Store, admin: Admin) -> None:
    inbox = await send(store, *(direct("alice", "alice") for _ in range(3)))
    await store.trim("user:alice", inbox[1], TrimCause())
    await store.join("bob", "g")
    await send(store, to_group("bob", "g"))
    joined = await store.join("alice", "g")
    [everybody] = await send(store, to_all("bob"))

    before = {name: admin.dump(name) for name in admin.scan_iter(count=1000)}
    found = await progress(store)
    assert {name: one.offset for name, one in found.items()} == {
        "user:alice": inbox[1],
        "all": everybody,
        "group:g": joined.id,
    }
    assert found["user:alice"].floor == inbox[1]
    assert {name: admin.dump(name) for name in admin.scan_iter(count=1000)} == before
    # The same is stored when the session is opened.
    opened = await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    assert {one.stream: one.offset for one in opened} == {name: one.offset for name, one in found.items()}


async def test_groups_of_which_the_user_is_no_member_are_left_out(store: Store, admin: Admin) -> None:
    for group in ("a", "b", "c"):
        await store.join("alice", group)
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    await store.leave("alice", "b")
    admin.hset(key_of("u", "user:alice", "alice"), mapping={"b": "1", "never": "1", "rubbish": "1"})
    admin.hset(key_of("g", "group:rubbish", "rubbish"), "alice", "rubbish")
    assert list(await progress(store)) == ["user:alice", "all", "group:a", "group:c"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_bring_each_stream_once_in_order(store: Store, admin: Admin, limit: int) -> None:
    groups = [f"g{n}" for n in range(12)]
    for group in groups:
        await store.join("alice", group)
    await store.leave("alice", "g5")
    admin.hset(key_of("u", "user:alice", "alice"), "g5", "1")
    expected = ["user:alice", "all", *sorted(f"group:{group}" for group in groups if group != "g5")]
    found, after, pages = list[str](), "", 0
    while not pages or after:
        page, after = await store.progress("alice", "phone", after=after, limit=limit)
        assert len(page) <= limit
        found += [one.stream for one in page]
        pages += 1
    assert found == expected
    assert pages == -(-14 // limit)


async def test_a_group_that_is_gone_is_a_place_still(store: Store) -> None:
    for group in ("a", "c"):
        await store.join("alice", group)
    page, after = await store.progress("alice", "phone", after="group:b", limit=10)
    assert ([one.stream for one in page], after) == (["group:c"], "")
    assert await store.progress("alice", "phone", after="group:z", limit=10) == ([], "")


@pytest.mark.parametrize("after", ["user:bob", "b", "ALL"])
async def test_what_is_no_place_is_refused(store: Store, after: str) -> None:
    with pytest.raises(WaypostError, match="bad_request"):
        await store.progress("alice", "phone", after=after, limit=10)


async def test_offsets_that_mean_nothing_are_not_told(store: Store, admin: Admin) -> None:
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    [first, last] = await send(store, to_all("bob"), to_all("bob"))
    name = key_of("o", "user:alice", "alice/phone")
    for offset in (
        f"{EntryId(last.ms + 5, 99)} {store.epoch}",
        "rubbish",
        f"rubbish {store.epoch}",
        f"{first.ms - 1}-1 {'0' * 16}",  # of another epoch, and not there
    ):
        admin.hset(name, "all", offset)
        assert (await progress(store))["all"].offset == last
    admin.hset(name, "all", f"{first} {'0' * 16}")  # of another epoch, and there
    assert (await progress(store))["all"].offset == first
