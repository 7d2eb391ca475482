"""`waypost streams|show|tail`: streams, what lies in one, and what comes into it. All ask the store, and no node."""

import argparse
import asyncio
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from service.cli import store, tables
from service.cli.arguments import count, limit, name, on_the_store, stream
from service.config import Settings

if TYPE_CHECKING:
    from service.core.entries import Entry
    from service.core.names import EntryId
    from service.inspection import Entries, EntryView, LedgerLine, StreamPage, StreamView
    from service.store import Store

ORDERS = ("entries", "bytes", "rate", "lag", "wait")
TAIL_PAUSE_S = 0.2  # between two looks: what comes is shown at once, as far as people notice
TAIL_STEP = 200


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `streams`, `show` and `tail`."""
    shared = on_the_store()

    listing = subparsers.add_parser(
        "streams",
        parents=[shared],
        help="the streams, and how each stands",
        description="The streams, and how each stands now. In no order, or with --sort by the last run of the job "
        "`survey`. Exit code 0: fine, 1: no store, 2: misused.",
    )
    listing.add_argument("part", nargs="?", default="", help="only those with this in their name")
    listing.add_argument("--kind", choices=("user", "group", "all"), default="", help="only streams of this kind")
    listing.add_argument("--sort", choices=ORDERS, help="the foremost by this, as of the last survey")
    listing.add_argument("--limit", type=limit, default=50, metavar="N", help="about so many (default: 50)")
    listing.add_argument("--after", default="", metavar="CURSOR", help="go on where the page before ended")
    listing.set_defaults(run=functools.partial(store.work, show_all))

    one = subparsers.add_parser(
        "show",
        parents=[shared],
        help="one stream: how it stands, its entries, its ledger",
        description="How a stream stands, its newest entries (or those at a place), and what was removed from it. "
        "Exit code 0: fine, 1: no such group, or no store, 2: misused.",
    )
    one.add_argument("stream", type=stream, help="user:<id>, group:<id> or all")
    one.add_argument("--after", metavar="PLACE", help="entries after an entry id or a time (2026-01-31T09:15:00Z)")
    one.add_argument("--before", metavar="PLACE", help="entries before an entry id or a time")
    one.add_argument("--limit", type=limit, default=20, metavar="N", help="so many entries (default: 20)")
    one.add_argument("--from", dest="sender", type=name, metavar="USER", help="only those from this user")
    one.add_argument("--bodies", action="store_true", help="show the bodies of messages, which are masked otherwise")
    one.set_defaults(run=functools.partial(store.work, show_one))

    following = subparsers.add_parser(
        "tail",
        parents=[shared],
        help="follow a stream",
        description="Print the entries of a stream as they come, until Ctrl-C. Exit code 130: ended so, 1: no such "
        "group, or no store, 2: misused.",
    )
    following.add_argument("stream", type=stream, help="user:<id>, group:<id> or all")
    following.add_argument("--last", type=count, default=10, metavar="N", help="begin with the newest N (default: 10)")
    following.add_argument("--bodies", action="store_true", help="show the bodies of messages")
    following.set_defaults(run=functools.partial(store.work, tail))


# -- streams -----------------------------------------------------------------------------------------------------------


def show_all(args: argparse.Namespace, settings: Settings) -> int:
    """Print streams."""
    found = asyncio.run(_all(args, settings))
    if args.json:
        print(tables.as_json(found))
        return 0
    if args.sort and found.order_as_of is None:
        print("no survey yet: `waypost worker --once survey` makes one", file=sys.stderr)
    if found.streams:
        numbers = ("entries", "bytes", "/min", "members", "nodes", "lag")
        tables.show(_HEAD, [_row(one) for one in found.streams], numbers=numbers)
    else:
        print("no stream")
    _say_more(found)
    return 0


def _say_more(found: "StreamPage") -> None:
    if found.streams:
        first = found.streams[0]
        print(f"\nnext trim: {tables.until(first.next_trim, first.next_trim_in_s, 'never')}")
    if found.order_as_of is not None:
        print(f"in the order of the survey of {tables.second(found.order_as_of)}")
    if found.next:
        print(f"there are more: --after {found.next}")


async def _all(args: argparse.Namespace, settings: Settings) -> "StreamPage":
    from service import inspection  # noqa: PLC0415 - see service/cli

    async with store.opened(settings) as opened:
        if args.sort:
            return await inspection.streams_by(
                opened, settings, args.sort, limit=args.limit, part=args.part, kind=args.kind
            )
        rows: list[StreamView] = []
        cursor: str = args.after
        while True:
            found = await inspection.streams_page(
                opened, settings, cursor=cursor, limit=args.limit, kind=args.kind, part=args.part
            )
            known = {row.stream for row in rows}
            rows += [row for row in found.streams if row.stream not in known]
            cursor = found.next or ""
            if not cursor or len(rows) >= args.limit:
                return msgspec.structs.replace(found, streams=tuple(rows))


_HEAD = ("stream", "entries", "bytes", "oldest", "newest", "/min", "members", "nodes", "lag", "waiting", "policy")


def _row(one: "StreamView") -> list[str]:
    return [
        one.stream,
        str(one.entries),
        tables.size(one.bytes),
        tables.since(one.oldest_at, one.oldest_age_s),
        tables.since(one.newest_at, one.newest_age_s),
        f"{one.rate_per_min:.1f}",
        "-" if one.members is None else str(one.members),
        str(len(one.nodes)),
        _at_least(one, str(one.lag_messages)),
        _at_least(one, tables.age(one.waiting_s, "-")),
        one.limits,
    ]


def _at_least(one: "StreamView", text: str) -> str:
    """Where not everybody was asked, it may be more."""
    return text if one.lag_is_whole else f"{text}+"


# -- show --------------------------------------------------------------------------------------------------------------


class Shown(msgspec.Struct, frozen=True):
    """A stream with some of its entries, and the last lines of its ledger, newest first."""

    facts: "StreamView"
    entries: "Entries"
    ledger: "tuple[LedgerLine, ...]"


def show_one(args: argparse.Namespace, settings: Settings) -> int:
    """Print one stream."""
    found = asyncio.run(_one(args, settings))
    if args.json:
        print(tables.as_json(found))
    else:
        _show_facts(found.facts)
        _show_entries(found.entries, bodies=args.bodies)
        _show_ledger(found.ledger)
    return 0


async def _one(args: argparse.Namespace, settings: Settings) -> Shown:
    from service import inspection  # noqa: PLC0415 - see service/cli

    async with store.opened(settings) as opened:
        return Shown(
            await inspection.stream_view(opened, settings, args.stream),
            await inspection.entries(
                opened,
                args.stream,
                after=args.after,
                before=args.before,
                limit=args.limit,
                sender=args.sender or "",
                bodies=args.bodies,
            ),
            await inspection.ledger(opened, args.stream),
        )


def _show_facts(one: "StreamView") -> None:
    lag = f"{_at_least(one, str(one.lag_messages))} messages, waiting {_at_least(one, tables.age(one.waiting_s, '-'))}"
    tables.facts(
        {
            "stream": one.stream,
            "head": one.head,
            "floor": one.floor,
            "entries": f"{one.entries}, {tables.size(one.bytes)}, {one.rate_per_min:.1f} a minute",
            "oldest": f"{one.oldest or '-'}  {tables.since(one.oldest_at, one.oldest_age_s, '')}".rstrip(),
            "newest": f"{one.newest or '-'}  {tables.since(one.newest_at, one.newest_age_s, '')}".rstrip(),
            "members": "-" if one.members is None else str(one.members),
            "nodes": ", ".join(one.nodes) or "-",
            "most behind": f"{one.lag_device}, {lag}" if one.lag_device else _at_least(one, "nobody"),
            "policy": f"{one.policy} ({one.policy_source}): {one.limits}",
            "next trim": tables.until(one.next_trim, one.next_trim_in_s, "never"),
        }
    )


def _show_entries(found: "Entries", *, bodies: bool) -> None:
    print(f"\nentries (looked at {found.looked_at} of {found.of}{'' if found.is_whole else ', and no further'}):")
    if found.entries:
        tables.show(_ENTRY_HEAD, [_entry_row(entry, bodies=bodies) for entry in found.entries])
    else:
        print("none")


_ENTRY_HEAD = ("id", "at", "type", "from", "to", "body")


def _entry_row(entry: "EntryView", *, bodies: bool) -> list[str]:
    return [
        entry.id,
        tables.since(entry.at, entry.age_s),
        entry.type,
        entry.sender,
        entry.to,
        _body(entry, bodies=bodies),
    ]


def _body(entry: "EntryView", *, bodies: bool) -> str:
    if entry.redacted_by is not None:
        return f"redacted by {entry.redacted_by} at {tables.second(entry.redacted_at or '')}"
    if entry.body_bytes is None:
        return f"of {entry.target}" if entry.target else ""
    return bytes(entry.body or b"").decode(errors="replace") if bodies else f"({entry.body_bytes} B)"


def _show_ledger(lines: "Sequence[LedgerLine]") -> None:
    if lines:
        print("\nremoved, newest first:")
        rows = [
            [
                line.after,
                line.to,
                str(line.count),
                line.kind,
                line.limit or line.policy,
                tables.since(line.at, line.age_s),
            ]
            for line in lines
        ]
        tables.show(("above", "up to", "count", "kind", "by", "at"), rows, numbers=("count",))


# -- tail --------------------------------------------------------------------------------------------------------------


def tail(args: argparse.Namespace, settings: Settings) -> int:
    """Print what comes, until interrupted."""
    asyncio.run(_tail(args, settings))
    return 0


async def _tail(args: argparse.Namespace, settings: Settings) -> None:
    from service.inspection.entries import view  # noqa: PLC0415 - see service/cli

    async with store.opened(settings) as opened:
        at = (await opened.stream_facts(args.stream)).head
        found = await opened.entries(args.stream, limit=args.last, newest=True) if args.last else []
        while True:
            if found:
                now_ms = await opened.now_ms()
                at = max(at, found[-1].id)
                for entry in found:
                    _print_one(view(entry, now_ms, bodies=args.bodies), args)
                sys.stdout.flush()
            else:
                await asyncio.sleep(TAIL_PAUSE_S)
            found = await _following(opened, args.stream, at)


async def _following(opened: "Store", stream: str, at: "EntryId") -> "list[Entry]":
    return await opened.entries(stream, above=at, limit=TAIL_STEP, newest=False)


def _print_one(entry: "EntryView", args: argparse.Namespace) -> None:
    if args.json:
        print(msgspec.json.encode(entry).decode())
    else:
        words = (entry.id, tables.second(entry.at), entry.type, entry.sender, _body(entry, bodies=args.bodies))
        print("  ".join(words).rstrip())
