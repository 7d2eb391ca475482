"""Who somebody is, once signed in."""

import msgspec

from service.core.server_keys import Scope


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is signed in, and what the sign-in says; `may` decides what that allows.

    `user`: who it acts as; "" for a server key (or an administrator) that acts for nobody in particular.
    `device`: the one device that it may be, None: any. `groups`: names, and beginnings that end in `*`, of closed
    groups that it may enter. `key`: the id of the server key that it signed in with, "" for none. `scopes`: those of
    the server key; of anybody else only `admin` can be there, in dev mode. `expires_at`: Unix time in seconds, None:
    never.
    """

    user: str
    device: str | None = None
    groups: tuple[str, ...] = ()
    can_broadcast: bool = False
    key: str = ""
    scopes: frozenset[Scope] = frozenset()
    expires_at: float | None = None
