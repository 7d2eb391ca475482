"""Promise 3: what was removed or lost before a device came back is announced, once, with bounds, count and cause."""

import msgspec
import pytest

from migrations import __main__ as migrations
from service.core.names import parse_id
from service.store import Store, TrimCause
from service.store.keys import kind_of
from tests.e2e.conftest import StartNode, StartNodes
from tests.e2e.kit import numbers, true
from tests.integration.store.kit import Server, head_of, key_of
from tests.service import Frame, NodeProcess, Phone

pytestmark = pytest.mark.anyio

CAUSE = TrimCause(policy="group:*", limit="max_entries")


async def in_group(node: NodeProcess, user: str, device: str = "phone") -> Phone:
    """A device that is in group g, and live on it."""
    phone = await Phone.open(node.url, user, device)
    await phone.say(type="join", ref="join", group="g")
    await phone.wait("joined", ref="join")
    return phone


async def put_away(phone: Phone) -> dict[str, str]:
    """Acknowledges everything and hangs up; the offsets."""
    offsets = phone.last_ids()
    await phone.acknowledge(offsets)
    await phone.leave()
    return offsets


def by_hand(at: str | None) -> Frame:
    return {"kind": "trimmed", "policy": "group:*", "limit": "max_entries", "at": at}


async def test_a_trim_while_a_device_is_away_gives_one_exact_gap_and_none_to_one_that_is_up_to_date(
    start_node: StartNode, store: Store
) -> None:
    node = start_node()
    alice = await in_group(node, "alice")
    offset = (await put_away(await in_group(node, "bob")))["group:g"]
    sent = await alice.send_all("group:g", range(50))
    laptop = await Phone.open(node.url, "bob", "laptop")  # up to date, and away when it is trimmed
    await put_away(laptop)
    stays = await Phone.open(node.url, "bob", "stays")  # up to date, and here

    trimmed = await store.trim("group:g", parse_id(sent[29]["id"]), CAUSE)
    assert trimmed.removed == 30 + 2  # and two `joined`

    phone = await Phone.open(node.url, "bob", "phone")
    [gap] = phone.gaps()
    assert gap == {
        "type": "gap",
        "stream": "group:g",
        "after": offset,
        "to": sent[29]["id"],
        "missed": 30,
        "next": sent[30]["id"],
        "cause": by_hand(gap["cause"]["at"]),
    }
    assert gap["cause"]["at"].endswith("Z")
    assert phone.bodies("group:g") == list(range(30, 50))
    assert phone.frames.index(gap) < phone.frames.index(phone.messages("group:g")[0])
    await phone.ack(group_g=gap["to"])
    await phone.leave()

    phone = await Phone.open(node.url, "bob", "phone")  # the gap counted as delivered
    assert phone.gaps() == []
    assert phone.bodies("group:g") == list(range(30, 50))
    laptop = await Phone.open(node.url, "bob", "laptop")
    assert laptop.gaps() == []
    assert laptop.messages() == []
    await alice.send_all("group:g", ["after"])
    for up_to_date in (stays, laptop, phone):
        await up_to_date.wait("message", body="after")
        assert up_to_date.gaps() == []


async def test_a_stream_that_was_emptied_is_a_gap_to_who_was_away_and_nothing_to_who_was_up_to_date(
    start_node: StartNode, store: Store
) -> None:
    node = start_node()
    alice = await in_group(node, "alice")
    offset = (await put_away(await in_group(node, "bob")))["group:g"]
    sent = await alice.send_all("group:g", range(50))
    stays = await Phone.open(node.url, "bob", "stays")
    await put_away(await Phone.open(node.url, "bob", "laptop"))
    head = parse_id(sent[-1]["id"])
    assert (await store.trim("group:g", head, CAUSE, limit=20)).more
    assert not (await store.trim("group:g", head, CAUSE)).more

    laptop = await Phone.open(node.url, "bob", "laptop")
    assert laptop.gaps() == laptop.messages() == stays.gaps() == []
    phone = await Phone.open(node.url, "bob", "phone")
    [gap] = phone.gaps()
    assert (gap["after"], gap["to"], gap["missed"]) == (offset, sent[-1]["id"], 50)
    assert "next" not in gap
    assert gap["cause"] == by_hand(gap["cause"]["at"])
    assert [cause["kind"] for cause in gap["causes"]] == ["trimmed", "trimmed"]  # two steps of no common run
    assert phone.messages() == []

    new_device = await Phone.open(node.url, "bob", "new")  # begins at the point of joining: it is told, too
    assert [(gap["to"], gap["missed"]) for gap in new_device.gaps()] == [(sent[-1]["id"], 50)]
    following = (await alice.send_all("group:g", ["after"]))[0]["id"]
    assert parse_id(following).n == head.n + 1
    for device in (laptop, phone, stays, new_device):
        await device.wait("message", id=following)


async def test_a_trim_between_two_pages_of_a_replay_is_announced_where_it_happened(
    database: Server, start_node: StartNode, store: Store
) -> None:
    node = start_node(limits_write_buffer_bytes=65_536)
    await (await Phone.open(node.url, "bob", "phone")).leave()
    alice = await Phone.open(node.url, "alice")
    pad = "x" * 20_000
    await alice.send_all("user:bob", [[at, pad] for at in range(600)])  # 12 MB: far more than buffers hold

    phone = await Phone.dial(node.url, "bob", receive_buffer=4096)
    phone.stop_reading()
    await phone.say(type="hello", device="phone")
    await phone.until(lambda: phone.frames, "welcome")
    upto = database.admin.xrange(key_of("s", "user:bob"), count=550)[-1][0].decode()
    one_run = msgspec.structs.replace(CAUSE, run="r1")  # its steps, each of half a megabyte, share a line
    removed, has_more = 0, True
    while has_more:
        step = await store.trim("user:bob", parse_id(upto), one_run)
        removed, has_more = removed + step.removed, step.more
    assert removed == 550
    phone.go_on_reading()
    await phone.wait("live")

    # The node may read a page between two steps: then there is more than one gap. Together with what came they add up.
    at = 0
    for frame in phone.frames:
        if frame.get("stream") == "user:bob" and frame["type"] == "message":
            assert parse_id(frame["id"]).n == at + 1
            at += 1
        elif frame["type"] == "gap":
            assert (parse_id(frame["after"]).n, frame["cause"]["policy"]) == (at, "group:*")
            at = parse_id(frame["to"]).n
            assert frame["missed"] == at - parse_id(frame["after"]).n
    assert at == 600
    gaps = phone.gaps()
    assert phone.frames.index(gaps[0]) > 1  # something had come before
    assert gaps[-1]["to"] == upto
    assert phone.bodies()[-50:] == [[number, pad] for number in range(550, 600)]


@pytest.mark.parametrize("brought", ["of another epoch", "above the head", "whose number is another's"])
async def test_an_offset_of_another_history_is_told_and_the_servers_own_counts(
    start_node: StartNode, brought: str
) -> None:
    node = start_node()
    alice = await Phone.open(node.url, "alice")
    phone = await Phone.open(node.url, "bob", "phone")
    sent = await alice.send_all("user:bob", range(10))
    await phone.until(lambda: len(phone.messages()) == 10, "ten")
    ids = [frame["id"] for frame in phone.messages()]
    await phone.ack(user_bob=ids[3])
    await phone.leave()
    assert sent[0]["stream"] == "user:alice"  # the numbers of another person's inbox are shown to nobody

    epoch, offset = {
        "of another epoch": ("0123456789abcdef", ids[7]),
        "above the head": (None, "99999999999999-99"),
        "whose number is another's": (None, f"{parse_id(ids[7]).ms - 3_600_000}-{parse_id(ids[7]).n}"),
    }[brought]
    hello: Frame = {"device": "phone", "offsets": {"user:bob": offset}}
    if epoch is not None:
        hello["epoch"] = epoch
    phone = await Phone.open(node.url, "bob", **hello)
    [gap] = phone.gaps()
    assert (gap["stream"], gap["after"], gap["to"], gap["missed"]) == ("user:bob", offset, ids[3], None)
    assert gap["cause"]["kind"] == "epoch"
    assert phone.bodies("user:bob") == list(range(4, 10))
    await phone.ack(user_bob=ids[9])
    await phone.leave()
    again = await Phone.open(node.url, "bob", "phone")
    assert again.gaps() == again.messages() == []


async def test_a_store_that_was_emptied_refuses_until_an_operator_says_so_and_clients_are_told(
    database: Server, start_nodes: StartNodes
) -> None:
    first, second = start_nodes("first", "second")
    alice = await Phone.open(first.url, "alice")
    bob = await Phone.open(second.url, "bob", "phone")
    await alice.send_all("user:bob", range(10))
    await bob.until(lambda: len(bob.messages()) == 10, "ten")
    await bob.acknowledge(bob.last_ids())
    known, epoch = bob.last_ids(), bob.welcome()["epoch"]
    database.admin.flushall()

    refused = await alice.send("user:bob", "into the void")
    assert (refused["code"], refused["retry"]) == ("unavailable", True)
    for node in (first, second):
        await true(node.reasons, "not ready")
        [reason] = node.reasons() or []
        assert "waypost migrate" in reason
    left = {kind.pattern for kind in map(kind_of, map(bytes.decode, database.admin.keys())) if kind is not None}
    assert left <= {"wp:nodes", "wp:node:<node>", "wp:{p}:m:<node>.<random>"}  # nobody repairs a store that was reset
    assert alice.closed is bob.closed is None
    refused = await alice.send("user:bob", "into the void")
    assert (refused["code"], refused["retry"]) == ("unavailable", True)

    await migrations.up(database.url)
    for node in (first, second):
        await true(node.is_ready, "ready again")
    assert [await phone.ends() for phone in (alice, bob)] == [4000, 4000]
    alice = await Phone.open(first.url, "alice")
    await alice.send_all("user:bob", ["a new beginning"])
    bob = await Phone.open(second.url, "bob", "phone", offsets=known, epoch=epoch)
    assert bob.welcome()["epoch"] != epoch
    [gap] = [gap for gap in bob.gaps() if gap["stream"] == "user:bob"]
    assert (gap["after"], gap["missed"], gap["cause"]["kind"]) == (known["user:bob"], None, "epoch")
    assert bob.bodies("user:bob") == ["a new beginning"]
    await alice.send_all("user:bob", ["and live"])
    await bob.wait("message", body="and live")
    await bob.acknowledge(bob.last_ids())
    await bob.leave()
    bob = await Phone.open(first.url, "bob", "phone")
    assert bob.gaps() == bob.messages() == []


async def test_a_stream_that_was_deleted_by_hand_is_a_gap_and_its_numbers_go_on(
    database: Server, start_node: StartNode
) -> None:
    node = start_node()
    alice = await in_group(node, "alice")
    offset = (await put_away(await in_group(node, "bob")))["group:g"]
    stays = await Phone.open(node.url, "bob", "stays")
    sent = await alice.send_all("group:g", range(10))
    await stays.until(lambda: len(stays.messages()) == 10, "ten")
    assert database.admin.delete(key_of("s", "group:g")) == 1
    [following] = await alice.send_all("group:g", ["after"])

    await stays.wait("message", body="after")
    assert stays.gaps() == []
    assert parse_id(following["id"]).n == parse_id(sent[-1]["id"]).n + 1
    phone = await Phone.open(node.url, "bob", "phone")
    [gap] = phone.gaps()
    assert (gap["after"], parse_id(gap["to"]).n, gap["missed"]) == (offset, parse_id(sent[-1]["id"]).n, 10)
    assert (gap["next"], gap["cause"]["kind"]) == (following["id"], "lost")
    assert phone.bodies("group:g") == ["after"]
    await phone.ack(group_g=gap["to"])
    await phone.leave()
    phone = await Phone.open(node.url, "bob", "phone")
    assert phone.gaps() == []
    assert phone.bodies("group:g") == ["after"]


@pytest.mark.parametrize("trimmed", [False, True], ids=["whole", "trimmed before"])
async def test_a_head_that_was_deleted_by_hand_gives_no_number_twice_and_no_connection_stays_deaf(
    database: Server, start_node: StartNode, store: Store, trimmed: bool
) -> None:
    node = start_node(audit_s=1)
    alice = await in_group(node, "alice")
    offset = (await put_away(await in_group(node, "bob")))["group:g"]
    stays = await Phone.open(node.url, "bob", "stays")
    sent = await alice.send_all("group:g", range(10))
    await stays.until(lambda: len(stays.messages()) == 10, "ten")
    if trimmed:
        await store.trim("group:g", parse_id(sent[4]["id"]), CAUSE)
    assert database.admin.delete(key_of("h", "group:g")) == 1  # and with it the register
    following = await alice.send_all("group:g", ["after"])

    await stays.wait("message", body="after")  # the audit registers again
    assert numbers(stays, "group:g") == list(range(3, 14))
    assert stays.gaps() == []
    assert parse_id(following[0]["id"]).n == parse_id(sent[-1]["id"]).n + 1
    phone = await Phone.open(node.url, "bob", "phone")
    # The floor is gone with the head: that something is missing is told, and how much; the cause is as good as lost.
    gaps = [(gap["after"], parse_id(gap["to"]).n, gap["missed"]) for gap in phone.gaps()]
    assert gaps == ([(offset, parse_id(sent[4]["id"]).n, 5)] if trimmed else [])
    assert phone.bodies("group:g") == [*range(5 if trimmed else 0, 10), "after"]


async def test_a_stream_that_was_deleted_with_its_head_is_found_and_its_numbers_go_on(
    database: Server, start_node: StartNode
) -> None:
    node = start_node(audit_s=1)
    alice = await in_group(node, "alice")
    offset = (await put_away(await in_group(node, "bob")))["group:g"]
    stays = await Phone.open(node.url, "bob", "stays")
    sent = await alice.send_all("group:g", range(10))
    await stays.until(lambda: len(stays.messages()) == 10, "ten")
    assert database.admin.delete(key_of("s", "group:g"), key_of("h", "group:g")) == 2
    await true(lambda: str(head_of(database.admin, "group:g")) == sent[-1]["id"], "the audit finds it")

    [following] = await alice.send_all("group:g", ["after"])
    assert parse_id(following["id"]).n == parse_id(sent[-1]["id"]).n + 1
    await stays.wait("message", body="after")
    assert stays.gaps() == alice.gaps() == []
    phone = await Phone.open(node.url, "bob", "phone")
    [gap] = phone.gaps()
    assert (gap["after"], gap["to"], gap["missed"]) == (offset, sent[-1]["id"], 10)
    assert (gap["next"], gap["cause"]["kind"]) == (following["id"], "lost")
    assert phone.bodies("group:g") == ["after"]


async def test_a_stream_that_began_anew_is_told_to_everybody_once(database: Server, start_node: StartNode) -> None:
    node = start_node(audit_s=1)
    alice = await in_group(node, "alice")
    await put_away(await in_group(node, "bob"))
    stays = await Phone.open(node.url, "bob", "stays")
    await alice.send_all("group:g", range(10))
    await stays.until(lambda: len(stays.messages()) == 10, "ten")
    pipeline = database.admin.pipeline()  # deleted, and written to before anybody could look
    pipeline.delete(key_of("s", "group:g"), key_of("h", "group:g"))
    later = parse_id(stays.messages()[-1]["id"]).ms + 1
    fields = {"t": "message", "f": "alice", "o": "group:g", "i": "m", "b": '"anew"'}
    pipeline.xadd(key_of("s", "group:g"), fields, id=f"{later}-1")
    pipeline.hset(key_of("h", "group:g"), "head", f"{later}-1")
    pipeline.execute()

    await stays.wait("message", body="anew")
    [answer] = await alice.send_all("group:g", ["after"])
    for member in (stays, alice):
        await member.until(lambda m=member: answer["id"] in m.last_ids().values(), "after")  # type: ignore[misc]
        assert {gap["cause"]["kind"] for gap in member.gaps()} == {"epoch"}
        assert len(member.gaps()) <= 2  # to the point of joining, which is void too, and to the beginning
    phone = await Phone.open(node.url, "bob", "phone")
    assert {gap["cause"]["kind"] for gap in phone.gaps()} == {"epoch"}
    assert phone.bodies("group:g") == ["anew", "after"]
