"""`waypost doctor`: looks at a deployment, and says a line a check what to do. It reads, and changes nothing."""

import argparse
import asyncio
import json

import msgspec

from service import log
from service.cli import doctor_settings, doctor_store, store, tables, tls
from service.cli.findings import Finding, bad
from service.config import Settings
from service.errors import WaypostError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a deployment, and say what to do",
        description="Look at the settings, the store and the nodes, and print a line a check: ok, warn or bad, with "
        "what mends it. Run it with the settings of the nodes. Exit code 1 when something is bad.",
    )
    store.add_argument(parser)
    tls.add_calling(parser)
    parser.add_argument("--json", action="store_true", help="print JSON: check, state, text, mend")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print what was found. 1: something is bad."""
    log.set_up(msgspec.structs.replace(settings, log_level="error"))  # what is wrong is said below, once
    found = asyncio.run(_examine(args, settings))
    if args.json:
        print(json.dumps([msgspec.to_builtins(finding) for finding in found]))
    else:
        tables.show((), [(f"{finding.state:<4}", finding.check, _sentence(finding)) for finding in found])
    return 1 if any(finding.state == "bad" for finding in found) else 0


def _sentence(finding: Finding) -> str:
    return f"{finding.text}; {finding.mend}" if finding.mend else finding.text


async def _examine(args: argparse.Namespace, settings: Settings) -> list[Finding]:
    from service.embedded import DataFolder  # noqa: PLC0415 - see service/cli
    from service.store import StoreOptions, diagnosis  # noqa: PLC0415

    folder = DataFolder(settings.data_dir)
    is_embedded = not (args.redis_url or settings.redis_url)
    found = doctor_settings.examine(settings, folder, is_embedded=is_embedded)
    url = args.redis_url or settings.redis_url or (folder.url if folder.socket.exists() else "")
    has_nodes = False
    if not url:
        found.append(bad("redis", "there is no store", "set WAYPOST_REDIS_URL, or start `waypost up`"))
    else:
        user = doctor_store.user_of(settings.redis_url) if args.redis_url and settings.redis_url else None
        try:
            seen = await diagnosis.diagnose(url, StoreOptions(call_timeout_s=settings.call_timeout_s), user)
        except WaypostError as error:
            found.append(bad("redis", error.detail, "look at WAYPOST_REDIS_URL, and whether the server runs"))
        else:
            found += doctor_store.examine(seen, url, settings, user)
            has_nodes = any(node.facts for node in seen.nodes or ())
    found.append(await asyncio.to_thread(doctor_settings.reach, settings, has_nodes=has_nodes))
    return found
