"""The keys that an issuer publishes (JWKS): fetched beside the event loop, kept, and fetched again when that is due.

One fetch at a time, for all who wait; between two the issuer is left alone for a pause, however many key ids come that
nobody knows. A fetch that fails leaves what there is.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

import jwt
import msgspec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.core.public_keys import KEYS_MAX, PublicKey, suited
from service.errors import Unavailable
from service.log import Log

log = Log("jwks")

FETCH_S = 5.0  # for all of it: an issuer that takes longer has a bad day, and clients come back
ANSWER_BYTES_MAX = 1_048_576  # a hundred keys with long certificates; more is not a set of keys
CHUNK_BYTES = 65_536

_FROM_JWK: dict[object, Callable[[dict[str, Any]], object]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}
_PUBLIC_PARTS = ("kty", "crv", "n", "e", "x", "y")


class Jwks:
    """The keys at a URL. `ttl_s`: how old they may be before they are fetched again; `pause_s`: between two fetches."""

    def __init__(self, url: str, *, ttl_s: float, pause_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._ttl_s = ttl_s
        self._pause_s = pause_s
        self._now = now
        self._keys: list[tuple[str | None, PublicKey]] | None = None
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._is_known_to_be_current = False  # the last fetch was answered
        self._fetching: asyncio.Task[None] | None = None

    async def keys(self, kid: str | None) -> list[PublicKey]:
        """The keys with this id, all keys for None; [] when the issuer has none such.

        Waits for a fetch only when nothing fits. Raises `Unavailable` when the issuer cannot be asked and the keys
        that there are cannot answer. May be repeated.
        """
        if self._keys is not None and self._now() - self._fetched_at >= self._ttl_s:
            self._fetch()
        found = self._matching(kid)
        if not found:
            fetching = self._fetch()
            if fetching is not None:
                await asyncio.shield(fetching)  # others wait for it too
                found = self._matching(kid)
        if not found and not self._is_known_to_be_current:
            problem = Unavailable("the issuer's keys cannot be fetched just now")
            problem.retry_after = self._pause_s
            raise problem
        return found

    def _matching(self, kid: str | None) -> list[PublicKey]:
        return [key for its, key in self._keys or () if kid is None or its == kid]

    def _fetch(self) -> "asyncio.Task[None] | None":
        """The fetch that is under way, or a new one; None while the issuer is left alone."""
        if self._fetching is None or self._fetching.done():
            if self._tried_at is not None and self._now() - self._tried_at < self._pause_s:
                return None
            self._tried_at = self._now()
            self._fetching = asyncio.create_task(self._refresh(), name="jwks")
        return self._fetching

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_S + 1):  # name servers know no time-out
                found = parse(await _in_thread(lambda: fetch(self._url)))
        except (OSError, HTTPException, ValueError, msgspec.DecodeError) as error:  # TimeoutError is one of the first
            self._is_known_to_be_current = False
            log.warning("jwks_not_fetched", error=f"{type(error).__name__}: {error}")
            return
        if not found:
            log.warning("jwks_without_keys", detail="the issuer publishes no key that is of use here")
        self._keys = found
        self._fetched_at = self._now()
        self._is_known_to_be_current = True
        log.debug("jwks_fetched", count=len(found))


def parse(content: bytes) -> list[tuple[str | None, PublicKey]]:
    """The keys of a set that can verify a token, each with its id; the others are skipped.

    Raises `msgspec.DecodeError`, `ValueError` for what is no set, or one that is too large.
    """
    try:
        members = msgspec.json.decode(content, type=dict[str, Any]).get("keys")
    except RecursionError:
        raise ValueError("brackets within brackets without an end") from None
    if not isinstance(members, list):
        raise ValueError("not a set of keys: an object with the list `keys`")  # noqa: TRY004 - it comes from outside
    if len(members) > KEYS_MAX:
        raise ValueError(f"more than {KEYS_MAX} keys")
    read = [(jwk.get("kid"), _key(jwk)) for jwk in members if isinstance(jwk, dict)]
    return [(kid if isinstance(kid, str) else None, key) for kid, key in read if key is not None]


def _key(jwk: Mapping[str, Any]) -> PublicKey | None:
    """One key of a set; None for one that is for something else, or too weak."""
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    read = _FROM_JWK.get(kind) if isinstance(kind := jwk.get("kty"), str) else None
    if read is None:
        return None
    try:
        # Without the private parts, should anybody publish them.
        key = suited(read({part: jwk[part] for part in _PUBLIC_PARTS if part in jwk}))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return key if jwk.get("alg", key.algorithm) == key.algorithm else None


# -- the network -------------------------------------------------------------------------------------------------------


class _SameScheme(HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(  # noqa: PLR0917 - as the library has it
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,  # noqa: ANN401
        newurl: str,
    ) -> Request | None:
        """The request to follow with. Raises `URLError` for one that leads elsewhere."""
        if urlsplit(newurl).scheme not in (req.type, "https"):
            fp.close()
            raise URLError("redirected to another scheme")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str) -> bytes:
    """What is at `url` (http or https). Blocks for `FETCH_S` or so. Raises `OSError`, `HTTPException`, `ValueError`."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        _SameScheme(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    limit = time.monotonic() + FETCH_S
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "waypost"})  # noqa: S310 - http, https
    content = bytearray()
    try:
        answer = opener.open(request, timeout=FETCH_S)
    except HTTPError as refusal:
        refusal.close()  # it holds the connection
        raise
    with answer:
        while chunk := answer.read1(CHUNK_BYTES):
            content += chunk
            if len(content) > ANSWER_BYTES_MAX:
                raise ValueError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
            if time.monotonic() > limit:
                raise TimeoutError("no whole answer in time")
    return bytes(content)


async def _in_thread(work: Callable[[], bytes]) -> bytes:
    """The result of `work`, in a thread that nobody waits for: the end of the process least of all."""
    done: Future[bytes] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it is waited for
            done.set_exception(error)

    threading.Thread(target=run, name="jwks", daemon=True).start()
    return await asyncio.wrap_future(done)
