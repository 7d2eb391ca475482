"""redact: the body is gone everywhere, the number stays, and devices are told."""

import pytest

from service.core.names import ZERO, EntryId
from service.errors import WaypostError
from service.store import Store, TrimCause
from tests.integration.store.kit import Admin, direct, key_of, listen, numbers_in, received, send, to_all, to_group

pytestmark = pytest.mark.anyio


async def test_a_group_message_loses_its_body_and_keeps_its_place(store: Store, admin: Admin) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    first, second = await send(store, to_group("alice", "g", key="m1"), to_group("alice", "g"))
    mailbox = await listen(store, "group:g")
    told = await store.redact("group:g", first, "alice", only_sender=True)

    assert told is not None
    page = await store.page("group:g", ZERO, ["alice"], max_entries=9, max_bytes=999)
    assert [(entry.id.n, entry.type) for entry in page.entries] == [(1, "joined"), (3, "message"), (4, "redacted")]
    assert (page.entries[2].target, page.entries[2].sender, page.entries[2].id) == (str(first), "alice", told)
    tombstone = page.redactions[first.n]
    assert (tombstone.id, tombstone.by, tombstone.mid, tombstone.to) == (first, "alice", "m1", "group:g")
    assert second.n == 3
    [arrival] = await received(store, mailbox)
    assert (arrival.entry.type, arrival.entry.target) == ("redacted", str(first))
    assert key_of("z", "group:g").encode() in admin.keys("*")


@pytest.mark.parametrize("side", ["sender", "recipient"])
async def test_a_direct_message_is_gone_from_both_inboxes(store: Store, side: str) -> None:
    # One batch, so all have the same millisecond: the sender's copy is not among the first that are looked at.
    batch = [*(direct("alice", "bob") for _ in range(40)), direct("alice", "bob", key="m1")]
    outcome = (await store.publish(batch, ""))[-1]
    await send(store, *(direct("alice", "bob") for _ in range(3)))
    assert outcome.id is not None
    assert outcome.recipient_id is not None
    given = ("user:alice", outcome.id) if side == "sender" else ("user:bob", outcome.recipient_id)
    told = await store.redact(*given, "operator", only_sender=False)

    assert told is not None
    for stream, entry in (("user:alice", outcome.id), ("user:bob", outcome.recipient_id)):
        page = await store.page(stream, ZERO, [], max_entries=99, max_bytes=9999)
        assert entry not in [one.id for one in page.entries]
        assert (page.redactions[entry.n].mid, page.redactions[entry.n].by) == ("m1", "operator")
        assert (page.entries[-1].type, page.entries[-1].target) == ("redacted", str(entry))
        assert len(page.redactions) == 1


async def test_the_senders_copy_is_found_though_the_clock_went_back(store: Store, admin: Admin) -> None:
    await send(store, direct("alice", "alice"), direct("bob", "bob"))
    head = admin.hget(key_of("h", "user:alice"), "head")
    assert head is not None
    ms = int(head.split(b"-")[0])
    admin.hset(key_of("h", "user:alice"), "head", f"{ms + 4000}-1")
    [outcome] = await store.publish([direct("alice", "bob")], "")
    assert outcome.recipient_id is not None
    await store.redact("user:bob", outcome.recipient_id, "alice", only_sender=True)

    assert outcome.id is not None
    assert outcome.id.n not in numbers_in(admin, "user:alice")


async def test_a_message_to_oneself(store: Store, admin: Admin) -> None:
    [entry] = await send(store, direct("alice", "alice"))
    told = await store.redact("user:alice", entry, "alice", only_sender=True)
    assert told is not None
    assert told.n == 2
    assert numbers_in(admin, "user:alice") == [2]


async def test_twice_adds_nothing(store: Store, admin: Admin) -> None:
    [outcome] = await store.publish([direct("alice", "bob")], "")
    assert outcome.id is not None
    assert outcome.recipient_id is not None
    assert await store.redact("user:alice", outcome.id, "alice", only_sender=True) is not None
    assert await store.redact("user:alice", outcome.id, "alice", only_sender=True) is None
    assert await store.redact("user:bob", outcome.recipient_id, "alice", only_sender=True) is None
    with pytest.raises(WaypostError, match="not_allowed"):
        await store.redact("user:bob", outcome.recipient_id, "bob", only_sender=True)

    assert numbers_in(admin, "user:alice") == numbers_in(admin, "user:bob") == [2]


async def test_only_the_sender_where_it_is_asked_for(store: Store, admin: Admin) -> None:
    [entry] = await send(store, to_all("alice"))
    with pytest.raises(WaypostError, match="not_allowed"):
        await store.redact("all", entry, "bob", only_sender=True)

    assert numbers_in(admin, "all") == [1]
    assert await store.redact("all", entry, "bob", only_sender=False) is not None


async def test_what_is_not_there_cannot_be_redacted(store: Store, admin: Admin) -> None:
    joined = await store.join("alice", "g", mailbox="", origin=None)
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    await store.trim("all", ids[0], TrimCause())
    told = await store.redact("all", ids[1], "alice", only_sender=True)
    assert told is not None
    missing = [
        ("all", ids[0]),  # trimmed
        ("all", EntryId(ids[1].ms + 1, ids[1].n)),  # another id with the number of a redacted one
        ("all", told),  # no message
        ("all", EntryId(told.ms, 99)),
        ("group:g", joined.id),
        ("user:alice", EntryId(joined.id.ms, 1)),  # a joined entry in an inbox
        ("user:nobody", EntryId(1, 1)),
    ]
    for stream, entry in missing:
        with pytest.raises(WaypostError, match="not_found"):
            await store.redact(stream, entry, "alice", only_sender=False)
    assert numbers_in(admin, "all") == [3, 4]


async def test_a_copy_that_was_trimmed_is_not_needed(store: Store, admin: Admin) -> None:
    [outcome] = await store.publish([direct("alice", "bob")], "")
    assert outcome.id is not None
    assert outcome.recipient_id is not None
    await store.trim("user:bob", outcome.recipient_id, TrimCause())

    assert await store.redact("user:alice", outcome.id, "alice", only_sender=True) is not None
    assert numbers_in(admin, "user:alice") == [2]
    assert numbers_in(admin, "user:bob") == []
