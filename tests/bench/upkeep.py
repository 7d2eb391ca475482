"""How long one step of the jobs `devices`, `groups` and `audit` holds the server.

    python -m tests.bench.upkeep --product valkey

Each function is called on the largest things that it may meet: users with many devices and offsets, a group that a
hundred thousand have left, full ledgers and registers, a stream of a million entries. The figures are the server's own
(slow log), in milliseconds. The first call of a function in a server's life is told apart: it asks for the run id.
"""

import argparse
import asyncio
import itertools
import json

from migrations import __main__ as migrations
from service.store import JobLease, Store, StoreOptions
from tests.integration.store.kit import Admin, Server, hold, key_of

DEVICES = 20_000
MEMBERS = 100_000
ENTRIES = 1_000_000
LEDGER = 1000  # lines: a full one
MAILBOXES = 200  # on a register, all gone
CHUNK = 10_000  # commands in a pipeline
BEYOND = 10**14  # Redis ms: everything is older


def stock(admin: Admin, epoch: str) -> None:
    """Fills the store."""
    device = json.dumps({"first": 1, "last": 1, "node": "n"})
    commands: list[tuple[str | int, ...]] = []
    for user, number in itertools.product(range(50), range(10)):
        offsets = (part for group in range(50) for part in (f"group:g{group}", f"5-5 {epoch}"))
        commands.append(("HSET", key_of("d", f"user:u{user}", f"u{user}"), f"d{number}", device))
        commands.append(("HSET", key_of("o", f"user:u{user}", f"u{user}/d{number}"), *offsets))
    commands += [("HSET", key_of("d", "user:big", "big"), f"d{number}", device) for number in range(DEVICES)]
    commands.append(("HSET", key_of("h", "group:g"), "head", "1-5", "floor", "1-5"))
    for number in range(MEMBERS):
        commands.append(("HSET", key_of("g", "group:g", "g"), f"m{number}", "member|1-1,1-2"))
        if number % 50 == 0:
            name = f"m{number}"
            commands.append(("HSET", key_of("d", f"user:{name}", name), "phone", device))
            commands.append(("HSET", key_of("o", f"user:{name}", f"{name}/phone"), "group:g", f"5-5 {epoch}"))
    for number in range(50):
        stream = f"user:x{number}"
        register = (part for mailbox in range(MAILBOXES) for part in (f"wp:{{10}}:m:n{mailbox}.x", 1))
        commands.append(("HSET", key_of("h", stream), "head", "5-500000", *register))
        lines = (
            json.dumps({"after": f"1-{n}", "to": f"1-{n + 1}", "kind": "lost"}, separators=(",", ":"))
            for n in range(LEDGER)
        )
        commands.append(("RPUSH", key_of("x", stream), *lines))
    commands += [("XADD", key_of("s", "all"), f"9-{n}", "t", "message", "b", "x" * 90) for n in range(1, ENTRIES + 1)]
    commands.append(("HSET", key_of("h", "all"), "head", f"9-{ENTRIES}"))
    for begin in range(0, len(commands), CHUNK):
        pipe = admin.pipeline(transaction=False)
        for command in commands[begin : begin + CHUNK]:
            pipe.execute_command(*command)
        pipe.execute()


def tell(admin: Admin, what: str) -> None:
    """What the calls since the last time took."""
    calls = [row["duration"] / 1000 for row in admin.slowlog_get(10_000) if row["command"].startswith(b"FCALL")]
    admin.slowlog_reset()
    *others, first = calls
    took = sorted(others) or [first]
    middle, high = took[len(took) // 2], took[len(took) * 99 // 100]
    spread = f"p50 {middle:5.2f}  p99 {high:5.2f}  max {took[-1]:5.2f} ms"
    print(f"{what:42} {len(calls):5} calls  first {first:5.1f}  {spread}")


async def sweep(store: Store, lease: JobLease, users: list[str]) -> None:
    todo = [(user, "") for user in users]
    while todo:
        swept = await store.forget_devices(todo, 5000, lease=lease.lease, token=lease.token)
        todo = [(one.user, one.cursor) for one in swept if one.cursor] + todo[len(swept) :]


async def drop(store: Store, lease: JobLease, *, is_drop: bool) -> None:
    cursor = None
    while cursor != "":
        users, cursor = await store.former_members("g", cursor or "")
        for begin in range(0, len(users), 100):
            some = users[begin : begin + 100]
            await store.drop_group("g", some, BEYOND, is_drop=is_drop, lease=lease.lease, token=lease.token)


async def measure(server: Server) -> None:
    admin = server.admin
    await migrations.up(server.url)
    store = await Store.connect(server.url, options=StoreOptions())
    await store.check_server()
    stock(admin, store.epoch)
    lease = await hold(store, "devices")
    admin.config_set("slowlog-max-len", 10_000)
    admin.config_set("slowlog-log-slower-than", 20)  # µs: not the commands within the calls
    admin.slowlog_reset()
    await sweep(store, lease, [f"u{number}" for number in range(50)])
    tell(admin, "forget 100 devices with 50 offsets each")
    await sweep(store, lease, ["big"])
    tell(admin, "forget 100 devices of one user")
    await drop(store, lease, is_drop=False)
    tell(admin, "look at 100 former members")
    await drop(store, lease, is_drop=True)
    tell(admin, "take 100 former members out of their group")
    for number in range(50):
        await store.audit_streams([f"user:x{number}"], lease=lease.lease, token=lease.token)
    tell(admin, "audit a full ledger and a dead register")
    for _ in range(20):
        await store.audit_streams(["all"] * 20, lease=lease.lease, token=lease.token)
    tell(admin, "audit 20 times a stream of a million")
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--product", choices=("valkey", "redis"), default="valkey")
    with Server(parser.parse_args().product) as server:
        asyncio.run(measure(server))


if __name__ == "__main__":
    main()
