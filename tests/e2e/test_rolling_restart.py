"""Two nodes are restarted, one after the other, twice, while people talk: nothing is lost, and nothing comes twice."""

import asyncio
import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import msgspec
import pytest

from service.client import Client, Connected, Entry, Gap, Message, Sent
from service.core.names import parse_id
from tests.e2e.conftest import StartNodes
from tests.e2e.kit import true
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio

PEOPLE = 20
GROUPS = 4
PACE_S = 0.04  # between two messages of one person


class Balancer:
    """A plain one: TCP, the nodes in turn; one that takes no connection is passed over."""

    def __init__(self, nodes: list[NodeProcess]) -> None:
        self._nodes = nodes
        self._turns = itertools.count()
        self._open: set[asyncio.Task[None]] = set()
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            first = next(self._turns)
            for at in range(len(self._nodes)):
                port = self._nodes[(first + at) % len(self._nodes)].port
                try:
                    there, back = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    continue
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
                return
        finally:
            writer.close()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65_536):
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


class Person:
    """Somebody who talks to a group and to a neighbour, and counts what comes."""

    def __init__(self, at: int) -> None:
        self.name = f"p{at}"
        self.group = f"g{at % GROUPS}"
        self.neighbour = f"p{(at + 1) % PEOPLE}"
        self.sent: dict[str, list[int]] = defaultdict(list)  # what was answered, by where it went
        self.unanswered = 0
        self.heard: dict[str, list[tuple[str, int]]] = defaultdict(list)  # by stream: who, and which
        self.numbers: dict[str, list[int]] = defaultdict(list)
        self.gaps: list[Gap] = []
        self.nodes: list[str] = []

    async def listen(self, client: Client) -> None:
        async for event in client:
            if isinstance(event, Connected):
                self.nodes.append(event.node)
            elif isinstance(event, Gap):
                self.gaps.append(event)
            elif isinstance(event, Message | Sent | Entry):
                self.numbers[event.stream].append(parse_id(event.id).n)
                if isinstance(event, Message):
                    assert isinstance(event.body, msgspec.Raw)
                    self.heard[event.stream].append((event.from_, msgspec.json.decode(event.body)))

    async def talk(self, client: Client, until: asyncio.Event) -> None:
        for nth in itertools.count():
            if until.is_set():
                return
            to = f"group:{self.group}" if nth % 2 else f"user:{self.neighbour}"
            self.unanswered += 1
            await client.send(to, nth)
            self.unanswered -= 1
            self.sent[to].append(nth)
            await asyncio.sleep(PACE_S)


async def restart(node: NodeProcess) -> None:
    """As an operator rolls out: one signal, and it is started again when it has ended by itself."""
    assert await asyncio.to_thread(node.stop) == 0
    await asyncio.to_thread(node.start)


async def test_two_nodes_are_restarted_twice_while_people_talk(start_nodes: StartNodes) -> None:
    nodes = start_nodes("one", "two")
    balancer = Balancer(nodes)
    people = [Person(at) for at in range(PEOPLE)]
    async with balancer.running(), contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(balancer.url, user=person.name, device="phone")) for person in people
        ]
        await asyncio.gather(*(client.join(who.group) for client, who in zip(clients, people, strict=True)))
        listening = [asyncio.create_task(who.listen(on)) for who, on in zip(people, clients, strict=True)]
        enough = asyncio.Event()
        talking = [asyncio.create_task(who.talk(on, enough)) for who, on in zip(people, clients, strict=True)]

        for _ in range(2):
            for node in nodes:
                enough_said = said(people) + 5 * PEOPLE
                await true(lambda: said(people) > enough_said, "they talk")  # noqa: B023 - it is awaited here
                await restart(node)
        enough.set()
        await asyncio.gather(*talking)
        assert [who.unanswered for who in people] == [0] * PEOPLE

        due = {who.name: expected(who, people) for who in people}
        await true(lambda: all(len(heard(who)) >= sum(due[who.name].values()) for who in people), "all has come")
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)

    for who in people:
        assert Counter(heard(who)) == due[who.name], who.name  # none is lost, none came twice
        assert not who.gaps
        for stream, numbers in who.numbers.items():  # own messages and joinings are among them: no hole, and in order
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), (who.name, stream)
        by_sender: dict[tuple[str, str], list[int]] = defaultdict(list)
        for stream, sender, nth in heard(who):
            by_sender[stream, sender].append(nth)
        assert all(came == sorted(came) for came in by_sender.values())
        assert len(who.nodes) >= 3  # each was on a node that was restarted
    fresh = await Phone.open(nodes[0].url, people[0].name, "another")
    group = f"group:{people[0].group}"
    stored = Counter((frame["from"], frame["body"]) for frame in fresh.messages(group))
    assert stored == Counter((who.name, nth) for who in people for nth in who.sent[group])
    assert not [node.name for node in nodes if "Traceback" in node.said() or "drain_cut_short" in node.said()]


def said(people: list[Person]) -> int:
    """How many messages to groups were answered."""
    return sum(len(who.sent[f"group:{who.group}"]) for who in people)


def heard(who: Person) -> list[tuple[str, str, int]]:
    """Messages of others: stream, sender, which."""
    return [(stream, sender, nth) for stream, came in who.heard.items() for sender, nth in came if sender != who.name]


def expected(who: Person, people: list[Person]) -> Counter[tuple[str, str, int]]:
    """The messages of others that are due to somebody."""
    return Counter(
        (to, other.name, nth)
        for other in people
        if other is not who
        for to in (f"group:{who.group}", f"user:{who.name}")
        for nth in other.sent.get(to, ())
    )
