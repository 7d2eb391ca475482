"""`waypost serve`: nodes against a store that somebody else runs: one, or several on one port."""

import argparse
import os
import socket
import sys

from service import log
from service.cli import processes, tls
from service.config import PROCESSES_MAX, Settings


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="run a node against WAYPOST_REDIS_URL, or several on one port",
        description="Run a node against the Redis or Valkey at WAYPOST_REDIS_URL, on WAYPOST_HOST and WAYPOST_PORT.",
    )
    parser.add_argument(
        "--processes",
        type=_count,
        metavar="N",
        help="run N nodes on the one port, a process each; a dead one is started again (WAYPOST_PROCESSES, else 1)",
    )
    tls.add_serving(parser)
    # Says in the list of processes which data folder's `up` the node belongs to; service/embedded.py looks for it.
    parser.add_argument("--started-by", metavar="DATA_DIR", help=argparse.SUPPRESS)
    # What service/cli/processes.py gives its nodes: sockets to listen on, where to tell how far the start is, and
    # where to leave numbers for each other.
    parser.add_argument("--listen-on", metavar="FD,FD", help=argparse.SUPPRESS)
    parser.add_argument("--report-to", type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.add_argument("--numbers-in", metavar="FOLDER", default="", help=argparse.SUPPRESS)
    parser.set_defaults(run=run, is_serving=True)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= PROCESSES_MAX:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {PROCESSES_MAX}")
    return int(text)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Serve until a signal ends it. 1: the settings do not suffice, or it could not start."""
    lacking = []
    if not settings.redis_url:
        lacking.append("`serve` needs a store: set WAYPOST_REDIS_URL (`waypost up` brings its own)")
    if not settings.dev and not settings.has_key_material:
        lacking.append(
            "no way to sign in is configured: set WAYPOST_JWT_SECRETS, WAYPOST_JWT_KEYS or WAYPOST_JWT_JWKS_URL "
            "(or, for trying out on this machine, WAYPOST_DEV=1)"
        )
    if lacking:
        for line in lacking:
            print(f"waypost: {line}", file=sys.stderr)
        return 1
    log.set_up(settings)
    count = args.processes or settings.processes
    if count > 1 and not args.listen_on:
        return processes.run(settings, count)

    from service import app  # noqa: PLC0415 - see service/cli

    try:
        if args.listen_on is None:
            return app.serve(settings)
        return app.serve(
            settings,
            sockets=[socket.socket(fileno=int(fd)) for fd in args.listen_on.split(",")],
            tell=lambda news: _report(args.report_to, news),
            numbers_in=args.numbers_in,
        )
    except app.CannotStart as error:
        print(f"waypost: {error}", file=sys.stderr)
        return 1


def _report(fd: int, news: str) -> None:
    os.write(fd, f"{news}\n".encode())
