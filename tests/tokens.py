"""Tokens and server keys as tests make them: by hand, as an issuer and an operator would."""

import secrets
import time
from typing import Any

import jwt

from service.core import server_keys
from service.core.server_keys import Scope, ServerKey
from service.store import Store, StoreOptions

SECRET = "a secret of the tests and of nobody else"
SIGNED: dict[str, object] = {"dev": 0, "jwt_secrets": SECRET}  # settings of a node that knows these tokens


def mint(user: str, *, secret: str = SECRET, ttl: float = 3600, **claims: Any) -> str:  # noqa: ANN401 - whatever a token may say
    """A token of `user` that expires in `ttl` seconds (less than nothing: did)."""
    return jwt.encode({"sub": user, "exp": time.time() + ttl, **claims}, secret, "HS256")


def bearer(token: str) -> dict[str, str]:
    """The header that shows it."""
    return {"Authorization": f"Bearer {token}"}


async def new_key(url: str, *scopes: Scope) -> tuple[str, str]:
    """A server key in the store at `url`; returns the key and its id."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    text = server_keys.spell(key_id, secret)
    store = await open_store(url)
    try:
        digest = server_keys.digest(text)
        await store.add_key(ServerKey(id=key_id, name="test", scopes=frozenset(scopes), digest=digest, created_at=1))
    finally:
        await store.close()
    return text, key_id


async def open_store(url: str) -> Store:
    """The store at `url`, as an operator's command opens it."""
    store = await Store.connect(url, options=StoreOptions())
    await store.check_server()
    return store
