"""`/metrics`: what this node counts, and every other that shares its port."""

import asyncio
import hmac
import time

from starlette.requests import Request
from starlette.responses import Response

from service.api.problems import NO_STORE
from service.auth import check_origin, credentials_of
from service.config import Settings
from service.errors import WaypostError
from service.log import Log
from service.metrics import Snapshot
from service.metrics.exposition import OPENMETRICS, text_of
from service.metrics.snapshot import WRITE_S, Folder, seen_at
from service.node import Node

# Who asks more often gets the same again: a text costs milliseconds, and anybody may be allowed to ask.
KEPT_S = 1.0

log = Log("metrics")


class Scrapes:
    """What a process answers to scrapes. `folder`: where the processes of its port leave their numbers."""

    def __init__(self, node: Node, folder: Folder | None = None) -> None:
        self._node = node
        self._folder = folder
        self._turn = asyncio.Lock()
        self._texts: dict[bool, tuple[float, bytes, str]] = {}  # by whether OpenMetrics was asked for; made when
        self._has_complained = False

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The numbers of all nodes on this port, in the format that is asked for, and its content type."""
        is_openmetrics = OPENMETRICS in accept
        async with self._turn:
            kept = self._texts.get(is_openmetrics)
            if kept is None or time.monotonic() - kept[0] > KEPT_S:
                snapshots = [self._node.gauges.snapshot()]
                # What is left is spelling, beside what the node has to do.
                text, content_type = await asyncio.to_thread(self._spell, snapshots, is_openmetrics=is_openmetrics)
                kept = self._texts[is_openmetrics] = time.monotonic(), text, content_type
        return kept[1:]

    def _spell(self, snapshots: list[Snapshot], *, is_openmetrics: bool) -> tuple[bytes, str]:
        if self._folder is not None:
            now = time.monotonic()
            snapshots += [seen_at(other, now) for other in self._folder.others(self._node.name)]
        return text_of(snapshots, is_openmetrics=is_openmetrics)

    async def leave(self) -> None:
        """Leaves the numbers for the others on this port, now and then, until cancelled, and once more then."""
        if self._folder is None:
            return
        try:
            while True:
                self._leave(self._folder)
                await asyncio.sleep(WRITE_S)
        finally:
            self._leave(self._folder)

    def _leave(self, folder: Folder) -> None:
        try:
            folder.write(self._node.gauges.snapshot())
        except OSError as error:
            if not self._has_complained:  # once a second would be worse than the loss
                log.warning("numbers_not_left", error=str(error))
            self._has_complained = True
        else:
            self._has_complained = False


async def scrape(request: Request) -> Response:
    """`GET /metrics`: what this node counts, and every other on its port, for Prometheus.

    In the text format, or as OpenMetrics where `accept` names that. Who may ask, the setting `metrics` says.
    """
    settings: Settings = request.app.state.settings
    check_origin(request, settings)
    _check_may(request, settings)
    scrapes: Scrapes = request.app.state.scrapes
    text, content_type = await scrapes.text(request.headers.get("accept", ""))
    return Response(text, 200, {**NO_STORE, "content-type": content_type})


def _check_may(request: Request, settings: Settings) -> None:
    """Raises `forbidden` and `unauthorised`. Asks nobody: numbers are wanted most while the store is away."""
    match settings.metrics_mode:
        case "off":
            raise WaypostError("forbidden", "/metrics is switched off (WAYPOST_METRICS)")
        case "local":
            if not credentials_of(request).is_local:
                raise WaypostError("forbidden", "/metrics is for this machine alone, until WAYPOST_METRICS says more")
        case "token":
            scheme, _, shown = request.headers.get("authorization", "").strip().partition(" ")
            is_it = hmac.compare_digest(shown.strip().encode(), settings.metrics_token.encode())
            if scheme.lower() != "bearer" or not is_it:
                raise WaypostError(
                    "unauthorised", "/metrics wants the token of WAYPOST_METRICS_TOKEN as a bearer token"
                )
        case "open":
            pass
