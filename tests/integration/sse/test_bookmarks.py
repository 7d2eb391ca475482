"""Coming back with a bookmark: nothing is lost and nothing comes twice, whatever has happened meanwhile; and bookmarks
that are not one's own give nothing.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from service.core.bookmarks import FULL, new_base
from service.core.names import EntryId, parse_id
from service.store import Outgoing, Store, TrimCause
from tests.events import EventPhone
from tests.integration.sse.kit import EventNet, come_back
from tests.integration.store.kit import Server, key_of, leaks
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import eventually, join, leave, stored_offset
from tests.service import Frame
from tests.tokens import open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(database: Server) -> AsyncIterator[Store]:
    store = await open_store(database.url)
    yield store
    await store.close()


def to_group(group: str, sender: str, body: object) -> Outgoing:
    return Outgoing("group", sender, f"group:{group}", f"m{body}", f'"{body}"'.encode(), "speaker", None, None)


async def send_each(store: Store, sender: str, groups: list[str], body: object) -> None:
    """One message to each of these groups."""
    for at in range(0, len(groups), 200):
        outcomes = await store.publish([to_group(group, sender, body) for group in groups[at : at + 200]], "")
        assert not any(outcome.code for outcome in outcomes)


# -- what it says ------------------------------------------------------------------------------------------------------


async def test_it_goes_on_after_the_last_event_in_every_stream(
    net: EventNet, database: Server, alice: str, bob: str, group: str
) -> None:
    sender, phone = await net.speaker(alice), await net.listen(bob)
    for one in (sender, phone):
        await join(one, group)
    for number in range(3):
        for to in (f"user:{bob}", f"group:{group}", "all"):
            await sender.send(to, number)
    await phone.until(lambda: len(phone.messages()) == 9, "all")
    await phone.leave()
    for to in (f"user:{bob}", f"group:{group}", "all"):
        await sender.send(to, "missed")
    again = await come_back(phone)
    await again.wait("live")
    assert sorted(again.bodies(stream) for stream in (f"user:{bob}", f"group:{group}", "all")) == [["missed"]] * 3
    # Coming back acknowledges what had come, as a device must make progress that cannot say `ack`.
    last = phone.last_ids()
    for stream in (f"user:{bob}", f"group:{group}", "all"):
        assert stored_offset(database, bob, "default", stream) == last[stream]
    await again.leave()
    assert [frame for frame in (await net.listen(bob)).bodies() if frame != "missed"] == []
    assert not leaks(database.admin)


async def test_the_header_counts_before_the_query(net: EventNet, alice: str, bob: str) -> None:
    sender, phone = await net.speaker(alice), await net.listen(bob)
    bookmarks = []
    for number in range(3):
        await sender.send(f"user:{bob}", number)
        await phone.wait("message", body=number)
        bookmarks.append(phone.bookmark)
    first = EventPhone(net.node.url, bob, last_event_id=bookmarks[0])
    await first.listen()
    await first.wait("live")
    assert first.bodies() == [1, 2]
    second = EventPhone(net.node.url, bob, last_event_id=bookmarks[0])
    await second.listen(bookmarks[1])
    await second.wait("live")
    assert second.bodies() == [2]


async def test_acknowledging_by_http_moves_where_a_new_page_begins(net: EventNet, alice: str, bob: str) -> None:
    sender, phone = await net.speaker(alice), await net.listen(bob)
    for number in range(4):
        await sender.send(f"user:{bob}", number)
    await phone.wait("message", body=3)
    await phone.ack(**{f"user_{bob}": phone.messages()[1]["id"]})
    assert (await net.listen(bob)).bodies() == [2, 3]


async def test_two_pages_of_one_device_each_go_on_from_where_they_were(net: EventNet, alice: str, bob: str) -> None:
    sender, one, two = await net.speaker(alice), await net.listen(bob), await net.listen(bob)
    await sender.send(f"user:{bob}", 0)
    for phone in (one, two):
        await phone.wait("message", body=0)
        await phone.leave()
    await sender.send(f"user:{bob}", 1)
    two_again = await come_back(two)
    await two_again.wait("message", body=1)
    await two_again.leave()
    await (await come_back(two_again)).wait("live")  # the device has acknowledged 1
    one_again = await come_back(one)
    await one_again.wait("live")
    assert one_again.bodies() == [1]


async def test_a_stream_that_was_trimmed_meanwhile_is_a_gap_once(
    net: EventNet, store: Store, alice: str, bob: str
) -> None:
    sender, phone = await net.speaker(alice), await net.listen(bob)
    await sender.send(f"user:{bob}", 0)
    await phone.wait("message", body=0)
    await phone.leave()
    other = await net.listen(bob, "other")
    for number in range(1, 6):
        await sender.send(f"user:{bob}", number)
    third = await other.wait("message", body=3)
    await store.trim(f"user:{bob}", parse_id(third["id"]), TrimCause(policy="by hand"))
    again = await come_back(phone)
    await again.wait("live")
    [gap] = again.gaps()
    assert (gap["missed"], again.bodies()) == (3, [4, 5])
    await again.leave()
    later = await come_back(again)
    await later.wait("live")
    assert (later.gaps(), later.bodies()) == ([], [])


async def test_joining_and_leaving_between_is_what_it_would_have_been(
    net: EventNet, alice: str, bob: str, fresh: Callable[[str], str]
) -> None:
    stays, left, new, again_in = groups = [fresh("g") for _ in range(4)]
    sender, phone, laptop = await net.speaker(alice), await net.listen(bob, "web"), await net.listen(bob, "laptop")
    for group in groups:
        await join(sender, group)
    for group in (stays, left, again_in):
        await join(phone, group)
        await sender.send(f"group:{group}", "before")
    await phone.until(lambda: len(phone.messages()) == 3, "all before")
    await phone.leave()
    await sender.send(f"group:{left}", "still a member")
    for group in (left, again_in):
        await leave(laptop, group)
        await sender.send(f"group:{group}", "for strangers")
    for group in (again_in, new):
        await join(laptop, group)
    for group in groups:
        await sender.send(f"group:{group}", "after")
    for _ in range(2):
        phone = await come_back(phone)
        await phone.wait("live")
        await sender.send(f"group:{new}", "mark")
        await phone.wait("message", body="mark")
        told = {group: [body for body in phone.bodies(f"group:{group}") if body != "mark"] for group in groups}
        if told[stays]:
            assert told == {stays: ["after"], left: ["still a member"], again_in: ["after"], new: ["after"]}
        else:
            assert set(map(tuple, told.values())) == {()}
        await phone.leave()


# -- bookmarks that say nothing ----------------------------------------------------------------------------------------


async def test_a_bookmark_of_somebody_else_or_of_another_device_gives_nothing(
    net: EventNet, alice: str, bob: str, group: str
) -> None:
    phone, member, eve = await net.listen(bob, "web"), await net.speaker(alice), await net.listen("eve" + bob, "web")
    for one in (member, phone):
        await join(one, group)
    for number in range(2):
        await member.send(f"user:{bob}", f"secret {number}")
        await member.send(f"user:{eve.user}", f"for eve {number}")
    await phone.wait("message", body="secret 1")
    await eve.wait("message", body="for eve 1")
    thief = EventPhone(net.node.url, eve.user, device="web")
    await thief.listen(phone.bookmark)
    await thief.wait("live")
    assert set(thief.welcome()["streams"]) == {f"user:{eve.user}", "all"}
    assert thief.bodies(f"user:{eve.user}") == ["for eve 0", "for eve 1"]
    assert thief.gaps() == []
    assert "secret" not in str(thief.frames)
    other_device = EventPhone(net.node.url, bob, device="other")
    await other_device.listen(phone.bookmark)
    await other_device.wait("live")
    assert other_device.bodies(f"user:{bob}") == ["secret 0", "secret 1"]


MANGLED = [
    "x", "0", ".", "~", "0123456789", "0123456789.0~1~1", "{base}.9~1~1", "{base}.0~1", "{base}.0~1~1~1",
    "{base}.0~z_z~1", "{base}.0~ ~1", "{base}.-1~1~1", "{base}.0~-zzzzzzzz~-5", "{base}.0~zzzzzzzzzzzz~1",
    "{base}.~~1~1", "{base}.~!!~1~1", "{base}.~bm9uZQ~1~1", "{base}..", "{base}.0~1~1.", "{base}" + ".0~1~1" * 800,
    "{base}.0~\xb2~1", "'; FLUSHALL", "end.end.x", "%00",
]  # fmt: skip


async def test_what_is_no_bookmark_begins_where_the_device_stands(net: EventNet, alice: str, bob: str) -> None:
    sender, phone = await net.speaker(alice), await net.listen(bob)
    for number in range(3):
        await sender.send(f"user:{bob}", number)
    await phone.wait("message", body=2)
    await phone.ack(**{f"user_{bob}": phone.messages()[0]["id"]})
    base = phone.bookmark.split(".")[0]
    for mangled in MANGLED:
        text = mangled.format(base=base)
        other = EventPhone(net.node.url, bob, **({"last_event_id": text} if text.startswith("end") else {}))
        await other.listen("" if text.startswith("end") else text)
        await other.wait("live")
        assert other.bodies() == [1, 2], text
        assert other.gaps() == []
        await other.leave()


async def test_a_base_that_is_gone_begins_where_the_device_stands(
    net: EventNet, database: Server, alice: str, bob: str
) -> None:
    sender, phone = await net.speaker(alice), await net.listen(bob)
    await sender.send(f"user:{bob}", "x")
    await phone.wait("message", body="x")
    assert database.admin.delete(key_of("v", f"user:{bob}", f"{bob}/default")) == 1
    again = await come_back(phone)
    await again.wait("live")
    assert again.bodies() == ["x"]  # nothing is lost; it was not acknowledged, so it comes twice


async def test_a_bookmark_of_another_epoch_is_told_as_a_gap(net: EventNet, store: Store, alice: str, bob: str) -> None:
    sender, phone = await net.speaker(alice), await net.listen(bob)
    await sender.send(f"user:{bob}", "x")
    await phone.wait("message", body="x")
    at = parse_id(phone.messages()[0]["id"])
    for epoch, there in (("another", at), (store.epoch, EntryId(at.ms + 5, at.n + 7))):
        foreign = new_base(epoch, {f"user:{bob}": there})
        kept = new_base(store.epoch, {})
        await store.keep_base(bob, "default", kept, origin="", forget=(), keep_s=60)
        store_key = key_of("v", f"user:{bob}", f"{bob}/default")
        await store._context.link.call("HSET", store_key, foreign.name, foreign.encode(), is_write=True)
        other = EventPhone(net.node.url, bob)
        await other.listen(foreign.name)
        await other.wait("live")
        [gap] = other.gaps()
        assert (gap["cause"]["kind"], gap["after"], gap["missed"]) == ("epoch", str(there), None)
        assert other.bodies() == (["x"] if epoch == "another" else [])  # then it is acknowledged
        await other.leave()
        again = await come_back(other)
        await again.wait("live")
        assert (again.gaps(), again.bodies()) == ([], [])
        await again.leave()


# -- many streams, many cuts -------------------------------------------------------------------------------------------


class Ledger:
    """What a client has over all its connections."""

    def __init__(self, phone: EventPhone) -> None:
        self.phone = phone
        self.had: dict[str, list[int]] = {}
        self.longest = 0

    async def cut_and_come_back(self, url: str = "") -> None:
        self.phone.cut()
        await self.phone._reading
        self.take()
        self.phone = await come_back(self.phone, url)

    def take(self) -> None:
        if self.phone._problem is not None:
            raise self.phone._problem
        for frame in self.phone.frames:
            if frame["type"] in ("message", "joined", "left"):
                self.had.setdefault(frame["stream"], []).append(parse_id(frame["id"]).n)
            assert frame["type"] != "gap"
        self.longest = max(self.longest, len(self.phone.bookmark))
        self.phone.frames.clear()

    def check(self, heads: dict[str, int], begun: dict[str, int]) -> None:
        self.take()
        for stream, head in heads.items():
            expected = list(range(begun.get(stream, 0) + 1, head + 1))
            assert self.had.get(stream, []) == expected, (stream, expected[-1:], self.had.get(stream, [])[-3:])


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_stream_that_is_cut_anywhere_loses_nothing_and_gets_nothing_twice(
    net: EventNet, start_node: StartNode, store: Store, fresh: Callable[[str], str], seed: int
) -> None:
    chance = random.Random(seed)
    nodes = [net.node, start_node(limits_page_entries=10)]
    sender, user = fresh("alice"), fresh("bob")
    groups = [fresh("g") for _ in range(60)]
    begun = {}
    for group in groups:
        await store.join(sender, group)
        begun[f"group:{group}"] = (await store.join(user, group)).id.n
    ledger = Ledger(await net.listen(user, "web"))
    is_over = False

    async def talk() -> None:
        sent = 0
        while not is_over:
            some = chance.choices(groups, k=chance.choice([1, 1, 5, 40]))
            await store.publish([to_group(group, sender, sent) for group in some], "")
            sent += 1
            if chance.random() < 0.1:
                new = fresh("g")
                await store.join(sender, new)
                begun[f"group:{new}"] = (await store.join(user, new)).id.n
                groups.append(new)
            await asyncio.sleep(chance.choice([0, 0.002, 0.01]))

    talking = asyncio.create_task(talk())
    cuts = 100
    for _ in range(cuts):
        await asyncio.sleep(chance.choice([0, 0.001, 0.01, 0.03, 0.05]))
        await ledger.cut_and_come_back(chance.choice(nodes).url)
    is_over = True
    await talking
    heads = {f"group:{group}": (await store.stream_facts(f"group:{group}")).head.n for group in groups}
    await ledger.phone.until(lambda: heads == {stream: _last(ledger, stream, begun) for stream in heads}, "all of it")
    ledger.check(heads, begun)
    assert ledger.longest < 4096


def _last(ledger: Ledger, stream: str, begun: dict[str, int]) -> int:
    """The last number of a stream that its client has; of a group joined just now that of the joining."""
    frame: Frame | None = next((f for f in reversed(ledger.phone.frames) if f.get("stream") == stream), None)
    if frame is not None and "id" in frame:
        return parse_id(frame["id"]).n
    states = [f["streams"][stream] for f in ledger.phone.frames if stream in f.get("streams", ())]
    return parse_id(states[0]["offset"]).n if states else begun[stream]


async def test_a_thousand_groups_go_on_from_one_short_bookmark(
    net: EventNet, database: Server, store: Store, fresh: Callable[[str], str]
) -> None:
    sender, user = fresh("alice"), fresh("bob")
    groups = [fresh("g") for _ in range(1000)]
    begun: dict[str, int] = {}
    for at in range(0, 1000, 25):
        part = groups[at : at + 25]
        await asyncio.gather(*(store.join(sender, group) for group in part))
        joined = await asyncio.gather(*(store.join(user, group) for group in part))
        begun |= {f"group:{group}": one.id.n for group, one in zip(part, joined, strict=True)}
    ledger = Ledger(await net.listen(user, "web"))
    assert sum(len(frame.get("streams", ())) for frame in ledger.phone.frames) == 1002
    rounds = 3
    for round_ in range(rounds):
        await send_each(store, sender, groups, round_)
        if round_ == 1:  # in the middle of it
            await asyncio.sleep(0.05)
            await ledger.cut_and_come_back()
        await eventually(partial(_has, ledger, 1000 * (round_ + 1)), f"round {round_}", 20)
    await ledger.cut_and_come_back()
    await ledger.phone.wait("live")
    assert ledger.phone.messages() == []
    ledger.check({stream: n + rounds for stream, n in begun.items()}, begun)
    assert ledger.longest < FULL + 200
    kept = database.admin.hgetall(key_of("v", f"user:{user}", f"{user}/web"))
    assert 2 <= len(kept) <= 65
    assert database.admin.memory_usage(key_of("v", f"user:{user}", f"{user}/web")) < 65 * 60_000


def _has(ledger: Ledger, messages: int) -> bool:
    """Whether so many messages of groups have come so far."""
    known = sum(len(had) for stream, had in ledger.had.items() if stream.startswith("group:"))
    return known + len(ledger.phone.messages()) == messages


async def test_a_base_is_kept_anew_before_it_expires(
    start_node: StartNode, database: Server, net: EventNet, alice: str
) -> None:
    node = start_node(events_keep_s=1.5, ping_s=0.1)
    phone = await net.at(node).listen(alice)
    name = key_of("v", f"user:{alice}", f"{alice}/default")
    first = set(database.admin.hkeys(name))
    await asyncio.sleep(1.8)
    assert set(database.admin.hkeys(name)) > first
    await phone.leave()
    await asyncio.sleep(1.7)
    assert not database.admin.exists(name)
