"""`waypost key new|list|revoke` as an operator meets them: real processes on a real store."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from migrations import __main__ as migrations
from service.auth import Credentials, Principal, SignIn
from service.config import load
from service.errors import WaypostError
from service.store import Store, StoreOptions
from tests.integration.cli.test_client_commands import run
from tests.integration.store.kit import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with Server("valkey") as server:
        yield server


@pytest.fixture
async def store(database: Server) -> AsyncIterator[Store]:
    database.admin.flushall()
    await migrations.up(database.url)
    store = await Store.connect(database.url, options=StoreOptions())
    await store.check_server()
    yield store
    await store.close()


async def key(database: Server, *words: str) -> tuple[int, list[str], list[str]]:
    return await run("key", *words, WAYPOST_REDIS_URL=database.url)


async def whose(store: Store, text: str) -> Principal | None:
    given = Credentials(authorization=f"Bearer {text}")
    return await SignIn(load({"WAYPOST_JWT_SECRETS": "x" * 32}), store.find_key).by(given)


async def test_a_new_key_signs_in(database: Server, store: Store) -> None:
    code, [text], [hint] = await key(database, "new", "--scope", "read,send", "--scope", "groups")
    assert code == 0
    principal = await whose(store, text)
    assert principal is not None
    assert (principal.user, principal.scopes) == ("", frozenset({"send", "read", "groups"}))
    assert hint == f"waypost: shown this once; {principal.key} is its id, send, read, groups its scope"


async def test_json_has_the_key_and_the_list_has_not(database: Server, store: Store) -> None:
    before = await store.now_ms()
    code, [line], errors = await key(database, "new", "--scope", " send , read", "--name", "Rechnungen 1/2", "--json")
    made = json.loads(line)
    assert (code, errors) == (0, [])
    assert list(made) == ["id", "key", "name", "scopes", "created"]
    assert (made["name"], made["scopes"]) == ("Rechnungen 1/2", ["send", "read"])
    assert before <= made["created"] <= await store.now_ms()
    assert made["key"].startswith(f"wpk_{made['id']}_")

    _, [second], _ = await key(database, "new", "--scope", "admin")
    code, [listed], _ = await key(database, "list", "--json")
    first, other = json.loads(listed)
    assert first == {name: value for name, value in made.items() if name != "key"}
    assert other["scopes"] == ["admin"]
    code, lines, _ = await key(database, "list")
    assert [line.split()[0] for line in lines] == [made["id"], other["id"]]
    assert lines[0].endswith("send,read               Rechnungen 1/2")
    for text in (made["key"], second):
        assert text[17:] not in listed + "".join(lines)


async def test_nothing_in_the_store_signs_anybody_in(database: Server, store: Store) -> None:
    _, [text], _ = await key(database, "new", "--scope", "admin")
    kept = database.admin.hgetall("wp:keys")
    assert len(kept) == 1
    assert text[17:].encode() not in b"".join(kept.values())


async def test_a_revoked_key_is_nobodys(database: Server, store: Store) -> None:
    _, [first], _ = await key(database, "new", "--scope", "send")
    _, [second], _ = await key(database, "new", "--scope", "send")
    key_id = first.split("_")[1]
    assert await key(database, "revoke", key_id) == (0, [f"revoked {key_id}"], [])
    with pytest.raises(WaypostError, match="no such server key"):
        await whose(store, first)
    assert await whose(store, second) is not None
    assert await key(database, "revoke", key_id) == (1, [], [f"waypost: no such key: {key_id}"])
    # By the key itself, for whoever has found one that leaked.
    assert (await key(database, "revoke", second))[0] == 0
    assert await key(database, "list") == (0, ["no server keys"], [])
    assert await key(database, "list", "--json") == (0, ["[]"], [])


async def test_a_store_that_nobody_migrated(database: Server) -> None:
    database.admin.flushall()
    code, out, errors = await key(database, "new", "--scope", "send")
    assert (code, out) == (1, [])
    assert errors[-1].startswith("waypost: ")
    code, _, errors = await run("key", "list", WAYPOST_REDIS_URL="redis://127.0.0.1:1")
    assert code == 1
    assert "Traceback" not in "".join(errors)
