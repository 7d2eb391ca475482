"""Retention beside a flow of messages: what a message waits for while much is trimmed.

    python -m tests.bench.retention --streams 1000 --entries 500 --large 1000000

Alice writes to bob over a node, message after message at a steady rate, and the time until each arrives is taken:
before the run of `waypost retention run`, during it, and after it. The run trims a thousand streams and one very large
one to a tenth. What counts is the ratio of the figures of one run, and the longest call in the server's own slow log.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from migrations import __main__ as migrations
from tests.integration.store.kit import Admin, Server, key_of
from tests.integration.store.stock import now_ms
from tests.service import NodeProcess, Phone

OLD_MS = 60 * 86_400_000
BODY = json.dumps("x" * 100)
RATE = 200.0  # messages a second
BESIDE_S = 10.0  # of flow before the run, and after it
KEEP = 10  # of a hundred entries
SLOWLOG = 100_000  # calls


def stock(admin: Admin, stream: str, entries: int) -> None:
    """So many messages, all but KEEP per cent of them old."""
    now = now_ms(admin)
    old = entries * (100 - KEEP) // 100
    key = key_of("s", stream)
    last = ""
    for begin in range(1, entries + 1, 5000):
        pipe = admin.pipeline(transaction=False)
        for n in range(begin, min(begin + 5000, entries + 1)):
            last = f"{now - OLD_MS + n if n <= old else now - 1000}-{n}"
            pipe.execute_command("XADD", key, last, "t", "message", "f", "ada", "o", stream, "i", f"m{n}", "b", BODY)
        pipe.execute()
    admin.hset(key_of("h", stream), "head", last)


async def flow(alice: Phone, bob: Phone, goes_on: Callable[[float], bool]) -> list[float]:
    """Milliseconds from sending to arriving, of each message of a steady flow."""
    took = []
    began = time.monotonic()
    number = 0
    while goes_on(time.monotonic() - began):
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        number += 1
        sent = time.monotonic()
        body = f"{sent}"
        await alice.say(type="send", ref=number, to="user:bob", body=body)
        await bob.wait("message", body=body, seconds=60)
        took.append((time.monotonic() - sent) * 1000)
    return took


def figures(took: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took, n=100)
    return {
        "count": len(took),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "max_ms": round(max(took), 2),
    }


def calls(admin: Admin) -> dict[str, dict[str, float]]:
    """How long the server was at work on each function's calls: median, 99th of a hundred, longest, in milliseconds."""
    found: dict[str, list[float]] = {}
    for line in admin.slowlog_get(SLOWLOG):
        words = line["command"].split()
        if words[0].upper().startswith(b"FCALL"):
            found.setdefault(words[1].decode(), []).append(line["duration"] / 1000)
    return {name: figures(took) for name, took in sorted(found.items()) if len(took) > 1}


async def measure(server: Server, streams: int, entries: int, large: int) -> dict[str, object]:
    admin = server.admin
    await migrations.up(server.url)
    for number in range(streams):
        stock(admin, f"group:s{number}", entries)
    stock(admin, "group:large", large)
    node = NodeProcess(server.url, "bench").start()
    try:
        alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
        await flow(alice, bob, lambda s: s < 2)  # warm
        before = await flow(alice, bob, lambda s: s < BESIDE_S)
        admin.config_set("slowlog-log-slower-than", 0)
        admin.config_set("slowlog-max-len", SLOWLOG)
        admin.slowlog_reset()
        run, during, took_s = await _run(server.url, lambda goes_on: flow(alice, bob, goes_on))
        at_work = calls(admin)
        after = await flow(alice, bob, lambda s: s < BESIDE_S)
        await Phone.hang_up_all()
    finally:
        node.remove()
    base = statistics.quantiles([*before, *after], n=100)[98]
    return {
        "streams": streams,
        "entries_each": entries,
        "large": large,
        "without": figures([*before, *after]),
        "with": figures(during),
        "p99_ratio": round(statistics.quantiles(during, n=100)[98] / base, 2),
        "run_s": round(took_s, 1),
        "report": {
            name: run[name] for name in ("state", "streams_seen", "streams_trimmed", "entries_removed", "errors")
        },
        "calls": at_work,
    }


async def _run(
    url: str, flowing: Callable[[Callable[[float], bool]], Awaitable[list[float]]]
) -> tuple[dict[str, object], list[float], float]:
    """One `waypost retention run` as an operator starts it, and the flow beside it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "waypost.toml"
        settings.write_text('[[retention.policies]]\nmatch = "group:*"\nmax_age = "30d"\n')
        environ = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
        environ |= {"WAYPOST_REDIS_URL": url, "WAYPOST_CONFIG": str(settings)}
        command = [sys.executable, "-m", "service", "retention", "run", "--json"]
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond, before the flow begins
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        took = await flowing(lambda _: process.poll() is None)
        took_s = time.monotonic() - began
        out, _ = process.communicate()
    return json.loads(out), took, took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=500)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--product", choices=("valkey", "redis"), default="valkey")
    args = parser.parse_args()
    with Server(args.product) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(server, args.streams, args.entries, args.large))
    print(json.dumps({"product": args.product, **found}, indent=2))


if __name__ == "__main__":
    main()
