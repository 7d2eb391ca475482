"""What is wrong with settings that are each within their bounds, and yet cannot be meant."""

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from service.config.settings import ANY_ADDRESS, ANY_ORIGIN, PREFIX, Settings, origin, split
from service.core.names import check_name
from service.errors import WaypostError

METRICS_TOKEN_BYTES_MIN = 16  # below it, somebody who may ask as often as they like would guess it


def wrong_schedule(job: str, given: Mapping[str, Any]) -> list[str]:
    """What is wrong with a schedule as it was given."""
    where = f"jobs.{job}"
    if "every" in given and given.get("cron"):
        return [f"{where}: Expected `every` or `cron`, not both"]
    if not given.get("cron"):
        return []
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - a node has no use for it

    try:
        if CronTrigger.from_crontab(given["cron"], "UTC").get_next_fire_time(None, datetime.now(UTC)) is None:
            return [f"{where}.cron: Expected a time that comes: there is no such date"]
    except ValueError as error:
        return [f"{where}.cron: Expected five fields, minute hour day month weekday, such as */5 * * * *: {error}"]
    return []


def contradictions(settings: Settings) -> list[str]:
    """What is wrong with settings that are each within their bounds."""
    wrong = []
    limits = settings.limits
    for url, variable, schemes in (
        (settings.redis_url, "REDIS_URL", ("redis", "rediss", "unix")),
        (settings.url, "URL", ("http", "https")),
    ):
        if url and (not _is_url(url) or urlsplit(url).scheme not in schemes):
            wrong.append(f"{PREFIX}{variable}: Expected a URL that begins with {', '.join(s + '://' for s in schemes)}")
    if settings.node:
        try:
            check_name(settings.node)
        except WaypostError as error:
            wrong.append(f"{PREFIX}NODE: {error.detail}")
    wrong += _wrong_sign_in(settings)
    if settings.metrics == "token" and not settings.metrics_token:
        wrong.append(f"{PREFIX}METRICS: Expected {PREFIX}METRICS_TOKEN beside `token`: nobody could show it")
    if settings.metrics_token and len(settings.metrics_token.encode()) < METRICS_TOKEN_BYTES_MIN:
        wrong.append(f"{PREFIX}METRICS_TOKEN: Expected at least {METRICS_TOKEN_BYTES_MIN} characters")
    wrong += _wrong_proxies(settings)
    for small, large, why in (
        ("beat_s", "not_ready_s", "a node that beats would not be ready"),
        ("beat_s", "mailbox_ttl_s", "a mailbox would die between two beats"),
        ("not_ready_s", "mailbox_ttl_s", "a mailbox would die before its node is known to stand still"),
    ):
        if getattr(settings, large) < 2 * getattr(settings, small):
            wrong.append(f"{PREFIX}{large.upper()}: Expected at least twice {PREFIX}{small.upper()}: {why}")
    for small, large, why in (
        ("body_bytes", "frame_bytes", "the largest body would not fit into a frame"),
        ("frame_bytes", "ws_max_bytes", "the library would refuse what the protocol allows"),
        ("body_bytes", "page_bytes", "the largest body would not fit into a page"),
        ("body_bytes", "unanswered_bytes", "the largest body could never be sent"),
        ("body_bytes", "write_buffer_bytes", "the largest body could never be pushed"),
        ("unanswered_sends", "node_unanswered_sends", "one client could not use its share"),
        ("unanswered_bytes", "node_unanswered_bytes", "one client could not use its share"),
    ):
        if getattr(limits, large) < getattr(limits, small):
            prefix = f"{PREFIX}LIMITS_"
            wrong.append(f"{prefix}{large.upper()}: Expected at least {prefix}{small.upper()}: {why}")
    return wrong


def _wrong_sign_in(settings: Settings) -> list[str]:
    """What is wrong with key material and origins. Names what is wrong, and repeats no secret."""
    wrong = []
    if settings.jwt_secrets:
        wrong += [f"{PREFIX}JWT_SECRETS: {problem}" for problem in _wrong_secrets(settings.secrets)]
    if settings.jwt_keys:
        from service.core import public_keys  # noqa: PLC0415 - most commands have no use for it

        try:
            public_keys.read(settings.jwt_keys)
        except ValueError as error:
            wrong.append(f"{PREFIX}JWT_KEYS: {error}")
    if settings.jwt_jwks_url:
        parts = urlsplit(settings.jwt_jwks_url) if _is_url(settings.jwt_jwks_url) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            wrong.append(f"{PREFIX}JWT_JWKS_URL: Expected a URL that begins with https:// (or http:// on this machine)")
        elif "@" in parts.netloc:
            wrong.append(f"{PREFIX}JWT_JWKS_URL: Expected a URL without user and password: public keys are for all")
    for nth, one in enumerate(split(settings.origins), 1):
        try:
            if one != ANY_ORIGIN:
                origin(one)
        except ValueError:
            wrong.append(
                f"{PREFIX}ORIGINS: Expected scheme://host or scheme://host:port without a path, in place {nth}"
            )
    return wrong


def _wrong_proxies(settings: Settings) -> list[str]:
    """What is no address: uvicorn would take it for a name, which nobody ever has."""
    wrong = []
    for nth, one in enumerate(split(settings.forwarded_allow_ips), 1):
        try:
            if settings.forwarded_allow_ips != ANY_ADDRESS:
                ipaddress.ip_network(one)
        except ValueError:
            wrong.append(
                f"{PREFIX}FORWARDED_ALLOW_IPS: Expected an address or a network (10.0.0.0/8) in place {nth}, or * alone"
            )
    return wrong


def _wrong_secrets(secrets: tuple[str, ...]) -> list[str]:
    """What cannot be a secret: above all a public key, which everybody knows."""
    if not secrets:
        return ["Expected secrets, separated by commas"]
    from jwt.algorithms import HMACAlgorithm  # noqa: PLC0415 - as above
    from jwt.exceptions import InvalidKeyError  # noqa: PLC0415

    wrong = []
    for nth, secret in enumerate(secrets, 1):
        try:
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except (InvalidKeyError, UnicodeEncodeError):
            wrong.append(
                f"Expected a secret in place {nth}, not a key or a certificate (those go into {PREFIX}JWT_KEYS)"
            )
    return wrong


def _is_url(text: str) -> bool:
    """Whether the parts of `text` can be read at all, its port too."""
    try:
        parts = urlsplit(text)
        return parts.port is None or parts.port > 0
    except ValueError:
        return False
