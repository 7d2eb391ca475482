"""Settings: what can be chosen, its default, its bounds and its reason; the only reader of the environment.

Every setting is an environment variable (`WAYPOST_PORT`, `WAYPOST_LIMITS_BODY_BYTES`) and a key of the TOML file
that `WAYPOST_CONFIG` names (`port`, and `body_bytes` in the table `limits`). The environment wins; a variable that
is empty counts as not given. `docs/configuration.md` has a row for each, checked by a test. Retention policies are
lists, and stand in the file alone.
"""

import difflib
import os
import socket
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from service.core import retention
from service.core.names import check_name
from service.errors import WaypostError

PREFIX = "WAYPOST_"
PROCESSES_MAX = 256  # as many cores as a machine has, with room: more would be a slip of the finger

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 40)]
Seconds = Annotated[float, Meta(gt=0, le=30 * 86_400)]
# In seconds, and spelt "30s", "5m", "12h" or "14d": for what nobody thinks of in seconds.
Duration = Annotated[int, Meta(ge=1, le=retention.DURATION_S_MAX, description="duration")]


class SettingsError(Exception):
    """Settings that cannot be used. `lines` says everything that is wrong, one line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


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
    # The TOML file that was read, empty for none. Only from the environment: a file cannot name itself.
    config: str = ""
    # Whoever says `?user=<id>` is that user: for trying out, never for strangers. On for `up`, off for `serve`.
    dev: bool = False
    # One process uses one core: `serve` runs so many nodes on the one port. `--processes` wins.
    processes: Annotated[int, Meta(ge=1, le=PROCESSES_MAX)] = 1
    # Empty: host name and process id. Two processes with one name would answer for each other.
    node: str = ""
    # `info` has a line for each start, stop and failure; `debug` one for each connection.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # Where clients find a node. Empty: http:// with host and port.
    url: str = ""
    # Below the 30-60 s after which proxies and mobile networks drop a silent connection.
    ping_s: Seconds = 25.0
    # An open socket that never signs in costs memory.
    hello_timeout_s: Seconds = 10.0
    # A client that drains nothing for this long is gone or stuck; it resumes when it comes back.
    idle_close_s: Seconds = 120.0
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
    # From SIGTERM until connections are cut: time to answer what was sent and to say 4002.
    drain_s: Annotated[float, Meta(ge=0, le=600)] = 10.0
    limits: Limits = Limits()
    retention: Retention = Retention()
    jobs: Jobs = Jobs()


JOBS = tuple(field.name for field in msgspec.structs.fields(Jobs))
# The tables that a TOML file may have, "" for its top level, and what is in them.
TABLES: dict[str, msgspec.Struct] = {
    "": Settings(),
    "limits": Limits(),
    "retention": Retention(),
    **{f"jobs.{job}": getattr(Jobs(), job) for job in JOBS},
}


class Known(msgspec.Struct, frozen=True):
    """One setting as a user writes it: its variable, its table ("" for none) and key in TOML, its type and default."""

    variable: str
    table: str
    key: str
    type: Any
    default: Any


def known() -> Iterator[Known]:
    """Every setting there is, in the order of the classes above."""
    for table, defaults in TABLES.items():
        hints = get_type_hints(type(defaults), include_extras=True)
        for name in defaults.__struct_fields__:
            if name not in ("limits", "jobs", "policies") and (table, name) != ("", "retention"):
                prefix = PREFIX + (f"{table.replace('.', '_')}_" if table else "").upper()
                yield Known(prefix + name.upper(), table, name, hints[name], getattr(defaults, name))


def load(environ: Mapping[str, str], *, dev_default: bool = False) -> Settings:
    """The settings that `environ` and the file it names give.

    `dev_default` is `dev` where nobody chose it. Raises `SettingsError` with everything that is wrong.
    """
    wrong: list[str] = []
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    path = given.get(PREFIX + "CONFIG", "")
    tables = _read_file(path, wrong) if path else {}
    settings = {setting.variable: setting for setting in known()}
    wrong += [_unknown(name, settings) for name in sorted(given.keys() - settings.keys())]

    values: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    values[""]["dev"] = dev_default
    for variable, setting in settings.items():
        in_file = tables.get(setting.table, {})
        if variable in given:
            where, raw, is_text = variable, given[variable], True
        elif setting.key in in_file:
            where, raw, is_text = f"{path}: {_dotted(setting)}", in_file[setting.key], False
        else:
            continue
        try:
            values[setting.table][setting.key] = _convert(raw, setting.type, is_text=is_text)
        except msgspec.ValidationError as error:
            wrong.append(f"{where}: {_plain(error, setting.type, is_text=is_text)}")
    wrong += [line for job in JOBS for line in _wrong_schedule(job, values[f"jobs.{job}"])]
    policies, lines = retention.read_policies(tables.get("retention", {}).get("policies", ()), path)
    wrong += lines
    settings_made = _made(values, policies)
    wrong += _contradictions(settings_made)
    if wrong:
        raise SettingsError(wrong)
    return msgspec.structs.replace(
        settings_made, node=settings_made.node or _default_node(), url=settings_made.url or _default_url(settings_made)
    )


def _made(values: Mapping[str, Mapping[str, Any]], policies: tuple[retention.Policy, ...]) -> Settings:
    """The settings of what was given, table by table."""
    made: dict[str, Any] = {
        table: msgspec.structs.replace(defaults, **values[table]) for table, defaults in TABLES.items()
    }
    settings: Settings = msgspec.structs.replace(
        made[""],
        limits=made["limits"],
        retention=msgspec.structs.replace(made["retention"], policies=policies),
        jobs=Jobs(**{job: made[f"jobs.{job}"] for job in JOBS}),
    )
    return settings


def _read_file(path: str, wrong: list[str]) -> dict[str, dict[str, Any]]:
    """Table → key → value of the TOML file, what is at top level under "". Adds to `wrong` what cannot be used."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        wrong.append(f"{PREFIX}CONFIG: cannot read {path}: {reason}")
        return {}
    tables = _tables(content, path, wrong)
    policies = tables.get("retention", {}).get("policies", [])
    if not isinstance(policies, list):
        wrong.append(f"{path}: retention.policies: Expected a list of tables, [[retention.policies]]")
        del tables["retention"]["policies"]
    names = {_dotted(setting) for setting in known() if setting.variable != PREFIX + "CONFIG"} | {"retention.policies"}
    for table, entries in tables.items():
        for key in entries:
            dotted = f"{table}.{key}" if table else key
            if dotted not in names:
                near = difflib.get_close_matches(dotted, [*names, *TABLES], 1)
                wrong.append(f"{path}: {dotted}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return tables


def _tables(content: Mapping[str, Any], path: str, wrong: list[str]) -> dict[str, dict[str, Any]]:
    """The tables of a file by their dotted names, whether there are such or not."""
    tables: dict[str, dict[str, Any]] = {"": {}}
    for key, value in content.items():
        if key not in ("limits", "retention", "jobs"):
            tables[""][key] = value
        elif not isinstance(value, dict):
            wrong.append(f"{path}: {key}: Expected a table, [{key}]")
        elif key != "jobs":
            tables[key] = value
        else:
            for job, schedule in value.items():
                if job in JOBS and not isinstance(schedule, dict):
                    wrong.append(f"{path}: jobs.{job}: Expected a table, [jobs.{job}]")
                elif job in JOBS:
                    tables[f"jobs.{job}"] = schedule
                else:
                    wrong.append(f"{path}: jobs.{job}: no such job; there are {', '.join(JOBS)}")
    return tables


def _dotted(setting: Known) -> str:
    return f"{setting.table}.{setting.key}" if setting.table else setting.key


def _unknown(variable: str, settings: Mapping[str, Known]) -> str:
    near = difflib.get_close_matches(variable, settings, 1)
    return f"{variable}: no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _convert(raw: object, kind: object, *, is_text: bool) -> object:
    """`raw` as `kind`, bounds checked. Text from the environment may spell a number or a yes and no."""
    if is_text and kind is bool:
        raw = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }.get(str(raw).lower(), raw)
        if not isinstance(raw, bool):
            raise msgspec.ValidationError("Expected 1 or 0")
    if kind is Duration:
        try:
            return retention.parse_duration(raw)
        except ValueError as error:
            raise msgspec.ValidationError(str(error)) from error
    return msgspec.convert(raw, kind, strict=not is_text)


def _plain(error: msgspec.ValidationError, kind: object, *, is_text: bool) -> str:
    """What was expected. What was given is not repeated: it may hold a password."""
    if get_origin(kind) is Literal:
        return f"Expected one of {', '.join(get_args(kind))}"
    words = str(error).replace("`", "")
    # In the environment everything is text.
    return words.removesuffix(", got str") if is_text else words


def _wrong_schedule(job: str, given: Mapping[str, Any]) -> list[str]:
    """What is wrong with a schedule as it was given."""
    where = f"jobs.{job}"
    if "every" in given and given.get("cron"):
        return [f"{where}: Expected `every` or `cron`, not both"]
    if not given.get("cron"):
        return []
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - a node has no use for it

    try:
        if CronTrigger.from_crontab(given["cron"], "UTC").get_next_fire_time(None, datetime.now(UTC)) is None:
            return [f"{where}.cron: Expected a time that comes: there is no such date"]
    except ValueError as error:
        return [f"{where}.cron: Expected five fields, minute hour day month weekday, such as */5 * * * *: {error}"]
    return []


def _contradictions(settings: Settings) -> list[str]:
    """What is wrong with settings that are each within their bounds."""
    wrong = []
    limits = settings.limits
    for url, variable, schemes in (
        (settings.redis_url, "REDIS_URL", ("redis", "rediss", "unix")),
        (settings.url, "URL", ("http", "https")),
    ):
        if url and (not _is_url(url) or urlsplit(url).scheme not in schemes):
            wrong.append(f"{PREFIX}{variable}: Expected a URL that begins with {', '.join(s + '://' for s in schemes)}")
    if settings.node:
        try:
            check_name(settings.node)
        except WaypostError as error:
            wrong.append(f"{PREFIX}NODE: {error.detail}")
    for small, large, why in (
        ("beat_s", "not_ready_s", "a node that beats would not be ready"),
        ("beat_s", "mailbox_ttl_s", "a mailbox would die between two beats"),
        ("not_ready_s", "mailbox_ttl_s", "a mailbox would die before its node is known to stand still"),
    ):
        if getattr(settings, large) < 2 * getattr(settings, small):
            wrong.append(f"{PREFIX}{large.upper()}: Expected at least twice {PREFIX}{small.upper()}: {why}")
    for small, large, why in (
        ("body_bytes", "frame_bytes", "the largest body would not fit into a frame"),
        ("frame_bytes", "ws_max_bytes", "the library would refuse what the protocol allows"),
        ("body_bytes", "page_bytes", "the largest body would not fit into a page"),
        ("body_bytes", "unanswered_bytes", "the largest body could never be sent"),
        ("body_bytes", "write_buffer_bytes", "the largest body could never be pushed"),
        ("unanswered_sends", "node_unanswered_sends", "one client could not use its share"),
        ("unanswered_bytes", "node_unanswered_bytes", "one client could not use its share"),
    ):
        if getattr(limits, large) < getattr(limits, small):
            prefix = f"{PREFIX}LIMITS_"
            wrong.append(f"{prefix}{large.upper()}: Expected at least {prefix}{small.upper()}: {why}")
    return wrong


def _is_url(text: str) -> bool:
    """Whether the parts of `text` can be read at all, its port too."""
    try:
        parts = urlsplit(text)
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _default_node() -> str:
    """Host name and process id, with whatever a name may not hold replaced."""
    host = "".join(char if char.isascii() and char.isalnum() else "-" for char in socket.gethostname())
    return f"{host[:100] or 'node'}-{os.getpid()}"


def _default_url(settings: Settings) -> str:
    """Where a client on this machine reaches the node: an address that stands for all of them is not one to call."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
