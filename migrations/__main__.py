"""`status` and `up`: what `waypost migrate` runs, and `python -m migrations status|up <url>`."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from migrations import m0001_first
from service.errors import Unavailable, WaypostError
from service.store import decode, functions
from service.store.connection import Link
from service.store.records import StoreOptions, StoreRefused

_MIGRATIONS = (m0001_first,)  # in order; each repeatable
_LOCK = "wp:migrate"
_LOCK_MS = 10_000  # far longer than all migrations take; a migration that died is waited for this long
_LOCK_POLL_S = 0.05
_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


async def up(url: str) -> list[str]:
    """Bring the store to this release's schema and load absent functions; returns what was done, line by line.

    May be repeated, and run by two at once: the second waits and finds nothing to do. Raises `StoreRefused` when
    the store is newer than this release or in cluster mode, `Unavailable`, or `Uncertain`: run it again.
    """
    link = Link(url, StoreOptions())
    try:
        await _refuse_cluster(link)
        async with _locked(link):
            await _refuse_newer(link)
            lines = [line for migration in _MIGRATIONS for line in await migration.apply(link)]
            lines += [f"function {library} loaded" for library in await functions.load_missing(link)]
            states = await functions.states(link)
    finally:
        await link.close()
    lines += [
        f"function {functions.library(name)} on the server has another text than this release's; it was left alone"
        for name, state in states.items()
        if state == "differs"
    ]
    return lines or ["nothing to do"]


async def status(url: str) -> list[str]:
    """What is there, line by line: schema, partitions, epoch, functions, and the fence of each partition.

    Changes nothing. Raises `StoreRefused` or `Unavailable`.
    """
    link = Link(url, StoreOptions())
    try:
        schema, partitions, store = await link.call(
            "HMGET", m0001_first.META, "schema", "partitions", "store", is_write=False
        )
        states = await functions.states(link)
        fences = await link.pipeline(
            [("HMGET", f"wp:{{{tag}}}:e", "epoch", "run") for tag in m0001_first.TAGS], is_write=False
        )
        info = await link.call("INFO", "server", is_write=False)
    finally:
        await link.close()
    run = decode.server_info(info)["run_id"]
    if schema is None:
        lines = ["schema: none (run `waypost migrate up`)"]
    else:
        lines = [f"store: {store.decode()}", f"schema: {schema.decode()}", f"partitions: {partitions.decode()}"]
    epochs = sorted({fence[0].decode() for fence in fences if fence[0] is not None})
    lines.append(f"epoch: {', '.join(epochs) or 'none'}")
    lines += [f"function {functions.library(name)}: {state}" for name, state in states.items()]
    for number, (tag, fence) in enumerate(zip(m0001_first.TAGS, fences, strict=True)):
        state = "reset" if fence[0] is None else "open" if fence[1] == run.encode() else "fenced"
        lines.append(f"partition {number} {{{tag}}}: {state}")
    return lines


async def _refuse_cluster(link: Link) -> None:
    """A function call names keys of several partitions, which a cluster would refuse once messages are sent."""
    info = (await link.call("INFO", "server", is_write=False)).decode().splitlines()
    if {"redis_mode:cluster", "server_mode:cluster"} & set(info):
        raise StoreRefused("the server is in cluster mode, and this release works on one server")


async def _refuse_newer(link: Link) -> None:
    raw = await link.call("HGET", m0001_first.META, "schema", is_write=False)
    if raw is not None and int(raw) > _MIGRATIONS[-1].SCHEMA:
        raise StoreRefused(f"the store has schema {int(raw)}, newer than this release's {_MIGRATIONS[-1].SCHEMA}")


@asynccontextmanager
async def _locked(link: Link) -> AsyncIterator[None]:
    """One migration at a time. Waits up to the lock's own lifetime, then raises `Unavailable`."""
    token = secrets.token_hex(8)
    try:
        async with asyncio.timeout(_LOCK_MS / 1000):
            while True:
                if await link.call("SET", _LOCK, token, "NX", "PX", _LOCK_MS, is_write=True):
                    break
                await asyncio.sleep(_LOCK_POLL_S)
    except TimeoutError as error:
        raise Unavailable("another migration is at work and does not end") from error
    try:
        yield
    finally:
        await link.call("EVAL", _UNLOCK, 1, _LOCK, token, is_write=True)


def main(argv: Sequence[str]) -> int:
    """`status <url>` or `up <url>`; prints the lines. 0 when it worked, 1 when refused, 2 when misused."""
    commands = {"status": status, "up": up}
    if len(argv) != 2 or argv[0] not in commands:
        print("usage: python -m migrations status|up <url>", file=sys.stderr)
        return 2
    try:
        lines = asyncio.run(commands[argv[0]](argv[1]))
    except WaypostError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
