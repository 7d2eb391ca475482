"""The first schema: a store id, sixteen partitions, and an epoch that a server's run is bound to.

Frozen: key names and partition tags are written out here, so that later code cannot change what this did.
"""

import secrets

from redis.exceptions import RedisError

from service.store.connection import Command, Link, Reply, reply_error

META = "wp:meta"
SCHEMA = 1
# The tag of partition p of 16: the smallest number whose slot lies in the p-th of equal slices of the slot space.
TAGS = ("10", "3", "61", "43", "11", "2", "60", "42", "12", "1", "63", "41", "13", "0", "62", "40")


async def apply(link: Link) -> list[str]:
    """Bring the store to schema 1; returns what was done, one line each, empty when nothing was due.

    A store of which a part is gone (meta without an epoch key, or the reverse) was reset: it starts a new epoch
    in all partitions, because nobody can say what else is gone. Whose run an epoch names is not looked at:
    binding a whole store to another server is the nodes' business (`reconcile`). May be repeated.
    """
    reads: list[Command] = [("HGET", META, "store"), *(("HGET", _fence(tag), "epoch") for tag in TAGS)]
    store, *epochs = await _run(link, [*reads], is_write=False)
    is_whole = store is not None and None not in epochs and len(set(epochs)) == 1
    if is_whole:
        return []
    is_fresh = store is None and not any(epochs)

    [info] = await _run(link, [("INFO", "server")], is_write=False)
    run = next(line[7:] for line in info.decode().splitlines() if line.startswith("run_id:"))
    store_id = store.decode() if store is not None else secrets.token_hex(8)
    epoch = secrets.token_hex(8)
    writes: list[Command] = [("HSET", META, "store", store_id, "schema", SCHEMA, "partitions", len(TAGS))]
    for tag in TAGS:
        writes += [("DEL", _fence(tag)), ("HSET", _fence(tag), "epoch", epoch, "run", run)]
    await _run(link, [("MULTI",), *writes, ("EXEC",)], is_write=True)
    if is_fresh:
        return [f"new store {store_id}: schema {SCHEMA}, {len(TAGS)} partitions, epoch {epoch}"]
    return [f"store {store_id} had been reset: a new epoch {epoch} begins in all {len(TAGS)} partitions"]


def _fence(tag: str) -> str:
    return f"wp:{{{tag}}}:e"


async def _run(link: Link, commands: list[Command], *, is_write: bool) -> list[Reply]:
    replies = await link.pipeline(commands, is_write=is_write)
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply_error(reply, is_write=is_write) from reply
    return replies
