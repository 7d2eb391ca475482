"""The Redis Functions: which there are, their texts and digests, and loading them where they are absent.

Each is a library of its own, named with a version and immutable: another text is another version, so nodes of
two releases can work on one server. Only migrations load them.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal

from redis.exceptions import RedisError

from service.store.connection import Link, reply_error

_FOLDER = Path(__file__).parent / "lua"
_APPENDING = ("publish", "join", "leave", "redact")  # those that append entries, and share the code for it
_SENDING = ("publish",)  # those that store what users send
_NOTING = ("trim",)  # those that note what they remove, run by run
_OLDEST = ("trim", "survey", "measure")  # those that walk a stream from its oldest entry
# Those that change memberships or forget them, or come late for what was changed since.
_MEMBERSHIP = ("configure_group", "delete_group", "forget", "join", "leave")
_GROUPS = ("configure_group", "delete_group", "group", "history", "join", "leave")  # those that know a group's settings
_STARTING = ("open", "progress")  # those that tell where a device stands
_READING = ("history",)  # those that look into a stream; `page_v1` has copies of its own, and is immutable

FUNCTIONS: dict[str, int] = {  # name -> version
    "attach": 1,
    "audit_nodes": 1,
    "audit_streams": 1,
    "commit": 2,
    "configure_group": 1,
    "delete_group": 1,
    "detach": 1,
    "drop_group": 1,
    "forget": 1,
    "forget_devices": 1,
    "group": 1,
    "heartbeat": 1,
    "history": 2,
    "job_finish": 1,
    "job_renew": 1,
    "job_take": 1,
    "join": 4,
    "keep_bookmark": 1,
    "keep_survey": 1,
    "lease": 1,
    "leave": 4,
    "mailbox": 1,
    "measure": 1,
    "note_action": 1,
    "open": 3,
    "page": 1,
    "progress": 1,
    "publish": 4,
    "reconcile": 2,
    "redact": 3,
    "ripe": 1,
    "survey": 1,
    "tell_nodes": 1,
    "trim": 2,
}


@cache
def library(name: str) -> str:
    """The name under which function `name` of this release is on the server."""
    return f"{name}_v{FUNCTIONS[name]}"


@cache
def text(name: str) -> str:
    """The whole text of a library: its header, the shared parts, the function's file."""
    shared = {
        "_append": _APPENDING,
        "_post": _APPENDING,
        "_membership": _MEMBERSHIP,
        "_group": _GROUPS,
        "_known": _SENDING,
        "_rate": _SENDING,
        "_ledger": _NOTING,
        "_oldest": _OLDEST,
        "_start": _STARTING,
        "_reading": _READING,
    }
    parts = ("_shared", *(part for part, names in shared.items() if name in names), name)
    texts = ((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return "\n".join((f"#!lua name={library(name)}", *texts))


def digest(name: str) -> str:
    """SHA-256 of a library's text, in hex; a test holds those that were released."""
    return hashlib.sha256(text(name).encode()).hexdigest()


async def states(link: Link) -> dict[str, Literal["loaded", "missing", "differs"]]:
    """How each function of this release stands on the server: `differs` means another text under its name."""
    reply = await link.call("FUNCTION", "LIST", "WITHCODE", is_write=False)
    rows = [dict(zip(row[0::2], row[1::2], strict=True)) for row in reply]
    codes = {row[b"library_name"].decode(): row[b"library_code"].decode() for row in rows}
    found: dict[str, Literal["loaded", "missing", "differs"]] = {}
    for name in FUNCTIONS:
        code = codes.get(library(name))
        found[name] = "missing" if code is None else "loaded" if code == text(name) else "differs"
    return found


async def missing(link: Link) -> list[str]:
    """The functions of this release that the server lacks, by name."""
    return [name for name, state in (await states(link)).items() if state == "missing"]


async def load_missing(link: Link) -> list[str]:
    """Load what the server lacks; returns the libraries loaded. Never replaces: another release may need it.

    May be repeated, and run by two at a time.
    """
    loaded = []
    for name in await missing(link):
        [reply] = await link.pipeline([("FUNCTION", "LOAD", text(name))], is_write=True)
        if isinstance(reply, RedisError):
            if "already exists" in str(reply):
                continue
            raise reply_error(reply, is_write=True) from reply
        loaded.append(library(name))
    return loaded
