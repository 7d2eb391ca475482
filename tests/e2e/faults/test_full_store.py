"""A full store refuses what would fill it further, takes no number for it, and everything that drains goes on."""

import pytest

from service.core.names import parse_id
from service.store import Store, TrimCause
from tests.e2e.faults.conftest import StartNodes
from tests.e2e.faults.kit import insist, mailboxes
from tests.e2e.kit import true
from tests.integration.store.kit import Server, head_of
from tests.integration.wire.kit import join, leave, stored_offset
from tests.service import Phone

pytestmark = pytest.mark.anyio


def beats(database: Server) -> dict[str, int]:
    """For each mailbox of the node, how many entries it has had: while nobody sends, these are beats."""
    return {name: database.admin.xinfo_stream(name)["entries-added"] for name in mailboxes(database, "a")}


async def test_sends_are_refused_while_acks_pages_leases_and_trims_go_on_and_then_all_goes_on(
    database: Server, start_nodes: StartNodes, store: Store
) -> None:
    [node] = start_nodes("a", beat_s=0.4, not_ready_s=1, mailbox_ttl_s=2)
    alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob", "phone")
    for member in (alice, bob):
        await join(member, "g")
    await (await Phone.open(node.url, "bob", "away")).leave()
    sent = await alice.send_all("group:g", [[number, "x" * 1000] for number in range(200)])
    await bob.until(lambda: len(bob.messages()) == 200, "all of it")
    head = head_of(database.admin, "group:g")
    database.admin.config_set("maxmemory", "1mb")  # it uses more

    for to in ("group:g", "user:bob", "all"):
        refused = await alice.send(to, "one too many", key=to)
        assert (refused["code"], refused["retry"]) == ("storage_full", True)
    unkeyed = await alice.send("group:g", "never stored")
    assert (unkeyed["code"], unkeyed["retry"]) == ("storage_full", True)
    refused = await join(alice, "another")
    assert (refused["code"], refused["retry"]) == ("storage_full", True)
    assert head_of(database.admin, "group:g") == head  # no number was taken

    await bob.ack(group_g=sent[99]["id"])
    assert stored_offset(database, "bob", "phone", "group:g") == sent[99]["id"]
    away = await Phone.open(node.url, "bob", "away")  # a session is opened, and pages are read
    assert [body[0] for body in away.bodies("group:g")] == list(range(200))
    assert (await leave(bob, "g"))["type"] == "left"
    await away.wait("left", stream="group:g", user="bob")  # what a leave says goes through the mailbox
    assert (await store.trim("group:g", parse_id(sent[149]["id"]), TrimCause(policy="p"))).removed == 150 + 2
    known = beats(database)
    await true(
        lambda: all(beats(database).get(name, 0) > had + 3 for name, had in known.items()), "the lease is renewed"
    )
    await true(node.is_ready, "it is ready")
    database.admin.delete(*known)
    await true(lambda: mailboxes(database, "a") - known.keys() and node.is_ready(), "another mailbox is made")
    assert alice.closed is bob.closed is None

    database.admin.config_set("maxmemory", 0)
    stored = await insist(alice, "group:g", "one too many", key="group:g")
    assert (stored["duplicate"], parse_id(stored["id"]).n) == (False, head.n + 2)  # after bob's `left`
    await insist(alice, "user:bob", "one too many", key="user:bob")
    for device in (bob, away):
        await device.wait("message", body="one too many")
        assert device.gaps() == []
