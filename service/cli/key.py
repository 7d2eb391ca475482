"""`waypost key new|list|revoke`: server keys, which backends sign in with."""

import argparse
import asyncio
import functools
import json
import re
import secrets
import sys
from collections.abc import Sequence

from service.cli import actions, store, tables
from service.config import Settings
from service.core import server_keys
from service.core.server_keys import SCOPES, Scope, ServerKey

NAME_LENGTH_MAX = 128  # characters; it is for people, in a list


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `key`."""
    parser = subparsers.add_parser(
        "key",
        help="make, list and revoke server keys",
        description="Server keys are what backends sign in with, to act for the system: docs/security.md. They are in "
        "the store, as digests, and hold for all its nodes.",
    )
    verbs = parser.add_subparsers(metavar="new|list|revoke", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    store.add_argument(shared)
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON")

    new = verbs.add_parser(
        "new",
        parents=[shared, as_json],
        help="make one, and print it this once",
        description="Make a server key and print it. Nobody can print it again: the store has a digest alone.",
    )
    new.add_argument(
        "--scope",
        action="append",
        required=True,
        type=_scopes,
        metavar="SCOPE,SCOPE",
        help=f"what it may do: {', '.join(SCOPES)}",
    )
    new.add_argument("--name", default="", type=_label, metavar="TEXT", help="whose it is, for people")
    actions.add_reason(new)
    new.set_defaults(run=functools.partial(store.work, make))
    listing = verbs.add_parser("list", parents=[shared, as_json], help="what keys there are, oldest first")
    listing.set_defaults(run=functools.partial(store.work, show))
    revoke = verbs.add_parser(
        "revoke",
        parents=[shared],
        help="end one: at once, on every node",
        description="End a server key, and every connection that it signed in. It is nobody's from then on.",
    )
    revoke.add_argument("id", type=_id, help="its id, as `waypost key list` has it")
    actions.add_reason(revoke)
    revoke.set_defaults(run=functools.partial(store.work, end))


def _scopes(text: str) -> list[Scope]:
    found = [scope for scope in SCOPES if scope in (part.strip() for part in text.split(","))]
    unknown = sorted({part.strip() for part in text.split(",")} - set(SCOPES))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no such scope: {', '.join(map(repr, unknown))}; there are {', '.join(SCOPES)}"
        )
    return found


def _label(text: str) -> str:
    if len(text) > NAME_LENGTH_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"not a text of one line and at most {NAME_LENGTH_MAX} characters")
    return text


def _id(text: str) -> str:
    if (found := server_keys.id_of(text)) is not None:
        return found  # the whole key, from where it was in use
    if not re.fullmatch(r"[0-9a-f]{12}", text):
        raise argparse.ArgumentTypeError("not the id of a key: 12 digits of 0-9 and a-f")
    return text


def make(args: argparse.Namespace, settings: Settings) -> int:
    """Print the new key alone; what is to be said about it goes to standard error."""
    scopes = [scope for scope in SCOPES if any(scope in given for given in args.scope)]
    text = server_keys.spell(secrets.token_hex(6), secrets.token_urlsafe(32))
    made = asyncio.run(_make(settings, text, args.name, scopes, args.reason))
    if args.json:
        print(json.dumps({"id": made.id, "key": text} | _told(made)))
    else:
        print(text)
        print(f"waypost: shown this once; {made.id} is its id, {', '.join(scopes)} its scope", file=sys.stderr)
    return 0


async def _make(settings: Settings, text: str, name: str, scopes: Sequence[Scope], reason: str) -> ServerKey:
    key_id = server_keys.id_of(text)
    assert key_id is not None
    async with store.opened(settings) as opened:
        made = ServerKey(
            id=key_id,
            name=name,
            scopes=frozenset(scopes),
            digest=server_keys.digest(text),
            created_at=await opened.now_ms(),
        )
        async with actions.noted(opened, "key_new", key_id, reason) as noting:
            noting.detail = f"{','.join(scopes)} {name}".rstrip()
            await opened.add_key(made)
    return made


def show(args: argparse.Namespace, settings: Settings) -> int:
    """Print all keys, without what would sign anybody in."""
    keys = asyncio.run(_all(settings))
    if args.json:
        print(json.dumps([{"id": key.id} | _told(key) for key in keys]))
        return 0
    if not keys:
        print("no server keys")
    tables.show((), [(key.id, tables.time(key.created_at), f"{','.join(_ordered(key)):<22}", key.name) for key in keys])
    return 0


async def _all(settings: Settings) -> list[ServerKey]:
    async with store.opened(settings) as opened:
        return await opened.keys()


def end(args: argparse.Namespace, settings: Settings) -> int:
    """Revoke it. 1: there is no such key."""
    if not asyncio.run(_end(settings, args.id, args.reason)):
        print(f"waypost: no such key: {args.id}", file=sys.stderr)
        return 1
    print(f"revoked {args.id}")
    return 0


async def _end(settings: Settings, key_id: str, reason: str) -> bool:
    async with store.opened(settings) as opened:
        async with actions.noted(opened, "key_revoke", key_id, reason) as noting:
            was_there = await opened.revoke_key(key_id)
            noting.outcome = "ok" if was_there else "not_found"
        return was_there


def _told(key: ServerKey) -> dict[str, object]:
    """What may be shown of a key; `created` is Redis time in ms."""
    return {"name": key.name, "scopes": _ordered(key), "created": key.created_at}


def _ordered(key: ServerKey) -> list[Scope]:
    return [scope for scope in SCOPES if scope in key.scopes]
