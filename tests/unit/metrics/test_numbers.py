"""What a node counts: histograms, that every sample is there from the beginning, and names that the table has."""

from itertools import product

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.core.entries import Arrival, Entry
from service.core.names import EntryId
from service.metrics import METRICS, Histogram, Numbers, StoreCalls
from service.metrics.exposition import text_of
from service.metrics.snapshot import Snapshot
from service.node import Node
from tests.unit.node.test_turn import STREAM, live, message, node

pytestmark = pytest.mark.anyio


def test_a_histogram_counts_what_is_within_each_bound_the_bound_included() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    histogram.observe(1.5, 10)
    told = histogram.buckets()
    assert told.counts == [2, 12, 1]
    assert told.sum == 23.0
    histogram.observe(0.1)
    assert told.counts == [2, 12, 1]  # a copy


def snapshot_of(made: Node, calls: StoreCalls | None = None) -> Snapshot:
    values, histograms = made.numbers.counted(calls or StoreCalls())
    return Snapshot(made.name, 0.0, values, histograms)


def test_counters_are_there_before_anything_has_happened() -> None:
    values, histograms = Numbers().counted(StoreCalls())
    for metric in METRICS.values():
        if metric.kind == "counter" and not metric.is_sparse and "process" not in metric.name:
            expected = {",".join(labels) for labels in product(*metric.labels.values())}
            assert values[metric.name] == dict.fromkeys(expected, 0), metric.name
        if metric.kind == "histogram" and not metric.is_sparse:
            assert sum(histograms[metric.name][""].counts) == 0


def test_what_the_table_does_not_have_is_counted_as_something_else_or_not_at_all() -> None:
    numbers = Numbers()
    numbers.refused_send("a code of a later release")
    numbers.closed(1009)
    assert numbers.sends["other"] == 1
    assert sum(numbers.closes.values()) == 0


async def test_a_fan_out_is_counted_by_the_number_of_its_receivers() -> None:
    made = node()
    for user in ("ann", "bob", "cid"):
        live(made, user)
    with made.turn.opened():
        for n in (1, 2):
            made.dispatch(message(n))
    assert made.numbers.pushed == 6


async def test_a_delivery_is_timed_by_the_stores_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    made = node()
    for user in ("ann", "bob"):
        live(made, user)
    monkeypatch.setattr(made.store, "reckoned_ms", lambda: 1_000_030.0)
    with made.turn.opened():
        made.delivery.tracks[STREAM].position = EntryId(1_000_000, 4)
        entry = Entry(EntryId(1_000_000, 5), "message", "zed", STREAM, "m", b"1")
        made.dispatch(Arrival(STREAM, entry, None))
    told = made.numbers.written_s.buckets()
    assert sum(told.counts) == 2
    assert told.sum == pytest.approx(0.060)


async def test_a_clock_that_is_not_known_times_nothing() -> None:
    made = node()
    live(made, "ann")
    with made.turn.opened():
        made.dispatch(message(1))
    assert made.numbers.pushed == 1
    assert sum(made.numbers.written_s.counts) == 0


def test_the_text_has_the_labels_of_the_table_and_cumulative_buckets() -> None:
    made, calls = node(), StoreCalls()
    for seconds in (0.0005, 0.003, 20.0):
        calls.count("publish", "ok", seconds)
    text, _ = text_of([snapshot_of(made, calls)], is_openmetrics=False)
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    labels = [("function", "publish"), ("node", "n")]
    assert samples["waypost_store_calls_total", *sorted([*labels, ("outcome", "ok")])] == 3
    found = [
        samples["waypost_store_call_seconds_bucket", *sorted([*labels, ("le", bound)])]
        for bound in ("0.001", "0.0025", "0.005", "10.0", "+Inf")
    ]
    assert found == [1, 1, 2, 2, 3]
