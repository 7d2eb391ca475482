"""`waypost serve --processes N`: as many nodes on one port, a process each; a dead one is started again.

We bind the sockets, one set for each node, and keep them: what connects to a node that has died waits for the next of
that name. See docs/decisions/0010-a-socket-for-each-process.md.
"""

import asyncio
import itertools
import os
import sys
from socket import socket

from service.cli import ports, tls
from service.cli.children import NODE_READY_TIMEOUT_S, command, environ, node_stop_timeout_s, until_signal
from service.config import Settings
from service.log import Log
from service.metrics.snapshot import OwnFolder
from service.supervise import Child, ChildFailed, Supervisor

log = Log("processes")

HAS_SAID_WHY = 1  # the exit code of a node that could not start and has printed the reason


def run(settings: Settings, count: int) -> int:
    """Serve until a signal ends it. 0: stopped by one. 1: could not start."""
    try:
        return asyncio.run(_run(settings, count))
    except ports.PortError as error:
        print(f"waypost: {error}", file=sys.stderr)
    except ChildFailed as error:
        if error.exit_code != HAS_SAID_WHY:
            print(f"waypost: {error}", file=sys.stderr)
    return 1


async def _run(settings: Settings, count: int) -> int:
    shares = ports.share(settings.host, settings.port, count)
    # Whichever process a scrape of /metrics comes to, it answers for all of them.
    numbers = OwnFolder()
    nodes = [_Node(f"{settings.node}-{nth}", sockets, numbers.path) for nth, sockets in enumerate(shares, 1)]
    supervisor = Supervisor()
    try:
        await until_signal(supervisor, _start(settings, nodes, supervisor))
    finally:
        supervisor.start_no_more()
        # Whoever connects once a node has ended is to be refused, not to wait for one that comes no more.
        for one in itertools.chain(*shares):
            one.close()
        await supervisor.stop(together=True)
        numbers.remove()
    return 0


async def _start(settings: Settings, nodes: list["_Node"], supervisor: Supervisor) -> None:
    """Start all nodes; returns when all have been ready."""
    first, *others = (node.child(settings) for node in nodes)
    await supervisor.start(first)  # alone: what keeps every node from starting is said once
    try:
        async with asyncio.TaskGroup() as starts:
            for child in others:
                starts.create_task(supervisor.start(child))
    except* ChildFailed as failed:
        raise failed.exceptions[0] from None
    for node in nodes:
        await node.ready.wait()
    log.info("all_ready", count=len(nodes), url=settings.url)


class _Node:
    """One of the processes: its name, its sockets, and how far it has told us that its start has come."""

    def __init__(self, name: str, sockets: list[socket], numbers_in: str) -> None:
        self.name = name
        self._numbers_in = numbers_in
        self.serving = asyncio.Event()
        self.ready = asyncio.Event()
        self._sockets = sockets
        self._hear, self._tell = os.pipe()
        os.set_blocking(self._hear, False)
        asyncio.get_running_loop().add_reader(self._hear, self._take)

    def child(self, settings: Settings) -> Child:
        listen_on = ",".join(str(one.fileno()) for one in self._sockets)
        return Child(
            name=self.name,
            command=command(
                *("serve", "--listen-on", listen_on, "--report-to", str(self._tell), "--numbers-in", self._numbers_in)
            ),
            # The same name over restarts: a restarted store waits for no dead node.
            environ=environ(WAYPOST_NODE=self.name, **tls.variables(settings)),
            fds=[*(one.fileno() for one in self._sockets), self._tell],
            is_ready=self._is_serving,
            ready_timeout_s=NODE_READY_TIMEOUT_S,
            stop_timeout_s=node_stop_timeout_s(settings),
        )

    async def _is_serving(self) -> bool:
        """A store that is away is waited for while serving; a process that serves has started."""
        return self.serving.is_set()

    def _take(self) -> None:
        for word in os.read(self._hear, 4096).split():
            {b"serving": self.serving, b"ready": self.ready}[word].set()
