"""Which store a command works on that needs one, and no node."""

import argparse
import sys

from service.config import Settings


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--redis-url`."""
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        help="the store; without it WAYPOST_REDIS_URL, else the one that `waypost up` runs in WAYPOST_DATA_DIR",
    )


def find(args: argparse.Namespace, settings: Settings) -> str | None:
    """The URL of the store. None, and it is said, when there is none."""
    from service.embedded import DataFolder  # noqa: PLC0415 - see service/cli

    given: str = args.redis_url or settings.redis_url
    if given:
        return given
    folder = DataFolder(settings.data_dir)
    if not folder.socket.exists():
        print("waypost: no store: set WAYPOST_REDIS_URL or give --redis-url", file=sys.stderr)
        return None
    return folder.url
