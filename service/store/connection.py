"""Connections to the server: made on purpose, never repeating a command, and exact about what a failure means.

A command that could not be sent is `Unavailable`; one whose answer is missing is `Uncertain` when it writes.
redis-py's client cannot tell these apart after the fact (and repeats commands by itself), so this module uses
its connections and parsers alone, with a small pool of its own.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from service.errors import Reset, Unavailable, Uncertain, WaypostError
from service.metrics import StoreCalls
from service.store.records import StoreOptions, StoreRefused

# Refusals that come before a command is carried out, whatever it is.
_REFUSALS = (AuthenticationError, BusyLoadingError, ClusterDownError, MasterDownError, NoPermissionError, ReadOnlyError)
_REFUSAL_WORDS = ("NOREPLICAS", "BUSY", "MISCONF", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "READONLY")

PLAIN = "plain"  # as what commands are counted that call no function
# What functions answer first; whatever else it is says why they did nothing.
_STATUSES = {b"ok": "ok", b"fenced": "fenced", b"reset": "reset"}

Command: TypeAlias = Sequence[str | bytes | int]
Reply: TypeAlias = Any  # nested lists of bytes and ints, None, or a RedisError; the modules beside make records of it


def reply_error(error: RedisError, *, is_write: bool) -> WaypostError:
    """What an error reply of the server means to the caller."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM"):
        return WaypostError("storage_full", "the server is out of memory; nothing was written")
    if isinstance(error, _REFUSALS) or text.split(" ", 1)[0] in _REFUSAL_WORDS:
        return Unavailable(f"the server refused: {text[:200]}")
    if "Function not found" in text:
        return Reset("a function is missing on the server: run `waypost migrate up`")
    # A script error after the first write cannot be told from one before it.
    if is_write:
        return Uncertain(f"the server answered an error: {text[:200]}", has_answered=True)
    return WaypostError("internal", f"the server answered an error: {text[:200]}")


def name_of(command: Command) -> str:
    """What a call is counted as: the function that it calls, `plain` for any other command."""
    if command[0] in ("FCALL", "FCALL_RO"):
        return str(command[1]).rpartition("_v")[0]
    return PLAIN


def outcome_of(function: str, reply: Reply, *, is_write: bool) -> str:
    """What a reply is counted as. An error that a plain command is answered may be what the caller wants to know."""
    if isinstance(reply, RedisError):
        problem = reply_error(reply, is_write=is_write)
        if function == PLAIN and problem.code in ("uncertain", "internal"):
            return "refused"
        return "reset" if isinstance(problem, Reset) else problem.code
    if function == PLAIN:
        return "ok"
    return _STATUSES.get(reply[0], "refused")


class Wire:
    """One connection, opened at need. Carries one exchange at a time."""

    def __init__(self, connection: AbstractConnection, options: StoreOptions) -> None:
        self._connection = connection
        self._options = options

    async def exchange(self, commands: Sequence[Command], *, is_write: bool, wait_s: float = 0.0) -> list[Reply]:
        """Send commands in one go and read one reply each; error replies come back as `RedisError` objects.

        `wait_s` is how long the server may hold the answer back on purpose. Raises `Unavailable` when nothing
        was sent, `Uncertain` (for reads `Unavailable`) when a reply is missing. Whatever interrupts an exchange
        closes the connection: the next one must not read this one's reply.
        """
        connection = self._connection
        await self._open()
        try:
            async with asyncio.timeout(self._options.call_timeout_s + wait_s):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                return [await self._reply() for _ in commands]
        except BusyLoadingError as error:
            raise reply_error(error, is_write=is_write) from error
        except AuthenticationError as error:
            await connection.disconnect(nowait=True)
            raise reply_error(error, is_write=is_write) from error
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            what = "no answer in time" if isinstance(error, TimeoutError) else "connection lost"
            if is_write:
                raise Uncertain(f"{what}; may be stored") from error
            raise Unavailable(what) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _reply(self) -> Reply:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    async def _open(self) -> None:
        """Connect unless connected. A connection that the server closed meanwhile is replaced, not used."""
        connection = self._connection
        try:
            if connection.is_connected and not await connection.can_read():  # which does not wait
                return
            async with asyncio.timeout(self._options.connect_timeout_s):
                await connection.disconnect(nowait=True)
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            raise Unavailable(f"cannot connect to the store: {str(error) or 'no answer in time'}") from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def close(self) -> None:
        """Close the connection. It would be opened again by the next exchange."""
        await self._connection.disconnect(nowait=True)


def _check_files(url: str) -> None:
    try:
        named = parse_qs(urlsplit(url).query)
    except ValueError:
        return  # of such a URL nobody knows what it names
    for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        for path in named.get(option, ()):
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                raise StoreRefused(f"cannot read {option} of the store's URL, {path}: {error.strerror}") from error


class Link:
    """A pool of connections to one server. Connects at need; bounded; calls queue for a free connection."""

    def __init__(self, url: str, options: StoreOptions) -> None:
        """Raises `StoreRefused` for what is no redis://, rediss:// or unix://, or names a file that is not there."""
        _check_files(url)
        try:
            self._factory = ConnectionPool.from_url(
                url,
                protocol=2,
                client_name="waypost",
                driver_info=None,  # saves two round trips at each connect
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,  # each exchange has one deadline of its own
                socket_connect_timeout=options.connect_timeout_s,
                health_check_interval=0,
            )
            # Which knows what a query may say.
            self._factory.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError):
            # The reason might repeat a part of the password.
            raise StoreRefused(
                "not the URL of a store: redis://, rediss:// or unix://, with what redis-py takes behind `?`"
            ) from None
        self._options = options
        self.calls = StoreCalls()
        self._idle: list[Wire] = []
        self._generation = 0
        self._free = asyncio.Semaphore(options.connections_max)
        self._is_closed = False

    def wire(self) -> Wire:
        """A connection outside the pool, for one who blocks on it. The caller closes it."""
        connection = self._factory.make_connection()  # type: ignore[no-untyped-call]
        return Wire(connection, self._options)

    async def call(self, *command: str | bytes | int, is_write: bool) -> Reply:
        """One command, one reply. Raises what `Wire.exchange` and `reply_error` say."""
        [reply] = await self.pipeline([command], is_write=is_write)
        if isinstance(reply, RedisError):
            raise reply_error(reply, is_write=is_write) from reply
        return reply

    async def pipeline(self, commands: Sequence[Command], *, is_write: bool, wait_s: float = 0.0) -> list[Reply]:
        """Several commands on one connection in one round trip, none of none; error replies come back as objects."""
        if not commands:
            return []
        function, begun = name_of(commands[0]), time.monotonic()
        try:
            replies = await self._pipeline(commands, is_write=is_write, wait_s=wait_s)
        except WaypostError as problem:
            self.calls.count(function, problem.code, time.monotonic() - begun)
            raise
        outcome = outcome_of(function, replies[0], is_write=is_write)
        self.calls.count(function, outcome, time.monotonic() - begun)
        return replies

    async def _pipeline(self, commands: Sequence[Command], *, is_write: bool, wait_s: float) -> list[Reply]:
        if self._is_closed:
            raise Unavailable("the store was closed")
        await self._wait_for_a_free_one()
        wire, generation = self._idle.pop() if self._idle else self.wire(), self._generation
        try:
            return await wire.exchange(commands, is_write=is_write, wait_s=wait_s)
        finally:
            self._free.release()
            if generation == self._generation:
                self._idle.append(wire)
            else:
                await wire.close()

    async def _wait_for_a_free_one(self) -> None:
        if not self._free.locked():  # the usual case, for which a time-out would cost more than the rest
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._options.call_timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise Unavailable("every connection to the store is busy") from error

    async def reconnect(self) -> None:
        """Close idle connections now and busy ones when their call ends: another server may be at the address."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for wire in idle:
            await wire.close()

    async def close(self) -> None:
        """The same, for good."""
        self._is_closed = True
        await self.reconnect()
