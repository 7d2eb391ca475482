"""What a log line may say. Bodies of messages, tokens and URLs with passwords are not on the list."""

from typing import TypedDict


class Fields(TypedDict, total=False):
    """What a log line may name. A field means the same thing wherever it stands; names end in their unit."""

    child: str  # a process that `waypost up` or `serve` keeps alive
    close_code: int  # WebSocket close code, on Server-Sent Events the one that a WebSocket would have got
    code: str  # a code of service/errors.py
    connection: int  # the connection's number in this node; with `node` there is no other
    connections: int  # how many
    count: int  # of whatever the event names
    delay_s: float  # pause before the next try
    detail: str  # a sentence for people
    device: str
    duration_s: float  # how long it has lasted
    entry: str  # an entry id
    epoch: str
    error: str  # class and text of an exception
    exit_code: int | None  # negative: ended by that signal
    group: str
    head: str  # an entry id
    job: str  # a scheduled job
    job_run: str  # one run of it
    lag_ms: float  # behind the newest entry
    mailbox: str
    method: str  # of HTTP
    node: str
    offset: str  # an entry id
    path: str  # a file
    pid: int
    position: str  # an entry id
    reason: str  # why, in one word
    request: str  # the request's id, `x-request-id`
    route: str  # a path of the table of routes, with the names of what stands in it; never what a client asked for
    run: str  # run id of the store's server
    sends: int  # messages, joins and leaves that a connection has asked for
    signal: str
    status: int  # of HTTP
    stream: str
    streams: int  # how many
    suppressed: int  # lines of the same event that were not written
    took_ms: float
    transport: str  # `websocket`, `chat` or `events`
    url: str  # where something is served; never one with a password
    user: str
    worker: str  # a process that runs scheduled jobs


class Whose(TypedDict, total=False):
    """The part of it that says whose connection it is about."""

    connection: int
    device: str
    user: str
