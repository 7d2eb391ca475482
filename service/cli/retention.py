"""`waypost retention plan|run|log`: what retention would do, do it now, and what it did."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from service import log
from service.cli.store_url import add_store_url, store_url
from service.config import Settings
from service.core.names import parse_stream
from service.core.retention import duration_text
from service.errors import WaypostError

if TYPE_CHECKING:
    from service.trimming import Plan, PolicyPlan, StreamPlan

EXIT_REFUSED = 1


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `retention`."""
    parser = subparsers.add_parser(
        "retention",
        help="what retention would remove, remove it now, or look at what it did",
        description="Policies stand in the settings file (docs/operations.md). `waypost worker` carries them out.",
    )
    actions = parser.add_subparsers(metavar="plan|run|log", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    add_store_url(shared)
    shared.add_argument("--json", action="store_true", help="print JSON")

    what = argparse.ArgumentParser(add_help=False)
    what.add_argument("--stream", action="append", type=_stream, metavar="NAME", help="only this stream (repeatable)")
    what.add_argument(
        "--max-unread-lost",
        type=_number,
        metavar="N",
        help="refuse when more than N messages that a device has not acknowledged would be lost",
    )

    plan = actions.add_parser(
        "plan",
        parents=[shared, what],
        help="what a run would remove now; changes nothing",
        description="What a run would remove now, by policy and for the worst streams: entries, bytes, and what devices "
        "have not read of it. Changes nothing. Exit code 1: refused by --max-unread-lost, or no store.",
    )
    plan.set_defaults(run=run_plan)
    run = actions.add_parser(
        "run",
        parents=[shared, what],
        help="carry out the policies now",
        description="Carry out the policies now, as the scheduled job does, and print its report. Exit code 1: refused, "
        "or it failed.",
    )
    run.set_defaults(run=run_run)
    history = actions.add_parser("log", parents=[shared], help="what past runs removed, newest first")
    history.add_argument("--limit", type=_number, default=20, metavar="N", help="so many runs (default: 20)")
    history.set_defaults(run=run_log)


def _stream(text: str) -> str:
    try:
        parse_stream(text)
    except WaypostError as error:
        raise argparse.ArgumentTypeError(error.detail) from error
    return text


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number from 0 on: {text!r}")
    return int(text)


def run_plan(args: argparse.Namespace, settings: Settings) -> int:
    """Print the plan. 1: refused, or the store is out of reach."""
    log.set_up(settings.log_level)
    url = store_url(args, settings)
    if url is None:
        return 1
    try:
        made = asyncio.run(_plan(url, settings, args.stream))
    except WaypostError as error:
        print(f"waypost: {error.detail}", file=sys.stderr)
        return 1
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(made)).decode())
    else:
        print("\n".join(_told(made)))
    return _refused(made, args.max_unread_lost)


async def _plan(url: str, settings: Settings, streams: Sequence[str] | None) -> "Plan":
    from service.store import Store, StoreOptions  # noqa: PLC0415 - see service/cli
    from service.trimming import plan  # noqa: PLC0415

    store = await Store.connect(url, options=StoreOptions(call_timeout_s=settings.call_timeout_s))
    try:
        await store.check_server()
        return await plan(store, settings.retention, streams)
    finally:
        await store.close()


def _refused(made: "Plan", most: int | None) -> int:
    """0 when no more would be lost than may be, else 1, and why on standard error."""
    if most is None or (made.unread_messages <= most and made.is_unread_whole):
        return 0
    at_least = "" if made.is_unread_whole else "at least "
    print(
        f"waypost: refused: {at_least}{made.unread_messages} unread messages would be lost to {made.unread_devices} "
        f"devices; --max-unread-lost allows {most}",
        file=sys.stderr,
    )
    return EXIT_REFUSED


# --- how a plan is told ---


def _told(made: "Plan") -> list[str]:
    at = datetime.fromtimestamp(made.at_ms / 1000, UTC).isoformat(timespec="seconds")
    lines = [f"plan of {at}: {_count(made.streams, 'stream')} looked at; nothing was changed", ""]
    lines += _table(
        ["policy", "streams", "to trim", "entries", "bytes", "unread lost", "oldest kept", "may be away", "from"],
        [_policy_row(policy) for policy in made.policies],
    )
    if made.worst:
        lines += ["", "streams that lose most:"]
        lines += _table(
            ["stream", "policy", "entries", "bytes", "unread lost", "oldest kept", "may be away", "by"],
            [_stream_row(one) for one in made.worst],
        )
    lines.append("")
    at_least = "" if made.is_unread_whole else "at least "
    lines.append(
        f"a run now would remove {_count(made.entries, 'entry')} of {_size(made.size)}; "
        f"{at_least}{_count(made.unread_messages, 'unread message')} would be lost for good"
    )
    return lines


def _policy_row(policy: "PolicyPlan") -> list[str]:
    return [
        policy.policy,
        str(policy.streams),
        str(policy.to_trim),
        str(policy.entries),
        _size(policy.size),
        _unread(policy.unread_messages, policy.unread_devices),
        _age(policy.oldest_age_s, "nothing"),
        _age(policy.horizon_s, "for ever" if policy.oldest_age_s is not None else "-"),
        policy.source,
    ]


def _stream_row(one: "StreamPlan") -> list[str]:
    limits = ", ".join(f"{limit}: {entries}" for limit, entries in one.limits.items())
    return [
        one.stream,
        one.policy,
        str(one.entries),
        _size(one.size),
        _unread(one.unread_messages, one.unread_devices),
        _age(one.oldest_age_s, "nothing"),
        _age(one.horizon_s, "for ever" if one.oldest_age_s is not None else "-"),
        limits + ("; unread is held" if one.is_held else ""),
    ]


def _unread(messages: int, devices: int) -> str:
    return f"{messages} ({_count(devices, 'device')})" if messages else "0"


def _count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def _size(size: int) -> str:
    for unit, unit_bytes in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= unit_bytes:
            return f"{size / unit_bytes:.1f} {unit}"
    return f"{size} B"


def _age(seconds: float | None, otherwise: str) -> str:
    """An age in its two largest units, so that 89,000 s reads as a day and not as 89000s."""
    if seconds is None:
        return otherwise
    whole = int(seconds)
    for unit_s in (86_400, 3600, 60):
        if whole >= 10 * unit_s:
            return duration_text(whole - whole % unit_s)
        if whole >= unit_s:
            rest = whole % unit_s
            smaller = {86_400: 3600, 3600: 60, 60: 1}[unit_s]
            rest -= rest % smaller
            return duration_text(whole - whole % unit_s) + (duration_text(rest) if rest else "")
    return f"{whole}s"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
