"""The database comes back with less than it had: with an older file, a shorter one, or none.

`appendfsync always` does not lose what it answered; `everysec` may lose a second, an operator may restore a backup, a
disk may lose a tail. Nodes know which ids were given out, so no number comes twice, and the stretch is announced.
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.core.names import parse_id
from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist, run_cli
from tests.e2e.kit import true
from tests.integration.store.kit import EPOCH_KEYS, Server
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio

on_valkey = pytest.mark.parametrize("database", ["valkey"], indirect=True)


def files(database: Server) -> Path:
    """The folder of the append-only files."""
    return database.folder / "appendonlydir"


async def lose_what_follows(database: Server, keep: Path) -> None:
    """The database is killed, and comes back with the files of `keep`."""
    await asyncio.to_thread(database.kill)
    shutil.rmtree(files(database))
    shutil.copytree(keep, files(database))
    await asyncio.to_thread(database.start)


async def with_ten(node: NodeProcess) -> tuple[Phone, Phone, str]:
    """Alice, bob's phone, and where bob's laptop, now away, has acknowledged ten messages."""
    alice, phone = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    laptop = await Phone.open(node.url, "bob", "laptop")
    await alice.send_all("user:bob", range(10))
    await laptop.until(lambda: len(laptop.messages()) == 10, "ten")
    offset = laptop.last_ids()["user:bob"]
    await laptop.ack(user_bob=offset)
    await laptop.leave()
    return alice, phone, offset


async def is_told_what_was_lost(
    node: NodeProcess, phone: Phone, offset: str, kept: Sequence[object], lost: Sequence[object]
) -> None:
    """A phone that had everything goes on without a gap; a laptop that was away is told how much is gone."""
    await phone.wait("message", body="after")
    assert phone.bodies() == [*range(10), *kept, *lost, "after"]
    assert phone.gaps() == []
    ids = [parse_id(message["id"]) for message in phone.messages()]
    assert [entry.n for entry in ids] == list(range(1, len(ids) + 1))  # no number was given out twice

    laptop = await Phone.open(node.url, "bob", "laptop")
    [gap] = laptop.gaps()
    after, to, following = str(ids[9 + len(kept)]), str(ids[-2]), str(ids[-1])
    assert gap.items() >= {"after": after, "to": to, "next": following, "missed": len(lost)}.items()
    assert gap["cause"]["kind"] == "lost"
    assert laptop.bodies() == [*kept, "after"]
    assert laptop.welcome()["streams"]["user:bob"]["offset"] == offset


async def test_an_older_file_put_back_is_a_lost_stretch_to_who_lacks_it_and_nothing_to_who_had_it(
    database: Server, start_nodes: StartNodes
) -> None:
    database.admin.config_set("appendfsync", "everysec")
    [node] = start_nodes("a")
    alice, phone, offset = await with_ten(node)
    await asyncio.to_thread(shutil.copytree, files(database), database.folder / "older")
    answers = await alice.send_all("user:bob", range(10, 15))
    assert {answer["durability"] for answer in answers} == {"memory"}  # which is what it turns out to have been
    await phone.wait("message", body=14)
    await lose_what_follows(database, database.folder / "older")

    await insist(alice, "user:bob", "after", key="k")
    await is_told_what_was_lost(node, phone, offset, [], range(10, 15))
    assert phone.closed is alice.closed is None


@on_valkey
async def test_a_file_that_lost_its_tail_is_a_lost_stretch_too(database: Server, start_nodes: StartNodes) -> None:
    [node] = start_nodes("a")
    alice, phone, offset = await with_ten(node)
    await alice.send_all("user:bob", range(10, 12))
    await alice.send_all("user:bob", [f"{number} in the tail" for number in range(12, 15)])
    await phone.wait("message", body="14 in the tail")
    await asyncio.to_thread(database.kill)
    [file] = files(database).glob("*.incr.aof")
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(b"12 in the tail") + 3])  # in the middle of a command
    await asyncio.to_thread(database.start)

    await insist(alice, "user:bob", "after", key="k")
    await is_told_what_was_lost(node, phone, offset, [10, 11], ["12 in the tail", "13 in the tail", "14 in the tail"])


@on_valkey
async def test_a_database_that_comes_back_empty_is_refused_until_an_operator_has_spoken(
    database: Server, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, phone, _ = await with_ten(node)
    had, epoch = phone.last_ids(), phone.welcome()["epoch"]
    (database.folder / "nothing").mkdir()
    await lose_what_follows(database, database.folder / "nothing")

    await true(lambda: any("waypost migrate up" in reason for reason in node.reasons() or []), "the node says it")
    refused = await alice.send("user:bob", "into the void")
    assert (refused["code"], refused["retry"]) == ("unavailable", True)
    late = await Phone.dial(node.url, "bob")
    await late.say(type="hello", device="laptop")
    assert await late.ends() == 4000
    assert [frame["type"] for frame in late.frames] == ["error"]  # nobody is told to be up to date
    assert not database.admin.exists(*EPOCH_KEYS, "wp:meta")

    both = await asyncio.gather(*(run_cli(database, "migrate", "up") for _ in range(2)))  # two operators at once
    assert [code for code, _ in both] == [0, 0]
    assert sum("epoch" in said for _, said in both) == 1, both
    await true(node.is_ready, "ready again")
    assert await phone.ends() == 4000
    alice = await Phone.open(node.url, "alice")
    await alice.send_all("user:bob", ["a new beginning"])
    phone = await Phone.open(node.url, "bob", "phone", offsets=had, epoch=epoch)
    [gap] = [gap for gap in phone.gaps() if gap["stream"] == "user:bob"]
    assert (gap["after"], gap["missed"], gap["cause"]["kind"]) == (had["user:bob"], None, "epoch")
    assert phone.bodies() == ["a new beginning"]
