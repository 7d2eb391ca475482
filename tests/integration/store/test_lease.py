"""Mailboxes: made, leased, read, and gone."""

import msgspec
import pytest

from service.errors import Uncertain
from service.store import Beat, Lease, Store, StoreOptions
from tests.integration.store.kit import EPOCH_KEYS, FOREIGN_RUN, LAYOUT, Admin, entries_of, key_of, listen, send, to_all

pytestmark = pytest.mark.anyio


async def test_a_mailbox_begins_with_a_beat_and_expires(store: Store, admin: Admin) -> None:
    mailbox = await store.create_mailbox("n1")
    other = await store.create_mailbox("n1")

    assert mailbox != other
    assert admin.xrange(mailbox) == [(b"1-0", {b"beat": b"0"})]
    assert 0 < admin.pttl(mailbox) <= 30_000
    await store.drop_mailbox(mailbox)
    await store.drop_mailbox(mailbox)
    assert not admin.exists(mailbox)


async def test_a_lease_beats_trims_and_reports(store: Store, admin: Admin) -> None:
    mailbox = await listen(store, "all")
    for _ in range(3):
        await send(store, to_all("alice"))
    reader = store.mailbox_reader()
    read = await entries_of(reader, mailbox, 0, block_ms=0, count=2)
    lease = await reader.lease(mailbox, 1, read[-1][0], 60_000)
    again = await reader.lease(mailbox, 1, 0, 60_000)
    rest = await entries_of(reader, mailbox, read[-1][0], block_ms=0, count=9)
    await reader.close()

    assert [number for number, _ in read] == [1, 2]
    assert lease == again == Lease(store.epoch, store.run, store.run)
    assert 30_000 < admin.pttl(mailbox) <= 60_000
    assert admin.xinfo_stream(mailbox)["first-entry"][0] == b"1-3"
    assert [(number, type(entry)) for number, entry in rest] == [(3, list), (4, Beat), (5, Beat)]
    assert rest[1][1] == Beat(1)


async def test_a_lease_never_creates(store: Store, admin: Admin) -> None:
    mailbox = await store.create_mailbox("n1")
    await store.drop_mailbox(mailbox)
    reader = store.mailbox_reader()

    assert await reader.lease(mailbox, 1, 0, 60_000) is None
    assert await entries_of(reader, mailbox, 0, block_ms=0, count=9) == []
    assert not admin.exists(mailbox)
    await reader.close()


async def test_a_lease_tells_of_the_fence_and_is_not_stopped_by_it(store: Store, admin: Admin) -> None:
    mailbox = await store.create_mailbox("n1")
    fence = f"wp:{mailbox[3 : mailbox.index('}') + 1]}:e"
    assert fence in EPOCH_KEYS
    reader = store.mailbox_reader()
    admin.hset(fence, "run", FOREIGN_RUN)
    assert await reader.lease(mailbox, 1, 0, 60_000) == Lease(store.epoch, FOREIGN_RUN, store.run)
    admin.delete(fence)
    assert await reader.lease(mailbox, 2, 0, 60_000) == Lease("", "", store.run)
    await reader.close()


async def test_reading_waits_for_the_first_entry_only(store: Store) -> None:
    mailbox = await listen(store, "all")
    reader = store.mailbox_reader()
    assert await entries_of(reader, mailbox, 0, block_ms=1, count=9) == []
    await send(store, to_all("alice"))
    [(number, entry)] = await entries_of(reader, mailbox, 0, block_ms=60_000, count=9)
    await reader.close()

    assert number == 1
    assert isinstance(entry, list)


async def test_an_entry_that_cannot_be_read_counts_as_lost(store: Store, admin: Admin) -> None:
    mailbox = await store.create_mailbox("n1")
    place = ["all", 5, 1, 0, 0]
    poison: list[dict[str | bytes, str | bytes]] = [
        {"beat": "x"},
        {"r": "rubbish"},
        {"r": b"", "beat": "1"},
        {"r": msgspec.msgpack.encode([place])},  # the same as the record before it, and there is none
        {"r": msgspec.msgpack.encode([[*place, "message", "a", "all", "m", "no JSON"]])},
        {"r": msgspec.msgpack.encode([[*place, "message", "a", "all", "m"]])},
    ]
    for fields in poison:
        admin.execute_command("XADD", mailbox, "1-*", *(part for pair in fields.items() for part in pair))
    reader = store.mailbox_reader()
    entries = await entries_of(reader, mailbox, 0, block_ms=0, count=99)
    await reader.close()

    assert entries == [(number, None) for number in range(1, 7)]


async def test_the_name_of_a_mailbox_is_used_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.nodes.secrets.token_hex", lambda _: "same")
    await store.create_mailbox("n1")
    with pytest.raises(Uncertain):
        await store.create_mailbox("n1")


class TestShortLease:
    @pytest.fixture
    def options(self) -> StoreOptions:
        return StoreOptions(mailbox_ttl_s=1)

    async def test_the_life_of_a_mailbox_is_a_setting(self, store: Store, admin: Admin) -> None:
        mailbox = await store.create_mailbox("n1")
        assert 0 < admin.pttl(mailbox) <= 1000
        assert mailbox.startswith(f"wp:{{{LAYOUT.user_tag('n1')}}}:m:n1.")
        assert mailbox.startswith(key_of("m", "user:n1", "n1."))
