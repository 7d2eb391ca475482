"""Reading a node's mailbox, on a connection of its own: a blocking read must not hold up anybody else."""

import asyncio
from typing import TypeAlias

from redis.exceptions import RedisError

from service.core.entries import Arrival
from service.store import decode
from service.store.connection import Command, Reply, reply_error
from service.store.context import Context, answer, command
from service.store.records import Beat, Lease, MailboxGone

Received: TypeAlias = list[tuple[int, list[Arrival] | Beat | None]]


class MailboxReader:
    """For one task: reads, then renews the lease, in turn. Calls of two tasks would queue behind the blocking read."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wire = context.link.wire()
        self._turn = asyncio.Lock()

    async def read(self, mailbox: str, after: int, *, block_ms: int, count: int) -> Received:
        """At most `count` entries above number `after`, waiting up to `block_ms` for the first (0: not at all).

        `None` in place of an entry: it cannot be read and counts as lost. A hole in the numbers means that the
        mailbox was capped. Empty when nothing came, also when the mailbox is gone: `lease` tells. Raises `Unavailable`.
        """
        block = ("BLOCK", block_ms) if block_ms > 0 else ()
        read = ("XREAD", *block, "COUNT", count, "STREAMS", mailbox, f"1-{after}")
        reply = await self._call(read, is_write=False, wait_s=block_ms / 1000)
        if not reply:
            return []
        [[_, entries]] = reply
        return [(decode.entry_id(raw).n, decode.received(fields)) for raw, fields in entries]

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
        async with self._turn:
            [reply] = await self._wire.exchange([call], is_write=is_write, wait_s=wait_s)
        if isinstance(reply, RedisError):
            raise reply_error(reply, is_write=is_write) from reply
        return reply
