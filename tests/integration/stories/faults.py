"""What may happen to calls between a node and the store: a shim around every exchange on a connection.

A fault is armed for the next call of a kind, and strikes once. Answers of a kind may be held back, all of them, until
they are let go. Kinds are the names of the store's functions, `read` for the mailbox and `ask` for plain commands.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec
import redis

from service.errors import Unavailable, Uncertain
from service.store.connection import Command, Link, Reply, Wire
from service.store.records import StoreOptions
from tests.integration.store.kit import Admin


class Fate(Enum):
    """What becomes of a call."""

    UNSENT = "is never sent"
    LOST = "is lost on its way"
    UNANSWERED = "is carried out, but its answer is lost"
    TWICE = "is carried out twice"
    LATE = "is given up, and is to be carried out later"


# Calls that go on by themselves, several times a second: nobody waits for them to end.
PULSE = ("read", "lease", "heartbeat")


def kind_of(commands: Sequence[Command]) -> str:
    """The kind of a call."""
    name = commands[0][0]
    if name in ("FCALL", "FCALL_RO"):
        return str(commands[0][1]).rpartition("_v")[0]
    return "read" if name == "XREAD" else "ask"


def _is_harmless_twice(kind: str, command: Command) -> bool:
    """Whether nothing is to be told of a repetition: a send without a key is stored once more, as it was asked."""
    if kind != "publish":
        return True
    return all(message["key"] for message in msgspec.msgpack.decode(bytes(command[3]))["messages"])  # type: ignore[arg-type]


class _Gate:
    """Holds back the answers of one kind, in the order they came."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Event] = deque()

    async def wait(self) -> None:
        turn = asyncio.Event()
        self.waiting.append(turn)
        await turn.wait()

    def let_go(self, count: int | None = None) -> None:
        for _ in range(len(self.waiting) if count is None else min(count, len(self.waiting))):
            self.waiting.popleft().set()


class Faults:
    """The faults of one node's calls. `admin` takes entries out of its mailbox; `late` gets what is to be done yet."""

    def __init__(self, admin: Admin, late: list[Sequence[Command]]) -> None:
        self._admin = admin
        self._late = late
        self._armed: dict[str, deque[Fate]] = {}
        self._gates: dict[str, _Gate] = {}
        self.entries_to_lose = 0
        self.under_way = 0  # calls that are neither held back nor part of the pulse
        self.read_upto: tuple[str, bytes] = ("", b"")  # the mailbox that was read, and its last entry

    # -- what is to happen ---------------------------------------------------------------------------------------------

    def arm(self, kind: str, fate: Fate) -> None:
        """The next call of this kind meets this fate."""
        self._armed.setdefault(kind, deque()).append(fate)

    def hold(self, kind: str) -> None:
        """From now on no answer of this kind comes."""
        self._gates.setdefault(kind, _Gate())

    def let_one_go(self, kind: str) -> None:
        """The oldest of the answers that are held back comes; the others still wait."""
        if kind in self._gates:
            self._gates[kind].let_go(1)

    def let_go(self) -> None:
        """Nothing is held back any more."""
        gates, self._gates = self._gates, {}
        for gate in gates.values():
            gate.let_go()

    def disarm(self) -> None:
        """Nothing more is to happen."""
        self._armed.clear()
        self.entries_to_lose = 0
        self.let_go()

    @property
    def held(self) -> set[str]:
        """The kinds that are held back."""
        return set(self._gates)

    @property
    def waiting(self) -> int:
        """How many answers are held back just now."""
        return sum(len(gate.waiting) for gate in self._gates.values())

    # -- what happens --------------------------------------------------------------------------------------------------

    async def carry_out(self, wire: "FaultyWire", commands: Sequence[Command], *, is_write: bool, wait_s: float) -> Any:  # noqa: ANN401
        """One exchange, as it fares."""
        kind = kind_of(commands)
        is_counted = kind not in PULSE
        self.under_way += is_counted
        try:
            replies = await self._exchange(kind, wire, commands, is_write=is_write, wait_s=wait_s)
            gate = self._gates.get(kind)
            if gate is not None:
                self.under_way -= is_counted
                try:
                    await gate.wait()
                finally:
                    self.under_way += is_counted
        finally:
            self.under_way -= is_counted
        return replies

    async def _exchange(
        self, kind: str, wire: "FaultyWire", commands: Sequence[Command], *, is_write: bool, wait_s: float
    ) -> list[Reply]:
        armed = self._armed.get(kind)
        fate = armed.popleft() if armed else None
        if fate is Fate.UNSENT:
            raise Unavailable("a fault: it could not be sent")
        if fate is Fate.LATE and is_write:
            self._late.append(commands)
        if fate is Fate.LATE or fate is Fate.LOST:
            raise _silence(is_write=is_write)
        replies = await wire.undisturbed(commands, is_write=is_write, wait_s=wait_s)
        if kind == "read":
            replies = await self._lose_entries(wire, commands, replies, wait_s)
        if fate is Fate.TWICE and is_write and _is_harmless_twice(kind, commands[0]):
            await wire.undisturbed(commands, is_write=is_write, wait_s=wait_s)
        if fate is Fate.UNANSWERED:
            await wire.close()
            raise _silence(is_write=is_write)
        return replies

    async def _lose_entries(
        self, wire: "FaultyWire", commands: Sequence[Command], replies: list[Reply], wait_s: float
    ) -> list[Reply]:
        """Takes entries out of the mailbox before their reader has seen them, as often as there are some to lose."""
        while not isinstance(replies[0], redis.RedisError) and replies[0]:
            [[mailbox, entries]] = replies[0]
            lost = [raw for raw, fields in entries if fields[0] != b"beat"][: self.entries_to_lose]
            if not lost:
                self.read_upto = (mailbox.decode(), entries[-1][0])
                break
            self.entries_to_lose -= len(lost)
            try:
                self._admin.xdel(mailbox, *lost)
            except redis.ConnectionError as error:  # the server was killed: nothing of it will be read any more
                raise _silence(is_write=False) from error
            replies = await wire.undisturbed(commands, is_write=False, wait_s=wait_s)
        return replies


def _silence(*, is_write: bool) -> Exception:
    """What the caller of a call without an answer knows."""
    return Uncertain("a fault: no answer") if is_write else Unavailable("a fault: no answer")


class FaultyWire(Wire):
    """A connection to the store on which things go wrong."""

    def __init__(self, connection: Any, options: StoreOptions, faults: Faults) -> None:  # noqa: ANN401
        super().__init__(connection, options)
        self._faults = faults

    async def exchange(self, commands: Sequence[Command], *, is_write: bool, wait_s: float = 0.0) -> list[Reply]:
        replies: list[Reply] = await self._faults.carry_out(self, commands, is_write=is_write, wait_s=wait_s)
        return replies

    async def undisturbed(self, commands: Sequence[Command], *, is_write: bool, wait_s: float) -> list[Reply]:
        return await super().exchange(commands, is_write=is_write, wait_s=wait_s)


class FaultyLink(Link):
    """A pool of such connections."""

    def __init__(self, url: str, options: StoreOptions, faults: Faults) -> None:
        super().__init__(url, options)
        self._faults = faults

    def wire(self) -> Wire:
        connection = self._factory.make_connection()  # type: ignore[no-untyped-call]
        return FaultyWire(connection, self._options, self._faults)
