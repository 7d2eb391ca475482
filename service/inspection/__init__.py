"""The numbers, in one place: pure questions to the store, which command line, `/v1/admin` and pages for operators ask.

Each answers with a Struct, which is the one shape of `--json` and of HTTP. What is dear is computed in the background
by the job `survey`, and told with the moment that it is of.
"""

from service.inspection.audit import Audit, AuditLine, Noting, audit, noted
from service.inspection.devices import Device, Devices, devices
from service.inspection.entries import Entries, EntryView, LedgerLine, entries, ledger
from service.inspection.jobs import Job, JobsView, jobs
from service.inspection.nodes import Nodes, NodeView, nodes
from service.inspection.streams import StreamPage, StreamView, stream_view, stream_views, streams_page
from service.inspection.survey import ORDERS, Order, SurveyView, streams_by, survey
from service.inspection.why import Why, why

__all__ = [
    "ORDERS",
    "Audit",
    "AuditLine",
    "Device",
    "Devices",
    "Entries",
    "EntryView",
    "Job",
    "JobsView",
    "LedgerLine",
    "NodeView",
    "Nodes",
    "Noting",
    "Order",
    "StreamPage",
    "StreamView",
    "SurveyView",
    "Why",
    "audit",
    "devices",
    "entries",
    "jobs",
    "ledger",
    "nodes",
    "noted",
    "stream_view",
    "stream_views",
    "streams_by",
    "streams_page",
    "survey",
    "why",
]
