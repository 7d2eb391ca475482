"""`waypost retention plan|run|log` as an operator meets them: real processes on a real store."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from migrations import __main__ as migrations
from service.store import Store, StoreOptions
from tests.integration.cli.test_client_commands import run
from tests.integration.store.kit import Admin, Server, numbers_in
from tests.integration.store.stock import device, now_ms, stock

pytestmark = pytest.mark.anyio

POLICIES = """
[[retention.policies]]
match = "group:*"
max_entries = 5
[[retention.policies]]
match = "user:bob"
max_age = "10s"
hold_unread = "1d"
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with Server("valkey") as server:
        yield server


@pytest.fixture
async def admin(database: Server) -> Admin:
    database.admin.flushall()
    await migrations.up(database.url)
    return database.admin


@pytest.fixture
async def store(database: Server, admin: Admin) -> AsyncIterator[Store]:
    store = await Store.connect(database.url, options=StoreOptions())
    await store.check_server()
    yield store
    await store.close()


@pytest.fixture
def given(database: Server, tmp_path: Path) -> dict[str, str]:
    """The variables that name the store and the policies."""
    path = tmp_path / "waypost.toml"
    path.write_text(POLICIES)
    return {"WAYPOST_REDIS_URL": database.url, "WAYPOST_CONFIG": str(path)}


async def fill(store: Store, admin: Admin) -> None:
    """Nine messages in a group whose member has read two of them; three in bob's inbox, none read by his phone."""
    await store.open_session("alice", "phone", "n", {}, is_foreign=False)
    await store.join("alice", "g", mailbox="", origin=None)
    ids = stock(admin, "group:g", [-0.001 * number for number in range(1, 10)])
    stock(admin, "user:bob", [30, 20, 10])
    now = now_ms(admin)
    device(admin, "alice", "phone", seen_ms=now, offsets={"group:g": ids[1]})
    device(admin, "bob", "phone", seen_ms=now, offsets={"user:bob": type(ids[0])(0, 0)})


async def test_a_plan_tells_what_would_go_and_changes_nothing(
    store: Store, admin: Admin, given: dict[str, str]
) -> None:
    await fill(store, admin)
    code, out, errors = await run("retention", "plan", "--json", **given)
    assert (code, errors) == (0, [])
    plan = json.loads("\n".join(out))
    assert (plan["streams"], plan["entries"], plan["unread_messages"], plan["unread_devices"]) == (3, 5, 2, 1)
    [worst] = plan["worst"]
    assert (worst["stream"], worst["policy"], worst["limits"]) == ("group:g", "group:*", {"max_entries=5": 5})
    policies = {policy["policy"]: policy for policy in plan["policies"]}
    assert list(policies) == ["user:*", "group:*", "all", "user:bob"]
    assert policies["group:*"]["source"] == f"{given['WAYPOST_CONFIG']} [[retention.policies]] 1"
    assert policies["user:*"]["source"] == "built in"
    assert policies["user:bob"]["entries"] == 0
    assert policies["user:bob"]["horizon_s"] == 86_400
    assert numbers_in(admin, "group:g") == list(range(1, 11))

    code, out, _ = await run("retention", "plan", **given)
    text = "\n".join(out)
    assert code == 0
    for words in (
        "nothing was changed",
        "max_entries=5: 5",
        "2 (1 device)",
        "2 unread messages would be lost for good",
    ):
        assert words in text


async def test_both_plan_and_run_refuse_when_too_much_unread_would_be_lost(
    store: Store, admin: Admin, given: dict[str, str]
) -> None:
    await fill(store, admin)
    for action in ("plan", "run"):
        code, _, errors = await run("retention", action, "--max-unread-lost", "1", **given)
        assert code == 1
        assert errors[-1] == (
            "waypost: refused: 2 unread messages would be lost to 1 device; --max-unread-lost allows 1"
        )
    assert len(numbers_in(admin, "group:g")) == 10
    code, _, _ = await run("retention", "plan", "--max-unread-lost", "2", **given)
    assert code == 0
    code, out, _ = await run("retention", "run", "--max-unread-lost", "2", "--json", **given)
    report = json.loads("\n".join(out))
    assert code == 0
    assert (report["state"], report["streams_seen"], report["streams_trimmed"]) == ("done", 3, 1)
    assert (report["entries_removed"], report["unread_removed"], report["errors"]) == (5, 2, [])
    assert 100 < report["bytes_removed"] < 300
    assert report["oldest_kept_ms"] <= now_ms(admin) - 29_000
    assert len(numbers_in(admin, "group:g")) == 5
    assert len(numbers_in(admin, "user:bob")) == 3  # held


async def test_a_run_on_one_stream_leaves_the_others_and_the_log_tells_of_both(
    store: Store, admin: Admin, given: dict[str, str]
) -> None:
    await fill(store, admin)
    code, out, _ = await run("retention", "log", **given)
    assert (code, out) == (0, ["no run yet"])
    code, _, _ = await run("retention", "run", "--stream", "user:bob", "--stream", "all", **given)
    assert (code, len(numbers_in(admin, "group:g"))) == (0, 10)
    code, _, _ = await run("retention", "run", **given)
    assert (code, len(numbers_in(admin, "group:g"))) == (0, 5)
    code, out, _ = await run("retention", "log", "--json", **given)
    assert [report["entries_removed"] for report in json.loads("\n".join(out))] == [5, 0]
    code, out, _ = await run("retention", "log", "--limit", "1", **given)
    assert len(out) == 2  # a head, and the newest run
    assert " done " in out[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retention", "plan", "--stream", "groups"), "groups"),
        (("retention", "plan", "--max-unread-lost", "-1"), "-1"),
        (("retention",), "plan|run|log"),
        (("retention", "log", "--limit", "few"), "few"),
    ],
)
async def test_what_cannot_be_meant_is_refused(words: tuple[str, ...], said: str, given: dict[str, str]) -> None:
    code, _, errors = await run(*words, **given)
    assert code == 2
    assert said in errors[-1]


async def test_without_a_store_it_says_so(given: dict[str, str], tmp_path: Path) -> None:
    for action in ("plan", "run", "log"):
        code, _, errors = await run("retention", action, WAYPOST_DATA_DIR=str(tmp_path))
        assert (code, errors) == (1, ["waypost: no store: set WAYPOST_REDIS_URL or give --redis-url"])
    away = given | {"WAYPOST_REDIS_URL": f"unix://{tmp_path}/nobody.sock"}
    for action in ("plan", "run", "log"):
        code, _, errors = await asyncio.wait_for(run("retention", action, **away), 30)
        assert code == 1
        assert "cannot connect" in errors[-1]
