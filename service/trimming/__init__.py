"""Retention at work: trimming streams by their policies, and planning it."""

from service.trimming.plan import SCAN_KEYS, Plan, PolicyPlan, plan
from service.trimming.streams import StreamPlan, StreamTrimmed, plan_stream, ripe_streams, trim_stream

__all__ = [
    "SCAN_KEYS",
    "Plan",
    "PolicyPlan",
    "StreamPlan",
    "StreamTrimmed",
    "plan",
    "plan_stream",
    "ripe_streams",
    "trim_stream",
]
