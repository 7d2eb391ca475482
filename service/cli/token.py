"""`waypost token`: a token for a user, signed as an issuer would, for trying out and for scripts."""

import argparse
import json
import sys
import time

from service.cli import arguments
from service.config import Settings
from service.core.retention import parse_duration
from service.errors import WaypostError


class _CannotSign(Exception):
    """There is nothing to sign with; the text is one sentence for the user."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `token`."""
    parser = subparsers.add_parser(
        "token",
        help="make a token that signs a user in",
        description="Print a token (JWT, HS256), signed with the first of WAYPOST_JWT_SECRETS; where none is set, with "
        "the secret that `waypost up` keeps in WAYPOST_DATA_DIR. What the options mean: docs/security.md.",
    )
    parser.add_argument("--user", required=True, type=arguments.name, metavar="ID", help="who signs in with it")
    parser.add_argument("--device", type=arguments.name, metavar="NAME", help="the only device that it is good for")
    parser.add_argument(
        "--group",
        action="append",
        type=_group,
        metavar="NAME",
        help="a group that may be entered although it is closed; NAME*: all that begin so (repeatable)",
    )
    parser.add_argument("--broadcast", action="store_true", help="may send to all")
    parser.add_argument(
        "--ttl", type=_duration, default="1h", metavar="T", help="good for 30s, 5m, 12h … (default: 1h)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: token, user, expires_at (Unix time in seconds)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the token. 1: there is nothing to sign with."""
    from service.auth.tokens import TOKEN_BYTES_MAX, Claims, mint  # noqa: PLC0415 - see service/cli

    now = int(time.time())
    claims = Claims(sub=args.user, iat=now, exp=now + args.ttl)
    for name, value in (
        ("aud", settings.jwt_audience),
        ("iss", settings.jwt_issuer),
        ("device", args.device),
        ("groups", args.group),
        ("broadcast", args.broadcast),
    ):
        if value:
            setattr(claims, name, value)
    try:
        made = mint(claims, _secret(settings))
    except _CannotSign as error:
        print(f"waypost: {error}", file=sys.stderr)
        return 1
    if len(made) > TOKEN_BYTES_MAX:
        print(f"waypost: above {TOKEN_BYTES_MAX} bytes no server takes it: name groups as PREFIX*", file=sys.stderr)
        return 1
    print(json.dumps({"token": made, "user": args.user, "expires_at": now + args.ttl}) if args.json else made)
    return 0


def _secret(settings: Settings) -> str:
    """What signs. Raises `_CannotSign`."""
    from service.embedded import DataFolder, EmbeddedError  # noqa: PLC0415 - see service/cli

    if settings.secrets:
        return settings.secrets[0]
    if settings.has_key_material:
        raise _CannotSign("tokens are signed elsewhere (WAYPOST_JWT_KEYS, WAYPOST_JWT_JWKS_URL): ask there for one")
    try:
        kept = DataFolder(settings.data_dir).secret()
    except EmbeddedError as error:
        raise _CannotSign(str(error)) from error
    if kept is None:
        raise _CannotSign("no secret to sign with: set WAYPOST_JWT_SECRETS, or start `waypost up`, which makes one")
    return kept


def _group(text: str) -> str:
    from service.auth.tokens import check_pattern  # noqa: PLC0415 - see service/cli

    try:
        return check_pattern(text)
    except WaypostError as error:
        raise argparse.ArgumentTypeError(error.detail) from error


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
