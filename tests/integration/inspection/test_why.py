"""`why`: a case for each verdict, each made as it comes about, and with what it rests on."""

import pytest

from service import inspection
from service.core.names import EntryId
from service.errors import WaypostError
from service.inspection.why import Verdict
from service.store import Commit, Store, TrimCause
from tests.integration.store.kit import EPOCH_KEYS, FOREIGN_RUN, Admin, direct, key_of, listen, send, to_all, to_group
from tests.integration.store.stock import stock

pytestmark = pytest.mark.anyio


async def sign_in(store: Store, user: str, device: str, node: str = "n1") -> None:
    await store.open_session(user, device, node, {}, is_foreign=False)


async def connect(store: Store, user: str, node: str = "n1") -> None:
    """The node has somebody of the user connected."""
    await store.heartbeat(node, {"streams": "1"})
    await listen(store, f"user:{user}", node=node)


async def verdict(store: Store, stream: str, entry: EntryId, user: str) -> tuple[Verdict, dict[str, Verdict]]:
    """The one in all, and each device's."""
    found = await inspection.why(store, stream, str(entry), user)
    return found.verdict, {one.device: one.verdict for one in found.devices}


async def test_acknowledged(store: Store) -> None:
    await sign_in(store, "bob", "phone")
    [_, told] = [await send(store, direct("alice", "bob")), await store.stream_facts("user:bob")]
    head = told.head
    assert await verdict(store, "user:bob", head, "bob") == ("waiting_offline", {"phone": "waiting_offline"})
    await store.commit([Commit("bob", "phone", {"user:bob": head})])
    assert await verdict(store, "user:bob", head, "bob") == (
        "delivered_acknowledged",
        {"phone": "delivered_acknowledged"},
    )
    found = await inspection.why(store, "user:bob", str(head), "bob")
    assert found.entry is not None
    assert (found.entry.sender, found.entry.body, found.entry.body_bytes) == ("alice", None, 4)
    assert (found.devices[0].offset, found.devices[0].behind_by) == (str(head), 0)
    assert any("not recorded" in line for line in found.not_recorded)


async def test_waiting_for_one_of_two_devices(store: Store) -> None:
    await sign_in(store, "bob", "phone", "n1")
    await sign_in(store, "bob", "tablet", "n2")
    await connect(store, "bob", "n1")
    await send(store, direct("alice", "bob"))
    head = (await store.stream_facts("user:bob")).head
    # Connected where the phone was last, and it lacks the message; nobody is where the tablet was.
    _, each = await verdict(store, "user:bob", head, "bob")
    assert each == {"phone": "waiting_behind", "tablet": "waiting_offline"}
    await store.commit([Commit("bob", "phone", {"user:bob": head})])
    assert await verdict(store, "user:bob", head, "bob") == (
        "waiting_offline",
        {"phone": "delivered_acknowledged", "tablet": "waiting_offline"},
    )
    found = await inspection.why(store, "user:bob", str(head), "bob")
    assert found.user_nodes == ("n1",)
    assert {one.device: one.connected for one in found.devices} == {"phone": True, "tablet": False}


async def test_which_of_two_devices_is_connected_is_not_known(store: Store) -> None:
    await sign_in(store, "bob", "phone", "n1")
    await sign_in(store, "bob", "tablet", "n1")
    await connect(store, "bob", "n1")
    await send(store, direct("alice", "bob"))
    head = (await store.stream_facts("user:bob")).head
    assert await verdict(store, "user:bob", head, "bob") == (
        "waiting_unknown",
        {"phone": "waiting_unknown", "tablet": "waiting_unknown"},
    )


async def test_a_node_that_died_has_nobody_connected(store: Store, admin: Admin) -> None:
    await sign_in(store, "bob", "phone")
    await connect(store, "bob")
    admin.delete("wp:node:n1")
    await send(store, direct("alice", "bob"))
    head = (await store.stream_facts("user:bob")).head
    assert (await verdict(store, "user:bob", head, "bob"))[0] == "waiting_offline"


async def test_no_member_then(store: Store) -> None:
    await store.join("alice", "g")
    [before] = await send(store, to_group("alice", "g"))
    await sign_in(store, "bob", "phone")
    assert await verdict(store, "group:g", before, "bob") == ("not_member_then", {})
    joined = await store.join("bob", "g")
    [during] = await send(store, to_group("alice", "g"))
    left = await store.leave("bob", "g")
    [after] = await send(store, to_group("alice", "g"))
    assert (await verdict(store, "group:g", before, "bob"))[0] == "not_member_then"
    assert (await verdict(store, "group:g", during, "bob"))[0] == "waiting_offline"
    assert (await verdict(store, "group:g", after, "bob"))[0] == "not_member_then"
    found = await inspection.why(store, "group:g", str(after), "bob")
    assert found.memberships is not None
    assert [(one.joined, one.left) for one in found.memberships] == [(str(joined.id), str(left.id))]
    assert (await inspection.why(store, "user:bob", str(after), "bob")).memberships is None


async def test_not_yours(store: Store) -> None:
    await sign_in(store, "eve", "phone")
    await send(store, direct("alice", "bob"))
    head = (await store.stream_facts("user:bob")).head
    assert await verdict(store, "user:bob", head, "eve") == ("not_yours", {})


async def test_redacted(store: Store) -> None:
    await store.join("bob", "g")
    await sign_in(store, "bob", "old")
    ids = await send(store, to_group("bob", "g"), to_group("bob", "g"))
    await store.commit([Commit("bob", "old", {"group:g": ids[1]})])
    await store.redact("group:g", ids[0], "key:abc", only_sender=False)
    assert await verdict(store, "group:g", ids[0], "bob") == ("redacted", {"old": "delivered_acknowledged"})
    found = await inspection.why(store, "group:g", str(ids[0]), "bob")
    assert (found.entry, found.redacted_by) == (None, "key:abc")
    assert found.redacted_at is not None


async def test_trimmed(store: Store) -> None:
    await sign_in(store, "alice", "phone")
    await sign_in(store, "alice", "laptop")
    ids = await send(store, *(to_all("bob") for _ in range(3)))
    await store.commit([Commit("alice", "laptop", {"all": ids[2]})])
    await store.trim("all", ids[1], TrimCause("all", "max_age=1d"))
    assert await verdict(store, "all", ids[0], "alice") == (
        "trimmed",
        {"phone": "trimmed", "laptop": "delivered_acknowledged"},
    )
    found = await inspection.why(store, "all", str(ids[1]), "alice")
    assert found.removal is not None
    assert (found.removal.kind, found.removal.policy, found.removal.limit) == ("trimmed", "all", "max_age=1d")
    assert found.removal.to == str(ids[1])
    await store.commit([Commit("alice", "phone", {"all": ids[2]})])
    assert (await verdict(store, "all", ids[0], "alice"))[0] == "delivered_acknowledged"


async def test_lost(store: Store, admin: Admin) -> None:
    await sign_in(store, "alice", "phone")
    [told] = await send(store, to_all("bob"))
    for fence in EPOCH_KEYS:  # the server was restarted with less; a node knows of two more
        admin.hset(fence, "run", FOREIGN_RUN)
    ahead = EntryId(told.ms + 5, told.n + 2)
    assert await store.reconcile("n1", [], {"all": ahead}) is True
    assert await verdict(store, "all", EntryId(told.ms + 4, told.n + 1), "alice") == ("lost", {"phone": "lost"})
    found = await inspection.why(store, "all", str(ahead), "alice")
    assert found.removal is not None
    assert (found.verdict, found.removal.kind) == ("lost", "lost")


async def test_no_such_entry(store: Store) -> None:
    await sign_in(store, "alice", "phone")
    ids = await send(store, to_all("bob"), to_all("bob"))
    for never in (
        EntryId(ids[1].ms, ids[1].n + 1),
        EntryId(ids[1].ms + 1, ids[1].n),
        EntryId(ids[0].ms - 1, ids[0].n),
        EntryId(ids[0].ms, 0),
        EntryId(0, 0),
    ):
        assert await verdict(store, "all", never, "alice") == ("no_such_entry", {})
    assert await verdict(store, "group:never", ids[0], "alice") == ("no_such_entry", {})


async def test_no_devices(store: Store) -> None:
    await send(store, direct("alice", "bob"))
    head = (await store.stream_facts("user:bob")).head
    assert await verdict(store, "user:bob", head, "bob") == ("no_devices", {})


async def test_before_the_device(store: Store, admin: Admin) -> None:
    [before] = stock(admin, "all", [10.0])
    await sign_in(store, "alice", "phone")
    [told] = await send(store, to_all("bob"))
    assert (await verdict(store, "all", before, "alice"))[0] == "before_device"
    assert (await verdict(store, "all", told, "alice"))[0] == "waiting_offline"


async def test_an_offset_of_another_history(store: Store, admin: Admin) -> None:
    await sign_in(store, "alice", "phone")
    [told] = await send(store, to_all("bob"))
    admin.hset(key_of("o", "user:alice", "alice/phone"), "all", f"{told.ms + 9}-{told.n + 9} another")
    assert await verdict(store, "all", told, "alice") == ("epoch", {"phone": "epoch"})


async def test_on_a_fenced_and_full_store_too(store: Store, admin: Admin) -> None:
    await sign_in(store, "alice", "phone")
    [told] = await send(store, to_all("bob"))
    for fence in EPOCH_KEYS:
        admin.hset(fence, "run", FOREIGN_RUN)
    admin.config_set("maxmemory", "100kb")
    assert (await verdict(store, "all", told, "alice"))[0] == "waiting_offline"


@pytest.mark.parametrize(("stream", "entry", "user"), [("x", "1-1", "a"), ("all", "1", "a"), ("all", "1-1", "a b")])
async def test_what_is_no_question(store: Store, stream: str, entry: str, user: str) -> None:
    with pytest.raises(WaypostError, match="bad_"):
        await inspection.why(store, stream, entry, user)
