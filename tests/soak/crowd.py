"""A lone conversation beside a crowd whose connections are all put behind at once.

    python -m tests.soak.crowd --connections 10000

Alice writes to bob, message after message, and the time until it arrives is taken: with nobody else on the node, with
the crowd connected and silent, and while the crowd catches up. The crowd is put behind in two ways: by a message to
everybody that is too large for mailboxes, so that all read pages, with more messages behind it; and by a network that
loses all connections, which come back at once. Every one of the crowd must get every message, in order. What counts is
the ratio to the idle node beside it.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect

from migrations import __main__ as migrations
from tests.integration.store.kit import Server
from tests.service import NodeProcess

SAMPLES = 300  # messages of the lone conversation, where nothing else says how long it lasts
BURST = 20  # messages for everybody
LARGE = 5000  # characters: the first of them goes to mailboxes as a reference, which puts everybody behind
AT_ONCE = 200  # connections that are being opened
PATIENCE_S = 300.0


async def say_hello(url: str, user: str) -> ClientConnection:
    """Connected, and has said hello."""
    address = url.replace("http://", "ws://") + f"/v1/connect?user={user}"
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "open_timeout": PATIENCE_S}
    connection = await connect(address, **options)
    await connection.send('{"type":"hello","device":"d"}')
    return connection


# -- the crowd, in a process of its own --------------------------------------------------------------------------------


class Crowd:
    """Many connections, each of a user of its own, who listen to what is said to everybody."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._listening: list[asyncio.Task[None]] = []
        self._connections: list[ClientConnection] = []
        self.heard: list[list[int]] = [[] for _ in range(size)]

    async def connect(self) -> None:
        """Everybody connects, as fast as the node takes them."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            is_live = asyncio.Event()
            async with gate:
                connection = await say_hello(self._url, f"crowd{number}")
                self._connections.append(connection)
                self._listening.append(asyncio.create_task(self._listen(number, connection, is_live)))
                await is_live.wait()

        await asyncio.gather(*(one(number) for number in range(self._size)))

    async def _listen(self, number: int, connection: ClientConnection, is_live: asyncio.Event) -> None:
        async for message in connection:
            frame = json.loads(message)
            if frame["type"] == "message" and frame["stream"] == "all":
                self.heard[number].append(frame["body"]["n"])
            elif frame["type"] == "live":
                is_live.set()

    async def lose_the_network(self) -> None:
        """Every connection is cut. Nothing was acknowledged, so all of it comes again."""
        listening, self._listening, connections, self._connections = self._listening, [], self._connections, []
        for connection in connections:
            connection.transport.abort()
        await asyncio.gather(*listening, return_exceptions=True)
        self.heard = [[] for _ in range(self._size)]

    def has_heard(self, count: int) -> bool:
        """Whether everybody has that many messages."""
        return all(len(heard) >= count for heard in self.heard)


async def play_crowd(url: str, size: int) -> None:
    """Obeys words on standard input and answers each with a line."""
    _allow_many_files()
    crowd = Crowd(url, size)
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        if order[0] == "connect":
            await crowd.connect()
        elif order[0] == "reconnect":
            await crowd.lose_the_network()
            print("cut", flush=True)
            await crowd.connect()
        else:
            async with asyncio.timeout(PATIENCE_S):
                while not crowd.has_heard(int(order[1])):  # noqa: ASYNC110 - looked at by nobody else
                    await asyncio.sleep(0.01)
            expected = list(range(int(order[1])))
            wrong = [number for number, heard in enumerate(crowd.heard) if heard != expected]
            assert not wrong, f"{len(wrong)} heard something else than {expected}: {crowd.heard[wrong[0]]}"
        print("done", flush=True)


# -- the lone conversation ---------------------------------------------------------------------------------------------


class Lone:
    """Alice, who writes to bob, one message after the other."""

    def __init__(self, alice: ClientConnection, bob: ClientConnection) -> None:
        self._alice = alice
        self._bob = bob
        self._number = 0

    async def talk(self, goes_on: Callable[[int], bool]) -> list[float]:
        """The seconds each message took to arrive, while `goes_on` (told how many there were) says so."""
        took: list[float] = []
        while goes_on(len(took)):
            self._number += 1
            began = time.perf_counter()
            await self._alice.send(json.dumps({"type": "send", "to": "user:bob", "body": self._number}))
            wanted = b'"body":%d' % self._number
            async with asyncio.timeout(PATIENCE_S):
                while wanted not in await self._bob.recv(decode=False):
                    pass
            took.append(time.perf_counter() - began)
            while b'"type":"sent"' not in await self._alice.recv(decode=False):
                pass
        return took


def p99_ms(took: list[float]) -> float:
    """The time within which 99 of 100 arrived."""
    return sorted(took)[max(0, len(took) * 99 // 100 - 1)] * 1000


async def measure(connections: int) -> dict[str, float]:
    """All figures of one run: a time in ms, the others as multiples of it, and how long the crowd took (s)."""
    _allow_many_files()
    database = Server("valkey")
    node = NodeProcess(database.url, "crowded", limits_connections=connections + 100, ping_s=300)
    try:
        database.start()
        await migrations.up(database.url)
        await asyncio.to_thread(node.start)
        return await _measure(connections, node)
    finally:
        node.remove()
        database.remove()


async def _measure(connections: int, node: NodeProcess) -> dict[str, float]:
    lone = Lone(*[await say_hello(node.url, user) for user in ("alice", "bob")])
    speaker = await say_hello(node.url, "speaker")
    await lone.talk(lambda count: count < SAMPLES)  # what is slow only the first time
    idle = await lone.talk(lambda count: count < SAMPLES)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak.crowd", "--play", node.url, "--connections", str(connections)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    said = 0

    async def order(words: str, answer: str = "done") -> None:
        stdin.write(words.encode() + b"\n")
        assert (await stdout.readline()).decode().strip() == answer

    async def say_to_all() -> None:
        nonlocal said
        for number in range(BURST):
            body = {"n": said, "pad": "" if number else "x" * LARGE}
            await speaker.send(json.dumps({"type": "send", "to": "all", "body": body}))
            said += 1
        for _ in range(BURST):
            while b'"type":"sent"' not in await speaker.recv(decode=False):
                pass

    async def beside(work: "asyncio.Task[None]") -> tuple[list[float], float]:
        began = time.perf_counter()
        took = await lone.talk(lambda _count: not work.done())
        await work
        return took, time.perf_counter() - began

    await order("connect")
    silent = await lone.talk(lambda count: count < SAMPLES)

    async def all_hear_it() -> None:
        await say_to_all()
        await order(f"heard {said}")

    behind, behind_s = await beside(asyncio.create_task(all_hear_it()))

    async def all_come_back() -> None:
        await order("reconnect", answer="cut")
        await say_to_all()
        assert (await stdout.readline()).strip() == b"done"
        await order(f"heard {said}")

    storm, storm_s = await beside(asyncio.create_task(all_come_back()))
    stdin.close()
    assert await process.wait() == 0
    base = p99_ms(idle)
    return {
        "connections": connections,
        "idle_p99_ms": round(base, 2),
        "silent_crowd": round(p99_ms(silent) / base, 1),
        "all_put_behind": round(p99_ms(behind) / base, 1),
        "all_put_behind_s": round(behind_s, 2),
        "all_come_back": round(p99_ms(storm) / base, 1),
        "all_come_back_s": round(storm_s, 2),
        "messages": len(behind) + len(storm),
    }


def _allow_many_files() -> None:
    """Each connection is a file; what this process starts may open as many."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Prints the figures as JSON. Ratios are of the 99th percentile to that of the idle node."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.crowd", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--play", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if args.play:
            runner.run(play_crowd(args.play, args.connections))
        else:
            print(json.dumps(runner.run(measure(args.connections)), indent=1))


if __name__ == "__main__":
    main()
