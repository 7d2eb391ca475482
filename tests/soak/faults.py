"""What a soak does to the system: one function a kind of fault, which injects it, lets it last, and takes it back.

Each is given the stage and a source of chance; what it leaves behind is a system that has everything it needs to heal.
A fault may be the reason of gaps: `lost` where acknowledged entries are truly gone, `trimmed`, `epoch`.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.core.names import ALL, EntryId, parse_id
from service.errors import WaypostError
from service.store import Store, TrimCause
from tests.clock import Clock, library
from tests.integration.store.kit import Server, key_of, wait_until
from tests.service import free_port
from tests.soak import cast
from tests.soak.stage import SETTINGS, Stage
from tests.worker import WorkerProcess

Deed = Callable[[Stage, random.Random], None]

# Calls of the store whose answers are lost, late, or which are themselves carried out late.
CALLS = ("publish_v", "open_v", "join_v", "leave_v", "attach_v", "detach_v", "commit_v", "lease_v", "page_v", "XREAD")
MAILBOX_TTL_S = float(str(SETTINGS["mailbox_ttl_s"]))
CALL_TIMEOUT_S = float(str(SETTINGS["call_timeout_s"]))


class Kind(NamedTuple):
    """A kind of fault. `explains` are the kinds of gap that clients may be told afterwards."""

    deed: Deed
    explains: frozenset[str] = frozenset()


def _last(chance: random.Random, least_s: float, most_s: float) -> None:
    """Lets a fault last."""
    time.sleep(chance.uniform(least_s, most_s))


def _wait_for_nodes(stage: Stage) -> None:
    for node in stage.nodes:
        wait_until(node.is_ready, f"{node.name} is ready", 30)


# -- processes that die or stand still ---------------------------------------------------------------------------------


def node_killed(stage: Stage, chance: random.Random) -> None:
    node = chance.choice(stage.nodes)
    node.kill()
    _last(chance, 0, 1)
    node.start()


def node_killed_for_good_while(stage: Stage, chance: random.Random) -> None:
    """Longer than its lease: everybody has gone to the other node, and comes back in part."""
    node = chance.choice(stage.nodes)
    node.kill()
    _last(chance, MAILBOX_TTL_S, MAILBOX_TTL_S + 2)
    node.start()


def node_stands_still(stage: Stage, chance: random.Random) -> None:
    node = chance.choice(stage.nodes)
    node.signal(signal.SIGSTOP)
    _last(chance, 0.5, MAILBOX_TTL_S + 3)
    node.signal(signal.SIGCONT)


def node_drained(stage: Stage, chance: random.Random) -> None:
    node = chance.choice(stage.nodes)
    node.stop()
    node.start()


def database_killed(stage: Stage, chance: random.Random) -> None:
    stage.database.kill()
    _last(chance, 0, 2)
    stage.database.start()


def database_stands_still(stage: Stage, chance: random.Random) -> None:
    assert stage.database.process is not None
    stage.database.process.send_signal(signal.SIGSTOP)
    _last(chance, 0.3, 2 * CALL_TIMEOUT_S)
    stage.database.process.send_signal(signal.SIGCONT)


def both_killed(stage: Stage, chance: random.Random) -> None:
    node = chance.choice(stage.nodes)
    first, second = chance.sample((stage.database.kill, node.kill), 2)
    first()
    _last(chance, 0, 0.5)
    second()
    stage.database.start()
    node.start()


def all_nodes_killed(stage: Stage, chance: random.Random) -> None:
    for node in stage.nodes:
        node.kill()
    _last(chance, 0, 1)
    for node in stage.nodes:
        node.start(wait=False)


# -- the way between node and database ---------------------------------------------------------------------------------


def clients_paused(stage: Stage, chance: random.Random) -> None:
    ms = chance.randrange(300, int(1500 * CALL_TIMEOUT_S))
    stage.admin.execute_command("CLIENT", "PAUSE", ms, chance.choice(("WRITE", "ALL")))
    time.sleep(ms / 1000)


def clients_killed(stage: Stage, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 10)):
        stage.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        _last(chance, 0, 0.3)


def answers_lost(stage: Stage, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 6)):
        proxy, word = chance.choice(stage.proxies), chance.choice(CALLS)
        rule = proxy.lose_answers(word, chance.randrange(1, 4), silently=chance.random() < 0.3)
        _last(chance, 0.2, 1)
        rule.release()


def calls_lost(stage: Stage, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 6)):
        rule = chance.choice(stage.proxies).lose_calls(chance.choice(CALLS), chance.randrange(1, 4))
        _last(chance, 0.2, 1)
        rule.release()


def answers_late(stage: Stage, chance: random.Random) -> None:
    """Sometimes so late that nobody waits for them any more."""
    rule = chance.choice(stage.proxies).hold_answers(chance.choice(CALLS), chance.randrange(1, 4))
    _last(chance, 0.1, 1.5 * CALL_TIMEOUT_S)
    rule.release()


def calls_late(stage: Stage, chance: random.Random) -> None:
    """Carried out after calls that came after them; the caller has given up on them, or not."""
    rules = [
        proxy.hold_calls(chance.choice(CALLS), chance.randrange(1, 3), cut=chance.random() < 0.5)
        for proxy in stage.proxies
    ]
    _last(chance, 0.1, 2 * CALL_TIMEOUT_S)
    for rule in rules:
        rule.release()


def one_way_only(stage: Stage, chance: random.Random) -> None:
    proxy = chance.choice(stage.proxies)
    proxy.black_hole(chance.choice(("calls", "answers")))
    _last(chance, 0.5, 1.5 * CALL_TIMEOUT_S)
    proxy.black_hole()


def database_out_of_reach(stage: Stage, chance: random.Random) -> None:
    """For one node, or for all."""
    severed = chance.sample(stage.proxies, chance.randrange(1, len(stage.proxies) + 1))
    for proxy in severed:
        proxy.sever()
    _last(chance, 0.1, MAILBOX_TTL_S + 1)
    for proxy in severed:
        proxy.mend()


# -- what tells nodes of new entries -----------------------------------------------------------------------------------


def mailbox_entries_lost(stage: Stage, chance: random.Random) -> None:
    node = chance.choice(stage.nodes)
    node.signal(signal.SIGSTOP)  # so that there is something in its mailbox that it has not read
    _last(chance, 0.3, 1)
    for name in stage.keys("m"):
        if f":m:{node.name}." in name:
            waiting = [raw for raw, _ in stage.admin.xrange(name)]
            for entry in chance.sample(waiting, min(len(waiting), 3)):
                stage.admin.xdel(name, entry)
    node.signal(signal.SIGCONT)


def mailbox_deleted(stage: Stage, chance: random.Random) -> None:
    for name in stage.keys("m"):
        if chance.random() < 0.7:
            stage.admin.delete(name)


def mailbox_overflows(stage: Stage, chance: random.Random) -> None:
    """More comes while a node stands still than its mailbox holds."""
    node = chance.choice(stage.nodes)
    node.signal(signal.SIGSTOP)
    for name in stage.keys("m"):
        if f":m:{node.name}." in name:
            stage.admin.xtrim(name, maxlen=1, approximate=False)
            _last(chance, 0.1, 0.5)
            stage.admin.xtrim(name, maxlen=1, approximate=False)
    node.signal(signal.SIGCONT)


def registrations_lost(stage: Stage, chance: random.Random) -> None:
    """The audit has to find them."""
    for name in stage.keys("h"):
        for field in stage.admin.hkeys(name):
            if field.startswith(b"wp:") and chance.random() < 0.5:
                stage.admin.hdel(name, field)


# -- the store itself --------------------------------------------------------------------------------------------------


def full(stage: Stage, chance: random.Random) -> None:
    used = int(stage.admin.info("memory")["used_memory"])
    stage.admin.config_set("maxmemory", used - 100_000)
    _last(chance, 0.5, 3)
    stage.admin.config_set("maxmemory", 0)


def migrated_twice_at_once(stage: Stage, _chance: random.Random) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(stage.migrate) for _ in range(2)]:
            done.result()


def clock_set_back(stage: Stage, chance: random.Random) -> None:
    """The machine's clock is wrong when the database comes back, is put right under way, and stays right."""
    clock = Clock()
    clock.turn(-chance.randrange(60, 3000))
    stage.database.kill()
    stage.database.environ |= clock.environ
    stage.database.start()
    _last(chance, 1, 3)
    clock.turn(0)
    _last(chance, 0, 1)
    stage.database.kill()
    for name in clock.environ:
        del stage.database.environ[name]
    stage.database.start()
    clock.remove()


def trimmed(stage: Stage, chance: random.Random) -> None:
    """What retention does: somewhere between two pages of whoever reads."""
    streams = [*(f"group:g{number}" for number in range(cast.GROUPS)), *(f"user:{user}" for user in cast.users), ALL]

    async def trim(store: Store) -> None:
        for stream in chance.sample(streams, 3):
            entries = [parse_id(raw.decode()) for raw, _ in stage.admin.xrange(key_of("s", stream))]
            if entries:
                upto = chance.choice(entries)
                stage.keep_memberships()  # stretches below the floor may be forgotten from now on
                while (await store.trim(stream, upto, TrimCause(policy="soak", limit="chance"), limit=100)).more:
                    pass

    stage.store_call(trim)


POLICIES = (
    """
[retention]
device_idle_max = "1d"
[[retention.policies]]
match = "user:*"
max_entries = 40
hold_unread = "1h"
[[retention.policies]]
match = "all"
max_bytes = "6KB"
min_keep = 10
"""
    + "".join(
        f'[[retention.policies]]\nmatch = "group:g{number}"\nmax_entries = {20 + 10 * number}\n'
        for number in range(cast.GROUPS)
    )
    + "".join(f'[jobs.{job}]\nevery = "1d"\n' for job in ("devices", "groups", "audit", "survey"))
    + '[jobs.retention]\nevery = "1s"\n'
)


def trimmed_by_workers(stage: Stage, chance: random.Random) -> None:
    """Two workers carry out policies every second, while they are stopped, go on, and are killed."""
    path = stage.folder / "retention.toml"
    path.write_text(POLICIES)
    stage.keep_memberships()  # of groups that keep their members: stretches that go have been there before
    workers = [WorkerProcess(stage.database.url, config=path, job_lease_s=1).start() for _ in range(2)]
    try:
        for _ in range(chance.randrange(2, 4)):
            _last(chance, 0.5, 1.5)
            stopped = chance.choice(workers)
            stopped.signal(signal.SIGSTOP)
            _last(chance, 0.5, 2)
            stopped.signal(signal.SIGCONT)
        chance.choice(workers).signal(signal.SIGKILL)
        _last(chance, 0.5, 1.5)
    finally:
        for worker in workers:
            assert "Traceback" not in worker.said(), worker.said()
            worker.remove()


def redacted(stage: Stage, chance: random.Random) -> None:
    streams = [*(f"group:g{number}" for number in range(cast.GROUPS)), *(f"user:{user}" for user in cast.users), ALL]

    async def redact(store: Store) -> None:
        for stream in chance.sample(streams, 5):
            found = stage.admin.xrevrange(key_of("s", stream), count=20)
            ids: list[EntryId] = [parse_id(raw.decode()) for raw, fields in found if fields.get(b"t") == b"message"]
            if ids:
                with suppress(WaypostError):  # `not_found`: trimmed, or redacted from the other inbox
                    await store.redact(stream, chance.choice(ids), "operator", only_sender=False)

    stage.store_call(redact)


# -- what takes acknowledged entries away: never without a gap ---------------------------------------------------------


def _newest_file(server: Server) -> Path:
    return max((server.folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)


def _cut(server: Server, chance: random.Random) -> None:
    path = _newest_file(server)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(max(0, size - chance.randrange(1, 4000)))


def power_cut(stage: Stage, chance: random.Random) -> None:
    """The last bytes of the append-only file never reached the disk, though the server said so."""
    stage.database.kill()
    _cut(stage.database, chance)
    stage.database.start()


def power_cut_everysec(stage: Stage, chance: random.Random) -> None:
    """With `appendfsync everysec` that is what may happen; answers say `memory` there."""
    stage.admin.config_set("appendfsync", "everysec")
    _last(chance, 3, 4)
    stage.database.kill()
    _cut(stage.database, chance)
    stage.database.start()


def older_data_put_back(stage: Stage, chance: random.Random) -> None:
    folder = stage.database.folder / "appendonlydir"
    wait_until(lambda: not stage.admin.info("persistence")["aof_rewrite_in_progress"], "the file is whole", 30)
    kept = stage.database.folder / "kept"
    shutil.copytree(folder, kept)
    _last(chance, 0.5, 3)
    stage.database.kill()
    shutil.rmtree(folder)
    kept.rename(folder)
    stage.database.start()


def replica_behind_promoted(stage: Stage, chance: random.Random) -> None:
    """The link is cut first: what the old primary answers from then on is on no other machine."""
    port = stage.database.options[1]
    successor = Server(stage.product, "--port", str(free_port()))
    successor.start()
    successor.admin.execute_command("REPLICAOF", "127.0.0.1", port)
    wait_until(lambda: successor.admin.info("replication")["master_link_status"] == "up", "the replica follows", 30)
    successor.admin.execute_command("REPLICAOF", "NO", "ONE")
    _last(chance, 0.2, 2)
    stage.replace_database(successor)


def flushed(stage: Stage, chance: random.Random) -> None:
    """Somebody empties the store, and an operator begins a new epoch."""
    groups, ledgers = stage.keys("g"), stage.keys("x")
    pipeline = stage.admin.pipeline(transaction=True)
    for name in groups:
        pipeline.hgetall(name)
    for name in ledgers:
        pipeline.lrange(name, 0, -1)
    pipeline.flushall()
    *found, _ = pipeline.execute()
    stage.kept.ends.append(int(time.time() * 1000))
    stage.keep(
        dict(zip(groups, found[: len(groups)], strict=True)), dict(zip(ledgers, found[len(groups) :], strict=True))
    )
    _last(chance, 0.5, 2)
    stage.migrate()


_LOSES = frozenset({"lost"})

KINDS: dict[str, Kind] = {
    "node killed": Kind(node_killed),
    "node killed, away longer than its lease": Kind(node_killed_for_good_while),
    "node stands still": Kind(node_stands_still),
    "node drained and started": Kind(node_drained),
    "all nodes killed": Kind(all_nodes_killed),
    "database killed": Kind(database_killed),
    "database stands still": Kind(database_stands_still),
    "database and node killed": Kind(both_killed),
    "database's clients paused": Kind(clients_paused),
    "database's clients killed": Kind(clients_killed),
    "answers lost": Kind(answers_lost),
    "calls lost": Kind(calls_lost),
    "answers late": Kind(answers_late),
    "calls carried out late": Kind(calls_late),
    "bytes go one way only": Kind(one_way_only),
    "database out of reach": Kind(database_out_of_reach),
    "mailbox entries lost": Kind(mailbox_entries_lost),
    "mailbox deleted": Kind(mailbox_deleted),
    "mailbox overflows": Kind(mailbox_overflows),
    "registrations lost": Kind(registrations_lost),
    "store full": Kind(full),
    "two migrations at once": Kind(migrated_twice_at_once),
    "clock set back": Kind(clock_set_back),
    "trimmed": Kind(trimmed, frozenset({"trimmed"})),
    "trimmed by workers, stopped and killed": Kind(trimmed_by_workers, frozenset({"trimmed"})),
    "redacted": Kind(redacted),
    "end of the append-only file cut off": Kind(power_cut, _LOSES),
    "the same with appendfsync everysec": Kind(power_cut_everysec, _LOSES),
    "older data put back": Kind(older_data_put_back, _LOSES),
    "replica that is behind promoted": Kind(replica_behind_promoted, _LOSES),
    "store emptied": Kind(flushed, frozenset({"epoch", "lost"})),
}


def available(product: str) -> list[str]:
    """The kinds that can be injected into this database on this machine."""
    # Debian's Redis does not start under libfaketime.
    can_set_clock = product == "valkey" and library() is not None
    return [name for name in KINDS if name != "clock set back" or can_set_clock]
