"""That somebody at a command line did something to the store: who, for `waypost audit`."""

import argparse
import asyncio
import os
import socket
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from service.cli import store
from service.config import Settings
from service.errors import WaypostError
from service.log import Log

if TYPE_CHECKING:
    from service.inspection import Noting
    from service.store import Store
    from service.store.sights import Action

log = Log("audit")


def who() -> str:
    """The user of the system, and the machine: `cli:alice@ops1`. Not what the environment says, which anybody sets."""
    try:
        import pwd  # noqa: PLC0415 - not there on every system

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        name = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"cli:{name}@{socket.gethostname()}"


def add_reason(parser: argparse.ArgumentParser) -> None:
    """Add `--reason`."""
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for `waypost audit`")


def noted(opened: "Store", action: str, target: str, reason: str = "") -> "AbstractAsyncContextManager[Noting]":
    """Around an action: notes how it went."""
    from service.inspection import noted as around  # noqa: PLC0415 - see service/cli

    return around(opened, who(), action, target, reason)


def note(settings: Settings, done: "Action") -> None:
    """Note what was done through another door than a store that is open here. That it cannot be noted is logged."""
    try:
        asyncio.run(_note(settings, done))
    except WaypostError as problem:
        log.warning("not_noted", detail=f"{done.action} {done.target} {done.outcome}: {problem.detail}")


async def _note(settings: Settings, done: "Action") -> None:
    async with store.opened(settings) as opened:
        await opened.note_action(done)
