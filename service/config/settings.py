"""What can be chosen: each setting with its default, its bounds and its reason."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from service.core import retention

PREFIX = "WAYPOST_"
PROCESSES_MAX = 256  # as many cores as a machine has, with room: more would be a slip of the finger

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Seconds = Annotated[float, Meta(gt=0, le=30 * 86_400)]
Rate = Annotated[float, Meta(ge=0, le=1_000_000)]  # a second; 0: no limit
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[A-Za-z0-9._:\[\]\-]+")
_PORTS = {"http": 80, "https": 443}

# In seconds, and spelt "30s", "5m", "12h" or "14d": for what nobody thinks of in seconds.
Duration = Annotated[int, Meta(ge=1, le=retention.DURATION_S_MAX, description="duration")]
ANY_ORIGIN = "*"
ANY_ADDRESS = "*"


def split(text: str) -> tuple[str, ...]:
    """The parts of a list with commas, without blanks around them."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def origin(text: str) -> str:
    """An origin, such as `https://app.example.com:8443`, as browsers spell it. Raises `ValueError` for what is none."""
    parts = urlsplit(text)
    host, port = parts.hostname, parts.port  # raises for a port that is none
    if not host or port == 0 or not _ORIGIN.fullmatch(text):
        raise ValueError("not an origin")
    scheme = parts.scheme.lower()
    spelt = f"[{host}]" if ":" in host else host
    return f"{scheme}://{spelt}" if port in (None, _PORTS.get(scheme)) else f"{scheme}://{spelt}:{port}"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client, one node or one call may use at most. Names end in their unit; counts have none."""

    # A message is read by phones and kept in memory by the store: larger things belong beside it, as a link.
    body_bytes: Bytes = 65_536
    # A body and everything around it, escaped; above it the frame is refused with 4104.
    frame_bytes: Bytes = 131_072
    # The WebSocket library refuses above this before reading on (1009), so no frame can fill the memory.
    ws_max_bytes: Bytes = 1_048_576
    # Opening a session reads one head per stream: 1,000 keep it to one round of a few milliseconds.
    streams_per_user: Count = 1000
    # One call of `publish` holds the single thread of Redis: 200 messages keep it to milliseconds.
    batch_messages: Count = 200
    # Bytes × registered mailboxes of a call, for the same reason.
    batch_bytes: Bytes = 1_048_576
    # A client that sends faster than the store answers is not read further: this is what waits for it at most.
    unanswered_sends: Count = 64
    # The same in bytes: four of the largest bodies, or 64 of 4 KiB.
    unanswered_bytes: Bytes = 262_144
    # All clients of a node together; above it a send is answered `unavailable` at once instead of waiting.
    node_unanswered_sends: Count = 10_000
    # The same in bytes, so that a store that is away costs a node a known amount of memory.
    node_unanswered_bytes: Bytes = 67_108_864
    # A page is read in one call and held until the socket has taken it.
    page_entries: Count = 200
    # The same in bytes: what a page may add to a connection's buffer.
    page_bytes: Bytes = 262_144
    # Page reads of a node that are on their way at once: catching up must not crowd out sending.
    pages_in_flight: Count = 8
    # Sessions that are being opened at once: after a restart everybody comes back, and sends go on meanwhile.
    opens_in_flight: Count = 8
    # Joins, leaves and questions after memberships that are on their way at once, for the same reason.
    changes_in_flight: Count = 8
    # Looks into the history of streams that are on their way at once, for the same reason.
    histories_in_flight: Count = 8
    # Entries that one look at the messages with one user reads each way: a few milliseconds of the store's one thread.
    history_looked_at: Count = 1000
    # What a socket may hold that is not yet sent; above it the connection falls behind and reads pages.
    write_buffer_bytes: Bytes = 262_144
    # Each has a file descriptor and its buffers: what a node may cost is known in advance. More nodes serve more.
    connections: Count = 20_000
    # One user's on a node: dozens of tabs and phones are somebody's, hundreds are a loop that forgot to close.
    connections_per_user: Count = 100
    # Sockets that have not said yet who they are: they cost memory, and anybody can open them. When a node comes back
    # everybody does so at once, over slow networks too.
    strangers: Count = 2000
    # Sockets that have asked for nothing, or are between two requests: above it the one that is silent longest is
    # closed, so that thousands of them keep nobody out who has something to say.
    silent: Count = 1000
    # All headers of a request with its first line, a token of 8 KiB among them. Above it: 431.
    head_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 16_384
    # Each keeps offsets until it has been idle for long; who makes a name up at every start would fill the store.
    devices_per_user: Count = 1000
    # Joining, leaving and each look at a group's record stay short; larger audiences are what `all` is for.
    members_per_group: Count = 100_000
    # What one user sends on all nodes together: people type, programs with more to say have a server key.
    user_sends_per_s: Rate = 100
    # What may come at once before that counts: an outbox that was filled offline.
    user_sends_burst: Count = 1000
    # The same for one connection, before the store is asked: a loop in one tab ends that tab alone.
    connection_sends_per_s: Rate = 50
    # As above.
    connection_sends_burst: Count = 500
    # Joins and leaves of one user on a node: each is written to two streams and read by a whole group.
    user_joins_per_s: Rate = 5
    # A client that joins all its groups at its first start: as many as it may be in.
    user_joins_burst: Count = 1000
    # Looks into history of one user on a node: each is a page that the store reads, and some are searched for.
    user_histories_per_s: Rate = 10
    # A few screens of several conversations at once.
    user_histories_burst: Count = 100
    # HTTP requests of one user on a node, of whatever kind, connecting and fresh tokens: for scripts that poll, and
    # clients that come back in a loop.
    user_requests_per_s: Rate = 20
    # A page that begins asks for many things at once.
    user_requests_burst: Count = 200
    # Brackets within brackets: deeper JSON makes a client's parser fail, and no message needs it.
    body_depth: Count = 128
    # The newest entries of a stream that somebody is catching up on, so that a busy one can be caught up with.
    tail_entries: Count = 64
    # All tails of a node together.
    tail_bytes: Bytes = 8_388_608
    # Streams in one `welcome` frame; the rest follows in `streams` frames, so no frame outgrows a client's buffer.
    welcome_streams: Count = 500


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept for how long. `policies` are those of the file; a stream of which they do not speak: 30 days."""

    policies: tuple[retention.Policy, ...] = ()
    # A phone in a drawer must not hold messages for ever: a quarter of a year covers a long absence.
    device_idle_max: Duration = 90 * 86_400
    # Somebody may come back to a group that all have left, and find it as it was.
    group_empty_max: Duration = 30 * 86_400
    # Devices that a run asks what they had not read of the streams it trimmed: it costs the store one read each.
    unread_devices: Count = 100_000


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When a job runs: every so many seconds, or by a cron expression in UTC. `cron` wins where it is not empty."""

    every: Duration
    cron: str = ""

    @property
    def text(self) -> str:
        """The schedule for people."""
        return f"cron {self.cron}" if self.cron else f"every {retention.duration_text(self.every)}"


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduled jobs, each a table `[jobs.<name>]`."""

    # A limit by age is kept to within this long.
    retention: Schedule = Schedule(every=300)
    # Devices are forgotten after weeks: an hour more or less is nothing.
    devices: Schedule = Schedule(every=3600)
    # The same holds for groups.
    groups: Schedule = Schedule(every=3600)
    # Nothing that it finds is urgent, nodes repair what matters themselves; and it looks at every stream.
    audit: Schedule = Schedule(every=3600)
    # What operators look at is as old as this at most; a run reads every stream and device once.
    survey: Schedule = Schedule(every=300)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a process, read once. Names end in their unit: `_s` seconds, `_ms` milliseconds, `_bytes`."""

    # Only this machine, until somebody says otherwise.
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    # Nothing needs root to listen there.
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8000
    # Where `up` keeps the store's files, its socket and its lock.
    data_dir: Annotated[str, Meta(min_length=1)] = ".waypost"
    # redis://, rediss:// or unix://. Empty: `up` runs a store of its own, and `serve` says that it needs one.
    redis_url: str = ""
    # A PEM file with the certificate and those between it and an authority: then nodes speak TLS 1.2 or newer alone.
    ssl_certfile: str = ""
    # Its private key, where that is in a file of its own. Unencrypted it has to be for its owner alone to read.
    ssl_keyfile: str = ""
    # For a key that is encrypted: without it the start fails, for there is nobody to ask.
    ssl_keyfile_password: str = ""
    # Addresses and networks of proxies, separated by commas; `*`: anybody. Who comes through one is whom its
    # X-Forwarded-For names; from others the header is not looked at, for anybody can send it.
    forwarded_allow_ips: str = "127.0.0.1"
    # A PEM file of authorities that clients trust instead of the machine's: for certificates of one's own making.
    ca_file: str = ""
    # The TOML file that was read, empty for none. Only from the environment: a file cannot name itself.
    config: str = ""
    # Whoever says `?user=<id>` is that user: for trying out, never for strangers. On for `up`, off for `serve`.
    dev: bool = False
    # One process uses one core: `serve` runs so many nodes on the one port. `--processes` wins.
    processes: Annotated[int, Meta(ge=1, le=PROCESSES_MAX)] = 1
    # Rows of each list of the job `survey`: twenty screens, and half a megabyte of the store, however many streams.
    survey_rows: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    # Empty: host name and process id. Two processes with one name would answer for each other.
    node: str = ""
    # Tokens signed with one of these are good. Separated by commas: the first signs what `waypost token` makes, the
    # others are on their way out.
    jwt_secrets: str = ""
    # A PEM file of public keys or certificates: tokens that somebody else signs, whose keys change by hand.
    jwt_keys: str = ""
    # The same where keys change by themselves: http:// only for an issuer on this machine.
    jwt_jwks_url: str = ""
    # Tokens must be made for this audience. Empty: a token that is made for anybody in particular is not for us.
    jwt_audience: str = ""
    # Tokens must come from this issuer. Empty: whoever has the key is the issuer.
    jwt_issuer: str = ""
    # How far the issuer's clock may be ahead, for `nbf` and `iat`. `exp` has none: there the grace period is generous.
    jwt_leeway_s: Annotated[float, Meta(ge=0, le=600)] = 5.0
    # A key that the issuer has withdrawn is good for so long at most, unless the issuer is out of reach.
    jwks_ttl_s: Seconds = 300.0
    # Between two times that the issuer is asked: whoever makes up key ids must not make us a nuisance to it.
    jwks_pause_s: Seconds = 10.0
    # A connection goes on for so long after its token has expired: time to fetch another, and for clocks that differ.
    token_grace_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    # Who comes on the `/chat/…` paths: nobody (`off`), whoever has a token for the user of the path (`token`), anybody
    # (`open`). Empty: `open` in dev mode, else `token`.
    chat: Literal["", "off", "token", "open"] = ""
    # Who gets the numbers of `/metrics`: nobody (`off`), who asks on this machine (`local`), who shows `metrics_token`
    # (`token`), anybody (`open`). Empty: `open` in dev mode, else `token` where one is set, else `local`.
    metrics: Literal["", "off", "local", "token", "open"] = ""
    # What Prometheus shows as a bearer token. Not kept in the store: numbers are wanted most while that is away.
    metrics_token: str = ""
    # Pages of these origins may use this service from browsers, separated by commas; `*`: of any. Empty: its own alone.
    origins: str = ""
    # What `waypost send` and `waypost listen` sign in with: on a command line everybody on the machine could read it.
    token: str = ""
    # `info` has a line for each start, stop and failure; `debug` one for each connection and request.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # `text`: key=value, for eyes and grep; `json`: for what collects it. `auto`: text, on a terminal with colours
    # unless NO_COLOR is set.
    log_format: Literal["auto", "text", "json"] = "auto"
    # Where clients find a node. Empty: http:// (with TLS https://) with host and port.
    url: str = ""
    # Below the 30-60 s after which proxies and mobile networks drop a silent connection.
    ping_s: Seconds = 25.0
    # From the opening of a socket, and from the end of each answer, until a request has come with all its headers, the
    # TLS handshake included. A slow phone needs two.
    head_timeout_s: Seconds = 10.0
    # An open socket that never signs in costs memory.
    hello_timeout_s: Seconds = 10.0
    # A client that drains nothing for this long is gone or stuck; it resumes when it comes back.
    idle_close_s: Seconds = 120.0
    # Who was away for longer, on `/v1/events`, goes on from what its device has acknowledged instead of its bookmark.
    events_keep_s: Seconds = 7 * 86_400.0
    # People come back within seconds (a lift, a reload): a stream stays attached this long after its last connection.
    detach_linger_s: Seconds = 30.0
    # A lost registration is found at the latest after one full pass of the slow audit.
    audit_s: Seconds = 60.0
    # The node's beat in its own mailbox; a missed one is seen within two periods.
    beat_s: Seconds = 1.0
    # How long a mailbox outlives its silent node: long enough for a pause of the machine, short enough to free memory.
    mailbox_ttl_s: Seconds = 15.0
    # Entries, each of up to 16 KiB of messages: 40 MB. A reader further behind is served by pages, which cost nothing.
    mailbox_cap: Count = 2500
    # Acknowledgements of half a second are stored in one call; the promise is one second.
    commit_s: Annotated[float, Meta(gt=0, le=1)] = 0.5
    # A client replays before it repeats: an hour covers a lost answer, and what is kept stays small.
    key_window_s: Annotated[int, Meta(ge=60, le=7 * 86_400)] = 3600
    # A call without an answer by then has an unknown result (`uncertain`). A `join` or `leave` is carried out within
    # this time or not at all.
    call_timeout_s: Seconds = 5.0
    # Replicas that must have a write before `sent` says `replicated`. 0: do not wait for any.
    wait_replicas: Annotated[int, Meta(ge=0, le=100)] = 0
    # How long to wait for them; after that the answer names the level that was reached.
    wait_timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] = 1000
    # A worker that is silent this long has lost its run, and another resumes it: longer than a pause of the machine.
    job_lease_s: Annotated[float, Meta(ge=0.5, le=3600)] = 15.0
    # Who makes a group by joining it: `anyone`, or holders of a server key (`keys`).
    groups_create: Literal["anyone", "keys"] = "anyone"
    # Members up to which a group's stream tells who joins and leaves; above, such news would outnumber the messages.
    announce: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1000
    # No beat for this long: the reader stands still, so the node is not ready.
    not_ready_s: Seconds = 5.0
    # How long a node that is to end goes on as before, with `/readyz` red, until its balancer sends nobody any more.
    # Not needed: who is sent to a node that ends comes back to another.
    drain_delay_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
    # From then on until connections are cut: time to answer what was sent and to say 4002, to few at once. Half of it
    # is for the goodbyes.
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 10.0
    limits: Limits = Limits()
    retention: Retention = Retention()
    jobs: Jobs = Jobs()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that sign and verify tokens; the first one signs."""
        return split(self.jwt_secrets)

    @property
    def has_key_material(self) -> bool:
        """Whether tokens of users can be looked at at all."""
        return bool(self.jwt_secrets or self.jwt_keys or self.jwt_jwks_url)

    @property
    def chat_mode(self) -> Literal["off", "token", "open"]:
        """What `chat` comes to."""
        return self.chat or ("open" if self.dev else "token")

    @property
    def metrics_mode(self) -> Literal["off", "local", "token", "open"]:
        """What `metrics` comes to."""
        if self.metrics:
            return self.metrics
        return "open" if self.dev else "token" if self.metrics_token else "local"

    @property
    def origin_list(self) -> tuple[str, ...]:
        """`origins` as browsers spell them: in small letters, without a port that goes without saying; `*` as it is."""
        return tuple(one if one == ANY_ORIGIN else origin(one) for one in split(self.origins))
