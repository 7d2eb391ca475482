"""Tokens of users: JWTs, looked at and made.

The header of a token says with which algorithm and key it was signed, and anybody can write a header. So it only
chooses among what the settings name: HS256 among secrets, the others among public keys of the kind that fits.
"""

import re
import time
from collections.abc import Callable
from typing import Annotated, Any

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm
from msgspec import UNSET, Meta, UnsetType

from service.auth.jwks import Jwks
from service.auth.principal import Principal
from service.config import Settings
from service.core import public_keys
from service.core.names import check_name
from service.core.public_keys import PublicKey
from service.errors import WaypostError
from service.log import Log

log = Log("tokens")

# What HTTP servers take for a header line at least; a token with a thousand groups in it should rather name prefixes.
TOKEN_BYTES_MAX = 8192
SECRET_BYTES_MIN = 32  # as long as a signature of HS256: a shorter one is the easier thing to guess
GROUPS_MAX = 1000  # as many as a user may be in, unless that limit is raised; more are said with `prefix*`

SHARED = "HS256"
_PLACE = re.compile(r" - at `\$\.?(\w*).*`")


class Claims(msgspec.Struct, omit_defaults=True):
    """What a token says. Other claims are not looked at."""

    sub: str | UnsetType = UNSET
    exp: Annotated[float, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    nbf: Annotated[float, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    iat: Annotated[float, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    aud: str | list[str] | UnsetType = UNSET
    device: str | UnsetType = UNSET
    groups: Annotated[list[str], Meta(max_length=GROUPS_MAX)] | UnsetType = UNSET
    broadcast: bool | UnsetType = UNSET


class Tokens:
    """Whose a token is, by the key material of the settings. Raises `ValueError` when their PEM file cannot be used."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now
        self._secrets = settings.secrets
        self._keys = public_keys.read(settings.jwt_keys) if settings.jwt_keys else []
        self._jwks = (
            Jwks(settings.jwt_jwks_url, ttl_s=settings.jwks_ttl_s, pause_s=settings.jwks_pause_s)
            if settings.jwt_jwks_url
            else None
        )
        self._jws = _signatures()
        for nth, secret in enumerate(self._secrets, 1):
            if len(secret.encode()) < SECRET_BYTES_MIN:
                log.warning(
                    "short_secret", detail=f"place {nth} of WAYPOST_JWT_SECRETS: below {SECRET_BYTES_MIN} bytes"
                )

    async def principal(self, token: str) -> Principal:
        """Whose token this is.

        Raises `unauthorised`; `expired` for one that was good; `unavailable` while its key cannot be fetched.
        """
        return self._principal(self._claims(await self._payload(token)))

    # -- the signature -------------------------------------------------------------------------------------------------

    async def _payload(self, token: str) -> bytes:
        """What the token says, its signature verified."""
        if not token.isascii() or len(token) > TOKEN_BYTES_MAX:
            raise _refusal(f"the token is no JWT of at most {TOKEN_BYTES_MAX} bytes")
        try:
            header = self._jws.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _refusal("the token is no JWT") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms():
            raise _refusal(f"the token is not signed with one of {', '.join(self._algorithms()) or 'our algorithms'}")
        if "crit" in header or "b64" in header:
            raise _refusal("the token's header asks for something that is not known here")
        if algorithm == SHARED:
            return self._verified(token, algorithm, self._secrets)
        try:
            return self._verified(token, algorithm, _fitting(self._keys, algorithm))
        except WaypostError:
            if self._jwks is None:
                raise
        return self._verified(token, algorithm, _fitting(await self._jwks.keys(kid), algorithm))

    def _algorithms(self) -> list[str]:
        """The algorithms that the settings have keys for."""
        if self._jwks is not None:
            public = ["RS256", "ES256", "EdDSA"]
        else:
            public = list(dict.fromkeys(key.algorithm for key in self._keys))
        return ([SHARED] if self._secrets else []) + public

    def _verified(self, token: str, algorithm: str, keys: "tuple[str, ...] | list[Any]") -> bytes:
        """The payload, when one of the keys made the signature."""
        for key in keys:
            try:
                payload: bytes = self._jws.decode_complete(token, key, algorithms=[algorithm])["payload"]
            except (jwt.PyJWTError, ValueError, RecursionError):
                continue
            return payload
        raise _refusal("the token's signature is of none of our keys")

    # -- the claims ----------------------------------------------------------------------------------------------------

    def _claims(self, payload: bytes) -> Claims:
        """The claims, those checked that say whether the token is for us."""
        try:
            claims = msgspec.json.decode(payload, type=Claims)
        except msgspec.ValidationError as error:
            raise _refusal(_named(str(error))) from error
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _refusal("the token's payload is not JSON") from error
        audience, issuer = self._settings.jwt_audience, self._settings.jwt_issuer
        if issuer and claims.iss != issuer:
            raise _refusal("the claim iss is not the issuer of WAYPOST_JWT_ISSUER")
        if claims.aud is not UNSET and not audience:
            raise _refusal("the token has an aud, and none is configured here (WAYPOST_JWT_AUDIENCE)")
        audiences = claims.aud if isinstance(claims.aud, list) else [claims.aud]
        if audience and audience not in audiences:
            raise _refusal("the claim aud does not name the audience of WAYPOST_JWT_AUDIENCE")
        return claims

    def _principal(self, claims: Claims) -> Principal:
        """Whom the claims speak of, if it is time for that."""
        if claims.sub is UNSET:
            raise _refusal("the claim sub is missing: it says who signs in")
        made = Principal(
            user=_name("sub", claims.sub),
            device=None if claims.device is UNSET else _name("device", claims.device),
            groups=() if claims.groups is UNSET else _groups(claims.groups),
            can_broadcast=claims.broadcast is True,
            expires_at=None if claims.exp is UNSET else claims.exp,
        )
        now = self._now()
        for name, begin in (("nbf", claims.nbf), ("iat", claims.iat)):
            if begin is not UNSET and begin > now + self._settings.jwt_leeway_s:
                raise _refusal(f"the claim {name} lies in the future: the token is not valid yet")
        # At last: who hears `expired` knows that another token like this one will do.
        if made.expires_at is not None and made.expires_at <= now:
            raise WaypostError("expired", "the token has expired")
        return made


def check_pattern(text: str) -> str:
    """`text` itself when it is the name of a group, or the beginning of names with `*` behind it, else `bad_name`.

    `*` alone is any group.
    """
    if text != "*":
        check_name(text.removesuffix("*"))
    return text


def mint(claims: Claims, secret: str) -> str:
    """A token with these claims, signed with a secret."""
    return _signatures().encode(msgspec.json.encode(claims), secret, SHARED)


class _Shared(HMACAlgorithm):
    """HS256 with a secret, which was checked when the settings were read."""

    def __init__(self) -> None:
        super().__init__(HMACAlgorithm.SHA256)

    def prepare_key(self, key: str | bytes) -> bytes:
        """A secret, and nothing but a secret."""
        if not isinstance(key, str):
            raise TypeError("a secret is text")
        return key.encode()

    def check_key_length(self, key: bytes) -> None:
        """A short one is warned about once, at the start, not for each token."""


def _signatures() -> jwt.PyJWS:
    jws = jwt.PyJWS(algorithms=[SHARED, "RS256", "ES256", "EdDSA"])
    jws.unregister_algorithm(SHARED)
    jws.register_algorithm(SHARED, _Shared())
    return jws


def _fitting(keys: list[PublicKey], algorithm: str) -> list[Any]:
    return [key.key for key in keys if key.algorithm == algorithm]


def _refusal(detail: str) -> WaypostError:
    return WaypostError("unauthorised", detail)


def _named(text: str) -> str:
    """What is wrong with a claim, without what it says: that may be a secret of the token's owner."""
    place = _PLACE.search(text)
    words = _PLACE.sub("", text).replace("`", "")
    return f"the claim {place[1]}: {words}" if place and place[1] else f"the token's claims: {words}"


def _name(claim: str, text: str) -> str:
    try:
        return check_name(text)
    except WaypostError as error:
        raise _refusal(f"the claim {claim} is not a name") from error


def _groups(patterns: list[str]) -> tuple[str, ...]:
    try:
        return tuple(map(check_pattern, patterns))
    except WaypostError as error:
        raise _refusal("the claim groups holds something that is neither a name nor the beginning of names") from error
