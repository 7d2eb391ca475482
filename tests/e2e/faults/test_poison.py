"""Entries that cannot be read, or are larger than anybody sends: they keep their place, and nobody is stuck."""

import signal
from collections.abc import Mapping

import pytest

from service.core.names import EntryId, parse_id
from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import mailboxes
from tests.e2e.kit import numbers, true
from tests.integration.store.kit import Server, head_of, key_of
from tests.integration.wire.kit import join
from tests.service import Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]

POISON: dict[str, dict[str, str | bytes]] = {
    "no UTF-8": {"t": "message", "f": "alice", "o": "group:g", "b": b'"\xff"'},
    "no JSON": {"t": "message", "f": "alice", "o": "group:g", "b": "{not json"},
    "no body": {"t": "message", "f": "alice", "o": "group:g"},
    "no UTF-8 in a name": {"t": "message", "f": b"\xff\xfe", "o": "group:g", "b": "1"},
    "nothing that is known": {"x": "y", "id": "9-9", "stream": "user:eve"},
}
READABLE: dict[str, dict[str, str | bytes]] = {
    "poll": {"t": "poll", "f": "alice", "o": "group:g", "b": '{"question":"?"}'},  # a type of a later release
    "message": {"t": "message", "f": "alice", "o": "group:g", "b": '["a body",\n"of two lines"]'},
}


def add_by_hand(database: Server, fields: Mapping[str, str | bytes]) -> EntryId:
    """Puts an entry into the group's stream, as a node of another release or a broken one might."""
    head = head_of(database.admin, "group:g")
    entry = EntryId(head.ms, head.n + 1)
    database.admin.xadd(key_of("s", "group:g"), dict(fields), id=str(entry))
    database.admin.hset(key_of("h", "group:g"), "head", str(entry))
    return entry


async def test_entries_that_cannot_be_read_keep_their_place_and_hold_up_nobody(
    database: Server, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    for member in (alice, bob):
        await join(member, "g")
    types: list[str] = []
    for fields in POISON.values():
        add_by_hand(database, fields)
        await alice.send_all("group:g", ["between"])
        types += ["unknown", "message"]
    for type_, fields in READABLE.items():
        add_by_hand(database, fields)
        types.append(type_)
    await alice.send_all("group:g", ["after"])

    await bob.wait("message", body="after")
    new = await Phone.open(node.url, "bob", "new")
    for device in (bob, new):
        seen = [frame for frame in device.frames if frame.get("stream") == "group:g" and "ref" not in frame]
        seen = [frame for frame in seen if "id" in frame]
        assert [frame["type"] for frame in seen] == [*types, "message"]
        assert [parse_id(frame["id"]).n for frame in seen] == list(range(3, 3 + len(seen)))
        assert [frame["body"] for frame in seen[-3:]] == [{"question": "?"}, ["a body", "of two lines"], "after"]
        assert device.gaps() == []
        await device.acknowledge(device.last_ids())  # they count like any entry
        assert device.closed is None


async def test_entries_of_a_mailbox_that_cannot_be_read_cost_nobody_a_message(
    database: Server, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
    for at in range(3):
        known = mailboxes(database, "a")
        [mailbox] = known
        database.admin.execute_command("XADD", mailbox, "1-*", "r", "rubbish")
        for number in range(10):
            await alice.say(type="send", ref=f"{at}-{number}", to="user:bob", body=[at, number])
        await bob.until(lambda at=at: [at, 9] in bob.bodies(), "all of it")  # type: ignore[misc]
        await true(lambda known=known: len(mailboxes(database, "a") - known) == 1, "another mailbox")  # type: ignore[misc]
        await true(lambda known=known: not mailboxes(database, "a") & known, "the old one is dropped")  # type: ignore[misc]
    assert bob.bodies() == [[at, number] for at in range(3) for number in range(10)]
    assert numbers(bob, "user:bob") == list(range(1, 31))


async def test_an_entry_far_larger_than_a_page_is_delivered_once_and_the_next_one_too(
    database: Server, start_nodes: StartNodes
) -> None:
    [node] = start_nodes("a")
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    for member in (alice, bob):
        await join(member, "g")
    large = "x" * 5_000_000  # nobody can send this
    add_by_hand(database, {"t": "message", "f": "alice", "o": "group:g", "b": f'"{large}"'})
    await alice.send_all("group:g", ["after"])
    new = await Phone.open(node.url, "bob", "new")
    for device in (bob, new):
        await device.until(lambda device=device: "after" in device.bodies(), "after")  # type: ignore[misc]
        assert device.bodies("group:g") == [large, "after"]
        assert device.gaps() == []


async def test_a_burst_is_read_in_parts_that_the_server_lets_go(database: Server, start_nodes: StartNodes) -> None:
    sending, reading = start_nodes("sending", "reading")
    database.admin.config_set("client-output-buffer-limit", "normal 600000 0 0")
    alice, bob = await Phone.open(sending.url, "alice"), await Phone.open(reading.url, "bob")
    reading.signal(signal.SIGSTOP)
    body = "x" * 4000  # 400 of them wait in the mailbox, and more than a third at once would be too much for the server
    await alice.send_all("user:bob", [[number, body] for number in range(400)])
    said = len(reading.said())
    reading.signal(signal.SIGCONT)

    await bob.until(lambda: len(bob.messages()) == 400, "all of it")
    assert [number for number, _ in bob.bodies()] == list(range(400))
    await true(reading.is_ready, "ready again")
    assert "mailbox_doubted" not in reading.said()[said:]
    await alice.send_all("user:bob", ["after"])
    await bob.wait("message", body="after")
    assert bob.gaps() == []
