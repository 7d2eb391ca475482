"""Retention at work: trimming streams by their policies, and planning it."""

from service.trimming.plan import Plan, PolicyPlan, plan
from service.trimming.streams import StreamPlan, StreamTrimmed, plan_stream, ripe_streams, trim_stream

__all__ = [
    "Plan",
    "PolicyPlan",
    "StreamPlan",
    "StreamTrimmed",
    "plan",
    "plan_stream",
    "ripe_streams",
    "trim_stream",
]
