"""Many at once: a hundred who come and go on both protocols, and a thousand who fall behind together."""

import asyncio
import random
import re
import resource
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from service.store import Store, StoreOptions
from tests.e2e.conftest import StartNodes
from tests.e2e.kit import numbers, true
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import assert_calm
from tests.integration.wire.kit import TEXT, BareSocket, Chat, call, client_frame, direct, join, leave
from tests.service import NodeProcess, Phone

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database", ["valkey"], indirect=True)]

# -- a hundred users, on both protocols --------------------------------------------------------------------------------

GROUPS = [f"g{number}" for number in range(5)]
STREAMS = (*(f"group:{group}" for group in GROUPS), "all")
EACH = 50  # users of each protocol
ACTIONS = 15  # of each user
SAID = re.compile(r"send(?: all)?:user\d+ \d+$")


class Crowd:
    """What a hundred users do, and what came of it."""

    def __init__(self, seed: int, nodes: Sequence[NodeProcess]) -> None:
        self.nodes = nodes
        self.users = [f"user{number}" for number in range(2 * EACH)]
        self.stored: dict[str, list[str]] = defaultdict(list)  # stream → bodies that were answered with `sent`
        self.chats: list[Chat] = []
        self._seed = seed
        self._said = 0

    def body(self, user: str) -> str:
        """Never the same twice, and rising."""
        self._said += 1
        return f"{user} {self._said}"

    async def act(self, user: str) -> None:
        """Everything one user does."""
        dice = random.Random(f"{self._seed} {user}")
        await (self._on_the_wire(user, dice) if int(user[4:]) < EACH else self._on_chat(user, dice))

    async def _on_the_wire(self, user: str, dice: random.Random) -> None:
        phone: Phone | None = None
        for _ in range(ACTIONS):
            if phone is None or phone.closed is not None:
                phone = await Phone.open(dice.choice(self.nodes).url, user)
            match dice.choice(("join", "join", "leave", "send", "send", "send", "send", "cut", "bye")):
                case "join":
                    assert (await join(phone, dice.choice(GROUPS)))["type"] == "joined"
                case "leave":
                    answer = await leave(phone, dice.choice(GROUPS))
                    assert answer.get("code", "left") in ("left", "not_member")
                case "cut":
                    phone.cut()
                    await phone.ends()
                case "bye":
                    await phone.leave()
                case _:
                    to, body = dice.choice((*STREAMS, *(f"user:{dice.choice(self.users)}",) * 6)), self.body(user)
                    answer = await phone.send(to, body)
                    assert answer.get("code", "sent") in ("sent", "not_member")
                    if answer["type"] == "sent":
                        self.stored[to].append(body)

    async def _on_chat(self, user: str, dice: random.Random) -> None:
        chat: Chat | None = None
        for _ in range(ACTIONS):
            if chat is None or chat.close_code is not None:
                chat = Chat(
                    await BareSocket.open(dice.choice(self.nodes).url, f"/chat/channel/{user}"), is_ponging=True
                )
                self.chats.append(chat)
            group, other, body = dice.choice(GROUPS), dice.choice(self.users), self.body(user)
            match dice.choice(("join", "group", "group", "user", "user", "all", "cut", "bye")):
                case "join":
                    chat.say(call("UserGroup", group=group))
                case "group":
                    chat.say(call("Group", group=group, body=body))
                case "user":
                    chat.say(direct(other, body))
                case "all":
                    chat.say(call("All", body=body))
                case "cut":
                    await chat.cut()
                case _:
                    await chat.leave()
            await asyncio.sleep(0)  # the others do something, too


def assert_rising(chat: Chat) -> None:
    """On one connection each text comes once, and those of one user to one stream in their order."""
    heard: dict[str, list[int]] = defaultdict(list)
    for text in filter(SAID.search, chat.texts):
        who, _, number = text.rpartition(" ")
        heard[who].append(int(number))
    assert all(told == sorted(set(told)) for told in heard.values()), heard


@pytest.fixture
async def crowd(start_nodes: StartNodes) -> AsyncIterator[Crowd]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    crowd = Crowd(seed, start_nodes("first", "second"))
    yield crowd
    for chat in crowd.chats:
        await chat.cut()


async def test_a_hundred_users_who_join_leave_send_and_disconnect_at_once_disturb_nobody(crowd: Crowd) -> None:
    first, second = crowd.nodes
    alice, bob = await Phone.open(first.url, "alice"), await Phone.open(second.url, "bob")
    for group in GROUPS:
        await join(bob, group)

    async def converse() -> None:
        for number in range(50):
            for phone, to in ((alice, "user:bob"), (bob, "user:alice")):
                assert (await phone.send(to, number))["type"] == "sent"

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(converse())
        for user in crowd.users:
            tasks.create_task(crowd.act(user))
    for stream in STREAMS:
        await bob.send_all(stream, ["the end"])
    await bob.until(lambda: numbers(bob, "user:bob")[-1:] == [105], "five joined, a hundred in the conversation")

    # Who talked beside it lost nothing, and bob, who was in every group, saw each message once and in its order.
    talk = list(range(50))
    for phone, stream in ((bob, "user:bob"), (alice, "user:alice")):
        assert [m["body"] for m in phone.messages(stream) if m["to"] == stream] == talk
    for stream in STREAMS:
        seen = sorted(set(numbers(bob, stream)))
        assert seen == list(range(seen[0], seen[-1] + 1))
        got = Counter(bob.bodies(stream))
        assert got >= Counter(crowd.stored[stream])
        assert set(got.values()) <= {1}
    # Of the hundred, everybody finds in the inbox what was sent there, once.
    for user in crowd.users:
        stream = f"user:{user}"
        phone = await Phone.open(first.url, user, "another")
        got = Counter(m["body"] for m in phone.messages(stream) if m["to"] == stream)
        assert got >= Counter(crowd.stored[stream])
        assert set(got.values()) <= {1}
        assert phone.gaps() == []
        await phone.leave()
    for chat in crowd.chats:
        assert_rising(chat)
    for node in crowd.nodes:
        await true(node.is_ready, "ready")
        assert_calm(node.said())


# -- a thousand connections, put behind at once ------------------------------------------------------------------------

FOLLOWERS = 1000
ENTRY = re.compile(rb'"stream":"group:g","id":"\d+-(\d+)"')
CAUGHT_UP = b'{"type":"live","stream":"group:g"}'


class Follower(asyncio.Protocol):
    """A client of little cost, of which a process can have a thousand: it keeps the numbers of the group's entries."""

    def __init__(self, user: str) -> None:
        self.numbers: list[int] = []
        self.is_live = False
        self.times_behind = 0
        self._user = user
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            f"GET /v1/connect?user={self._user} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Frames need not be told apart: an entry is found by what is in it, once it is there as a whole."""
        if data.startswith(b"HTTP/1.1 101"):
            self.transport.write(client_frame(TEXT, b'{"type":"hello"}'))
        whole, mark, rest = (self._rest + data).rpartition(b"}")
        self._rest = rest if mark else whole + rest
        whole += mark
        self.is_live = self.is_live or b'{"type":"live"}' in whole
        self.times_behind += whole.count(CAUGHT_UP)
        self.numbers += map(int, ENTRY.findall(whole))


class Thousand:
    """The members of group g, all connected to one node and live, and somebody who sends to them from another."""

    def __init__(self, node: NodeProcess, sender: Phone, followers: Sequence[Follower]) -> None:
        self.node = node
        self.sender = sender
        self.followers = followers
        self.sent = 0

    async def falls_behind(self, bodies: Sequence[str], database: Server | None = None) -> None:
        """Sends what puts everybody behind, while two others talk on the same node; all of it comes to everybody.

        With a `database` it is put behind by losing the node's mailbox there, which is noticed within a beat.
        """
        alice, bob = await Phone.open(self.node.url, "alice"), await Phone.open(self.node.url, "bob")
        before = [follower.times_behind for follower in self.followers]
        if database is not None:
            database.admin.delete(*database.admin.scan_iter(f"wp:*:m:{self.node.name}.*", count=1000))
        sending = asyncio.create_task(self.sender.send_all("group:g", bodies))
        talk = [(self.sent, number) for number in range(30)]
        for said in talk:
            for phone, to in ((alice, "user:bob"), (bob, "user:alice")):
                assert (await phone.send(to, said))["type"] == "sent"
        await sending
        self.sent += len(bodies)
        expected = list(range(1, self.sent + 1))
        await true(lambda: all(len(one.numbers) >= self.sent for one in self.followers), "all have it all")
        assert all(one.numbers == expected for one in self.followers)
        pairs = list(zip(self.followers, before, strict=True))
        await true(lambda: all(one.times_behind > times for one, times in pairs), "all were behind, and are live again")
        for phone, stream in ((alice, "user:alice"), (bob, "user:bob")):
            heard = [tuple(m["body"]) for m in phone.messages(stream) if m["to"] == stream]
            assert heard[-len(talk) :] == talk
            await phone.acknowledge(phone.last_ids())
            await phone.leave()


@pytest.fixture
async def thousand(database: Server, start_nodes: StartNodes) -> AsyncIterator[Thousand]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * FOLLOWERS)), hard))
    users = [f"user{number}" for number in range(FOLLOWERS)]
    store = await Store.connect(database.url, options=StoreOptions(announce=0))  # else they would read of each other
    await store.check_server()
    for at in range(0, FOLLOWERS, 20):
        await asyncio.gather(*(store.join(user, "g", mailbox="", origin=None) for user in users[at : at + 20]))
    await store.close()
    beside, crowded = start_nodes("beside", "crowded", ping_s=120)
    followers = [Follower(user) for user in users]
    for follower in followers:
        make = partial(asyncio.get_running_loop().create_connection, lambda follower=follower: follower)
        await make("127.0.0.1", crowded.port)
    await true(lambda: all(follower.is_live for follower in followers), "all are live")
    yield Thousand(crowded, await Phone.open(beside.url, users[0]), followers)
    for follower in followers:
        follower.transport.abort()


async def test_a_thousand_connections_put_behind_at_once_stop_nobody_and_miss_nothing(
    database: Server, thousand: Thousand
) -> None:
    def pages() -> int:
        """How many pages were read so far."""
        calls: int = database.admin.info("commandstats").get("cmdstat_fcall_ro", {"calls": 0})["calls"]
        return calls

    before = pages()
    for _ in range(2):
        await thousand.falls_behind(["x"] * 60, database)
    await thousand.falls_behind(["x" * 5000] * 3)  # too large for mailboxes: everybody reads a page for each
    assert pages() - before < FOLLOWERS / 3  # about ten each time: who is at the same place reads the same page
    assert_calm(thousand.node.said())
