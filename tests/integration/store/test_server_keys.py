"""Server keys and notices: kept, found, taken away together with word to every node; read with the mailbox."""

import asyncio

import pytest

from service.core.server_keys import Scope, ServerKey, digest
from service.errors import WaypostError
from service.store import Beat, MailboxReader, Notice, Store
from tests.integration.store.kit import EPOCH_KEYS, FOREIGN_RUN, Admin, direct, listen, send, to_all

pytestmark = pytest.mark.anyio
BOB = Notice("disconnect", user="bob", device="phone")


def made(key_id: str, *, created_at: int = 5) -> ServerKey:
    scopes: frozenset[Scope] = frozenset({"send", "read"})
    return ServerKey(id=key_id, name="shop", scopes=scopes, digest=digest(key_id), created_at=created_at)


async def notices(store: Store) -> list[Notice]:
    reader = store.mailbox_reader()
    try:
        reading = await reader.read("wp:{10}:m:nobody.x", 0, block_ms=0, count=2000, notices_after="0-0")
    finally:
        await reader.close()
    return reading.notices


class TestKeys:
    async def test_a_key_is_found_by_its_id_and_listed_by_age(self, store: Store, admin: Admin) -> None:
        assert await store.find_key("a" * 12) is None
        assert await store.keys() == []
        young, old, same = made("a" * 12, created_at=9), made("c" * 12, created_at=3), made("b" * 12, created_at=9)
        for key in (young, old, same, young):
            await store.add_key(key)
        assert await store.find_key("a" * 12) == young
        assert await store.keys() == [old, young, same]
        assert admin.hget("wp:keys", "a" * 12) == (
            b'{"name":"shop","scopes":["read","send"],"digest":"%s","created":9}' % young.digest.encode()
        )

    async def test_a_key_that_cannot_be_read_lets_nobody_in(self, store: Store, admin: Admin) -> None:
        await store.add_key(made("a" * 12))
        good = '{"name":"n","scopes":["send"],"digest":"d","created":1}'
        for bad in ("", "[]", "{}", good.replace("send", "everything"), good.replace("1", "null")):
            admin.hset("wp:keys", "b" * 12, bad)
            assert await store.find_key("b" * 12) is None
            assert [key.id for key in await store.keys()] == ["a" * 12]
        # It can be taken away all the same.
        assert await store.revoke_key("b" * 12)

    async def test_a_key_goes_and_the_nodes_hear_of_it(self, store: Store, admin: Admin) -> None:
        await store.add_key(made("a" * 12))
        await store.add_key(made("b" * 12))
        assert await store.revoke_key("a" * 12)
        assert await store.find_key("a" * 12) is None
        assert [key.id for key in await store.keys()] == ["b" * 12]
        assert await notices(store) == [Notice("key_revoked", key="a" * 12)]
        # Once more there is none, and nothing to be told.
        assert not await store.revoke_key("a" * 12)
        assert len(await notices(store)) == 1

    async def test_neither_without_the_other(self, store: Store, admin: Admin) -> None:
        await store.add_key(made("a" * 12))
        admin.set("wp:notices", "no stream")
        with pytest.raises(WaypostError):
            await store.revoke_key("a" * 12)
        assert await store.find_key("a" * 12) is not None
        admin.delete("wp:notices")
        admin.rename("wp:keys", "wp:jobs")
        admin.set("wp:keys", "no hash")
        with pytest.raises(WaypostError):
            await store.revoke_key("a" * 12)
        assert await notices(store) == []
        admin.delete("wp:keys", "wp:jobs")

    async def test_it_works_on_a_full_and_on_a_fenced_store(self, store: Store, admin: Admin) -> None:
        for key_id in ("a" * 12, "b" * 12):
            await store.add_key(made(key_id))
        for fence in EPOCH_KEYS:
            admin.hset(fence, "run", FOREIGN_RUN)
        admin.config_set("maxmemory", "100kb")
        assert await store.revoke_key("a" * 12)
        await store.tell_nodes(BOB)
        with pytest.raises(WaypostError, match="storage_full"):
            await store.add_key(made("c" * 12))
        assert await notices(store) == [Notice("key_revoked", key="a" * 12), BOB]


class TestNotices:
    async def test_the_last_one_is_where_a_node_begins(self, store: Store, admin: Admin) -> None:
        assert await store.last_notice() == "0-0"
        assert not admin.exists("wp:notices")
        await store.tell_nodes(BOB)
        last = await store.last_notice()
        assert admin.xrange("wp:notices")[-1][0].decode() == last
        assert abs(int(last.split("-")[0]) - await store.now_ms()) < 60_000
        admin.xtrim("wp:notices", 0)
        assert await store.last_notice() == last

    async def test_what_is_no_stream_is_an_error(self, store: Store, admin: Admin) -> None:
        admin.hset("wp:notices", "no", "stream")
        with pytest.raises(WaypostError, match="internal"):
            await store.last_notice()
        admin.delete("wp:notices")

    async def test_they_are_capped(self, store: Store, admin: Admin) -> None:
        for n in range(1300):
            await store.tell_nodes(Notice("disconnect", user=f"u{n}"))
        assert 1000 <= admin.xlen("wp:notices") < 1200
        assert (await notices(store))[-1] == Notice("disconnect", user="u1299")


class TestReading:
    @pytest.fixture
    async def reader(self, store: Store) -> MailboxReader:
        return store.mailbox_reader()

    async def test_one_reading_brings_entries_and_notices(self, store: Store, reader: MailboxReader) -> None:
        mailbox = await listen(store, "all")
        await store.tell_nodes(BOB)
        begin = await store.last_notice()
        for n in range(3):
            await send(store, to_all("alice"))
            await store.tell_nodes(Notice("disconnect", user=f"u{n}"))
        given = {"block_ms": 0, "count": 2}
        entries, told, upto = await reader.read(mailbox, 0, **given, notices_after=begin)
        assert [number for number, _ in entries] == [1, 2]
        assert [notice.user for notice in told] == ["u0", "u1"]
        entries, told, upto = await reader.read(mailbox, 2, **given, notices_after=upto)
        assert [number for number, _ in entries] == [3]
        assert [notice.user for notice in told] == ["u2"]
        assert upto == await store.last_notice()
        assert await reader.read(mailbox, 3, **given, notices_after=upto) == ([], [], upto)
        await reader.close()

    @pytest.mark.parametrize("comes", ["notice", "entry"])
    async def test_it_wakes_for_either(self, store: Store, reader: MailboxReader, comes: str) -> None:
        mailbox = await listen(store, "all")
        reading = asyncio.create_task(reader.read(mailbox, 0, block_ms=10_000, count=9, notices_after="0-0"))
        await asyncio.sleep(0)
        if comes == "notice":
            await store.tell_nodes(BOB)
        else:
            await send(store, to_all("alice"))
        entries, told, upto = await asyncio.wait_for(reading, 5)
        assert (len(entries), len(told)) == ((0, 1) if comes == "notice" else (1, 0))
        assert upto == await store.last_notice()
        await reader.close()

    async def test_a_mailbox_that_is_gone_keeps_no_notice_back(self, store: Store, reader: MailboxReader) -> None:
        await store.tell_nodes(BOB)
        reading = await reader.read("wp:{10}:m:n1.gone", 0, block_ms=0, count=9, notices_after="0-0")
        assert (reading.entries, reading.notices) == ([], [BOB])
        await reader.close()

    async def test_what_cannot_be_read_is_left_out_and_counts(
        self, store: Store, reader: MailboxReader, admin: Admin
    ) -> None:
        mailbox = await store.create_mailbox("n1")
        await store.tell_nodes(BOB)
        for fields in ({"kind": "explode"}, {"user": "bob"}, {"kind": b"\xff"}, {b"\xff": "x"}):
            admin.xadd("wp:notices", fields)
        reading = await reader.read(mailbox, 0, block_ms=0, count=9, notices_after="0-0")
        assert reading.notices == [BOB]
        last = await store.last_notice()
        assert reading.notices_upto == last
        # What a later release adds to one does not matter.
        admin.xadd("wp:notices", {"kind": "disconnect", "user": "bob", "device": "phone", "more": "1"})
        reading = await reader.read(mailbox, 0, block_ms=0, count=9, notices_after=last)
        assert reading.notices == [BOB]
        await reader.close()

    async def test_beats_come_as_before(self, store: Store, reader: MailboxReader) -> None:
        mailbox = await store.create_mailbox("n1")
        await send(store, direct("alice", "bob"))
        assert await reader.lease(mailbox, 7, 0, 15_000) is not None
        reading = await reader.read(mailbox, 0, block_ms=0, count=9, notices_after=await store.last_notice())
        assert reading == ([(1, Beat(7))], [], "0-0")
        await reader.close()
