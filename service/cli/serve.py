"""`waypost serve`: one node against a store that somebody else runs; any number of them side by side."""

import argparse
import sys

from service import log
from service.config import Settings


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="run a node against WAYPOST_REDIS_URL",
        description="Run one node against the Redis or Valkey at WAYPOST_REDIS_URL, on WAYPOST_HOST and WAYPOST_PORT.",
    )
    # Says in the list of processes which data folder's `up` the node belongs to; service/embedded.py looks for it.
    parser.add_argument("--started-by", metavar="DATA_DIR", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal ends it. 1: the settings do not suffice."""
    del args
    lacking = []
    if not settings.redis_url:
        lacking.append("`serve` needs a store: set WAYPOST_REDIS_URL (`waypost up` brings its own)")
    if not settings.dev:
        lacking.append("no way to sign in is configured: set WAYPOST_DEV=1")
    if lacking:
        for line in lacking:
            print(f"waypost: {line}", file=sys.stderr)
        return 1
    log.set_up(settings.log_level)

    from service import app  # noqa: PLC0415 - see service/cli

    try:
        return app.serve(settings)
    except app.CannotStart as error:
        print(f"waypost: {error}", file=sys.stderr)
        return 1
