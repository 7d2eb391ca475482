"""Where a request or an upgrade comes from: what it shows, whether it is of this machine, and whether its page may.

Browsers let any page open a WebSocket to any host, and send it what they hold for that host: the `Origin` header, which
a page cannot choose, is what tells the pages of one's own from those of strangers.
"""

import ipaddress
from urllib.parse import urlsplit

import msgspec
from starlette.requests import HTTPConnection

from service.auth.checks import given_once
from service.auth.sign_in import Credentials
from service.config import Settings
from service.config.settings import ANY_ORIGIN
from service.errors import WaypostError

COOKIE = "waypost_token"  # set by whoever serves the page, for scripts that can set no header

# Said by proxies: what comes through one is not of this machine, whatever the address.
_FORWARDED = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
)


def credentials_of(visit: HTTPConnection) -> Credentials:
    """What came with it. Raises `unauthorised` for a query that says one thing twice."""
    token, user = (given_once(visit, name, refusal="unauthorised") for name in ("token", "user"))
    return Credentials(visit.headers.get("authorization"), token, user, is_local=_is_local(visit))


def with_cookie(visit: HTTPConnection, given: Credentials) -> Credentials:
    """The same, with the token of the cookie where nothing else was shown and the browser says that the page is of our
    own origin. A browser sends cookies along whoever has the page, so for any other page they count for nothing.
    """
    token = visit.cookies.get(COOKIE)
    has_shown = (given.authorization, given.token, given.user) != (None, None, None)
    if token is None or has_shown or not _is_of_own_page(visit):
        return given
    return msgspec.structs.replace(given, token=token)


def check_origin(visit: HTTPConnection, settings: Settings) -> None:
    """Raises `forbidden` for a page of an origin that is neither our own nor one of the setting `origins`.

    What comes without `Origin` is from no page. In dev mode pages of this machine may, whatever their port; and a name
    that is none of this machine's is not our own there: it can be made to lead here, and nobody is asked for a token.
    """
    if settings.dev:
        _check_host(visit, settings)
    origin = visit.headers.get("origin")
    if origin is None:
        return
    if ANY_ORIGIN in settings.origin_list or origin.lower() in settings.origin_list:
        return
    is_own, netloc = _is_own(visit, origin), _netloc(origin)
    if settings.dev:
        page = _host_of(netloc)
        is_own = _is_loopback(page) or (is_own and _is_address(page))
    if not is_own:
        raise WaypostError("forbidden", f"pages of {origin[:200]} may not: see the setting origins")


def _check_host(visit: HTTPConnection, settings: Settings) -> None:
    """Raises `forbidden` for a `Host` that somebody else may own: a name that was made to lead here brings a page with
    it that is of our own origin to its browser, and sends no `Origin` when it only looks. Names of one word (of a
    container) are nobody's out there.
    """
    host = _host_of(visit.headers.get("host", ""))
    known = {urlsplit(one).hostname for one in (*settings.origin_list, settings.url)}
    if "." in host and not (_is_address(host) or _is_loopback(host) or host in known):
        raise WaypostError("forbidden", "in dev mode a host name has to be in WAYPOST_ORIGINS, with its scheme")


def _netloc(origin: str) -> str:
    """Host and port, of whatever scheme: a proxy before us may end TLS."""
    return origin.lower().partition("://")[2]


def _is_own(visit: HTTPConnection, origin: str) -> bool:
    return _netloc(origin) == visit.headers.get("host", "").lower() != ""


def _is_of_own_page(visit: HTTPConnection) -> bool:
    """Whether the browser says so. Of its own page it gives no `Origin` with a GET, so there `Sec-Fetch-Site` does."""
    origin, site = visit.headers.get("origin"), visit.headers.get("sec-fetch-site")
    if origin is not None and not _is_own(visit, origin):
        return False
    return site == "same-origin" if site is not None else origin is not None


def _is_local(visit: HTTPConnection) -> bool:
    """Whether it was sent on this machine, to this machine by name."""
    if visit.client is None or any(name in visit.headers for name in _FORWARDED):
        return False
    return _is_loopback(visit.client.host) and _is_loopback(_host_of(visit.headers.get("host", "")))


def _host_of(netloc: str) -> str:
    """The host of `host:port`, without the brackets of an IPv6 address; "" when it cannot be read."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
