"""Reading a node's mailbox, on a connection of its own: a blocking read must not hold up anybody else."""

import asyncio
import time
from typing import NamedTuple, TypeAlias

from redis.exceptions import RedisError

from service.core.entries import Arrival
from service.errors import WaypostError
from service.store import decode, keys
from service.store.connection import Command, Reply, name_of, outcome_of, reply_error
from service.store.context import Context, answer, command
from service.store.records import Beat, Lease, MailboxGone, Notice

_NOTICES = keys.NOTICES.encode()

Received: TypeAlias = list[tuple[int, list[Arrival] | Beat | None]]


class Reading(NamedTuple):
    """What one reading brought: entries of the mailbox, and notices to all nodes, oldest first.

    `notices_upto` is the id to read notices after next time: one that cannot be read is left out, but counts.
    """

    entries: Received
    notices: list[Notice]
    notices_upto: str


class MailboxReader:
    """For one task: reads, then renews the lease, in turn. Calls of two tasks would queue behind the blocking read."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wire = context.link.wire()
        self._turn = asyncio.Lock()

    async def read(self, mailbox: str, after: int, *, notices_after: str, block_ms: int, count: int) -> Reading:
        """At most `count` entries above number `after`, and as many notices above the id `notices_after` (begin with
        `Store.last_notice`), waiting up to `block_ms` for the first (0: not at all).

        A notice that was written before an entry comes with it or earlier, unless there are more than `count`. `None`
        in place of an entry: it cannot be read and counts as lost. A hole in the numbers means that the mailbox was
        capped. Empty when nothing came, also when the mailbox is gone: `lease` tells. Raises `Unavailable`.
        """
        block = ("BLOCK", block_ms) if block_ms > 0 else ()
        read = ("XREAD", *block, "COUNT", count, "STREAMS", mailbox, keys.NOTICES, f"1-{after}", notices_after)
        reply = await self._call(read, is_write=False, wait_s=block_ms / 1000)
        entries: Received = []
        notices: list[Notice] = []
        for name, found in reply or ():
            if name == _NOTICES:
                notices = [told for _, fields in found if (told := decode.notice(fields)) is not None]
                notices_after = found[-1][0].decode()
            else:
                entries = [(decode.entry_id(raw).n, decode.received(fields)) for raw, fields in found]
        return Reading(entries, notices, notices_after)

    async def lease(self, mailbox: str, beat: int, read_upto: int, ttl_ms: int) -> Lease | None:
        """Renew the mailbox for `ttl_ms`, put beat number `beat` into it, and remove what was read.

        `read_upto` is the number of the last entry that was read. None: the mailbox is gone, and its reader is
        in doubt. Harmless twice; works on a full and on a fenced store. Raises `Unavailable` and `Uncertain`.
        """
        arg = {"mailbox": mailbox, "beat": beat, "read_upto": read_upto, "ttl_ms": ttl_ms}
        try:
            reply = answer(await self._call(command("lease", arg), is_write=True))
        except MailboxGone:
            return None
        epoch, run, server_run = (raw.decode() for raw in reply)
        self._context.run = server_run
        return Lease(epoch, run, server_run)

    async def close(self) -> None:
        """Close the connection."""
        await self._wire.close()

    async def _call(self, call: Command, *, is_write: bool, wait_s: float = 0.0) -> Reply:
        calls, begun = self._context.link.calls, time.monotonic()
        try:
            async with self._turn:
                [reply] = await self._wire.exchange([call], is_write=is_write, wait_s=wait_s)
        except WaypostError as problem:
            calls.count(name_of(call), problem.code, time.monotonic() - begun)
            raise
        if is_write:  # a read waits for what comes, and how long says nothing
            function = name_of(call)
            calls.count(function, outcome_of(function, reply, is_write=True), time.monotonic() - begun)
        if isinstance(reply, RedisError):
            raise reply_error(reply, is_write=is_write) from reply
        return reply
