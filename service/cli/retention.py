"""`waypost retention plan|run|log`: what retention would do, do it now, and what it did."""

import argparse
import asyncio
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.cli import actions, store, tables
from service.cli.arguments import on_the_store, stream
from service.config import Settings

if TYPE_CHECKING:
    from service.store import JobReport
    from service.trimming import Plan, PolicyPlan, StreamPlan

EXIT_REFUSED = 1


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `retention`."""
    parser = subparsers.add_parser(
        "retention",
        help="what retention would remove, remove it now, or look at what it did",
        description="Policies stand in the settings file (docs/operations.md). `waypost worker` carries them out.",
    )
    verbs = parser.add_subparsers(metavar="plan|run|log", required=True)
    shared = on_the_store()

    what = argparse.ArgumentParser(add_help=False)
    what.add_argument("--stream", action="append", type=stream, metavar="NAME", help="only this stream (repeatable)")
    what.add_argument(
        "--max-unread-lost",
        type=_number,
        metavar="N",
        help="refuse when more than N unread messages would be lost, counted for each device that has not read them",
    )

    planning = verbs.add_parser(
        "plan",
        parents=[shared, what],
        help="what a run would remove now; changes nothing",
        description="What a run would remove now, by policy and for the worst streams: entries, bytes, and what "
        "devices have not read of it. Changes nothing. Exit code 1: refused by --max-unread-lost, or no store.",
    )
    planning.set_defaults(run=functools.partial(store.work, plan))
    running = verbs.add_parser(
        "run",
        parents=[shared, what],
        help="carry out the policies now",
        description="Carry out the policies now, as the scheduled job does, and print its report. Exit code 1: "
        "refused, busy, or failed.",
    )
    actions.add_reason(running)
    running.set_defaults(run=functools.partial(store.work, run))
    history = verbs.add_parser("log", parents=[shared], help="what past runs removed, newest first")
    history.add_argument("--limit", type=_number, default=20, metavar="N", help="so many runs (default: 20)")
    history.set_defaults(run=functools.partial(store.work, past))


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number from 0 on: {text!r}")
    return int(text)


def plan(args: argparse.Namespace, settings: Settings) -> int:
    """Print the plan. 1: refused."""
    made = asyncio.run(_plan(settings, args.stream))
    if args.json:
        print(tables.as_json(made))
    else:
        _show_plan(made)
    return _refused(made, args.max_unread_lost)


async def _reach(settings: Settings) -> None:
    """A worker waits for a store that is away; who stands before a terminal is told at once."""
    async with store.opened(settings):
        pass


async def _plan(settings: Settings, streams: Sequence[str] | None) -> "Plan":
    from service import trimming  # noqa: PLC0415 - see service/cli

    async with store.opened(settings) as opened:
        return await trimming.plan(opened, settings.retention, streams)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Trim now, and print the report. 1: refused, busy or failed."""
    from service.store.sights import Action  # noqa: PLC0415 - see service/cli
    from workers import __main__ as workers  # noqa: PLC0415
    from workers import retention  # noqa: PLC0415
    from workers.runs import Lost  # noqa: PLC0415

    if args.max_unread_lost is None:
        asyncio.run(_reach(settings))
    else:
        refusal = _refused(asyncio.run(_plan(settings, args.stream)), args.max_unread_lost)
        if refusal:
            return refusal
    work = functools.partial(retention.run_on, streams=args.stream) if args.stream else None

    def note(outcome: str, detail: str = "") -> None:
        target = ",".join(args.stream or ["all streams"])
        actions.note(settings, Action(actions.who(), "retention_run", target, args.reason, outcome, detail))

    try:
        report = asyncio.run(workers.once(settings, "retention", work))
    except (workers.JobBusy, Lost):
        note("busy")
        print("waypost: a worker is running this job; see `waypost retention log`", file=sys.stderr)
        return 1
    except workers.JobLeft:
        note("busy")
        print("waypost: an earlier run was left unfinished: first run this without --stream", file=sys.stderr)
        return 1
    removed = tables.count(report.entries_removed, "entry")
    note("ok" if report.state == "done" else report.state, f"run {report.run}, {removed} removed")
    if args.json:
        print(tables.as_json(report))
    else:
        _show_reports([report])
    return 0 if report.state == "done" else 1


def past(args: argparse.Namespace, settings: Settings) -> int:
    """Print reports of past runs."""
    reports = asyncio.run(_reports(settings, args.limit))
    if args.json:
        print(tables.as_json(reports))
    elif reports:
        _show_reports(reports)
    else:
        print("no run yet")
    return 0


async def _reports(settings: Settings, limit: int) -> "list[JobReport]":
    from service.inspection.jobs import REPORTS_LOOKED_AT  # noqa: PLC0415 - see service/cli

    async with store.opened(settings) as opened:
        reports = await opened.job_reports(REPORTS_LOOKED_AT)
    return [report for report in reports if report.name == "retention"][:limit]


def _refused(made: "Plan", most: int | None) -> int:
    """0 when no more would be lost than may be, else 1, and why on standard error."""
    if most is None or (made.unread_messages <= most and made.is_unread_whole):
        return 0
    at_least = "" if made.is_unread_whole else "at least "
    print(
        f"waypost: refused: {at_least}{made.unread_messages} unread messages would be lost to "
        f"{tables.count(made.unread_devices, 'device')}; --max-unread-lost allows {most}",
        file=sys.stderr,
    )
    return EXIT_REFUSED


# --- how plans and reports are told ---


def _show_reports(reports: "Sequence[JobReport]") -> None:
    head = ["began", "state", "took", "streams", "trimmed", "entries", "bytes", "unread lost", "oldest kept", "errors"]
    rows = []
    for report in reports:
        at_least = "" if report.is_unread_whole else "at least "
        rows.append(
            [
                tables.time(report.started_ms),
                report.state,
                f"{report.duration_ms / 1000:.1f}s",
                str(report.streams_seen),
                str(report.streams_trimmed),
                str(report.entries_removed),
                tables.size(report.bytes_removed),
                f"{at_least}{report.unread_removed}",
                "nothing" if report.oldest_kept_ms is None else tables.time(report.oldest_kept_ms),
                str(report.errors_count),
            ]
        )
    tables.show(head, rows, numbers=("took", "streams", "trimmed", "entries", "bytes", "errors"))
    for report in reports:
        for error in report.errors:
            print(f"error: {error}")


def _show_plan(made: "Plan") -> None:
    looked_at = tables.count(made.streams, "stream")
    print(f"plan of {tables.time(made.at_ms)}: {looked_at} looked at; nothing was changed\n")
    tables.show(
        ["policy", "streams", "to trim", "entries", "bytes", "unread lost", "oldest kept", "may be away", "from"],
        [_policy_row(policy) for policy in made.policies],
        numbers=("streams", "to trim", "entries", "bytes"),
    )
    if made.worst:
        print("\nstreams that lose most:")
        tables.show(
            ["stream", "policy", "entries", "bytes", "unread lost", "oldest kept", "may be away", "by"],
            [_stream_row(one) for one in made.worst],
            numbers=("entries", "bytes"),
        )
    print("\n".join(("", *(f"cannot be read: {name}" for name in made.unreadable))))
    at_least = "" if made.is_unread_whole else "at least "
    print(
        f"a run now would remove {tables.count(made.entries, 'entry')} of {tables.size(made.size)}; "
        f"{at_least}{tables.count(made.unread_messages, 'unread message')} would be lost for good"
    )


def _policy_row(policy: "PolicyPlan") -> list[str]:
    return [
        policy.policy,
        str(policy.streams),
        str(policy.to_trim),
        str(policy.entries),
        tables.size(policy.size),
        _unread(policy.unread_messages, policy.unread_devices),
        tables.age(policy.oldest_age_s, "nothing"),
        tables.age(policy.horizon_s, "no end in sight" if policy.oldest_age_s is not None else "-"),
        policy.source,
    ]


def _stream_row(one: "StreamPlan") -> list[str]:
    limits = ", ".join(f"{limit}: {entries}" for limit, entries in one.limits.items())
    return [
        one.stream,
        one.policy,
        str(one.entries),
        tables.size(one.size),
        _unread(one.unread_messages, one.unread_devices),
        tables.age(one.oldest_age_s, "nothing"),
        tables.age(one.horizon_s, "no end in sight" if one.oldest_age_s is not None else "-"),
        limits + ("; unread is held" if one.is_held else ""),
    ]


def _unread(messages: int, devices: int) -> str:
    return f"{messages} ({tables.count(devices, 'device')})" if messages else "0"
