"""What goes into the store and comes out of it, beside the entries, pages and gaps of `core`."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from service.core.entries import Durability, GapKind
from service.core.names import ZERO, EntryId
from service.errors import Unavailable, WaypostError

# Bytes; a larger body goes to mailboxes as a reference, else every node would add a copy. `_append.lua` has the same.
BODY_INLINE_BYTES = 4096


Role = Literal["member", "owner"]


class StoreRefused(WaypostError):
    """This server must not be used as it is. `detail` tells an operator why, and what to do."""

    def __init__(self, detail: str) -> None:
        super().__init__("unavailable", detail, retry=False)


class MailboxGone(Unavailable):
    """The mailbox does not exist any more: its reader is in doubt and must make a new one. Nothing was written."""

    def __init__(self, mailbox: str) -> None:
        super().__init__(f"mailbox {mailbox} is gone")


class Late(Unavailable):
    """The call came outside of the span of time that it was meant for. Nothing was written. `server_ms`: the time."""

    def __init__(self, server_ms: int) -> None:
        super().__init__("the call came too late, or the server's clock was set")
        self.server_ms = server_ms


class Superseded(Exception):
    """Another worker holds the job's lease by now: stop. Nothing was written."""


class StoreOptions(msgspec.Struct, frozen=True):
    """The limits and habits of one process' store, each with its reason.

    Times end in their unit. `wait_replicas` > 0 makes every publish wait for that many replicas.
    """

    key_window_s: int = 3600  # a send may be repeated with its key for at least this long
    mailbox_cap: int = (
        2500  # entries of up to 16 KiB; beyond it readers see a hole and page instead, so memory is bounded
    )
    mailbox_ttl_s: float = 15  # a node that is silent this long is dead: mailbox and node record expire
    call_timeout_s: float = 5.0  # from sending to the whole reply; far above a healthy server's worst
    connect_timeout_s: float = 2.0  # a server that is away must not hold requests for long
    announce: int = 1000  # members; larger groups get no joined/left entries, they would drown the messages
    streams_max: int = 1000  # groups a user may be in: bounds `welcome` and every opening of a session
    devices_max: int = 1000  # of a user: each keeps offsets
    members_max: int = 100_000  # of a group
    user_sends_per_s: float = 0  # what one user may store, on all nodes together; 0: no limit
    user_sends_burst: int = 1000  # what may come at once before that counts
    groups_create: Literal["anyone", "keys"] = "anyone"  # who may create a group by joining it
    wait_replicas: int = 0  # replicas that must have a write before it counts as `replicated`
    wait_timeout_ms: int = 1000  # how long to wait for them; must be below call_timeout_s
    seen_ms: int = 60_000  # a device that acknowledges every second is noted as seen this often: a write less each time
    connections_max: int = 32  # per process; calls beyond that queue here, not in the server


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message to be stored. `kind` follows from `to`; the store computes the digests of `key`.

    `body` is the JSON text as it was sent. `mid` is the message id: the sender's key where given. `origin` is
    `(connection number, send number)` when a connection of this node sent it, and comes back through the
    node's own mailbox. `key` is the idempotency key, None when the sender gave none.
    """

    kind: Literal["direct", "group", "all"]
    sender: str
    to: str
    mid: str
    body: bytes
    device: str
    origin: tuple[int, int] | None
    key: str | None
    trace: str = ""
    is_system: bool = False


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one `Outgoing`.

    `code` is None when it is stored (now, or before: `is_duplicate`), else a code of the error table. `id` is
    the entry as the sender finds it (for a direct message the copy in the own inbox), `recipient_id` the entry
    in the stream it was sent to; both None with a code. `retry_after` is in seconds, with `rate_limited`.
    """

    code: str | None
    id: EntryId | None
    recipient_id: EntryId | None
    is_duplicate: bool
    durability: Durability
    retry_after: float | None = None


class Registration(msgspec.Struct, frozen=True):
    """A node's wish about one stream. `token` rises with every wish of that node, so a late one is recognised."""

    stream: str
    token: int


class Attached(msgspec.Struct, frozen=True):
    """Where a stream stood at the moment the mailbox was on its register."""

    head: EntryId
    floor: EntryId


class OpenedStream(msgspec.Struct, frozen=True):
    """One stream of a user whose session was opened.

    `offset` is what the server has stored for the device, `start` where this connection begins (usually the
    same). `foreign` is an offset of another history (brought by the client, or stored there): when it is not
    None, a gap with cause `epoch` is owed from it, and the connection goes on from `start`. A `start` above
    `head` was brought by the client as of this epoch; the page will find that it is none.
    """

    stream: str
    offset: EntryId
    start: EntryId
    head: EntryId
    floor: EntryId
    foreign: EntryId | None


class Commit(msgspec.Struct, frozen=True):
    """Offsets of one device to be stored: everything up to these ids has arrived there."""

    user: str
    device: str
    offsets: Mapping[str, EntryId]


class Membership(msgspec.Struct, frozen=True):
    """The answer to a join or leave.

    `id` lies in the group's stream: the own `joined` or `left` entry, or the head where none was announced.
    `head` is the group's head before the call. `is_new` is False when a join changed nothing; `id` is then the
    point of the first joining.
    """

    id: EntryId
    head: EntryId
    is_new: bool
    is_announced: bool


class GroupState(msgspec.Struct, frozen=True):
    """A group: its settings, how many members it has, head and floor of its stream.

    `announce`: members up to which its stream tells who joins and leaves. `role` and `since` (where the stretch begins)
    are those of the user who asked, None when nobody in particular did.
    """

    group: str
    is_open: bool
    announce: int
    members: int
    head: EntryId
    floor: EntryId
    role: Role | None = None
    since: EntryId | None = None


class Member(msgspec.Struct, frozen=True):
    """A member of a group, and since when."""

    user: str
    role: Role
    since: EntryId


class StreamProgress(msgspec.Struct, frozen=True):
    """One of a user's streams, and how far a device has come in it: `offset`, where it would begin if it never came."""

    stream: str
    head: EntryId
    floor: EntryId
    offset: EntryId


class Notice(msgspec.Struct, frozen=True):
    """What every node has to do at once.

    `disconnect`: end the connections of `user` (of `device` alone, where it is not ""). `key_revoked`: end those that
    signed in with the server key of id `key`.
    """

    kind: Literal["disconnect", "key_revoked"]
    user: str = ""
    device: str = ""
    key: str = ""


class NodeFacts(msgspec.Struct, frozen=True):
    """A node on the list: when it was last heard (Redis ms), and what it said of itself then ({} once that expired)."""

    node: str
    last_seen: int
    facts: dict[str, str]


class StreamFacts(msgspec.Struct, frozen=True):
    """How a stream stands. `bytes` is the memory that its entries take in the store. `oldest`, `newest`: entries that
    are there, None when there is none. `members` is None where the stream is no group's. `nodes` are those whose
    mailboxes are on its register.
    """

    stream: str
    head: EntryId
    floor: EntryId
    entries: int
    bytes: int
    oldest: EntryId | None
    newest: EntryId | None
    members: int | None
    nodes: tuple[str, ...]


class FenceState(msgspec.Struct, frozen=True):
    """What the fence of the worst partition says.

    `epoch` is the store's; `run` the server that this partition was opened for; `server_run` the server that
    answered. `is_open` when they agree in every partition; otherwise `reconcile` is due.
    """

    epoch: str
    run: str
    server_run: str
    is_open: bool


class Lease(msgspec.Struct, frozen=True):
    """The answer to a renewed mailbox lease: epoch and run of the fence ('' when it is missing), and the server."""

    epoch: str
    run: str
    server_run: str


class Beat(msgspec.Struct, frozen=True, gc=False):
    """A beat that the reader's own lease put into the mailbox."""

    number: int


class TrimCause(msgspec.Struct, frozen=True):
    """Why entries are removed, for the ledger and for the devices that missed them.

    `run` names one run of a job: its successive steps share a ledger line. With `lease` (a key) and `token`,
    the step is carried out only while that lease still has this token.
    """

    policy: str = ""
    limit: str = ""
    kind: GapKind = "trimmed"
    run: str = ""
    lease: str = ""
    token: str = ""


class Trimmed(msgspec.Struct, frozen=True):
    """What one step of trimming did.

    `removed` entries of `size` bytes (names and values of fields) are gone; the floor was `before` and is `floor`;
    `oldest` is the oldest entry that stays (None: none). `more` says that another step may remove more. `is_held`: a
    device that has not acknowledged kept something.
    """

    removed: int
    floor: EntryId
    more: bool
    size: int = 0
    is_held: bool = False
    before: EntryId = ZERO
    oldest: EntryId | None = None


class Survey(msgspec.Struct, frozen=True):
    """One step of looking at what a trim would remove, and how the stream stands.

    `entries` of `size` bytes would go, `last` is the id of the last of them (None: none). `oldest` is the oldest that
    would stay, `length` how many entries there are. `measured` is how many bytes `measure` has counted, up to
    `measured_upto` (None: never). `now_ms` is Redis time.
    """

    entries: int
    size: int
    last: EntryId | None
    more: bool
    is_held: bool
    head: EntryId
    floor: EntryId
    length: int
    oldest: EntryId | None
    measured_upto: EntryId | None
    measured: int
    now_ms: int


class Unread(msgspec.Struct, frozen=True):
    """What devices have not acknowledged of a stretch of a stream.

    `messages` are numbers, summed over the `devices` that lack any; `is_whole` is False when there were more devices
    than one may ask, so that there may be more.
    """

    devices: int
    messages: int
    asked: int
    is_whole: bool


class JobState(msgspec.Struct, frozen=True):
    """What is remembered of a scheduled job.

    `slot` is the Redis time in ms at which its last run began, as text; "" for a job that was never seen. `is_done`
    is False while a run is under way, or left unfinished. `lease_ms`: how long the lease lasts unless renewed, 0 when
    nobody holds it. `now_ms` is Redis time.
    """

    slot: str
    run: str
    is_done: bool
    lease_ms: int
    now_ms: int


class JobLease(msgspec.Struct, frozen=True):
    """A run of a job that is this worker's as long as it renews the lease.

    `lease` (a key) and `token` go with every call that writes on account of the run. `progress` is what the run had
    saved when it was left, "" for a new one.
    """

    job: str
    lease: str
    token: str
    run: str
    progress: str


class JobReport(msgspec.Struct):
    """What a run of a scheduled job did. Times are Redis time in ms; counts are of the whole run, over all who had it.

    `streams_seen` counts looks (a stream may be looked at twice). `oldest_kept_ms` is the time of the oldest entry that
    any stream keeps. `unread_removed` are messages that active devices had not acknowledged; `is_unread_whole` is
    False where there were more devices than may be asked, so that it may be more. `repairs` and `findings` are counts
    by kind: what was mended, and what was only found; `examples` names some of them. `errors` are the first few of
    `errors_count`.
    """

    name: str
    run: str
    worker: str = ""
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    started_ms: int = 0
    duration_ms: int = 0
    resumed: int = 0
    streams_seen: int = 0
    streams_trimmed: int = 0
    entries_removed: int = 0
    bytes_removed: int = 0
    oldest_kept_ms: int | None = None
    unread_removed: int = 0
    is_unread_whole: bool = True
    devices_seen: int = 0
    devices_forgotten: int = 0
    groups_seen: int = 0
    groups_dropped: int = 0
    repairs: dict[str, int] = {}
    findings: dict[str, int] = {}
    examples: list[str] = []
    errors_count: int = 0
    errors: list[str] = []


class DeviceSweep(msgspec.Struct, frozen=True):
    """Devices of one user that were looked at, and how many are forgotten now. `cursor` is "" when that was all."""

    user: str
    cursor: str
    seen: int
    forgotten: int


class GroupStep(msgspec.Struct, frozen=True):
    """What became of a look at a group, or of a step of dropping it.

    `status` is `clear`, `more`, `dropped`, or why the group stays; `looked` how many of the users given were looked at,
    `user` whom the status speaks of, "" for nobody. `head` is the group's at that moment.
    """

    status: str
    looked: int
    user: str
    head: EntryId


class Audited(msgspec.Struct, frozen=True):
    """Something about a stream that does not agree: what kind, in words, how many."""

    kind: str
    detail: str
    count: int
