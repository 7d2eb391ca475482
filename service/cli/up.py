"""`waypost up`: everything on this machine: store, migrations, node, worker; all of it ends when this ends."""

import argparse
import asyncio
import ipaddress
import os
import shlex
import shutil
import ssl
import sys
from pathlib import Path

from service.cli import ports, tls
from service.cli.children import NODE_READY_TIMEOUT_S, command, environ, node_stop_timeout_s, until_signal
from service.config import JOBS, Settings
from service.embedded import DataFolder, EmbeddedError
from service.errors import WaypostError
from service.log import Log
from service.log import set_up as set_up_log
from service.supervise import Child, ChildFailed, Supervisor

log = Log("up")

# A store that reads a long append-only file is not ready for minutes, and well all the same.
STORE_READY_TIMEOUT_S = 600.0
DATA_DIR = Settings().data_dir  # where everybody looks who is told nothing else
DEFAULT_URL = "http://127.0.0.1:8000"  # where clients look that are told nothing else
WORKER_STOP_TIMEOUT_S = 15.0  # it saves how far its runs have come, within 8 s


class UpError(Exception):
    """`up` cannot start; the text is one sentence for the user."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `up`."""
    parser = subparsers.add_parser(
        "up",
        help="run everything on this machine: store, migrations, node, scheduled jobs",
        description="Run the store, its migrations, a node and the scheduled jobs on this machine; in dev mode, unless "
        "WAYPOST_DEV=0. Data: WAYPOST_DATA_DIR.",
    )
    tls.add_serving(parser)
    parser.set_defaults(run=run, dev_default=True, is_serving=True)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run until Ctrl-C or SIGTERM. 0: stopped by one of them. 1: could not start."""
    del args
    set_up_log(settings)
    try:
        return asyncio.run(_up(settings))
    except (UpError, ports.PortError, EmbeddedError, ChildFailed, WaypostError) as error:
        print(f"waypost: {error}", file=sys.stderr)
        return 1


async def _up(settings: Settings) -> int:
    _check(settings)
    folder = DataFolder(settings.data_dir)
    with folder.hold():
        await folder.end_orphans()
        ports.check(settings.host, settings.port)  # the node would find out too, but say it in more words
        supervisor = Supervisor(on_started=folder.remember, on_ended=folder.forget)
        try:
            await until_signal(supervisor, _start(settings, folder, supervisor))
        finally:
            await supervisor.stop()
    return 0


async def _start(settings: Settings, folder: DataFolder, supervisor: Supervisor) -> None:
    """Start everything in order, and say what to do next."""
    await supervisor.start(
        Child(
            name="valkey",
            command=folder.command(),
            is_ready=folder.is_ready,
            ready_timeout_s=STORE_READY_TIMEOUT_S,
        )
    )
    from migrations import __main__ as migrations  # noqa: PLC0415 - it brings the database driver

    for line in await migrations.up(folder.url):
        log.info("migrated", detail=line)
    variables = environ(
        WAYPOST_REDIS_URL=folder.url,
        WAYPOST_DEV="1" if settings.dev else "0",
        WAYPOST_NODE=settings.node,  # the same over restarts: a restarted store waits for no dead node
        WAYPOST_PROCESSES="1",
        **tls.variables(settings),
    )
    await supervisor.start(
        Child(
            name="node",
            command=command("serve", "--started-by", str(folder.path)),
            environ=variables | ({} if settings.has_key_material else {"WAYPOST_JWT_SECRETS": folder.make_secret()}),
            is_ready=lambda: _is_node_ready(settings),
            ready_timeout_s=NODE_READY_TIMEOUT_S,
            stop_timeout_s=node_stop_timeout_s(settings),
        )
    )
    await supervisor.start(
        Child(
            name="worker",
            command=command("worker", "--started-by", str(folder.path)),
            environ=variables,
            is_ready=_nobody_waits,
            stop_timeout_s=WORKER_STOP_TIMEOUT_S,
        )
    )
    print(_banner(settings, folder), end="", flush=True)


async def _nobody_waits() -> bool:
    """For a child that nobody waits for: it is kept alive all the same."""
    return True


# --- what has to hold before anything is started ---


def _check(settings: Settings) -> None:
    """Raise `UpError` for settings that are each valid and yet not for `up`."""
    if settings.redis_url:
        raise UpError("`up` runs its own store: unset WAYPOST_REDIS_URL, or run `waypost serve` against that one")
    if settings.dev and not _is_loopback(settings.host):
        raise UpError(
            f"in dev mode anybody who reaches {settings.host} may sign in as anybody: "
            "`up` serves on a loopback address only (WAYPOST_HOST=127.0.0.1), unless WAYPOST_DEV=0"
        )


def _is_loopback(host: str) -> bool:
    """Whether every address that `host` stands for is this machine's own."""
    return all(ipaddress.ip_address(address[0]).is_loopback for _, address in ports.resolve(host, 0))


async def _is_node_ready(settings: Settings) -> bool:
    """Whether `GET /readyz` answers 200. False for a node that does not listen yet."""
    try:
        reader, writer = await asyncio.open_connection(settings.host, settings.port, ssl=_own_node(settings))
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: waypost\r\nConnection: close\r\n\r\n")
        status = await asyncio.wait_for(reader.readline(), 5.0)
        return status.split()[1:2] == [b"200"]
    except (OSError, TimeoutError, ValueError):
        return False
    finally:
        writer.close()


def _own_node(settings: Settings) -> ssl.SSLContext | None:
    """How to speak with a node that we have started ourselves: its certificate may be for any name."""
    if not settings.ssl_certfile:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _banner(settings: Settings, folder: DataFolder) -> str:
    """What to do next, as it can be typed in another terminal."""
    command = "waypost"
    beside = Path(sys.executable).parent / "waypost"
    if shutil.which("waypost") is None and beside.exists():
        command = os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)
    # The other terminal may not have the variables of this one.
    url = "" if settings.url == DEFAULT_URL else f"--url {settings.url} "
    if settings.ca_file:
        url += f"--ca-file {shlex.quote(settings.ca_file)} "
    jobs = ", ".join(f"{job} {getattr(settings.jobs, job).text}" for job in JOBS)
    mode = "dev mode: everybody is who they say they are" if settings.dev else "who connects needs a token"
    demo = f"In a browser: {settings.url}/\n\n" if settings.dev else ""  # the page is there in dev mode only
    bob, alice = (_signing_in(user, command, settings, folder) for user in ("bob", "alice"))
    return (
        f"\nWaypost serves on {settings.url} ({mode}).\n"
        f"Scheduled jobs run beside it: {jobs}.\n\n"
        f"{demo}"
        f"In two other terminals:\n"
        f"    {command} listen {url}{bob} --device phone\n"
        f'    {command} send {url}{alice} user:bob "hi"\n\n'
        f"Data: {folder.path}   Stop: Ctrl-C\n\n"
    )


def _signing_in(user: str, command: str, settings: Settings, folder: DataFolder) -> str:
    """The options that sign a user in."""
    if settings.dev:
        return f"--user {user}"
    if settings.has_key_material and not settings.secrets:
        return f"--token <a token of {user}>"  # of an issuer that we do not know
    if settings.secrets:
        where = "WAYPOST_JWT_SECRETS=… "
    else:
        where = "" if folder.path == DataFolder(DATA_DIR).path else f"WAYPOST_DATA_DIR={shlex.quote(str(folder.path))} "
    return f'--token "$({where}{command} token --user {user})"'
