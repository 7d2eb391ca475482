"""The systems that are measured, as processes, and the CPU time that they have used."""

import importlib.util
import shutil
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from migrations import __main__ as migrations
from tests.bench.clients import Client, FloorClient, PlainClient, SocketIoClient, WaypostClient
from tests.integration.store.kit import Server, wait_until
from tests.service import NodeProcess, free_port

PEERS = Path(__file__).parent / "peers"
IN_MEMORY = ("--appendonly", "no")  # peers keep nothing: their Redis is not to wait for a disk
START_S = 30.0


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of CPU that processes have used, all threads, user and system (Linux: the clock of another process)."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


class Absent(Exception):
    """A system that cannot be started here; the text says what is missing."""


class System(ABC):
    """One system. `ports` are its nodes'."""

    name: ClassVar[str]
    keeps: ClassVar[str]  # what becomes of a message for somebody who is away
    client: ClassVar[type[Client]]
    nodes_max: ClassVar[int] = 1
    may_lose: ClassVar[bool] = False  # it is known to: that is told, and no failure of a run

    def __init__(self, product: str, nodes: int = 1) -> None:
        self.product = product
        self.nodes = min(nodes, self.nodes_max)
        self.ports: list[int] = []

    @abstractmethod
    async def start(self) -> None:
        """Returns when it can be used. Raises `Absent`."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it. Harmless before `start`."""

    @property
    @abstractmethod
    def server_pids(self) -> list[int]:
        """The processes that hold connections."""

    @property
    def redis_pids(self) -> list[int]:
        """The process that stores."""
        return []

    @property
    def pids(self) -> list[int]:
        """All of them."""
        return [*self.server_pids, *self.redis_pids]


class Waypost(System):
    """Waypost, as durable as it can be: `sent` is answered when the message is on disk, in both inboxes."""

    name = "waypost"
    keeps = "yes"
    client = WaypostClient
    nodes_max = 8

    def __init__(self, product: str, nodes: int = 1, *server_options: str) -> None:
        super().__init__(product, nodes)
        self.store = Server(product, *server_options)
        self.processes: list[NodeProcess] = []

    async def start(self) -> None:
        self.store.start()
        await migrations.up(self.store.url)
        self.processes = [
            # As many as a machine has: joining is not announced, or a thousand would hear of a thousand.
            NodeProcess(self.store.url, f"bench{number}", announce=0, log_level="warning")
            for number in range(self.nodes)
        ]
        NodeProcess.start_all(self.processes)
        self.ports = [node.port for node in self.processes]

    def stop(self) -> None:
        for node in self.processes:
            node.remove()
        self.store.remove()

    @property
    def server_pids(self) -> list[int]:
        return [node.process.pid for node in self.processes if node.process is not None]

    @property
    def redis_pids(self) -> list[int]:
        return [] if self.store.process is None else [self.store.process.pid]


class Peer(System):
    """A system that a program in `peers/` runs, with a Redis of its own where it `needs_redis`."""

    needs_redis: ClassVar[bool] = True

    def __init__(self, product: str, nodes: int = 1) -> None:
        super().__init__(product, nodes)
        self.store = Server(product, *IN_MEMORY) if self.needs_redis else None
        self.processes: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """What starts a node. Raises `Absent`."""

    async def start(self) -> None:
        self.ports = [free_port() for _ in range(self.nodes)]
        commands = [self.command(port) for port in self.ports]
        if self.store is not None:
            self.store.start()
        # Nothing else goes on yet.
        self.processes = [subprocess.Popen(command, cwd=PEERS.parents[2]) for command in commands]  # noqa: ASYNC220
        for port, process in zip(self.ports, self.processes, strict=True):
            wait_until(lambda: process.poll() is not None or _answers(port), f"{self.name} is up", START_S)  # noqa: B023
            if process.poll() is not None:
                raise Absent(f"{self.name} ended at its start")

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        if self.store is not None:
            self.store.remove()

    @property
    def server_pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    @property
    def redis_pids(self) -> list[int]:
        return [self.store.process.pid] if self.store is not None and self.store.process is not None else []

    @property
    def socket(self) -> str:
        assert self.store is not None
        return str(self.store.socket)


class Floor(Peer):
    """The bare writer: what the machine takes for the frames alone."""

    name = "floor"
    keeps = "no"
    client = FloorClient
    needs_redis = False

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-m", "tests.bench.peers.floor", str(port)]


class PlainReplay(Peer):
    """The plain loop over Waypost's own streams, of `store`."""

    name = "plain loop"
    keeps = "no"
    client = PlainClient
    needs_redis = False

    def __init__(self, product: str, store: Server) -> None:
        super().__init__(product)
        self.data = store

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-m", "tests.bench.peers.plain_replay", str(port), str(self.data.socket)]

    @property
    def redis_pids(self) -> list[int]:
        return [self.data.process.pid] if self.data.process is not None else []


class SocketIo(Peer):
    """Socket.IO 4 with the adapter for Redis Streams."""

    name = "socket.io"
    keeps = "minutes"
    client = SocketIoClient
    nodes_max = 8
    may_lose = True

    def command(self, port: int) -> list[str]:
        node = shutil.which("node")
        if node is None:
            raise Absent("socket.io needs node")
        if not (PEERS / "node_modules" / "socket.io").is_dir():
            raise Absent("socket.io is not installed: npm install --prefix tests/bench/peers")
        return [node, str(PEERS / "socketio.mjs"), str(port), self.socket]


class PythonSocketIo(Peer):
    """python-socketio with its Redis manager."""

    name = "python-socketio"
    keeps = "no"
    client = SocketIoClient
    nodes_max = 8
    may_lose = True

    def command(self, port: int) -> list[str]:
        if importlib.util.find_spec("socketio") is None:
            raise Absent("python-socketio is not installed: pip install -e '.[bench]'")
        return [sys.executable, "-m", "tests.bench.peers.python_socketio", str(port), self.socket]


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


KINDS: tuple[type[System], ...] = (Floor, Waypost, SocketIo, PythonSocketIo)
