"""What tests of faults share: a client that insists, and looking for a node's mailbox."""

import asyncio

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
