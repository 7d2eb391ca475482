"""How a server and the store on it stand, for who runs them: reads whatever it may, and changes nothing."""

import time
from statistics import median

import msgspec
from redis.exceptions import NoPermissionError, RedisError

from service.errors import WaypostError
from service.store import acl, decode, facts, functions, keys
from service.store.connection import Command, Link, Reply, reply_error
from service.store.context import Context
from service.store.nodes import OLDEST, SCHEMA
from service.store.records import NodeFacts, StoreOptions

_PINGS = 5
_CONFIGS = ("maxmemory-policy", "appendfsync", "no-appendfsync-on-rewrite")


class Rights(msgspec.Struct, frozen=True):
    """What a user may do: commands of the service that are lacking, and dangerous ones that are not."""

    lacking: list[str]
    dangerous: list[str]


class Diagnosis(msgspec.Struct, frozen=True):
    """`info` is all of INFO. What the server does not tell is None; `config` leaves it out.

    `clock_ahead_ms`: by how much the server's clock is ahead of this machine's. `user` is whom the URL signs in as,
    `rights` those of the user that was asked about. `schema` is None in a store that was never migrated; `epochs` are
    those of its partitions, "" for none, and `fenced` counts partitions whose epoch names another run of the server.
    """

    product: str
    version: str
    is_too_old: bool
    info: dict[str, str]
    config: dict[str, str]
    ping_ms: float
    clock_ahead_ms: float
    user: str | None
    rights: Rights | None
    schema: int | None
    epochs: list[str]
    fenced: int
    functions: dict[str, str] | None
    nodes: list[NodeFacts] | None

    @property
    def wanted_schema(self) -> int:
        """The schema that this release works with."""
        return SCHEMA


async def diagnose(url: str, options: StoreOptions, user: str | None = None) -> Diagnosis:
    """Looks at the server at `url`; `user` is whose rights are asked for, None: those of whoever signs in.

    Raises `StoreRefused` for a URL that is none, `Unavailable` for a server that is out of reach or refuses the basics.
    """
    link = Link(url, options)
    try:
        return await _diagnose(link, options, user)
    finally:
        await link.close()


async def _diagnose(link: Link, options: StoreOptions, user: str | None) -> Diagnosis:
    pings = []
    for _ in range(_PINGS):
        begun = time.monotonic()
        await link.call("PING", is_write=False)
        pings.append((time.monotonic() - begun) * 1000)
    begun = time.time()
    seconds, micros = await link.call("TIME", is_write=False)
    clock_ahead_ms = (int(seconds) + int(micros) / 1e6 - (begun + time.time()) / 2) * 1000
    info = decode.server_info(await link.call("INFO", is_write=False))
    product = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{product}_version", "0.0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    configs: dict[str, str] = {}
    for name in _CONFIGS:
        found = await _asked(link, ("CONFIG", "GET", name))
        if found:
            configs[name] = found[1].decode()
    told = await _asked(link, ("ACL", "WHOAMI"))
    signed_in = None if told is None else told.decode()
    schema, epochs, fenced = await _fences(link, info["run_id"])
    return Diagnosis(
        product=product,
        version=version,
        is_too_old=numbers < OLDEST[product],
        info=info,
        config=configs,
        ping_ms=median(pings),
        clock_ahead_ms=clock_ahead_ms,
        user=signed_in,
        rights=await _rights(link, user or signed_in),
        schema=schema,
        epochs=epochs,
        fenced=fenced,
        functions=await _functions(link),
        nodes=await _nodes(link, options),
    )


async def _asked(link: Link, command: Command) -> Reply:
    """The answer, None where the server has an error for it: hosted ones refuse some commands."""
    [reply] = await link.pipeline([command], is_write=False)
    return None if isinstance(reply, RedisError) else reply


async def _rights(link: Link, user: str | None) -> Rights | None:
    """What that user may do; None where nobody tells."""
    if user is None:
        return None
    wanted = [acl.EXAMPLES[command] for command in acl.SERVICE]
    dry: list[Command] = [("ACL", "DRYRUN", user, *words) for words in (*wanted, *acl.DANGEROUS)]
    replies = await link.pipeline(dry, is_write=False)
    if any(isinstance(reply, RedisError) for reply in replies):
        return None
    may = [reply == b"OK" for reply in replies]
    needed, dangerous = may[: len(wanted)], may[len(wanted) :]
    return Rights(
        [command for command, is_granted in zip(acl.SERVICE, needed, strict=True) if not is_granted],
        [" ".join(words) for words, is_granted in zip(acl.DANGEROUS, dangerous, strict=True) if is_granted],
    )


async def _fences(link: Link, run: str) -> tuple[int | None, list[str], int]:
    schema, partitions = await link.call("HMGET", keys.META, "schema", "partitions", is_write=False)
    if schema is None or partitions is None:
        return None, [], 0
    tags = keys.partition_tags(int(partitions))
    fences = await link.pipeline([("HMGET", keys.epoch(tag), "epoch", "run") for tag in tags], is_write=False)
    for fence in fences:
        if isinstance(fence, RedisError):
            raise reply_error(fence, is_write=False)
    epochs = sorted({(fence[0] or b"").decode() for fence in fences})
    return int(schema), epochs, sum(fence[1] != run.encode() for fence in fences)


async def _functions(link: Link) -> dict[str, str] | None:
    try:
        return {functions.library(name): state for name, state in (await functions.states(link)).items()}
    except WaypostError as error:
        if isinstance(error.__cause__, NoPermissionError):
            return None
        raise


async def _nodes(link: Link, options: StoreOptions) -> list[NodeFacts] | None:
    try:
        return await facts.node_facts(Context(link, options))
    except WaypostError as error:
        if isinstance(error.__cause__, NoPermissionError):
            return None
        raise
