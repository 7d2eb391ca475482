"""commit: offsets only move forward, only up to the head, only for devices that are known."""

import json

import pytest

from service.core.names import EntryId
from service.store import Commit, Store
from tests.integration.store.kit import Admin, key_of, send, to_all

pytestmark = pytest.mark.anyio


def stored(admin: Admin, stream: str = "all", user: str = "alice") -> str | None:
    raw = admin.hget(key_of("o", f"user:{user}", f"{user}/phone"), stream)
    return raw.decode() if raw is not None else None


async def test_forward_and_never_back(store: Store, admin: Admin) -> None:
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    ids = await send(store, *(to_all("bob") for _ in range(3)))
    for entry in (ids[1], ids[1], ids[0]):
        await store.commit([Commit("alice", "phone", {"all": entry})])
        assert stored(admin) == f"{ids[1]} {store.epoch}"
    await store.commit([Commit("alice", "phone", {"all": ids[2]})])

    assert stored(admin) == f"{ids[2]} {store.epoch}"


async def test_nothing_above_the_head_is_stored(store: Store, admin: Admin) -> None:
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    [head] = await send(store, to_all("bob"))
    offsets = {"all": EntryId(head.ms, 2), "user:alice": EntryId(1, 1)}
    await store.commit([Commit("alice", "phone", offsets)])

    assert (stored(admin), stored(admin, "user:alice")) == (f"0-0 {store.epoch}", f"0-0 {store.epoch}")


async def test_an_offset_of_another_epoch_is_overwritten(store: Store, admin: Admin) -> None:
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    ids = await send(store, *(to_all("bob") for _ in range(2)))
    admin.hset(key_of("o", "user:alice", "alice/phone"), "all", f"{ids[1]} another")
    await store.commit([Commit("alice", "phone", {"all": ids[0]})])

    assert stored(admin) == f"{ids[0]} {store.epoch}"


async def test_unknown_devices_are_passed_over_and_known_ones_seen(store: Store, admin: Admin) -> None:
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    [head] = await send(store, to_all("bob"))
    device = key_of("d", "user:alice", "alice")
    admin.hset(device, "phone", json.dumps({"first": 5, "last": 5, "node": "n1"}))
    await store.commit([Commit("bob", "phone", {"all": head}), Commit("alice", "phone", {"all": head})])

    assert stored(admin, user="bob") is None
    assert stored(admin) == f"{head} {store.epoch}"
    raw = admin.hget(device, "phone")
    assert raw is not None
    record = json.loads(raw)
    assert (record["first"], record["node"]) == (5, "n1")
    assert record["last"] >= head.ms


async def test_that_a_device_was_seen_is_noted_once_a_minute(store: Store, admin: Admin) -> None:
    await store.open_session("alice", "phone", "n1", {}, is_foreign=False)
    device = key_of("d", "user:alice", "alice")
    ids = await send(store, to_all("bob"), to_all("bob"))
    lately = ids[1].ms - 30_000
    admin.hset(device, "phone", json.dumps({"first": 5, "last": lately, "node": "n1"}))
    await store.commit([Commit("alice", "phone", {"all": ids[0]})])
    assert json.loads(admin.hget(device, "phone") or b"")["last"] == lately
    admin.hset(device, "phone", json.dumps({"first": 5, "last": ids[1].ms + 3_600_000, "node": "n1"}))  # another clock
    await store.commit([Commit("alice", "phone", {"all": ids[1]})])
    assert json.loads(admin.hget(device, "phone") or b"")["last"] < ids[1].ms + 60_000
    assert stored(admin) == f"{ids[1]} {store.epoch}"


async def test_an_error_ends_one_commit_and_not_the_call(store: Store, admin: Admin) -> None:
    for user in ("alice", "bob"):
        await store.open_session(user, "phone", "n1", {}, is_foreign=False)
    [head] = await send(store, to_all("bob"))
    broken = key_of("o", "user:alice", "alice/phone")
    admin.delete(broken)
    admin.set(broken, "no hash")
    admin.hset(key_of("d", "user:bob", "bob"), "phone", "rubbish")
    await store.commit([Commit("alice", "phone", {"all": head}), Commit("bob", "phone", {"all": head})])
    await store.commit([])

    assert stored(admin, user="bob") == f"{head} {store.epoch}"
    admin.delete(broken)
