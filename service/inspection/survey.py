"""What the job `survey` finds about all streams and devices, in a bounded form: totals, and the first of each order.

Pure but for reading what was kept. A list holds at most so many rows, however many streams there are; of what is not
on it is known that it lies below the last.
"""

import heapq
from collections.abc import Iterable
from typing import Any, Literal, get_args

import msgspec

from service.config import Settings
from service.inspection.streams import StreamPage, stream_views
from service.inspection.times import age_s, when, when_or_none
from service.store import Store
from service.store.sights import Kept

Order = Literal["entries", "bytes", "rate", "lag", "wait"]
ORDERS: tuple[Order, ...] = get_args(Order)


class Total(msgspec.Struct, kw_only=True):
    """All streams of a kind."""

    kind: str
    streams: int = 0
    entries: int = 0
    bytes: int = 0
    rate_per_min: float = 0.0


class StreamRank(msgspec.Struct, frozen=True):
    """A stream and what it is ordered by; for `lag` and `wait` also whose device that is (`user/device`)."""

    stream: str
    value: float
    device: str = ""


class DeviceRank(msgspec.Struct, frozen=True, kw_only=True):
    """A device that is behind, in the stream in which it lacks most. `loses_ms`: Redis ms at which the policy begins to
    take what it lacks, null where no limit by age says so.
    """

    user: str
    device: str
    stream: str
    lag_messages: int
    waiting_s: float
    last_seen_ms: int | None = None
    loses_ms: int | None = None
    loses_by: str = ""


class Foremost:
    """The `most` rows of the highest value, one for each key. Exact: a key's value only rises, and what was put out
    was no higher than what stayed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[str, tuple[float, Any]] = {}
        self._heap: list[tuple[float, str]] = []  # with lines of before, which are passed over

    def offer(self, key: str, value: float, row: Any) -> None:  # noqa: ANN401 - rows of whoever asks
        """A row; of one key the highest counts. Nothing of value 0 is kept."""
        if value <= 0 or (key in self._values and self._values[key][0] >= value):
            return
        if key not in self._values and len(self._values) >= self._most:
            lowest = self._lowest()
            if lowest >= (value, key):
                return
            heapq.heappop(self._heap)
            del self._values[lowest[1]]
        self._values[key] = (value, row)
        heapq.heappush(self._heap, (value, key))
        if len(self._heap) > 4 * self._most + 16:
            self._heap = [(value, key) for key, (value, _) in self._values.items()]
            heapq.heapify(self._heap)

    def _lowest(self) -> tuple[float, str]:
        while True:
            value, key = self._heap[0]
            if key in self._values and self._values[key][0] == value:
                return self._heap[0]
            heapq.heappop(self._heap)

    def rows(self) -> list[Any]:
        """The rows, the highest first."""
        ordered = sorted(self._values.items(), key=lambda item: (-item[1][0], item[0]))
        return [row for _, (_, row) in ordered]


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """See `DeviceRank`, with times as text; `loses_in_s` counts from now."""

    user: str
    device: str
    stream: str
    lag_messages: int
    waiting_s: float
    last_seen: str | None
    loses_at: str | None
    loses_in_s: float | None
    loses_by: str


class SurveyView(msgspec.Struct, frozen=True, kw_only=True):
    """The last survey: when it was made (null: never), totals by kind, the streams foremost in an order as they stand
    now, and the devices that lack most.
    """

    survey_as_of: str | None
    survey_age_s: float | None
    sort: Order
    totals: tuple[Total, ...]
    streams: StreamPage
    devices: tuple[DeviceRow, ...]


async def survey(store: Store, settings: Settings, sort: Order, *, limit: int) -> SurveyView:
    """The last survey, the first `limit` of each list."""
    totals, found = await store.survey_part("totals"), await store.survey_part("devices")
    now_ms = await store.now_ms()
    rows = await streams_by(store, settings, sort, limit=limit)
    return SurveyView(
        survey_as_of=None if totals is None else when(totals.at_ms),
        survey_age_s=None if totals is None else age_s(totals.at_ms, now_ms),
        sort=sort,
        totals=tuple(_read(totals, Total)),
        streams=rows,
        devices=tuple(
            DeviceRow(
                user=one.user,
                device=one.device,
                stream=one.stream,
                lag_messages=one.lag_messages,
                waiting_s=one.waiting_s,
                last_seen=when_or_none(one.last_seen_ms),
                loses_at=when_or_none(one.loses_ms),
                loses_in_s=None if one.loses_ms is None else age_s(now_ms, one.loses_ms),
                loses_by=one.loses_by,
            )
            for one in list(_read(found, DeviceRank))[:limit]
        ),
    )


async def streams_by(
    store: Store, settings: Settings, sort: Order, *, limit: int, part: str = "", kind: str = ""
) -> StreamPage:
    """The streams that are foremost in an order by the last survey; how each stands is of now, but for the lag: that is
    the survey's, which asked everybody.
    """
    kept = await store.survey_part(sort)
    now_ms = await store.now_ms()
    ranks = [
        rank
        for rank in _read(kept, StreamRank)
        if part in rank.stream and (not kind or rank.stream.partition(":")[0] == kind)
    ][:limit]
    by_name = {rank.stream: rank for rank in ranks}
    found = []
    for view in await stream_views(store, settings, list(by_name), now_ms):
        rank = by_name[view.stream]
        if sort == "lag" and rank.value > view.lag_messages:
            view = msgspec.structs.replace(view, lag_messages=int(rank.value), lag_device=rank.device)  # noqa: PLW2901
        elif sort == "wait" and rank.value > view.waiting_s:
            view = msgspec.structs.replace(view, waiting_s=rank.value, lag_device=rank.device)  # noqa: PLW2901
        found.append(view)
    return StreamPage(
        as_of=when(now_ms),
        streams=tuple(found),
        next=None,
        order_as_of=None if kept is None else when(kept.at_ms),
    )


def _read(kept: Kept | None, kind: type) -> Iterable[Any]:
    """The rows of a part; those that cannot be read (of another release) are left out."""
    for row in [] if kept is None else kept.rows:
        try:
            yield msgspec.convert(row, kind)
        except msgspec.ValidationError:
            continue
