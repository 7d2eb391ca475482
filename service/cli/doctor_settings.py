"""What `waypost doctor` says of the settings, of files that have secrets in them, and of the door."""

import datetime
import ipaddress
import json
import ssl
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service.cli import ports
from service.cli.findings import Finding, bad, ok, warn
from service.config import Settings
from service.config.settings import ANY_ADDRESS, ANY_ORIGIN
from service.config.tls import TlsError, server_context

if TYPE_CHECKING:
    from service.embedded import DataFolder

SECRET_BYTES, SECRET_BYTES_LEAST = 32, 16  # as long as the digest; below the second they can be guessed in time
CERTIFICATE_DAYS = 14  # time to notice that nobody renews it
REACH_S = 5.0
# Of a settings file: whoever reads one of these signs in as anybody, or can look at everything.
SECRET_SETTINGS = ("jwt_secrets", "ssl_keyfile_password", "token", "metrics_token", "redis_url")


def examine(settings: Settings, folder: "DataFolder", *, is_embedded: bool) -> list[Finding]:
    """Every check that needs neither store nor node."""
    return [
        _dev(settings),
        _keys(settings, folder, is_embedded=is_embedded),
        _chat(settings),
        _origins(settings),
        _proxies(settings),
        _tls(settings),
        _key_file(settings),
        _config_file(settings),
    ]


def _is_loopback(host: str) -> bool:
    addresses = [address[0] for _, address in ports.resolve(host, 0)]
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _dev(settings: Settings) -> Finding:
    try:
        is_near = _is_loopback(settings.host)
    except ports.PortError as error:
        return bad("host", str(error), "WAYPOST_HOST")
    if settings.dev and not is_near:
        text = f"in dev mode whoever reaches {settings.host} is whoever they say they are"
        return bad("dev mode", text, "WAYPOST_DEV=0, or WAYPOST_HOST=127.0.0.1")
    return ok("dev mode", "on, and on loopback alone" if settings.dev else "off")


def _keys(settings: Settings, folder: "DataFolder", *, is_embedded: bool) -> Finding:
    from service.embedded import EmbeddedError  # noqa: PLC0415 - see service/cli

    lengths = [len(secret.encode()) for secret in settings.secrets]
    if lengths and min(lengths) < SECRET_BYTES:
        which = ", ".join(str(nth) for nth, length in enumerate(lengths, 1) if length < SECRET_BYTES)
        text = f"place {which} of WAYPOST_JWT_SECRETS is shorter than {SECRET_BYTES} bytes"
        mend = "WAYPOST_JWT_SECRETS=<new>,<old>, the new one of `openssl rand -base64 32`"
        return (bad if min(lengths) < SECRET_BYTES_LEAST else warn)("keys", text, mend)
    parts = urlsplit(settings.jwt_jwks_url)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        text = "keys come over plain http: whoever is on the way signs in as anybody"
        return bad("keys", text, "https:// in WAYPOST_JWT_JWKS_URL")
    if settings.has_key_material:
        return ok("keys", ", ".join(_material(settings)))
    try:
        kept = folder.secret() if is_embedded else None
    except EmbeddedError as error:
        return bad("keys", str(error), f"remove it, and start `waypost up` again: {folder.path}")
    if kept is not None:
        return ok("keys", "a secret of `waypost up`, for its owner alone")
    if settings.dev or is_embedded:
        return ok("keys", "none, and none is needed: dev mode, or `waypost up`, which makes one")
    return bad("keys", "none: nobody can sign in", "WAYPOST_JWT_SECRETS, WAYPOST_JWT_KEYS or WAYPOST_JWT_JWKS_URL")


def _material(settings: Settings) -> list[str]:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415 - see service/cli

    from service.core import public_keys  # noqa: PLC0415

    found = [f"{len(settings.secrets)} secrets, the shortest long enough"] if settings.secrets else []
    found += [
        f"RSA, {one.key.key_size} bits" if isinstance(one.key, RSAPublicKey) else one.algorithm
        for one in (public_keys.read(settings.jwt_keys) if settings.jwt_keys else ())
    ]
    return [*found, "a JWKS URL"] if settings.jwt_jwks_url else found


def _chat(settings: Settings) -> Finding:
    if settings.chat_mode == "open" and not settings.dev:
        text = "open: on /chat/… everybody is whom the path names, and reads that inbox"
        return bad("chat", text, "WAYPOST_CHAT=token, or off")
    return ok("chat", settings.chat_mode)


def _origins(settings: Settings) -> Finding:
    if ANY_ORIGIN in settings.origin_list:
        return warn("origins", "pages of every origin may use this service", "WAYPOST_ORIGINS=https://your.app")
    return ok("origins", ", ".join(settings.origin_list) or "its own alone")


def _proxies(settings: Settings) -> Finding:
    if settings.forwarded_allow_ips == ANY_ADDRESS:
        text = "whoever connects may say in a header where it comes from"
        return warn("proxies", text, "WAYPOST_FORWARDED_ALLOW_IPS with the addresses of your proxies")
    return ok("proxies", settings.forwarded_allow_ips)


def _tls(settings: Settings) -> Finding:
    try:
        context = server_context(settings)
    except TlsError as error:
        return bad("tls", str(error), "mend the files, or run doctor as the service's user")
    if context is None:
        if _reaches_far(settings):
            mend = "WAYPOST_SSL_CERTFILE and WAYPOST_SSL_KEYFILE, or a proxy that ends TLS (compose/nginx.conf)"
            return warn("tls", f"plain HTTP on {settings.host}: on the way every token can be read", mend)
        return ok("tls", "none, and loopback alone")
    from cryptography import x509  # noqa: PLC0415 - see service/cli

    certificate = x509.load_pem_x509_certificates(Path(settings.ssl_certfile).read_bytes())[0]
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    mend = "renew it, and restart the nodes: they read it at the start"
    if left < datetime.timedelta(0):
        return bad("tls", f"the certificate expired {-left.days} days ago", mend)
    text = f"TLS 1.2 or newer; the certificate is good for {left.days} days"
    return warn("tls", text, mend) if left.days < CERTIFICATE_DAYS else ok("tls", text)


def _reaches_far(settings: Settings) -> bool:
    try:
        return not _is_loopback(settings.host)
    except ports.PortError:
        return False


def _key_file(settings: Settings) -> Finding:
    path = settings.ssl_keyfile or settings.ssl_certfile
    if not path:
        return ok("tls key", "none")
    return _private("tls key", Path(path))


def _config_file(settings: Settings) -> Finding:
    if not settings.config:
        return ok("config file", "none")
    path = Path(settings.config)
    if path.stat().st_mode & 0o022:
        return bad("config file", f"{path} can be written by others", f"chmod go-w {path}")
    held = [name for name in SECRET_SETTINGS if tomllib.loads(path.read_text(encoding="utf-8")).get(name)]
    if not held:
        return ok("config file", f"{path}, without secrets")
    return _private("config file", path)


def _private(check: str, path: Path) -> Finding:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return bad(check, f"cannot look at {path}: {error.strerror}", "run doctor as the service's user")
    if mode & 0o007:
        return bad(check, f"everybody on the machine can read {path}", f"chmod 600 {path}")
    if mode & 0o070:
        return warn(check, f"its group can read {path}", f"chmod 600 {path}, unless that is meant")
    return ok(check, f"{path} is its owner's alone")


def reach(settings: Settings, *, has_nodes: bool) -> Finding:
    """Whether a node answers where clients look for one. Blocks, for some seconds at most."""
    if urlsplit(settings.url).scheme not in ("http", "https"):
        return bad("url", "not an address of a node", "WAYPOST_URL")
    try:
        trust = ssl.create_default_context(cafile=settings.ca_file or None)
        with urllib.request.urlopen(f"{settings.url}/readyz", timeout=REACH_S, context=trust):  # noqa: S310 - checked above
            return ok("url", f"a node is ready at {settings.url}")
    except urllib.error.HTTPError as refusal:
        with refusal:
            return bad("url", f"at {settings.url} a node is not ready: {_reasons(refusal)}", "look at its log")
    except (OSError, ValueError) as error:  # a URLError is of the first
        reason = getattr(error, "reason", None) or error
        text = f"nobody answers at {settings.url} ({reason})"
        mend = "WAYPOST_URL, and WAYPOST_CA_FILE for a certificate of your own making"
        return bad("url", text, mend) if has_nodes else warn("url", text, "`waypost serve`, or `waypost up`")


def _reasons(refusal: urllib.error.HTTPError) -> str:
    try:
        said = json.loads(refusal.read(65_536))
        return "; ".join(said["reasons"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP status {refusal.code}"
