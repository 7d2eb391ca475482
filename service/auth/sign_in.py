"""From what somebody shows to who they are."""

from collections.abc import Awaitable, Callable

import msgspec

from service.auth.principal import Principal
from service.auth.tokens import Tokens
from service.config import Settings
from service.core.names import check_name
from service.core.server_keys import PREFIX as KEY_PREFIX
from service.core.server_keys import Scope, ServerKey, id_of
from service.errors import WaypostError

FindKey = Callable[[str], Awaitable[ServerKey | None]]

ADMINISTRATOR: frozenset[Scope] = frozenset({"admin"})
NOBODY: frozenset[Scope] = frozenset()


class Credentials(msgspec.Struct, frozen=True):
    """What came with a request or an upgrade.

    `authorization`: the header. `token`, `user`: of the query. `is_local`: it came over a loopback address, and its
    `Host` names one.
    """

    authorization: str | None = None
    token: str | None = None
    user: str | None = None
    is_local: bool = False


class SignIn:
    """Looks at tokens and server keys. `find_key` asks the store; it raises `unavailable` when that is away.

    Raises `ValueError` when the key material of the settings cannot be used.
    """

    def __init__(self, settings: Settings, find_key: FindKey) -> None:
        self._settings = settings
        self._find_key = find_key
        self._tokens = Tokens(settings) if settings.has_key_material else None

    async def by(self, given: Credentials) -> Principal | None:
        """Who shows these credentials. None: they show nothing, and a token may still come in `hello`.

        In dev mode `?user=<id>` is taken at its word. Raises `unauthorised`, `expired`, with what is wrong as the
        detail, and `unavailable` while what is needed to look at them is out of reach.
        """
        shown = _shown(given)
        if shown is not None:
            return await self._by_shown(shown, given.user)
        if not self._settings.dev:
            if given.user:
                raise _refusal("?user= alone signs in in dev mode only, and dev mode is off")
            return None
        if given.user:
            scopes = ADMINISTRATOR if given.is_local else NOBODY
            return Principal(user=_named(given.user), can_broadcast=True, scopes=scopes)
        if self._tokens is None:
            raise _refusal("no sign-in was given; in dev mode ?user=<id> signs in")
        return None

    async def administrator(self, given: Credentials) -> Principal | None:
        """Who asks for something that only operators may; `may(…, "administer")` has the last word.

        As `by`, but in dev mode everybody on this machine is an administrator, whoever else they are and though they
        show nothing (the user is "" then). Raises what `by` raises.
        """
        is_trusted = self._settings.dev and given.is_local
        if is_trusted and _shown(given) is None and not given.user:
            return Principal(user="", scopes=ADMINISTRATOR)
        principal = await self.by(given)
        if principal is None or principal.key or not is_trusted:
            return principal
        return msgspec.structs.replace(principal, scopes=ADMINISTRATOR)

    async def by_token(self, token: str) -> Principal:
        """Whose token this is: one of a user, no server key. Raises what `by` raises."""
        if token.startswith(KEY_PREFIX):
            raise _refusal("a server key goes into the Authorization header, and nowhere else")
        if self._tokens is not None:
            return await self._tokens.principal(token)
        if self._settings.dev:
            raise _refusal("in dev mode without WAYPOST_JWT_… settings no token is known; ?user=<id> signs in")
        raise _refusal("no token is known here: none of the WAYPOST_JWT_… settings is given")

    async def for_chat(self, user: str, given: Credentials) -> Principal:
        """Who comes on a `/chat/…` path that names `user`, as the setting `chat` has it.

        Raises what `by` raises, and `forbidden` where the paths are off.
        """
        mode = self._settings.chat_mode
        if mode == "off":
            raise WaypostError("forbidden", "the /chat paths are switched off (WAYPOST_CHAT)")
        if mode == "open":
            return Principal(user=_named(user), can_broadcast=self._settings.dev)
        shown = _shown(given)
        if shown is None:
            raise _refusal("the /chat paths want a token here, in the Authorization header or as ?token=")
        return await self._by_shown(shown, user)

    async def _by_shown(self, shown: str, user: str | None) -> Principal:
        """Whose token or server key this is; `user` is whom the request names beside it, if anybody."""
        if shown.startswith(KEY_PREFIX):
            return await self._by_key(shown, user)
        principal = await self.by_token(shown)
        if user and user != principal.user:
            raise _refusal("the token is of another user than the one that is named")
        return principal

    async def _by_key(self, text: str, user: str | None) -> Principal:
        """The server key, acting for `user`. One answer for whatever is wrong: nobody learns which ids exist."""
        key_id = id_of(text)
        key = None if key_id is None else await self._find_key(key_id)
        if key is None or not key.is_key(text):
            raise _refusal("no such server key")
        return Principal(user=_named(user) if user else "", key=key.id, scopes=key.scopes)


def _shown(given: Credentials) -> str | None:
    """The token or server key that was given, None for none. Raises `unauthorised` for two, and for what is neither."""
    if given.token is not None and given.token.startswith(KEY_PREFIX):
        raise _refusal("a server key goes into the Authorization header: addresses end up in logs")
    if given.authorization is None:
        shown = given.token
    else:
        scheme, _, rest = given.authorization.strip().partition(" ")
        shown = rest.strip()
        if scheme.lower() != "bearer":
            raise _refusal("the Authorization header is to be `Bearer` and a token")
        if given.token is not None and given.token != shown:
            raise _refusal("the Authorization header and ?token= differ: give one of them")
    if shown == "":
        raise _refusal("the token is empty")
    return shown


def _named(user: str) -> str:
    try:
        return check_name(user)
    except WaypostError as error:
        raise _refusal(error.detail) from error


def _refusal(detail: str) -> WaypostError:
    return WaypostError("unauthorised", detail)
