"""The part of the store's door that backends and administrators go through. `Store` is the whole of it."""

from typing import Literal

from service.core.server_keys import ServerKey
from service.store import facts, server_keys
from service.store.context import Context
from service.store.records import NodeFacts, Notice, StreamFacts


class ForOperators:
    """Server keys, what every node has to do at once, and looks at nodes and streams as they are."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # Server keys

    async def add_key(self, key: ServerKey) -> None:
        """Keep a server key. May be repeated. It is good for signing in at once, on every node."""
        await server_keys.add_key(self._context, key)

    async def find_key(self, key_id: str) -> ServerKey | None:
        """The server key of this id, None when there is none. Whether a text is that key, the record says."""
        return await server_keys.find_key(self._context, key_id)

    async def keys(self) -> list[ServerKey]:
        """All server keys, by the time they were made. Those that cannot be read are left out: they let nobody in."""
        return await server_keys.all_keys(self._context)

    async def revoke_key(self, key_id: str) -> bool:
        """Take a server key away and tell every node, both or neither; False when there is none.

        Works on a full and on a fenced store. May be repeated: after `Uncertain`, False says that it is gone.
        """
        return await server_keys.revoke_key(self._context, key_id)

    # Notices

    async def tell_nodes(self, notice: Notice) -> None:
        """Tell every node what it has to do at once. Works on a full and on a fenced store. May be repeated."""
        await server_keys.tell_nodes(self._context, notice)

    async def last_notice(self) -> str:
        """The id of the newest notice, "0-0" when there never was one: where a node begins to read them."""
        return await server_keys.last_notice(self._context)

    # Looks: none of them writes

    async def memory(self) -> tuple[int, int]:
        """How many bytes the server uses, and may use (0: as many as there are)."""
        return await facts.memory(self._context)

    async def node_facts(self) -> list[NodeFacts]:
        """All nodes on the list, by name, those included that have been silent for a while."""
        return await facts.node_facts(self._context)

    async def stream_facts(self, stream: str) -> StreamFacts:
        """How a stream stands. `bytes` is reckoned from some of its entries, 0 where the server does not tell.

        Of an inbox or `all` that nobody ever wrote to, everything is zero or None. Raises `no_group` for a group that
        nobody made; one that is deleted, and not dropped yet, is shown.
        """
        return await facts.stream_facts(self._context, stream)

    async def streams_page(
        self, cursor: str, count: int, kind: Literal["user", "group", "all", ""], part: str = ""
    ) -> tuple[list[str], str]:
        """Names of some streams, "" for all kinds, those included that are empty now; in no order. With `part`, those
        whose name has it in it.

        Begin with cursor "", go on with the one that is answered until that is "". About `count` come at a time, and
        none at times. Names may come twice; those that are there all the time come at least once. Raises `bad_request`
        for a cursor that is none, or that is of another server: begin again.
        """
        return await facts.streams_page(self._context, cursor, count, kind, part)
