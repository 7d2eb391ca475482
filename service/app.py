"""The assembler: settings → store, node, routes, server. The only file that knows every room."""

import asyncio
import contextlib
import functools
import gc
import math
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import BaseRoute, WebSocketRoute
from uvicorn.config import STARTUP_FAILURE

from service.api.asyncapi import asyncapi
from service.api.cross_origin import cross_origin
from service.api.metrics import Scrapes
from service.api.openapi import openapi
from service.api.operations import DEVICE, LAST_EVENT, at, does
from service.api.pages import Pages
from service.api.problems import no_route
from service.api.routes import ROUTES
from service.config import Settings
from service.config.tls import server_context
from service.errors import ERRORS, Reset, WaypostError
from service.log import Log
from service.metrics.snapshot import Folder
from service.node import Node
from service.store import Store, StoreOptions, StoreRefused
from service.transports import chat, sse, websocket
from service.transports.bounded_http import Door
from service.transports.ready_events import ReadyEvents
from service.transports.ready_frames import ReadyFrames
from service.transports.requests import Requests
from service.transports.security_headers import SecurityHeaders
from service.transports.silent import Silent
from service.transports.tls_listener import TlsListener

if TYPE_CHECKING:
    from asyncio.base_events import Server as Listener

log = Log("app")

# New objects between two looks for cycles. At Python's 700 each batch of messages sets off several looks, which find
# nothing: only connections that have ended are garbage in cycles. At 20,000 those of a storm would wait for too long.
GARBAGE_LOOK = 5000
# Silent sockets, times their limit, that may be there for a moment: after a restart everybody comes back at once.
CROWD = 10
KEEP_ALIVE_S = 5  # between two requests: a page that asks again at once need not shake hands again
GOODBYE_LOOK_S = 0.02  # between two looks whether the clients have gone, while draining
# What is left of a drain that was cut short: for taking the node out of the store, and for requests under way.
LEAVE_S = 1.0
READY_LOOK_S = 0.05  # between two looks whether the node is ready, while it starts
# How long connections that wait in sockets we were given are kept waiting for the node to be ready. One that is taken
# earlier is told `unavailable`; where the store is away that is the truth.
READY_WAIT_S = 2.0

HTTP_ROUTES = [
    *ROUTES,
    at(
        "/v1/events",
        GET=does(
            sse.events,
            {200: "text/event-stream", 204: None},
            "bad_name not_allowed too_many_devices too_many_connections draining",
            takes=(DEVICE, *LAST_EVENT),
            takes_cookie=True,
        ),
    ),
]
CONVERSATIONS: list[BaseRoute] = [
    WebSocketRoute("/v1/connect", websocket.connect),
    WebSocketRoute("/chat/channel/{user}", chat.channel),
    WebSocketRoute("/chat/user/{user}", chat.direct),
    WebSocketRoute("/chat/group/{group}/{user}", chat.group),
    WebSocketRoute("/chat/all/{user}", chat.everybody),
]


def store_options(settings: Settings) -> StoreOptions:
    """The part of the settings that the store room needs."""
    return StoreOptions(
        key_window_s=settings.key_window_s,
        mailbox_cap=settings.mailbox_cap,
        mailbox_ttl_s=settings.mailbox_ttl_s,
        call_timeout_s=settings.call_timeout_s,
        announce=settings.announce,
        streams_max=settings.limits.streams_per_user,
        devices_max=settings.limits.devices_per_user,
        members_max=settings.limits.members_per_group,
        user_sends_per_s=settings.limits.user_sends_per_s,
        user_sends_burst=settings.limits.user_sends_burst,
        groups_create=settings.groups_create,
        wait_replicas=settings.wait_replicas,
        wait_timeout_ms=settings.wait_timeout_ms,
        # Well within the time after which a device is forgotten.
        seen_ms=min(StoreOptions().seen_ms, int(settings.retention.device_idle_max * 1000) // 10),
    )


async def _until_ready(node: Node) -> None:
    while node.not_ready():  # noqa: ASYNC110 - it is what several parts say, and none of them signals
        await asyncio.sleep(READY_LOOK_S)


def make_app(node: Node, settings: Settings, *, ready_wait_s: float = 0, numbers_in: str = "") -> Starlette:
    """The ASGI application of a node. Its lifespan runs the node; a node that fails ends the process.

    Connections are taken when the node is ready, at the latest after `ready_wait_s`. `numbers_in` is the folder of the
    processes on this port, see `Scrapes`.
    """
    scrapes = Scrapes(node, Folder(numbers_in) if numbers_in else None)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = app.state.running = asyncio.create_task(node.run(), name="node")
        running.add_done_callback(_end_with)
        leaving = asyncio.create_task(scrapes.leave(), name="leave numbers")
        if ready_wait_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_until_ready(node), ready_wait_s)
        yield
        running.remove_done_callback(_end_with)
        running.cancel()
        leaving.cancel()
        await asyncio.gather(running, leaving, return_exceptions=True)
        await node.store.close()

    app = Starlette(
        routes=[*HTTP_ROUTES, *CONVERSATIONS],
        middleware=cross_origin(settings.origin_list),
        lifespan=lifespan,
        exception_handlers={404: no_route, 405: no_route},
    )
    app.router.redirect_slashes = False  # a redirect would carry the query, and with it who signs in, to any `Host`
    app.state.node = node
    app.state.settings = settings
    app.state.scrapes = scrapes
    app.state.pages = Pages.of(openapi(HTTP_ROUTES), asyncapi())
    return app


def _end_with(running: asyncio.Task[None]) -> None:
    """The node's engine has failed, which is a bug: end the process, so that whoever supervises it starts another."""
    if not running.cancelled():
        log.error("node_failed", traceback=running.exception())
        signal.raise_signal(signal.SIGTERM)


def _is_conversing(connection: object) -> bool:
    """Whether a client that was told goodbye is still there."""
    return isinstance(connection, ReadyFrames) or (isinstance(connection, ReadyEvents) and connection.is_streaming)


class Server(uvicorn.Server):
    """uvicorn, which at the end first lets the node say goodbye to its clients."""

    def __init__(
        self, config: uvicorn.Config, node: Node, settings: Settings, door: Door, tell: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._node = node
        self._drain_s = settings.drain_s
        self._delay_s = settings.drain_delay_s
        self._hurry = asyncio.Event()
        self._scheme = "https" if door.tls else "http"
        self._door = door
        self._tell = tell

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Starts, and says where."""
        if self._door.tls is None:
            await super().startup(sockets)
        else:
            await self._start_tls(sockets)
        if self.started:
            log.info("serving", url=f"{self._scheme}://{self.config.host}:{self.config.port}", node=self._node.name)
            self._tell("serving")
            self._looking = asyncio.create_task(self._tell_when_ready(), name="tell when ready")

    async def _start_tls(self, sockets: list[socket] | None) -> None:
        """What uvicorn does, with listeners of our own."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        make_http = functools.partial(
            ReadyEvents,
            door=self._door,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        try:
            listening = await _bound(self.config) if sockets is None else sockets
        except OSError as error:
            log.error("cannot_serve", error=str(error))
            await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        self.servers = [cast("Listener", TlsListener(one, self._door, make_http)) for one in listening]
        self.started = True

    async def _tell_when_ready(self) -> None:
        await _until_ready(self._node)
        log.info("ready", node=self._node.name)
        self._tell("ready")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the node in order, the next one at once."""
        del frame
        name = signal.Signals(sig).name
        if self.should_exit:
            log.warning("hurried", signal=name)
            self.force_exit = True
            self._hurry.set()
        else:
            log.info("stopping", signal=name)
            self.should_exit = True

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drains within the time for it, then stops."""
        self._looking.cancel()
        self._node.ending.announce()
        await self._unless_hurried(asyncio.sleep(self._delay_s))
        begun = time.monotonic()
        for server in self.servers:
            server.close()
        for one in sockets or ():
            one.close()
        await self._unless_hurried(self._drain(begun))
        self._door.silent.close()
        left_s = begun + self._drain_s - time.monotonic()
        self.config.timeout_graceful_shutdown = max(1, math.ceil(left_s))
        await super().shutdown(sockets)
        if self.force_exit:  # which uvicorn skips then
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), LEAVE_S)

    async def _drain(self, begun: float) -> None:
        log.info("draining", connections=len(self._node.connections))
        try:
            async with asyncio.timeout(self._drain_s):
                told = await self._node.ending.say_goodbye()
                for one in list(self.server_state.connections):
                    if isinstance(one, ReadyFrames):
                        one.turn_away(ERRORS["draining"].close or 0, "draining")
                await self._node.ending.leave()
                # Cut off before its client has answered, a connection would take the close code down with it.
                while any(map(_is_conversing, self.server_state.connections)):  # noqa: ASYNC110 - uvicorn's
                    await asyncio.sleep(GOODBYE_LOOK_S)
            log.info("drained", took_ms=round((time.monotonic() - begun) * 1000), connections=told)
        except TimeoutError:
            here = sum(map(_is_conversing, self.server_state.connections))
            log.warning("drain_cut_short", took_ms=round((time.monotonic() - begun) * 1000), connections=here)
            if not self._node.ending.has_left:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._node.ending.leave(), LEAVE_S)

    async def _unless_hurried(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it, or breaks it off when somebody has lost patience."""
        doing, hurry = asyncio.create_task(work), asyncio.create_task(self._hurry.wait())
        await asyncio.wait((doing, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if doing.done():
            doing.result()
        else:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server, once; uvicorn's own way would raise them again afterwards, and exit with them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _descriptors() -> int:
    """How many sockets the system lets this process have: as many as it can ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS has a limit that it does not tell
        return soft
    return hard if hard != resource.RLIM_INFINITY else CROWD * Settings().limits.connections


async def _bound(config: uvicorn.Config) -> list[socket]:
    """Sockets for every address that the host stands for, as the loop binds them."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, config.host, config.port, start_serving=False)
    try:
        return [socket(fileno=os.dup(one.fileno())) for one in server.sockets]
    finally:
        server.close()


def _nobody(_news: str) -> None:
    """For a node whose start nobody follows."""


class CannotStart(Exception):
    """Why a node does not start, and what to do about it."""


async def _open_store(settings: Settings) -> Store:
    """The store, looked at once. One that is out of reach is waited for while serving; one that is wrong is not."""
    try:
        store = await Store.connect(settings.redis_url, options=store_options(settings))
    except StoreRefused as problem:
        raise CannotStart(str(problem)) from problem
    try:
        await store.check_server()
    except Reset as problem:
        raise CannotStart(problem.detail) from problem
    except StoreRefused as problem:
        raise CannotStart(str(problem)) from problem
    except WaypostError as problem:
        log.warning("store_out_of_reach", detail=problem.detail)
    return store


async def _serve(settings: Settings, sockets: Sequence[socket], tell: Callable[[str], None], numbers_in: str) -> int:
    store = await _open_store(settings)
    node = Node(store, settings)
    app = make_app(node, settings, ready_wait_s=READY_WAIT_S if sockets else 0, numbers_in=numbers_in)
    door = Door(
        Silent(
            settings.limits.silent, settings.head_timeout_s, min(CROWD * settings.limits.silent, _descriptors() // 2)
        ),
        Silent(settings.limits.connections, settings.idle_close_s, 0),
        settings.limits.head_bytes,
        server_context(settings),
        node.numbers,
    )
    config = uvicorn.Config(
        Requests(SecurityHeaders(app)),
        http=cast("type[asyncio.Protocol]", functools.partial(ReadyEvents, door=door)),
        host=settings.host,
        port=settings.port,
        ws=ReadyFrames,
        proxy_headers=True,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws_max_size=settings.limits.ws_max_bytes,
        ws_ping_interval=None,  # the transports ping, and see the pongs
        ws_per_message_deflate=False,  # a frame is built once for all receivers
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, int(settings.drain_s)),
    )
    server = Server(config, node, settings, door, tell)
    gc.collect()
    gc.freeze()  # what has been made so far is there to stay
    gc.set_threshold(GARBAGE_LOOK)
    try:
        await server.serve(list(sockets) or None)
    except SystemExit as failure:  # uvicorn's way to say that it could not start; it has said why
        raise CannotStart("the node could not start") from failure
    running = app.state.running
    # Whoever is in a hurry does not wait until it has ended.
    has_failed = not server.started or not (running.cancelled() or (server.force_exit and not running.done()))
    return 1 if has_failed else 0


def serve(
    settings: Settings,
    *,
    sockets: Sequence[socket] = (),
    tell: Callable[[str], None] = _nobody,
    numbers_in: str = "",
) -> int:
    """Runs a node until SIGTERM or SIGINT; returns the exit code. Raises `CannotStart`.

    It listens on `sockets` where they are given (bound, and it closes them), else on the settings' host and port.
    `tell` hears "serving" when connections are taken, and "ready" when the node has been ready for the first time.
    `numbers_in` is the folder in which the processes of one port leave their numbers for each other.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, sockets, tell, numbers_in))
