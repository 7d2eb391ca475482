"""migrate: a new store, a whole one, a reset one, and two at once."""

import asyncio

import pytest

from migrations import __main__ as migrations
from service.errors import Unavailable
from service.store import Store, StoreRefused
from service.store.functions import FUNCTIONS, library
from tests.integration.store.kit import EPOCH_KEYS, FOREIGN_RUN, Admin, Server, send, to_all

pytestmark = pytest.mark.anyio


def epochs(admin: Admin) -> set[bytes | None]:
    return {admin.hget(fence, "epoch") for fence in EPOCH_KEYS}


async def test_a_new_store(server: Server, admin: Admin) -> None:
    admin.function_flush()
    lines = await migrations.up(server.url)

    assert lines[0].startswith("new store ")
    assert lines[1:] == [f"function {library(name)} loaded" for name in FUNCTIONS]
    assert {name: value for name, value in admin.hgetall("wp:meta").items() if name != b"store"} == {
        b"schema": b"1",
        b"partitions": b"16",
    }
    assert len(epochs(admin)) == 1
    assert sorted(admin.scan_iter()) == sorted(name.encode() for name in (*EPOCH_KEYS, "wp:meta"))
    assert await migrations.up(server.url) == ["nothing to do"]


@pytest.mark.parametrize("gone", ["one epoch", "all epochs", "meta", "disagreement"])
async def test_a_reset_store_starts_a_new_epoch(store: Store, server: Server, admin: Admin, gone: str) -> None:
    store_id = admin.hget("wp:meta", "store")
    match gone:
        case "one epoch":
            admin.delete(EPOCH_KEYS[5])
        case "all epochs":
            admin.delete(*EPOCH_KEYS)
        case "meta":
            admin.delete("wp:meta")
        case _:
            admin.hset(EPOCH_KEYS[5], "epoch", "another")
    lines = await migrations.up(server.url)

    assert len(lines) == 1
    assert "had been reset: a new epoch" in lines[0]
    assert len(epochs(admin)) == 1
    before = store.epoch
    await store.fence_state()
    assert epochs(admin) == {store.epoch.encode()}
    assert store.epoch != before
    assert gone == "meta" or admin.hget("wp:meta", "store") == store_id
    await send(store, to_all("alice"))


async def test_another_run_is_left_to_the_nodes(store: Store, server: Server, admin: Admin) -> None:
    admin.hset(EPOCH_KEYS[2], "run", FOREIGN_RUN)
    assert await migrations.up(server.url) == ["nothing to do"]
    assert not (await store.fence_state()).is_open


async def test_missing_functions_are_loaded_and_others_left_alone(store: Store, server: Server, admin: Admin) -> None:
    admin.function_delete("page_v1")
    admin.function_load("#!lua name=trim_v2\nredis.register_function('trim_v2', function() return 1 end)", replace=True)
    lines = await migrations.up(server.url)
    status = await migrations.status(server.url)
    admin.function_flush()

    assert lines[0] == "function page_v1 loaded"
    assert lines[1].startswith("function trim_v2 on the server has another text")
    assert "function page_v1: loaded" in status
    assert "function trim_v2: differs" in status


async def test_two_at_once_are_harmless(server: Server, admin: Admin) -> None:
    admin.function_flush()
    results = await asyncio.gather(*(migrations.up(server.url) for _ in range(4)))

    assert sum(lines == ["nothing to do"] for lines in results) == 3
    assert len(epochs(admin)) == 1
    assert not admin.exists("wp:migrate")


async def test_a_migration_that_died_is_waited_for(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.set("wp:migrate", "another", px=200)
    assert (await migrations.up(server.url))[0].startswith("new store")

    monkeypatch.setattr(migrations, "_LOCK_MS", 100)
    admin.set("wp:migrate", "another", ex=60)
    with pytest.raises(Unavailable, match="another migration"):
        await migrations.up(server.url)
    assert admin.get("wp:migrate") == b"another"


async def test_a_newer_store_is_refused(store: Store, server: Server, admin: Admin) -> None:
    admin.hset("wp:meta", "schema", "2")
    with pytest.raises(StoreRefused, match="newer"):
        await migrations.up(server.url)
    with pytest.raises(StoreRefused, match="schema 2"):
        await store.check_server()
    admin.hset("wp:meta", "schema", "0")
    with pytest.raises(StoreRefused, match="migrate up"):
        await store.check_server()


async def test_status_tells_without_changing(server: Server, admin: Admin) -> None:
    admin.function_flush()
    lines = await migrations.status(server.url)
    assert lines[:2] == ["schema: none (run `waypost migrate up`)", "epoch: none"]
    assert f"function {library('publish')}: missing" in lines
    assert "partition 0 {10}: reset" in lines
    assert list(admin.scan_iter()) == []

    await migrations.up(server.url)
    admin.hset(EPOCH_KEYS[1], "run", FOREIGN_RUN)
    lines = await migrations.status(server.url)
    assert lines[1:3] == ["schema: 1", "partitions: 16"]
    assert lines[0].startswith("store: ")
    assert f"function {library('publish')}: loaded" in lines
    assert lines[-16:-13] == ["partition 0 {10}: open", "partition 1 {3}: fenced", "partition 2 {61}: open"]


def test_the_command(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrations.main(["up"]) == 2
    assert migrations.main(["down", server.url]) == 2
    assert "usage" in capsys.readouterr().err
    assert migrations.main(["up", server.url]) == 0
    assert capsys.readouterr().out.startswith("new store ")
    assert migrations.main(["status", server.url]) == 0
    assert migrations.main(["up", f"{server.url}.nowhere"]) == 1
    assert "cannot connect" in capsys.readouterr().err
    assert migrations.main(["status", "http://nowhere"]) == 1
