"""That somebody at a command line did something to the store: who, for `waypost audit`."""

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

log = Log("audit")


def who() -> str:
    """The user of the system, and the machine: `cli:alice@ops1`. Not what the environment says, which anybody sets."""
    try:
        import pwd  # noqa: PLC0415 - not there on every system

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        name = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"cli:{name}@{socket.gethostname()}"


def noted(opened: "Store", action: str, target: str) -> "AbstractAsyncContextManager[Noting]":
    """Around an action: notes how it went."""
    from service.inspection import noted as around  # noqa: PLC0415 - see service/cli

    return around(opened, who(), action, target)


def note(settings: Settings, action: str, target: str, *, outcome: str, detail: str = "") -> None:
    """Note what was done through another door than a store that is open here. That it cannot be noted is logged."""
    try:
        asyncio.run(_note(settings, action, target, outcome, detail))
    except WaypostError as problem:
        log.warning("not_noted", detail=f"{action} {target} {outcome}: {problem.detail}")


async def _note(settings: Settings, action: str, target: str, outcome: str, detail: str) -> None:
    async with store.opened(settings) as opened, noted(opened, action, target) as noting:
        noting.outcome, noting.detail = outcome, detail
