"""Server keys: what backends sign in with. `wpk_<id>_<secret>`; of the secret only a digest is ever kept."""

import hashlib
import hmac
import re
from typing import Literal, get_args

import msgspec

Scope = Literal["send", "read", "groups", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "wpk_"

_KEY = re.compile(r"wpk_([0-9a-f]{12})_([A-Za-z0-9_\-]{43})")


class ServerKey(msgspec.Struct, frozen=True, kw_only=True):
    """A server key as the store keeps it. `digest` is of the whole key; `created_at` Redis time in ms.

    The secret is 256 random bits: a plain digest of it cannot be guessed backwards.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    digest: str
    created_at: int

    def is_key(self, text: str) -> bool:
        """Whether `text` is this key. Takes as long for any text of its length."""
        return hmac.compare_digest(self.digest, digest(text))


def spell(key_id: str, secret: str) -> str:
    """The key as its holder has it. `key_id`: 12 hex digits; `secret`: 32 bytes in URL-safe base64."""
    return f"{PREFIX}{key_id}_{secret}"


def id_of(text: str) -> str | None:
    """The id in a key, None for what is none."""
    match = _KEY.fullmatch(text)
    return None if match is None else match[1]


def digest(text: str) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
