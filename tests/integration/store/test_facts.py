"""node_facts, stream_facts, streams_page: what administrators see."""

from typing import Literal

import pytest

from service.core.names import ZERO
from service.errors import WaypostError
from service.store import NodeFacts, Registration, Store, StreamFacts, TrimCause
from tests.integration.store.kit import (
    EPOCH_KEYS,
    FOREIGN_RUN,
    Admin,
    direct,
    head_of,
    key_of,
    listen,
    send,
    to_all,
    to_group,
)

pytestmark = pytest.mark.anyio
Kind = Literal["user", "group", "all", ""]


async def walk(store: Store, kind: Kind = "", *, count: int = 100) -> tuple[set[str], int]:
    """The names of all streams of a kind, and how many pages it took."""
    found, cursor, pages = set[str](), "", 0
    while not pages or cursor:
        names, cursor = await store.streams_page(cursor, count, kind)
        assert len(names) == len(set(names)) < 3 * count
        found |= set(names)
        pages += 1
    return found, pages


class TestNodes:
    async def test_those_that_said_something_and_those_that_fell_silent(self, store: Store, admin: Admin) -> None:
        assert await store.node_facts() == []
        await store.heartbeat("n2", {"load": "1", "address": "ä:1"})
        await store.heartbeat("n1", {})
        admin.delete("wp:node:n1")
        admin.zadd("wp:nodes", {"n0": 5})
        silent, gone, alive = await store.node_facts()
        assert silent == NodeFacts("n0", 5, {})
        assert (gone.node, gone.facts) == ("n1", {})
        assert alive.node == "n2"
        assert abs(alive.last_seen - await store.now_ms()) < 60_000
        assert alive.facts == {"load": "1", "address": "ä:1", "seen": str(alive.last_seen)}


class TestStream:
    @pytest.mark.parametrize("stream", ["user:nobody", "all"])
    async def test_of_one_that_never_was_nothing_is_known(self, store: Store, admin: Admin, stream: str) -> None:
        before = admin.dbsize()
        assert await store.stream_facts(stream) == StreamFacts(stream, ZERO, ZERO, 0, 0, None, None, None, ())
        assert admin.dbsize() == before

    async def test_a_group_with_a_past(self, store: Store, admin: Admin) -> None:
        with pytest.raises(WaypostError, match="no_group"):
            await store.stream_facts("group:g")
        await store.join("alice", "g")
        await store.join("bob", "g")
        ids = await send(store, *(to_group("alice", "g") for _ in range(3)))
        await store.trim("group:g", ids[0], TrimCause())
        mailboxes = [await listen(store, "group:g", node=node) for node in ("n2", "n1.x", "n1.x")]
        found = await store.stream_facts("group:g")
        assert found.bytes > 100
        assert found == StreamFacts("group:g", ids[2], ids[0], 2, found.bytes, ids[1], ids[2], 2, ("n1.x", "n2"))
        await store.detach(mailboxes[0], [Registration("group:g", 9)])
        await store.trim("group:g", None, TrimCause())
        empty = await store.stream_facts("group:g")
        assert (empty.head, empty.floor, empty.entries) == (ids[2], ids[2], 0)
        assert (empty.oldest, empty.newest, empty.nodes) == (None, None, ("n1.x",))
        await store.delete_group("g", by="", by_key=True)
        assert (await store.stream_facts("group:g")).members == 2

    async def test_it_takes_more_memory_the_more_there_is(self, store: Store) -> None:
        await send(store, to_all("alice"))
        few = (await store.stream_facts("all")).bytes
        await send(store, *(to_all("alice", b'"%s"' % (b"x" * 1000)) for _ in range(200)))
        assert 100_000 < (await store.stream_facts("all")).bytes - few < 600_000

    async def test_a_head_that_is_missing(self, store: Store, admin: Admin) -> None:
        [_, last] = await send(store, to_all("alice"), to_all("alice"))
        admin.delete(key_of("h", "all"))
        assert (await store.stream_facts("all")).head == last
        assert head_of(admin, "all") == ZERO

    @pytest.mark.parametrize("letter", ["h", "s", "g"])
    async def test_a_key_of_another_type_is_an_error(self, store: Store, admin: Admin, letter: str) -> None:
        name = key_of(letter, "group:g", "g" if letter == "g" else "group:g")
        admin.hset(key_of("g", "group:g", "g"), "/access", "open")
        admin.delete(name)
        admin.set(name, "wrong")
        with pytest.raises(WaypostError, match="internal"):
            await store.stream_facts("group:g")
        admin.delete(name)

    async def test_a_fenced_and_full_store_can_be_looked_at(self, store: Store, admin: Admin) -> None:
        [told] = await send(store, to_all("alice"))
        for fence in EPOCH_KEYS:
            admin.hset(fence, "run", FOREIGN_RUN)
        admin.config_set("maxmemory", "100kb")
        assert (await store.stream_facts("all")).newest == told
        assert await walk(store) == ({"all"}, 1)
        assert await store.node_facts() == []


class TestStreams:
    async def test_all_or_those_of_a_kind(self, store: Store) -> None:
        for kind in ("user", "group", "all", ""):
            assert (await walk(store, kind))[0] == set()
        await store.join("alice", "user:x")
        await send(store, direct("group:y", "bob"), to_all("alice"))
        await store.trim("user:bob", None, TrimCause())
        users, groups = {"user:alice", "user:group:y", "user:bob"}, {"group:user:x"}
        assert await walk(store, "user") == (users, 1)
        assert await walk(store, "group") == (groups, 1)
        assert await walk(store, "all") == ({"all"}, 1)
        assert await walk(store) == (users | groups | {"all"}, 1)

    async def test_many_come_in_pages(self, store: Store) -> None:
        await send(store, *(direct("alice", f"u{n}") for n in range(900)))
        await store.join("alice", "g")
        found, pages = await walk(store, "user", count=50)
        assert found == {"user:alice", *(f"user:u{n}" for n in range(900))}
        assert 10 < pages < 60
        # One among many takes some steps, each of them bounded.
        found, pages = await walk(store, "group", count=5)
        assert found == {"group:g"}
        assert 2 < pages < 60

    @pytest.mark.parametrize("cursor", ["x", "@", "-1@a", "5", "5@" + "f" * 40, "0@"])
    async def test_a_cursor_that_is_none_or_of_another_server_is_refused(self, store: Store, cursor: str) -> None:
        with pytest.raises(WaypostError, match="bad_request"):
            await store.streams_page(cursor, 10, "")
