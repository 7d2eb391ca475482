"""Which store a command works on that talks to it directly."""

import argparse
import sys

from service.config import Settings


def add_store_url(parser: argparse.ArgumentParser) -> None:
    """Add `--redis-url`."""
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        help="the store; without it WAYPOST_REDIS_URL, else the one that `waypost up` runs in WAYPOST_DATA_DIR",
    )


def store_url(args: argparse.Namespace, settings: Settings) -> str | None:
    """The store's URL; None when there is none, which has been said on standard error."""
    from service.embedded import DataFolder  # noqa: PLC0415 - see service/cli

    url: str = args.redis_url or settings.redis_url
    if url:
        return url
    folder = DataFolder(settings.data_dir)
    if folder.socket.exists():
        return folder.url
    print("waypost: no store: set WAYPOST_REDIS_URL or give --redis-url", file=sys.stderr)
    return None
