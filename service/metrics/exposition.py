"""Snapshots as Prometheus reads them: the text format, or OpenMetrics for who asks for it."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.metrics.snapshot import Buckets, Snapshot
from service.metrics.table import METRICS, Metric

OPENMETRICS = "application/openmetrics-text"


class _Told(Collector):
    def __init__(self, snapshots: Iterable[Snapshot]) -> None:
        self._snapshots = list(snapshots)

    def collect(self) -> Iterator[Family]:
        for metric in METRICS.values():
            yield _family(metric, self._snapshots)


def text_of(snapshots: Iterable[Snapshot], *, is_openmetrics: bool) -> tuple[bytes, str]:
    """All metrics of these nodes, as OpenMetrics or in the older text format, and the content type of that."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(snapshots))
    # The library compares whatever version a header names, and some cannot be compared: so it is given none of those.
    encode, content_type = choose_encoder(f"{OPENMETRICS}; version=1.0.0" if is_openmetrics else "")
    return encode(registry), content_type


def _family(metric: Metric, snapshots: list[Snapshot]) -> Family:
    labels = ["node", *metric.labels]
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for snapshot in snapshots:
            for values, buckets in snapshot.histograms.get(metric.name, {}).items():
                histogram.add_metric(_labels(snapshot, values), _cumulative(metric, buckets), buckets.sum)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=labels)
    for snapshot in snapshots:
        for values, number in snapshot.values.get(metric.name, {}).items():
            family.add_metric(_labels(snapshot, values), number)
    return family


def _labels(snapshot: Snapshot, values: str) -> list[str]:
    return [snapshot.node, *(values.split(",") if values else ())]


def _cumulative(metric: Metric, buckets: Buckets) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
    return list(zip(bounds, accumulate(buckets.counts), strict=True))
