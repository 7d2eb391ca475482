"""How long a sign-in holds: tokens that expire and are renewed, and what ends it on all nodes at once.

Revoking a server key and disconnecting a user are notices, which every node reads together with its mailbox: what was
stored after a notice reaches no connection that the notice ends.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.auth import Principal, SignIn, acting_device
from service.config import Settings
from service.core.commands import Renew
from service.core.server_keys import ServerKey
from service.errors import Unavailable, WaypostError
from service.node.connection import Connection
from service.store import Notice, Store

if TYPE_CHECKING:
    from service.node.node import Node

# A timer for years would lose its way; and a machine that slept has another time than its loop.
LOOK_AGAIN_S = 600.0
# A key that was looked up just before it was revoked comes in within this time, or not at all.
REVOKED_KEPT_S = 60.0


class SignIns:
    """The sign-ins of a node's connections. `door` is what looks at tokens and keys."""

    def __init__(self, node: "Node", store: Store, settings: Settings) -> None:
        self._node = node
        self._store = store
        self._grace_s = settings.token_grace_s
        self._strangers_max = settings.limits.strangers
        self._strangers = 0
        self._timers: dict[Connection, asyncio.TimerHandle] = {}
        self._renewals = 0
        self._renewed: dict[Connection, int] = {}  # the number of the renewal that holds
        self._revoked: dict[str, float] = {}  # ids of server keys → monotonic time at which the notice came
        self.door = SignIn(settings, self.find_key)

    async def find_key(self, key_id: str) -> ServerKey | None:
        """The server key of this id, None when there is none (any more). Raises `Unavailable`."""
        if not self._node.reader.hears_notices:
            raise Unavailable  # a revocation would pass us by
        try:
            return await self._store.find_key(key_id)
        except WaypostError as problem:
            self._node.out_of_reach(problem)
            raise problem.for_client() from problem

    @contextmanager
    def stranger(self) -> Iterator[None]:
        """While a socket is still to say who it is. Raises `Unavailable`: it may come back when others have."""
        if self._strangers >= self._strangers_max:
            raise Unavailable("too many are about to sign in to this node")
        self._strangers += 1
        try:
            yield
        finally:
            self._strangers -= 1

    # -- connections ---------------------------------------------------------------------------------------------------

    def check(self, principal: Principal) -> None:
        """Raises `unauthorised` for a server key that was revoked just now."""
        if principal.key in self._revoked:
            raise WaypostError("unauthorised", "no such server key")

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._renewed.pop(connection, None)
        self._stop_watching(connection)

    def _stop_watching(self, connection: Connection) -> None:
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def expires_in(self, principal: Principal) -> float | None:
        """For how many seconds the sign-in still holds, None: for ever. 0 in the time of grace."""
        return None if principal.expires_at is None else round(max(0.0, principal.expires_at - time.time()), 3)

    def renew(self, connection: Connection, command: Renew) -> None:
        """The client has a fresh token. Looking at one counts like a request: it costs as much."""
        try:
            self._node.rates.count("requests", connection.user)
        except WaypostError as problem:
            connection.session.not_answered(problem, command.ref)
            return
        self._renewals += 1
        self._node.spawn(self._renew(connection, command, self._renewals), connection)

    async def _renew(self, connection: Connection, command: Renew, number: int) -> None:
        session = connection.session
        try:
            principal = _check_is_for(connection, await self.door.by_token(command.token))
        except WaypostError as problem:
            session.not_answered(problem, command.ref)
        else:
            if number > self._renewed.get(connection, 0) and not connection.is_closed:  # else a later one was quicker
                self._renewed[connection] = number
                connection.principal = principal
                self._stop_watching(connection)
                self.watch(connection)
            session.renewed(command.ref, self.expires_in(connection.principal))
        connection.flush()

    def watch(self, connection: Connection) -> None:
        """Ends a connection when its sign-in has expired, and the time of grace is over."""
        expires_at = connection.principal.expires_at
        if expires_at is None or connection.is_closed:
            return
        left_s = expires_at + self._grace_s - time.time()
        if left_s <= 0:
            connection.end("expired")
            return
        loop = asyncio.get_running_loop()
        self._timers[connection] = loop.call_later(min(left_s, LOOK_AGAIN_S), self.watch, connection)

    async def look_at_keys_again(self) -> None:
        """Ends connections of server keys that are no more: of notices only the last thousand are kept, and a node that
        stood still for long may have missed one.
        """
        for key in {one.principal.key for one in self._node.connections.values()} - {""}:
            if await self._store.find_key(key) is None:
                self.heed(Notice("key_revoked", key=key))

    # -- notices -------------------------------------------------------------------------------------------------------

    def heed(self, notice: Notice) -> None:
        """Does what all nodes are told to do."""
        if notice.kind == "key_revoked":
            now = time.monotonic()
            self._revoked = {key: at for key, at in self._revoked.items() if now - at < REVOKED_KEPT_S}
            self._revoked[notice.key] = now
            ended = [one for one in self._node.connections.values() if one.principal.key == notice.key]
            code = "unauthorised"
        else:
            of_user = self._node.connections_of(notice.user)
            ended = [one for one in of_user if notice.device in ("", one.session.device)]
            code = "forbidden"
        for connection in ended:
            connection.end(code)
        self._node.log.info("notice", detail=notice.kind, count=len(ended))


def _check_is_for(connection: Connection, principal: Principal) -> Principal:
    if principal.user != connection.user:
        raise WaypostError("unauthorised", "the token is another user's")
    acting_device(principal, connection.session.device)
    return principal
