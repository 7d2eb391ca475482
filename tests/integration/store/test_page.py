"""page: entries, bounds, holes and what belongs to them; what cannot be read; what is not there."""

import pytest

from service.core.entries import Redaction, Stretch
from service.core.names import ZERO, EntryId
from service.errors import WaypostError
from service.store import Store, TrimCause
from tests.integration.store.kit import Admin, direct, key_of, send, to_all, to_group

pytestmark = pytest.mark.anyio


async def test_it_begins_above_the_offset_and_ends_at_the_limit(store: Store) -> None:
    ids = await send(store, *(to_all("alice", b"%d" % n) for n in range(100)))
    page = await store.page("all", ids[9], [], max_entries=50, max_bytes=10_000)

    assert [entry.id for entry in page.entries] == ids[10:60]
    assert (page.after, page.before, page.head, page.floor) == (ids[9], ids[9], ids[99], ZERO)
    assert not page.is_last
    assert page.stretches is None
    rest = await store.page("all", ids[59], [], max_entries=40, max_bytes=10_000)
    assert [entry.id for entry in rest.entries] == ids[60:]
    assert rest.is_last
    assert (await store.page("all", ids[99], [], max_entries=1, max_bytes=1)).is_last


async def test_bytes_end_a_page_but_the_first_entry_always_comes(store: Store) -> None:
    ids = await send(store, *(to_all("alice", b'"%s"' % (b"x" * 1000)) for _ in range(5)))

    one = await store.page("all", ZERO, [], max_entries=50, max_bytes=10)
    three = await store.page("all", ZERO, [], max_entries=50, max_bytes=3 * 1050)
    assert [entry.id for entry in one.entries] == ids[:1]
    assert [entry.id for entry in three.entries] == ids[:3]
    assert (one.is_last, three.is_last) == (False, False)


async def test_an_empty_stream_is_empty(store: Store) -> None:
    page = await store.page("user:nobody", ZERO, [], max_entries=5, max_bytes=5)

    assert (page.entries, page.is_last, page.head, page.floor, page.before) == ((), True, ZERO, ZERO, None)


async def test_a_deleted_stream_keeps_its_head(store: Store, admin: Admin) -> None:
    *_, last = await send(store, to_all("alice"), to_all("alice"))
    admin.delete(key_of("s", "all"))
    page = await store.page("all", ZERO, [], max_entries=5, max_bytes=500)

    assert (page.entries, page.is_last, page.head, page.before) == ((), True, last, None)


async def test_a_deleted_head_is_taken_from_the_stream(store: Store, admin: Admin) -> None:
    *_, last = await send(store, to_all("alice"), to_all("alice"))
    admin.xtrim(key_of("s", "all"), maxlen=0)
    admin.delete(key_of("h", "all"))
    page = await store.page("all", ZERO, [], max_entries=5, max_bytes=500)

    assert (page.entries, page.head) == ((), last)


async def test_the_ledger_lines_above_the_offset_come_along(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(10)))
    await store.trim("all", ids[2], TrimCause("old", "max_age"))
    await store.trim("all", ids[5], TrimCause("many", "max_entries"))

    everything = await store.page("all", ZERO, [], max_entries=2, max_bytes=5000)
    late = await store.page("all", ids[3], [], max_entries=50, max_bytes=5000)
    current = await store.page("all", ids[5], [], max_entries=50, max_bytes=5000)
    assert [(line.after, line.to, line.count, line.limit) for line in everything.removals] == [
        (ZERO, ids[2], 3, "max_age"),
        (ids[2], ids[5], 3, "max_entries"),
    ]
    assert [line.to for line in late.removals] == [ids[5]]
    assert current.removals == ()
    assert everything.floor == ids[5]
    assert everything.before is None


async def test_a_page_that_does_not_reach_a_lost_stretch_does_not_name_it(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(4)))
    await store.reconcile("n1", ["n1"], {"all": EntryId(ids[3].ms, 9)})
    after_loss = await send(store, to_all("alice"))

    first = await store.page("all", ZERO, [], max_entries=2, max_bytes=5000)
    second = await store.page("all", ids[1], [], max_entries=50, max_bytes=5000)
    assert first.removals == ()
    [line] = second.removals
    assert (line.kind, line.after, line.to, line.count) == ("lost", ids[3], EntryId(ids[3].ms, 9), 5)
    assert [entry.id for entry in second.entries] == [ids[2], ids[3], after_loss[0]]
    assert (await store.page("all", after_loss[0], [], max_entries=9, max_bytes=99)).removals == ()


@pytest.mark.parametrize("redacted", [1, 40])
async def test_redactions_of_the_stretch_come_along(store: Store, redacted: int) -> None:
    # Few numbers in many redactions are asked for one by one, many numbers in few by reading all.
    ids = await send(store, *(direct("alice", "alice") for _ in range(60)))
    for entry in ids[10 : 10 + redacted]:
        await store.redact("user:alice", entry, "alice", only_sender=True)
    page = await store.page("user:alice", ids[8], [], max_entries=1, max_bytes=9000)
    whole = await store.page("user:alice", ids[8], [], max_entries=200, max_bytes=90_000)

    assert page.redactions == {}
    assert sorted(whole.redactions) == [entry.n for entry in ids[10 : 10 + redacted]]
    tombstone = whole.redactions[ids[10].n]
    assert isinstance(tombstone, Redaction)
    assert (tombstone.id, tombstone.by, tombstone.sender, tombstone.to) == (ids[10], "alice", "alice", "user:alice")
    assert tombstone.at >= ids[59].ms
    middle = await store.page("user:alice", ids[9], [], max_entries=1, max_bytes=9000)
    assert sorted(middle.redactions) == [entry.n for entry in ids[10 : 10 + redacted]]
    within = await store.page("user:alice", ids[12], [], max_entries=1, max_bytes=9000)
    # The one at the offset itself comes too: the offset belongs to it, or to another history.
    assert sorted(within.redactions) == [entry.n for entry in ids[12 : 10 + redacted]]


async def test_a_groups_page_tells_who_was_a_member_when(store: Store) -> None:
    joined = await store.join("alice", "g", mailbox="", origin=None)
    left = await store.leave("alice", "g", mailbox="", origin=None)
    again = await store.join("alice", "g", mailbox="", origin=None)
    page = await store.page("group:g", ZERO, ["bob", "alice"], max_entries=9, max_bytes=999)

    assert page.stretches == {"bob": (), "alice": (Stretch(joined.id, left.id), Stretch(again.id))}
    assert [(entry.type, entry.sender, entry.to) for entry in page.entries] == [
        ("joined", "alice", "group:g"),
        ("left", "alice", "group:g"),
        ("joined", "alice", "group:g"),
    ]
    users = [f"u{n}" for n in range(2500)]
    many = await store.page("group:g", ZERO, users, max_entries=9, max_bytes=999)
    assert many.stretches == dict.fromkeys(users, ())


async def test_what_cannot_be_read_keeps_its_place(store: Store, admin: Admin) -> None:
    [first] = await send(store, to_all("alice"))
    name = key_of("s", "all")
    poison = [
        {"t": "message", "f": "alice", "o": "all", "b": b'"\xff"'},
        {"t": "message", "f": "alice", "o": "all", "b": '{"a":'},
        {"t": "message", "f": "alice", "o": "all"},
        {"f": "alice"},
        {b"\xff": b"\xff"},
        {"t": "redacted", "f": "alice", "o": "all", "x": "rubbish"},
        {"t": "poll", "f": "alice", "o": "all", "q": "when?", "v": "2"},
    ]
    for n, fields in enumerate(poison, first.n + 1):
        admin.xadd(name, fields, id=f"{first.ms}-{n}")
        admin.hset(key_of("h", "all"), "head", f"{first.ms}-{n}")
    [last] = await send(store, to_all("alice"))
    page = await store.page("all", ZERO, [], max_entries=50, max_bytes=5000)

    assert [entry.id.n for entry in page.entries] == list(range(1, 10))
    assert page.entries[8].id == last
    unknown, poll = page.entries[1:7], page.entries[7]
    assert {entry.type for entry in unknown} == {"unknown"}
    assert {entry.body for entry in unknown} == {None}
    assert unknown[0].sender == "alice"
    assert unknown[4].extra == {"\ufffd": "\ufffd"}
    assert (poll.type, poll.sender, poll.extra) == ("poll", "alice", {"q": "when?", "v": "2"})


async def test_broken_lines_beside_the_stream_are_passed_over(store: Store, admin: Admin) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    await store.trim("all", ids[0], TrimCause("p", "l"))
    admin.rpush(key_of("x", "all"), "rubbish", "17", '{"after":"x","to":"y"}', '{"after":"0-0","to":"9-9"}')
    admin.hset(key_of("z", "all"), "2", "rubbish")
    page = await store.page("all", ZERO, [], max_entries=9, max_bytes=999)

    assert [line.to for line in page.removals] == [ids[0]]
    assert page.redactions == {}


async def test_a_stream_of_another_type_is_an_error_and_nothing_else(store: Store, admin: Admin) -> None:
    admin.set(key_of("s", "all"), "no stream")
    with pytest.raises(WaypostError, match="internal"):
        await store.page("all", ZERO, [], max_entries=9, max_bytes=999)
    admin.delete(key_of("s", "all"))


async def test_a_group_message_is_in_the_page_of_its_group(store: Store) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    [sent] = await send(store, to_group("alice", "g", b"[1]"))
    page = await store.page("group:g", EntryId(sent.ms, sent.n - 1), ["alice"], max_entries=9, max_bytes=999)

    assert [(entry.id, entry.body, entry.to) for entry in page.entries] == [(sent, b"[1]", "group:g")]
