"""Which store a command works on that needs one, and no node."""

import argparse
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from service import log
from service.config import Settings
from service.errors import WaypostError

if TYPE_CHECKING:
    from service.store import Store


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


def work(do: Callable[[argparse.Namespace, Settings], int], args: argparse.Namespace, settings: Settings) -> int:
    """Do something to the store that is meant, whose URL the settings then have. 1: there is none, or it refuses."""
    log.set_up(settings)
    url = find(args, settings)
    if url is None:
        return 1
    try:
        return do(args, msgspec.structs.replace(settings, redis_url=url))
    except WaypostError as error:
        print(f"waypost: {error.detail}", file=sys.stderr)
        return 1


@asynccontextmanager
async def opened(settings: Settings) -> "AsyncIterator[Store]":
    """The store of the settings, looked at, and closed at the end. Raises what `Store.check_server` raises."""
    from service.store import Store, StoreOptions  # noqa: PLC0415 - see service/cli

    found = await Store.connect(settings.redis_url, options=StoreOptions(call_timeout_s=settings.call_timeout_s))
    try:
        await found.check_server()
        yield found
    finally:
        await found.close()
