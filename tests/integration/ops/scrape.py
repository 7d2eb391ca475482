"""`/metrics` as Prometheus reads it, for tests to look into."""

import asyncio
import http.client
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import METRICS

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Told(NamedTuple):
    """One answer to a scrape."""

    status: int
    content_type: str
    text: str


class Numbers:
    """The samples of one scrape."""

    def __init__(self, told: Told) -> None:
        parse = openmetrics.text_string_to_metric_families if "openmetrics" in told.content_type else None
        self.families = list((parse or text_string_to_metric_families)(told.text))
        self._samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def of(self, name: str, node: str, **labels: str) -> float:
        """One sample. Fails when there is none."""
        return self._samples[name, frozenset({"node": node, **labels}.items())]

    def get(self, name: str, node: str, **labels: str) -> float | None:
        """One sample, None when there is none."""
        return self._samples.get((name, frozenset({"node": node, **labels}.items())))

    def nodes(self) -> set[str]:
        """Which nodes it speaks of."""
        return {dict(labels)["node"] for _, labels in self._samples}

    def total(self, name: str) -> float:
        """All samples of one name together."""
        return sum(value for (sample, _), value in self._samples.items() if sample == name)

    def strange_labels(self) -> list[tuple[str, str, str]]:
        """Labels that the table does not have, and values that it does not have."""
        strange = []
        for name, labels in self._samples:
            metric = METRICS[name] if name in METRICS else METRICS[name.rpartition("_")[0]]
            known: Mapping[str, tuple[str, ...]] = metric.labels
            for label, value in labels:
                is_own = label == "node" or (label == "le" and metric.kind == "histogram")
                if not is_own and value not in known.get(label, ()):
                    strange.append((name, label, value))
        return strange


def ask(url: str, headers: Mapping[str, str] | None = None, method: str = "GET", *, seconds: float = 30) -> Told:
    """One scrape, over a connection of its own."""
    connection = dial(url, seconds)
    try:
        return ask_over(connection, headers, method)
    finally:
        connection.close()


def dial(url: str, seconds: float = 30) -> http.client.HTTPConnection:
    """A connection for several scrapes, as Prometheus has one."""
    at = urlsplit(url)
    assert at.hostname is not None
    return http.client.HTTPConnection(at.hostname, at.port, timeout=seconds)


def ask_over(
    connection: http.client.HTTPConnection, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> Told:
    """One scrape over a connection that stays open."""
    connection.request(method, "/metrics", headers=dict(headers or {}))
    answer = connection.getresponse()
    return Told(answer.status, answer.headers["content-type"] or "", answer.read().decode())


async def scrape(url: str, **headers: str) -> Numbers:
    """The numbers of now, or of a second ago. Fails unless they are given."""
    told = await asyncio.to_thread(ask, url, headers)
    assert told.status == 200, told
    return Numbers(told)


async def scrape_until(url: str, holds: Callable[[Numbers], object], what: str, seconds: float = 20) -> Numbers:
    """Scrapes until something is true of the numbers, as it has to be sooner or later."""
    numbers = await scrape(url)
    try:
        async with asyncio.timeout(seconds):
            while not holds(numbers):
                await asyncio.sleep(0.1)
                numbers = await scrape(url)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds} s") from None
    return numbers
