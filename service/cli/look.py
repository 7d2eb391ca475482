"""`waypost devices|nodes|jobs|why|audit`: who has what, who works, what became of a message. All ask the store."""

import argparse
import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from service.cli import store, tables
from service.cli.arguments import entry, limit, name, on_the_store, stream
from service.config import Settings

if TYPE_CHECKING:
    from service.inspection import Device, Devices, Job, NodeView, Why
    from service.store import Store

Found = TypeVar("Found")

CONNECTED = {True: "yes", False: "no", None: "not known"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `devices`, `nodes`, `jobs`, `why` and `audit`."""
    shared = on_the_store()

    owned = subparsers.add_parser(
        "devices",
        parents=[shared],
        help="a user's devices, and what each has not got",
        description="The devices of a user: when each was seen, where it stands in every stream, and when it would "
        "begin to lose something. Without a user the devices of all that are most behind, by the last run of the job "
        "`survey`. Exit code 0: fine, 1: no device, or no store, 2: misused.",
    )
    owned.add_argument("user", type=name, nargs="?", help="whose; without: those most behind, whoever's")
    owned.add_argument("--all", action="store_true", help="of a user: also streams in which nothing is unread")
    owned.add_argument("--limit", type=limit, default=50, metavar="N", help="of all: so many (default: 50)")
    owned.set_defaults(run=functools.partial(store.work, show_devices))

    nodes = subparsers.add_parser(
        "nodes",
        parents=[shared],
        help="the nodes, and how each is",
        description="The nodes on the list, those included that are silent. Exit code 0: fine, 1: no store, "
        "2: misused.",
    )
    nodes.set_defaults(run=functools.partial(store.work, show_nodes))

    jobs = subparsers.add_parser(
        "jobs",
        parents=[shared],
        help="the scheduled jobs, and their last runs",
        description="The scheduled jobs: when each runs, who is at it, and what the last runs did. Exit code 0: fine, "
        "1: no store, 2: misused.",
    )
    jobs.add_argument("--runs", type=limit, default=3, metavar="N", help="reports of each job (default: 3)")
    jobs.set_defaults(run=functools.partial(store.work, show_jobs))

    why = subparsers.add_parser(
        "why",
        parents=[shared],
        help="what became of a message for a user",
        description="One verdict why a user has, or has not, got an entry, and what it rests on. Exit code 0: a "
        "verdict could be given, 1: no store, 2: misused.",
    )
    why.add_argument("stream", type=stream, help="user:<id>, group:<id> or all")
    why.add_argument("id", type=entry, help="the entry id, <ms>-<n>")
    why.add_argument("user", type=name, help="whose devices")
    why.set_defaults(run=functools.partial(store.work, show_why))

    audit = subparsers.add_parser(
        "audit",
        parents=[shared],
        help="what operators did",
        description="What operators did, newest first. Exit code 0: fine, 1: no store, 2: misused.",
    )
    audit.add_argument("--limit", type=limit, default=50, metavar="N", help="so many lines (default: 50)")
    audit.add_argument("--before", type=entry, metavar="ID", help="go on where the page before ended")
    audit.set_defaults(run=functools.partial(store.work, show_audit))


def _asked(settings: Settings, ask: "Callable[[Store], Awaitable[Found]]") -> Found:
    async def work() -> Found:
        async with store.opened(settings) as opened:
            return await ask(opened)

    return asyncio.run(work())


# -- devices -----------------------------------------------------------------------------------------------------------


def show_devices(args: argparse.Namespace, settings: Settings) -> int:
    """Print a user's devices. 1: there is none."""
    from service import inspection  # noqa: PLC0415 - see service/cli

    if args.user is None:
        return _show_most_behind(args, settings)
    found = _asked(settings, lambda opened: inspection.devices(opened, settings, args.user))
    if args.json:
        print(tables.as_json(found))
    elif found.devices:
        _tell_devices(found, is_all=args.all)
    if not found.devices:
        print(f"waypost: no device of {args.user}", file=sys.stderr)
        return 1
    return 0


def _show_most_behind(args: argparse.Namespace, settings: Settings) -> int:
    from service import inspection  # noqa: PLC0415 - see service/cli

    found = _asked(settings, lambda opened: inspection.survey(opened, settings, "lag", limit=args.limit))
    if args.json:
        print(tables.as_json(found))
        return 0
    if found.survey_as_of is None:
        print("no survey yet: `waypost worker --once survey` makes one", file=sys.stderr)
        return 1
    rows = [
        [
            one.user,
            one.device,
            one.stream,
            str(one.lag_messages),
            tables.age(one.waiting_s, "-"),
            tables.second(one.last_seen) if one.last_seen else "?",
            f"{tables.until(one.loses_at, one.loses_in_s)} by {one.loses_by}" if one.loses_by else "-",
        ]
        for one in found.devices
    ]
    head = ("user", "device", "stream", "lag", "waiting", "last seen", "loses from")
    tables.show(head, rows, numbers=("lag",))
    print(f"\nas of {tables.since(found.survey_as_of, found.survey_age_s)}; of:")
    totals = [
        [total.kind, str(total.streams), str(total.entries), tables.size(total.bytes), f"{total.rate_per_min:.1f}"]
        for total in found.totals
    ]
    tables.show(
        ("kind", "streams", "entries", "bytes", "/min"), totals, numbers=("streams", "entries", "bytes", "/min")
    )
    return 0


def _tell_devices(found: "Devices", *, is_all: bool) -> None:
    head = ("device", "first seen", "last seen", "node", "connected", "lag", "waiting")
    tables.show(head, [_device_row(device) for device in found.devices], numbers=("lag",))
    if found.devices_count > len(found.devices):
        print(f"and {found.devices_count - len(found.devices)} that were seen longer ago")
    rows, quiet = [], 0
    for device in found.devices:
        for row in device.streams:
            if not (row.lag_messages or row.epoch_differs or is_all):
                quiet += 1
                continue
            loses = tables.until(row.loses_at, row.loses_in_s, "never")
            rows.append(
                [
                    device.device,
                    row.stream,
                    row.offset or "none",
                    row.head,
                    str(row.lag_messages),
                    str(row.gone),
                    row.first_unread or "-",
                    tables.age(row.waiting_s, "-"),
                    f"{loses} by {row.loses_by}" if row.loses_by else "-",
                ]
            )
    if rows:
        print()
        columns = ("device", "stream", "offset", "head", "lag", "gone", "first unread", "waiting", "loses from")
        tables.show(columns, rows, numbers=("lag", "gone"))
    if quiet:
        print(f"\nnothing unread in {tables.count(quiet, 'other stream')} (--all shows them)")


def _device_row(device: "Device") -> list[str]:
    return [
        device.device,
        tables.second(device.first_seen) if device.first_seen else "?",
        tables.since(device.last_seen, device.idle_s, "?"),
        device.node,
        CONNECTED[device.connected],
        str(device.lag_messages),
        tables.age(device.waiting_s, "-"),
    ]


# -- nodes -------------------------------------------------------------------------------------------------------------


def show_nodes(args: argparse.Namespace, settings: Settings) -> int:
    """Print the nodes."""
    from service import inspection  # noqa: PLC0415 - see service/cli

    found = _asked(settings, inspection.nodes)
    if args.json:
        print(tables.as_json(found))
    elif found.nodes:
        head = ("node", "state", "last heard", "version", "up", "connections", "streams", "behind", "mailbox lag")
        numbers = ("connections", "streams", "behind", "load", "memory")
        tables.show((*head, "load", "memory"), [_node_row(node) for node in found.nodes], numbers=numbers)
    else:
        print("no node")
    return 0


def _node_row(node: "NodeView") -> list[str]:
    lag = "-" if node.lag_s is None else f"{node.lag_entries or 0} entries, {node.lag_s:.3f}s"
    return [
        node.node,
        "silent" if node.is_silent else "alive",
        tables.since(node.last_seen, node.silent_s),
        node.version or "-",
        tables.age(node.uptime_s, "-"),
        *("-" if number is None else str(number) for number in (node.connections, node.streams, node.behind)),
        lag,
        "-" if node.load is None else f"{node.load:.0%}",
        "-" if node.memory_bytes is None else tables.size(node.memory_bytes),
    ]


# -- jobs --------------------------------------------------------------------------------------------------------------


def show_jobs(args: argparse.Namespace, settings: Settings) -> int:
    """Print the jobs."""
    from service import inspection  # noqa: PLC0415 - see service/cli
    from workers import __main__ as workers  # noqa: PLC0415

    found = _asked(settings, lambda opened: inspection.jobs(opened, settings, runs=args.runs))
    if args.json:
        print(tables.as_json(found))
        return 0
    head = ("job", "schedule", "state", "last began", "ended", "next run", "holder")
    tables.show(head, [_job_row(job) for job in found.jobs])
    rows = [
        [
            report.name,
            tables.time(report.started_ms),
            report.state,
            f"{report.duration_ms / 1000:.1f}s",
            workers.summary(report),
        ]
        for job in found.jobs
        for report in job.runs
    ]
    if rows:
        print()
        tables.show(("job", "began", "state", "took", "did"), rows, numbers=("took",))
    return 0


def _job_row(job: "Job") -> list[str]:
    return [
        job.job,
        job.schedule,
        job.state,
        tables.since(job.last_began, job.last_began_age_s, "never"),
        job.last_state or "-",
        tables.until(job.next_run, job.next_run_in_s, "never"),
        job.holder or "-",
    ]


# -- why ---------------------------------------------------------------------------------------------------------------


def show_why(args: argparse.Namespace, settings: Settings) -> int:
    """Print the verdict, and what it rests on."""
    from service import inspection  # noqa: PLC0415 - see service/cli

    found = _asked(settings, lambda opened: inspection.why(opened, args.stream, args.id, args.user))
    if args.json:
        print(tables.as_json(found))
    else:
        _tell_why(found)
    return 0


def _tell_why(found: "Why") -> None:
    print(f"{found.verdict}: {found.says}\n")
    pairs = {"entry": f"{found.stream} {found.id}", "head": found.head, "floor": found.floor}
    if found.entry is not None:
        stored = tables.since(found.entry.at, found.entry.age_s)
        pairs["stored"] = f"{stored}, {found.entry.type} from {found.entry.sender}"
    if found.redacted_by is not None:
        pairs["redacted"] = f"by {found.redacted_by} at {tables.second(found.redacted_at or '')}"
    if found.removal is not None:
        line = found.removal
        why = " ".join(filter(None, (line.kind, line.policy, line.limit)))
        pairs["removed"] = f"{why}, above {line.after} up to {line.to}, {tables.since(line.at, line.age_s)}"
    if found.memberships is not None:
        stretches = [f"{one.joined} to {one.left or 'now'}" for one in found.memberships]
        pairs["member"] = "; ".join(stretches) or "never"
    pairs["nodes on its register"] = ", ".join(found.nodes) or "none"
    pairs[f"nodes with {found.user} connected"] = ", ".join(found.user_nodes) or "none"
    tables.facts(pairs)
    if found.devices:
        print()
        rows = [
            [
                one.device,
                one.verdict,
                one.offset or "none",
                str(one.behind_by),
                tables.since(one.last_seen, one.idle_s, "?"),
                one.node,
                CONNECTED[one.connected],
            ]
            for one in found.devices
        ]
        head = ("device", "verdict", "offset", "behind by", "last seen", "node", "connected")
        tables.show(head, rows, numbers=("behind by",))
    print()
    for line_of in found.not_recorded:
        print(f"note: {line_of}")


# -- audit -------------------------------------------------------------------------------------------------------------


def show_audit(args: argparse.Namespace, settings: Settings) -> int:
    """Print what operators did."""
    from service import inspection  # noqa: PLC0415 - see service/cli

    found = _asked(settings, lambda opened: inspection.audit(opened, before=args.before or "", limit=args.limit))
    if args.json:
        print(tables.as_json(found))
        return 0
    if not found.actions:
        print("nothing was done")
        return 0
    rows = [
        [tables.since(one.at, one.age_s), one.who, one.action, one.target, one.outcome, one.reason or one.detail]
        for one in found.actions
    ]
    tables.show(("at", "who", "action", "target", "outcome", "why, or what"), rows)
    if found.next:
        print(f"\nthere are more: --before {found.next}")
    return 0
