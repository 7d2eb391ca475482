"""Every metric: name, kind, help, labels with all values that they may have. `docs/operations.md` has a row for each.

Names end in their unit. A label never says whose something is: no user, stream, device or group. `node` comes with
every sample and is not listed.
"""

from typing import Literal, NamedTuple, get_args

from service.core.entries import GapKind
from service.errors import CLOSE_TRY_AGAIN, ERRORS

Kind = Literal["counter", "gauge", "histogram"]

TRANSPORTS = ("websocket", "sse", "chat")
CODES = tuple(ERRORS)
CLOSE_INTERNAL = 1011
# `client`: the client has hung up, or its network has.
CLOSES = (
    "client",
    *map(str, sorted({CLOSE_INTERNAL, CLOSE_TRY_AGAIN, *(e.close for e in ERRORS.values() if e.close)})),
)
REFUSED_SENDS = (
    "unavailable",
    "uncertain",
    "storage_full",
    "internal",
    "rate_limited",
    "not_member",
    "no_group",
    "not_allowed",
    "key_reused",
    "bad_request",
)
DoubtKind = Literal["lease", "hole", "unreadable", "beat", "server", "history", "attach", "call"]
RateLimit = Literal["connection_sends", "user_sends", "joins", "histories", "requests"]
NOT_READY = ("store", "reader", "draining", "silent", "other")
JOBS = ("retention", "devices", "groups", "audit", "survey")
JOB_STATES = ("running", "done", "failed", "cancelled")
CALL_OUTCOMES = (
    "ok",
    "refused",  # the function, or the server, said no, for a reason of the request's
    "fenced",
    "reset",
    "unavailable",
    "uncertain",
    "storage_full",
    "internal",
)
# The functions of service/store/functions.py (a test holds them to it); `plain`: commands without one.
FUNCTIONS = (
    "attach",
    "audit_nodes",
    "audit_streams",
    "commit",
    "configure_group",
    "delete_group",
    "detach",
    "drop_group",
    "forget",
    "forget_devices",
    "group",
    "heartbeat",
    "history",
    "job_finish",
    "job_renew",
    "job_take",
    "join",
    "keep_bookmark",
    "keep_survey",
    "lease",
    "leave",
    "mailbox",
    "measure",
    "note_action",
    "open",
    "page",
    "progress",
    "publish",
    "reconcile",
    "redact",
    "ripe",
    "survey",
    "tell_nodes",
    "trim",
    "plain",
)

# From what a local store takes to what nobody waits for. A message within the same machine takes 1 to 5 ms.
LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)


class Metric(NamedTuple):
    """One metric. `labels`: names with all their values; `bounds` are those of a histogram's buckets.

    With `is_sparse` a sample is there once there is something to tell; the others begin at 0, so that the first
    increase is seen.
    """

    name: str
    kind: Kind
    help: str
    labels: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - nobody changes it
    bounds: tuple[float, ...] = ()
    is_sparse: bool = False


_ALL = (
    # Sending
    Metric(
        "waypost_sends_total",
        "counter",
        "Messages that were to be stored, by what became of them: stored, duplicate, or the code of the refusal",
        {"outcome": ("stored", "duplicate", *REFUSED_SENDS, "other")},
    ),
    Metric(
        "waypost_send_stored_seconds",
        "histogram",
        "From taking a message to the store's answer that it is stored",
        bounds=LATENCY,
    ),
    Metric("waypost_publish_batch_messages", "histogram", "Messages in one call of `publish`", bounds=BATCHES),
    Metric("waypost_sends_waiting", "gauge", "Messages that wait for the next call of `publish`"),
    Metric("waypost_sends_waiting_bytes", "gauge", "Their bodies"),
    # Delivering
    Metric(
        "waypost_deliveries_total",
        "counter",
        "Entries written to connections: live as they come, or from pages to those that were behind",
        {"way": ("live", "paged")},
    ),
    Metric(
        "waypost_delivery_written_seconds",
        "histogram",
        "From the time in an entry's id (clock of the store) to writing it to a live connection, for each delivery",
        bounds=LATENCY,
    ),
    Metric(
        "waypost_replays_total",
        "counter",
        "Replays that have reached the present: of a connection after `welcome`, and of a stream of a connection",
        {"of": ("connection", "stream")},
    ),
    Metric("waypost_gaps_total", "counter", "Gaps announced to connections, by cause", {"cause": get_args(GapKind)}),
    Metric(
        "waypost_gap_entries_total",
        "counter",
        "Numbers that these gaps span; of cause epoch nobody knows how many",
        {"cause": get_args(GapKind)},
    ),
    Metric("waypost_connections", "gauge", "Connections now", {"transport": TRANSPORTS}),
    Metric("waypost_connections_limit", "gauge", "As many connections as the node takes"),
    Metric("waypost_connections_behind", "gauge", "Connections that are behind on a stream at least"),
    Metric("waypost_streams_behind", "gauge", "Streams of connections that are behind"),
    Metric("waypost_streams_attached", "gauge", "Streams whose entries come into the node's mailbox"),
    Metric("waypost_write_buffer_bytes", "gauge", "Written to connections, and not taken by their sockets yet"),
    # The mailbox and the store
    Metric("waypost_mailbox_lag_entries", "gauge", "Entries of the mailbox that the last beat has waited behind"),
    Metric("waypost_mailbox_lag_seconds", "gauge", "How long the last beat took through the mailbox, or waits by now"),
    Metric(
        "waypost_mailbox_doubts_total",
        "counter",
        "Times that a mailbox was not believed any more, and another was made",
        {"reason": get_args(DoubtKind)},
    ),
    Metric(
        "waypost_store_doubts_total", "counter", "Times that the node has stopped to look whether its store is whole"
    ),
    Metric("waypost_epoch_changes_total", "counter", "Times that the store was found with another history"),
    Metric(
        "waypost_store_calls_total",
        "counter",
        "Calls to the store by function and outcome; `plain`: reads and single commands",
        {"function": FUNCTIONS, "outcome": CALL_OUTCOMES},
        is_sparse=True,
    ),
    Metric(
        "waypost_store_call_seconds",
        "histogram",
        "How long calls to the store took, waiting for a free connection included",
        {"function": FUNCTIONS},
        bounds=LATENCY,
        is_sparse=True,
    ),
    Metric("waypost_store_memory_bytes", "gauge", "Memory that the store uses (every 30 s)", is_sparse=True),
    Metric("waypost_store_memory_limit_bytes", "gauge", "Its maxmemory, absent where none is set", is_sparse=True),
    # Refusing
    Metric(
        "waypost_errors_total",
        "counter",
        "Errors told to clients, on every door, by code; refused sign-ins are `unauthorised` and `expired`",
        {"code": CODES},
    ),
    Metric(
        "waypost_closes_total",
        "counter",
        "Connections that have ended, by close code; `client`: by the client, or its network",
        {"code": CLOSES},
    ),
    Metric(
        "waypost_rate_limited_total",
        "counter",
        "What came too fast, by limit",
        {"limit": get_args(RateLimit)},
    ),
    # The node
    Metric("waypost_ready", "gauge", "1 while the node should get connections"),
    Metric("waypost_not_ready", "gauge", "1 for each reason why it should not", {"reason": NOT_READY}),
    Metric("waypost_draining_seconds", "gauge", "How long the node has been shutting down, 0 while it is not"),
    Metric("waypost_drain_limit_seconds", "gauge", "How long that may take before connections are cut (drain_s)"),
    Metric("waypost_nodes", "gauge", "Nodes that are alive, as this one sees it"),
    Metric("waypost_snapshot_age_seconds", "gauge", "How old these numbers are: above 5 the process is gone, or hangs"),
    Metric("waypost_process_cpu_seconds_total", "counter", "CPU time of the process"),
    Metric("waypost_process_start_time_seconds", "gauge", "When the process began, Unix time"),
    Metric("waypost_process_resident_memory_bytes", "gauge", "Resident memory of the process", is_sparse=True),
    Metric("waypost_process_open_fds", "gauge", "Open file descriptors (every 10 s)", is_sparse=True),
    Metric("waypost_process_max_fds", "gauge", "As many as it may have open", is_sparse=True),
    # Scheduled jobs
    Metric(
        "waypost_jobs_as_of_timestamp_seconds", "gauge", "When the node last read the jobs' reports", is_sparse=True
    ),
    Metric(
        "waypost_job_last_start_timestamp_seconds",
        "gauge",
        "When the job last began, Unix time by the store's clock",
        {"job_name": JOBS},
        is_sparse=True,
    ),
    Metric(
        "waypost_job_interval_seconds",
        "gauge",
        "How often it is to run by this node's settings; absent for a cron expression",
        {"job_name": JOBS},
        is_sparse=True,
    ),
    Metric(
        "waypost_job_last_state",
        "gauge",
        "1 for the outcome of the last run that left a report",
        {"job_name": JOBS, "state": JOB_STATES},
        is_sparse=True,
    ),
    Metric("waypost_job_last_duration_seconds", "gauge", "How long that run took", {"job_name": JOBS}, is_sparse=True),
    Metric("waypost_job_last_errors", "gauge", "Errors that it met", {"job_name": JOBS}, is_sparse=True),
    Metric("waypost_job_last_removed_entries", "gauge", "Entries that it removed", {"job_name": JOBS}, is_sparse=True),
    Metric(
        "waypost_job_last_unread_lost_entries",
        "gauge",
        "Of these, what active devices had not acknowledged, summed over the devices",
        {"job_name": JOBS},
        is_sparse=True,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
