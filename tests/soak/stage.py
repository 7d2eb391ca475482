"""Everything that a soak runs: a database and what stands in for it, two nodes behind a proxy each, and the clients."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from migrations import __main__ as migrations
from service.core.names import ZERO, EntryId, parse_id
from service.store import Store, StoreOptions
from service.store.keys import kind_of
from tests.integration.store.kit import EPOCH_KEYS, Admin, Server, key_of, wait_until
from tests.proxy import Proxy
from tests.service import NodeProcess, free_port
from tests.soak import cast
from tests.soak.checker import Kept, Span, StreamFacts

NODES = ("near", "far")
PROCESSES = 2  # of clients
HEAL_S = 90.0  # after this long without everybody caught up the run has failed: stuck is as bad as wrong
MARK_AGAIN_S = 3.0

# Everything that takes seconds or minutes takes a fraction of that here, so that a run sees more of it.
SETTINGS: dict[str, object] = {
    "beat_s": 0.5,
    "mailbox_ttl_s": 4,
    "not_ready_s": 2,
    "audit_s": 4,
    "detach_linger_s": 2,
    "call_timeout_s": 2,
    "ping_s": 2,
    "idle_close_s": 10,
    "limits_page_entries": 40,
    "mailbox_cap": 500,
    "limits_tail_entries": 16,
    "log_level": "warning",
}


class Stuck(Exception):
    """The system did not come back to where everybody has everything."""


class ClientProcess:
    """A process that plays some of the actors; see `clients.py`."""

    def __init__(self, seed: str, folder: Path, urls: list[str], actors: list[cast.Actor]) -> None:
        self.devices = len(actors)
        self.status: dict[str, int] = {"marked": 0, "live": 0, "unanswered": 0}
        self.output = folder / f"clients-{actors[0].user}.log"
        names = [f"{actor.user}.{actor.device}" for actor in actors]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.clients", seed, str(folder), *urls, "--", *names],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.status = json.loads(line)

    def say(self, order: str) -> None:
        if self.process.poll() is not None:
            raise Stuck(f"the clients have ended: {self.output.read_text()[-2000:]}")
        assert self.process.stdin is not None
        self.process.stdin.write(order.encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Has it write down what it has, and waits for its end."""
        if self.process.poll() is None:
            self.say("end")
        if self.process.wait(20) != 0:
            raise Stuck(f"the clients failed: {self.output.read_text()[-2000:]}")

    def remove(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._listening.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


class Stage:
    """Made and started by `with`. Faults act upon what is here; `caught_up` says when all is well again."""

    def __init__(self, seed: str, folder: Path, product: str) -> None:
        self.seed = seed
        self.folder = folder
        self.product = product
        self.histories = folder / "histories"
        self.database = Server(product, "--port", str(free_port()))
        self.retired: list[Server] = []  # databases whose place another has taken
        self.proxies: list[Proxy] = []
        self.nodes: list[NodeProcess] = []
        self.clients: list[ClientProcess] = []
        self.kept = Kept({}, {}, {}, [])
        self._marks = 0

    def __enter__(self) -> Self:
        self.histories.mkdir(parents=True)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.remove()
        for node in self.nodes:
            (self.folder / f"{node.name}.log").write_text(node.said())
            node.remove()
        for proxy in self.proxies:
            proxy.close()
        for server in (self.database, *self.retired):
            server.remove()

    def _start(self) -> None:
        self.database.start()
        self.migrate()
        for name in NODES:
            self.proxies.append(Proxy(self.database.url))
            self.nodes.append(NodeProcess(self.proxies[-1].url, name, **SETTINGS))
        NodeProcess.start_all(self.nodes)
        actors = cast.actors()
        urls = [node.url for node in self.nodes]
        for number in range(PROCESSES):
            self.clients.append(ClientProcess(self.seed, self.histories, urls, list(actors[number::PROCESSES])))
        self.caught_up()

    @property
    def admin(self) -> Admin:
        return self.database.admin

    def migrate(self) -> None:
        """`waypost migrate up`."""
        asyncio.run(migrations.up(self.database.url))

    def epoch(self) -> str:
        raw: bytes = self.admin.hget(EPOCH_KEYS[0], "epoch")
        return raw.decode()

    def say(self, order: str) -> None:
        for client in self.clients:
            client.say(order)

    def caught_up(self) -> float:
        """Returns once every device has everything that was sent up to now; the seconds it took.

        A mark that came before its group had all its members back reaches not all of them, so marks are repeated.
        Raises `Stuck` after `HEAL_S`.
        """
        began, at = time.monotonic(), time.time()
        wanted = self._marks + 1
        mark_at = began
        while any(client.status["marked"] < wanted for client in self.clients):
            now = time.monotonic()
            if now - began > HEAL_S:
                statuses = [client.status for client in self.clients]
                reasons = {node.name: node.reasons() for node in self.nodes}
                raise Stuck(f"mark {wanted} was not seen by all within {HEAL_S} s: {statuses}, nodes {reasons}")
            if now >= mark_at:
                self._marks += 1
                self.say(f"mark {self._marks}")
                mark_at = now + MARK_AGAIN_S
            time.sleep(0.02)
        self.kept.settled[self.epoch()] = at
        return time.monotonic() - began

    def finish(self) -> None:
        """No more sends; everything arrives; the clients end."""
        self.say("quiet")
        for _ in range(2):  # the marks are sends too
            wait_until(lambda: all(c.status["unanswered"] == 0 for c in self.clients), "all sends are answered", HEAL_S)
            self.caught_up()
        wait_until(lambda: all(c.status["unanswered"] == 0 for c in self.clients), "all sends are answered", HEAL_S)
        self.kept.settled[self.epoch()] = float("inf")
        for client in self.clients:
            client.end()

    # -- what the store holds ------------------------------------------------------------------------------------------

    def store_call(self, work: Any) -> Any:  # noqa: ANN401
        """Does something with a `Store` as a scheduled job would: `work` is an async function of it."""

        async def run() -> Any:  # noqa: ANN401
            store = await Store.connect(self.database.url, options=StoreOptions())
            try:
                await store.check_server()
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def keys(self, letter: str) -> list[str]:
        """All keys of a kind."""
        found = [raw.decode() for raw in self.admin.scan_iter(f"wp:*:{letter}:*", count=1000)]
        return sorted(name for name in found if (kind := kind_of(name)) and kind.pattern.split(":")[2] == letter)

    def keep(self, groups: dict[str, dict[bytes, bytes]], ledgers: dict[str, list[bytes]]) -> None:
        """Keeps what records of groups and ledgers (by their keys) tell, beyond the end of an epoch."""
        for name, fields in groups.items():
            for user, record in fields.items():
                if user.startswith(b"/"):
                    continue
                parts = record.decode().partition("|")[2].split(";")
                pairs = [(joined, left) for joined, _, left in (part.partition(",") for part in parts)]
                self.kept.stretches.setdefault((user.decode(), _name(name)), []).extend(pairs)
        for name, lines in ledgers.items():
            self.kept.lost.setdefault(_name(name), []).extend(_lost(lines))

    def keep_memberships(self) -> None:
        """Keeps what the groups tell now of who was a member when."""
        self.keep({name: self.admin.hgetall(name) for name in self.keys("g")}, {})

    def facts(self) -> dict[str, StreamFacts]:
        """What the store holds of every stream now; memberships and ledgers are kept."""
        ledgers = {name: self.admin.lrange(name, 0, -1) for name in self.keys("x")}
        self.keep({name: self.admin.hgetall(name) for name in self.keys("g")}, ledgers)
        found = {}
        for name in self.keys("h"):
            stream, state = _name(name), self.admin.hgetall(name)
            found[stream] = StreamFacts(
                head=_id(state.get(b"head")),
                floor=_id(state.get(b"floor")),
                entries=frozenset(_id(raw) for raw, _ in self.admin.xrange(key_of("s", stream))),
                redacted=frozenset(int(raw) for raw in self.admin.hkeys(key_of("z", stream))),
                lost=tuple(_lost(ledgers.get(key_of("x", stream), []))),
            )
        return found

    # -- another database in the place of this one ---------------------------------------------------------------------

    def replace_database(self, successor: Server) -> None:
        """From now on nodes reach another server. The old one is ended."""
        old, self.database = self.database, successor
        self.retired.append(old)
        for proxy in self.proxies:
            proxy.point_to(successor.url)
        if old.process is not None:
            old.kill()


def _id(raw: bytes | None) -> EntryId:
    return ZERO if raw is None else parse_id(raw.decode())


def _name(key: str) -> str:
    """What a key is of: a stream, a group."""
    return key.split(":", 3)[3]


def _lost(ledger: list[bytes]) -> list[Span]:
    lines = [json.loads(raw) for raw in ledger]
    return [Span(parse_id(line["after"]), parse_id(line["to"])) for line in lines if line["kind"] == "lost"]
