"""What tests of faults share: a client that insists, and looking for a node's mailbox."""

import asyncio
import os
import sys

from tests.integration.store.kit import Server
from tests.service import Frame, Phone


async def insist(phone: Phone, to: str, body: object, key: str, seconds: float = 20) -> Frame:
    """Repeats a send with its key until it is stored, as a client does; every refusal must say that this may help."""
    async with asyncio.timeout(seconds):
        while (answer := await phone.send(to, body, key=key))["type"] != "sent":
            assert answer["retry"], answer
            await asyncio.sleep(0.02)
    return answer


def mailboxes(server: Server, node: str) -> set[str]:
    """The mailboxes of a node that a server has."""
    return {raw.decode() for raw in server.admin.scan_iter(f"wp:*:m:{node}.*", count=1000)}


async def run_cli(server: Server, *args: str, **variables: str) -> tuple[int, str]:
    """Runs `waypost …` on a server; the exit code, and what it said."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    environ |= {"WAYPOST_REDIS_URL": server.url, "WAYPOST_DEV": "1", **variables}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", *args),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()
