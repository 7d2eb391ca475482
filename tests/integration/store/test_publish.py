"""publish: order, numbers, keys, mailboxes, and what an error in the middle leaves."""

import pytest

from service.core.names import ZERO, EntryId
from service.store import Outgoing, Store, StoreOptions
from tests.integration.store.kit import (
    Admin,
    Server,
    direct,
    head_of,
    key_of,
    listen,
    numbers_in,
    received,
    send,
    stored,
    to_all,
    to_group,
)

pytestmark = pytest.mark.anyio


async def test_a_batch_is_stored_in_order_with_numbers_without_holes(store: Store, admin: Admin) -> None:
    outcomes = await store.publish([to_all("alice", b"%d" % n) for n in range(5)], "")

    assert [stored(outcome).n for outcome in outcomes] == [1, 2, 3, 4, 5]
    assert [outcome.durability for outcome in outcomes] == ["fsynced"] * 5
    page = await store.page("all", ZERO, [], max_entries=10, max_bytes=1000)
    assert [entry.body for entry in page.entries] == [b"0", b"1", b"2", b"3", b"4"]
    assert page.head == head_of(admin, "all") == stored(outcomes[4])


async def test_a_direct_message_stands_in_both_inboxes_with_the_same_mid(store: Store, admin: Admin) -> None:
    [outcome] = await store.publish([direct("alice", "bob", b'{"a":"\xc3\xa4"}')], "")

    [own] = (await store.page("user:alice", ZERO, [], max_entries=9, max_bytes=999)).entries
    [theirs] = (await store.page("user:bob", ZERO, [], max_entries=9, max_bytes=999)).entries
    assert (own.id, theirs.id) == (outcome.id, outcome.recipient_id)
    assert own.mid == theirs.mid
    assert own.body == theirs.body == b'{"a":"\xc3\xa4"}'
    assert (
        (own.sender, own.to, own.device) == (theirs.sender, theirs.to, theirs.device) == ("alice", "user:bob", "phone")
    )
    assert own.extra is None
    [[_, fields]] = admin.xrange(key_of("s", "user:alice"))
    assert fields[b"r"].decode() == str(theirs.id)


async def test_to_oneself_is_stored_once(store: Store, admin: Admin) -> None:
    [outcome] = await store.publish([direct("alice", "alice")], "")

    assert outcome.id == outcome.recipient_id
    assert numbers_in(admin, "user:alice") == [1]


async def test_a_repeat_with_the_key_is_answered_with_the_same_ids(store: Store, admin: Admin) -> None:
    [first] = await store.publish([direct("alice", "bob", key="k1")], "")
    [again] = await store.publish([direct("alice", "bob", key="k1")], "")
    [other_body] = await store.publish([direct("alice", "bob", b"2", key="k1")], "")
    [other_sender] = await store.publish([direct("carol", "bob", key="k1")], "")

    assert (again.id, again.recipient_id) == (first.id, first.recipient_id)
    assert (first.is_duplicate, again.is_duplicate) == (False, True)
    assert other_body.code == "key_reused"
    assert not other_sender.is_duplicate
    assert numbers_in(admin, "user:bob") == [1, 2]
    assert numbers_in(admin, "user:alice") == [1]


async def test_repeats_within_one_batch_are_seen(store: Store, admin: Admin) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    batch = [to_group("alice", "g", key="k"), to_group("alice", "g", key="k"), to_group("alice", "g", b"2", key="k")]
    first, second, third = await store.publish(batch, "")

    assert (first.id, first.is_duplicate) == (second.id, not second.is_duplicate)
    assert third.code == "key_reused"
    assert numbers_in(admin, "group:g") == [1, 2]


async def test_a_key_is_found_in_the_bucket_before(store: Store, admin: Admin) -> None:
    [first] = await store.publish([to_all("alice", key="k")], "")
    [bucket] = admin.keys("wp:{*}:k:*")
    prefix, _, number = bucket.decode().rpartition(":")
    admin.rename(bucket, f"{prefix}:{int(number) - 1}")
    [again] = await store.publish([to_all("alice", key="k")], "")
    admin.rename(f"{prefix}:{int(number) - 1}", f"{prefix}:{int(number) - 2}")
    [late] = await store.publish([to_all("alice", key="k")], "")

    assert again.is_duplicate
    assert again.id == first.id
    assert not late.is_duplicate
    seconds = admin.ttl(admin.keys("wp:{*}:k:*")[0])
    assert 2 * 3600 < seconds <= 2 * 3600 + 60


async def test_only_members_write_to_a_group(store: Store, admin: Admin) -> None:
    [nowhere] = await store.publish([to_group("alice", "g")], "")
    await store.join("alice", "g", mailbox="", origin=None)
    member, stranger = await store.publish([to_group("alice", "g"), to_group("bob", "g")], "")
    await store.leave("alice", "g", mailbox="", origin=None)
    [gone] = await store.publish([to_group("alice", "g")], "")

    assert (nowhere.code, member.code, stranger.code, gone.code) == ("no_group", None, "not_member", "not_member")
    assert numbers_in(admin, "group:g") == [1, 2, 3]


async def test_a_server_key_sends_to_any_group_that_is_there(store: Store, admin: Admin) -> None:
    def by_system(key: str | None = None) -> Outgoing:
        return to_group("office", "g", key=key, is_system=True)

    [nowhere] = await store.publish([by_system()], "")
    await store.join("alice", "g")
    first, again, stranger = await store.publish([by_system("k"), by_system("k"), to_group("office", "g")], "")
    assert (nowhere.code, first.code, stranger.code) == ("no_group", None, "not_member")
    assert (again.id, again.is_duplicate) == (first.id, True)
    assert numbers_in(admin, "group:g") == [1, 2]
    # A group that all have left is there still.
    await store.leave("alice", "g")
    [left] = await store.publish([by_system()], "")
    assert stored(left).n == 4


async def test_nobody_sends_to_a_deleted_group(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    [earlier] = await store.publish([to_group("alice", "g", key="k")], "")
    await store.delete_group("g", by="alice", by_key=False)
    batch = [to_group("alice", "g"), to_group("bob", "g"), to_group("office", "g", is_system=True), to_all("alice")]
    outcomes = await store.publish([*batch, to_group("alice", "g", key="k")], "")
    assert [outcome.code for outcome in outcomes] == ["no_group", "no_group", "no_group", None, "no_group"]
    assert numbers_in(admin, "group:g") == [1, stored(earlier).n]
    await store.leave("alice", "g")
    await store.join("bob", "g")
    again, stranger = await store.publish([to_group("bob", "g"), to_group("alice", "g")], "")
    assert (again.code, stranger.code) == (None, "not_member")


async def test_mailboxes_of_a_stream_get_the_entry_and_only_the_senders_node_its_origin(store: Store) -> None:
    mine = await listen(store, "user:alice", "user:bob")
    theirs = await listen(store, "user:bob", node="n2")
    [outcome] = await store.publish([direct("alice", "bob", b'"x"', origin=(7, 3))], mine)

    at_bob, at_alice = await received(store, mine)
    assert (at_bob.stream, at_bob.entry.id, at_bob.origin) == ("user:bob", outcome.recipient_id, None)
    assert (at_alice.stream, at_alice.entry.id, at_alice.origin) == ("user:alice", outcome.id, (7, 3))
    assert at_alice.entry.body == b'"x"'
    assert at_alice.entry.extra is None
    [elsewhere] = await received(store, theirs)
    assert (elsewhere.entry, elsewhere.origin) == (at_bob.entry, None)


async def test_a_large_body_goes_to_mailboxes_as_a_reference(store: Store) -> None:
    mailbox = await listen(store, "all")
    await send(store, to_all("alice", b'"%s"' % (b"x" * 4094)), to_all("alice", b'"%s"' % (b"x" * 4095)))

    small, large = await received(store, mailbox)
    assert (small.by_reference, len(small.entry.body or b"")) == (False, 4096)
    assert (large.by_reference, large.entry.body) == (True, None)


async def test_a_mailbox_that_is_gone_or_broken_is_taken_off_the_register(store: Store, admin: Admin) -> None:
    gone, broken, whole = [await listen(store, "all", node=node) for node in ("n1", "n2", "n3")]
    admin.delete(gone)
    admin.delete(broken)
    admin.set(broken, "no stream", ex=60)
    await send(store, to_all("alice"), to_all("alice"))

    register = set(admin.hkeys(key_of("h", "all"))) - {b"head"}
    assert register == {whole.encode()}
    assert not admin.exists(gone, broken)
    assert len(await received(store, whole)) == 2


class TestSmallMailboxes:
    @pytest.fixture
    def options(self) -> StoreOptions:
        return StoreOptions(mailbox_cap=50)

    async def test_a_mailbox_is_capped(self, store: Store, admin: Admin) -> None:
        mailbox = await listen(store, "all")
        for _ in range(120):
            await send(store, to_all("alice", b"[%s]" % (b" " * 4000)))

        assert 50 <= admin.xlen(mailbox) < 60
        assert admin.memory_usage(mailbox, samples=0) < 400_000


async def test_what_a_call_has_for_a_mailbox_comes_in_entries_of_bounded_size(store: Store, admin: Admin) -> None:
    mailbox = await listen(store, "all", "user:alice", "user:bob")
    await send(store, *(direct("alice", "bob", b"[%s]" % (b" " * 2000)) for _ in range(30)))

    sizes = [len(fields[b"r"]) for _, fields in admin.xrange(mailbox, "1-1")]
    assert len(sizes) == 5
    assert max(sizes) < 16_384
    assert [one.stream for one in await received(store, mailbox)] == ["user:bob", "user:alice"] * 30


async def test_mailboxes_cost_no_disk_and_no_replica(store: Store, server: Server, admin: Admin) -> None:
    mailbox = await listen(store, "all")
    await send(store, to_all("alice", b'"kept"'))
    folder = server.folder / "appendonlydir"
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert written.count(b'"kept"') == 1  # in the stream
    assert admin.xlen(mailbox) == 2


async def test_an_error_ends_one_message_and_not_the_batch(store: Store, admin: Admin) -> None:
    admin.set(key_of("s", "user:broken"), "no stream")
    batch = [to_all("alice"), direct("alice", "broken"), direct("broken", "bob"), to_all("alice")]
    outcomes = await store.publish(batch, "")

    assert [outcome.code for outcome in outcomes] == [None, "internal", "internal", None]
    assert numbers_in(admin, "all") == [1, 2]
    assert not admin.exists(key_of("s", "user:bob"), key_of("h", "user:broken"), key_of("s", "user:alice"))
    admin.delete(key_of("s", "user:broken"))


async def test_a_direct_message_cut_between_its_inboxes_is_completed_by_its_key(store: Store, admin: Admin) -> None:
    # The sender's inbox refuses every id: its head was set back behind what the stream has seen.
    [first] = await send(store, direct("alice", "alice"))
    admin.xadd(key_of("s", "user:alice"), {"t": "message"}, id="9999999999999-9")
    mailbox = await listen(store, "user:alice", "user:bob")
    [cut] = await store.publish([direct("alice", "bob", key="k")], mailbox)
    [still] = await store.publish([direct("alice", "bob", key="k")], mailbox)

    assert (cut.code, still.code) == ("uncertain", "uncertain")
    assert numbers_in(admin, "user:bob") == [1]
    assert head_of(admin, "user:alice") == first

    admin.hset(key_of("h", "user:alice"), "head", "9999999999999-9")
    [whole] = await store.publish([direct("alice", "bob", key="k")], mailbox)
    [again] = await store.publish([direct("alice", "bob", key="k")], mailbox)
    assert whole.code is None
    assert stored(whole) == EntryId(9999999999999, 10)
    assert (again.id, again.recipient_id, again.is_duplicate) == (whole.id, whole.recipient_id, True)
    assert numbers_in(admin, "user:bob") == [1]
    assert [entry.stream for entry in await received(store, mailbox)] == ["user:bob", "user:alice"]


async def test_numbers_go_on_after_the_head_was_deleted(store: Store, admin: Admin) -> None:
    await send(store, to_all("alice"), to_all("alice"))
    admin.delete(key_of("h", "all"))
    [outcome] = await send(store, to_all("alice"))

    assert outcome.n == 3


async def test_numbers_go_on_after_the_stream_was_deleted(store: Store, admin: Admin) -> None:
    await send(store, to_all("alice"), to_all("alice"))
    admin.delete(key_of("s", "all"))
    [outcome] = await send(store, to_all("alice"))

    assert outcome.n == 3


async def test_the_clock_of_a_stream_never_goes_back(store: Store, admin: Admin) -> None:
    admin.hset(key_of("h", "all"), "head", "9999999999999-41")
    [outcome] = await send(store, to_all("alice"))

    assert outcome == EntryId(9999999999999, 42)


async def test_a_body_that_is_no_text_is_refused_alone(store: Store) -> None:
    outcomes = await store.publish([to_all("alice"), to_all("alice", b'"\xff"'), to_all("alice")], "")

    assert [outcome.code for outcome in outcomes] == [None, "bad_request", None]
    assert [outcome.id.n for outcome in outcomes if outcome.id] == [1, 2]


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert await store.publish([], "") == []


async def test_the_trace_travels_along(store: Store) -> None:
    mailbox = await listen(store, "all")
    await send(store, Outgoing("all", "alice", "all", "m", b"1", "", None, None, trace="00-ab-cd-01"))

    [entry] = (await store.page("all", ZERO, [], max_entries=1, max_bytes=1)).entries
    [arrival] = await received(store, mailbox)
    assert entry.trace == arrival.entry.trace == "00-ab-cd-01"
