"""`waypost migrate status|up`: the one way in which a store comes to its schema, its epoch and its functions."""

import argparse
import asyncio
import sys

from service import log
from service.cli import store
from service.config import Settings
from service.errors import WaypostError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `migrate`."""
    parser = subparsers.add_parser(
        "migrate",
        help="look at a store's schema, or bring it up to date",
        description="`status` looks and changes nothing; `up` brings the store up to date and may be repeated.",
    )
    parser.add_argument("action", choices=("status", "up"))
    store.add_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print what there is or what was done, a line each. 1: the store is out of reach or refuses."""
    log.set_up(settings)

    from migrations import __main__ as migrations  # noqa: PLC0415 - see service/cli

    url = store.find(args, settings)
    if url is None:
        return 1
    action = migrations.status if args.action == "status" else migrations.up
    try:
        for line in asyncio.run(action(url)):
            print(line)
    except WaypostError as error:
        print(f"waypost: {error.detail}", file=sys.stderr)
        return 1
    return 0
