"""What a node counts, and how it is told to Prometheus. Every metric is a line of `table.py`.

Counting costs next to nothing: ints and lists on one object of a node (`Numbers`), raised once for a turn or a batch
where there are many. Only who asks for `/metrics` pays for names, labels and text (`exposition.py`).
"""

from service.metrics.numbers import Histogram, Numbers, StoreCalls, Values
from service.metrics.snapshot import Buckets, Snapshot
from service.metrics.table import METRICS, DoubtKind, Metric

__all__ = ["METRICS", "Buckets", "DoubtKind", "Histogram", "Metric", "Numbers", "Snapshot", "StoreCalls", "Values"]
