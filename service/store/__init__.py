"""The store room: the only part of the service that knows Redis. Records in and out, never raw replies.

What every method may raise, beside what it names itself:

- `Unavailable`: the store is out of reach; nothing was written. The same call may be made again.
- `Fenced`: the server is not the one the epoch key names, or the epoch is another: `fence_state`, `reconcile`.
- `Reset`: the store was emptied or never migrated. `waypost migrate up` decides, no node does.
- `Uncertain`: a write was sent and its answer is missing. All but `publish` without a key, and `redact` and
  `join`/`leave` in what they answer, are harmless twice. All but `publish` without a key are harmless late:
  `join` and `leave` because they are refused then (see there).
- `WaypostError("storage_full")`: refused for want of memory; nothing was written.

No call is repeated here, but for a refusal that tells the time. A cancelled call may have been carried out.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from service.core.bookmarks import Base
from service.core.entries import Durability, Page, Stretch
from service.core.history import Past, Question
from service.core.names import EntryId
from service.core.retention import Cut, Hold
from service.metrics import StoreCalls
from service.store import bookmarks, devices, groups, history, nodes, retention, streams
from service.store.connection import Link
from service.store.context import Context
from service.store.for_inspection import ForInspection
from service.store.for_jobs import ForJobs
from service.store.for_operators import ForOperators
from service.store.mailbox import MailboxReader, Reading, Received
from service.store.records import (
    BODY_INLINE_BYTES,
    Attached,
    Audited,
    Beat,
    Commit,
    DeviceSweep,
    FenceState,
    GroupState,
    GroupStep,
    JobLease,
    JobReport,
    JobState,
    Lease,
    MailboxGone,
    Member,
    Membership,
    NodeFacts,
    Notice,
    OpenedStream,
    Outcome,
    Outgoing,
    Registration,
    Role,
    StoreOptions,
    StoreRefused,
    StreamFacts,
    StreamProgress,
    Superseded,
    Survey,
    TrimCause,
    Trimmed,
    Unread,
)

__all__ = [
    "BODY_INLINE_BYTES",
    "Attached",
    "Audited",
    "Beat",
    "Commit",
    "DeviceSweep",
    "FenceState",
    "GroupState",
    "GroupStep",
    "JobLease",
    "JobReport",
    "JobState",
    "Lease",
    "MailboxGone",
    "MailboxReader",
    "Member",
    "Membership",
    "NodeFacts",
    "Notice",
    "OpenedStream",
    "Outcome",
    "Outgoing",
    "Reading",
    "Received",
    "Registration",
    "Role",
    "Store",
    "StoreOptions",
    "StoreRefused",
    "StreamFacts",
    "StreamProgress",
    "Superseded",
    "Survey",
    "TrimCause",
    "Trimmed",
    "Unread",
]

# Entries; a call of this many takes half a millisecond on a stream of a million (tests/bench/retention.py).
TRIM_STEP_ENTRIES = 250


class Store(ForJobs, ForOperators, ForInspection):
    """One process' door to the store. Made by `connect`, ended by `close`; safe for any number of tasks."""

    @classmethod
    async def connect(cls, url: str, *, options: StoreOptions) -> Self:
        """A store at `url` (redis://, rediss://, unix://). Does not connect yet, so it succeeds while Redis is away.

        Call `check_server` or `fence_state` next: until one of them succeeded, every call raises `Unavailable`.
        Raises `StoreRefused` when the URL is none.
        """
        return cls(Context(Link(url, options), options))

    async def close(self) -> None:
        """Close every pooled connection. Readers are closed on their own. May be called twice."""
        await self._context.link.close()

    async def reconnect(self) -> None:
        """Another server has answered: calls to come do not go over connections that may lead to the old one.

        May be called while others are under way. Readers are closed on their own.
        """
        await self._context.link.reconnect()

    @property
    def epoch(self) -> str:
        """The epoch this process believes in, "" until it was read. `check_server` and `fence_state` refresh it."""
        return self._context.epoch

    @property
    def run(self) -> str:
        """The run id of the server last seen by `check_server`, `fence_state` or a mailbox lease, "" before."""
        return self._context.run

    @property
    def durability(self) -> Durability:
        """What a successful write is on this server: `fsynced` only where every write is on disk before its answer."""
        return self._context.durability

    @property
    def call_numbers(self) -> StoreCalls:
        """How many calls this process has made, how they ended, and how long they took."""
        return self._context.link.calls

    def reckoned_ms(self) -> float | None:
        """What the server's clock says now, for measuring; None before `check_server`. Asks nobody."""
        return self._context.clock.now_ms()

    async def check_server(self) -> None:
        """Read what this server is and whether it may be used: policy, version, schema, epoch, durability.

        Raises `StoreRefused` for a server that evicts keys, is too old, or has another schema; `Reset` when the
        store is not (or no more wholly) there. A fence that names another run is not looked at: see `fence_state`.
        """
        await nodes.check_server(self._context)

    async def fence_state(self) -> FenceState:
        """Epoch and run of the fence and the run of the server that answers. Refreshes `epoch` and `run`.

        Raises `Reset` when a partition has no epoch or the partitions disagree about it.
        """
        return await nodes.fence_state(self._context)

    async def ping(self) -> None:
        """Cheap, for readiness: raises `Unavailable` unless the server answers."""
        await nodes.ping(self._context)

    # Streams

    async def publish(self, batch: Sequence[Outgoing], mailbox: str) -> list[Outcome]:
        """Store messages in order, in one call; `mailbox` is the caller's own, '' when it has none.

        One `Outcome` per message, in the same order. What happened to single messages (`not_member`, `no_group`,
        `rate_limited`, `key_reused`, `bad_request`, `internal`, `uncertain`) are codes there; an exception speaks of
        the whole batch. After `uncertain`, a message with a key may be repeated with it, and is completed. A repeat
        counts against no limit, and nothing does of `is_system`, which goes to any group that is there.
        """
        return await streams.publish(self._context, batch, mailbox)

    async def page(
        self, stream: str, after: EntryId, users: Sequence[str], *, max_entries: int, max_bytes: int
    ) -> Page:
        """Entries above `after`, with head, floor, redactions, ledger of the same moment. Writes nothing.

        At least one entry when there is one, then up to either limit. For a group's stream, `users` are those
        whose membership comes along.
        """
        return await streams.page(self._context, stream, after, users, max_entries=max_entries, max_bytes=max_bytes)

    async def history(self, user: str | None, question: Question, *, max_bytes: int, looked_max: int) -> Past:
        """What `user` asks of a stream's history, read in one moment; `core.history.answer` says what it means.

        None asks for a server key: the whole stream, an inbox as its owner sees it (`answer` takes the owner then).

        Only what is the user's is read: an inbox is taken for the user's own, of a group it is the stretches of
        membership. Up to `max_bytes` of entries, at least one each way that is asked for; with a partner, up to
        `looked_max` entries are looked at each way. Writes nothing. Raises `not_member` for a group that the user
        never was in, whether or not it exists, and `no_group` to a server key.
        """
        return await history.history(self._context, user, question, max_bytes=max_bytes, looked_max=looked_max)

    async def redact(self, stream: str, entry: EntryId, by: str, *, only_sender: bool) -> EntryId | None:
        """Take away the body of a message, in both inboxes when it is a direct one; the number stays.

        Returns the id of the `redacted` entry in `stream`, None when the message was redacted before. Raises
        `not_found`, and `not_allowed` with `only_sender` when it is not from `by`. Whether `by` may do it at all
        is the caller's business.
        """
        return await streams.redact(self._context, stream, entry, by, only_sender=only_sender)

    # Retention

    async def trim(
        self,
        stream: str,
        upto: EntryId | None,
        cause: TrimCause,
        *,
        keep: int = 0,
        keep_bytes: int | None = None,
        hold: Hold | None = None,
        limit: int = TRIM_STEP_ENTRIES,
    ) -> Trimmed:
        """Remove the oldest entries up to and including `upto` (None: the head), and note it in the ledger.

        One step removes at most `limit` entries; call it again while `more`. `keep` entries stay. With `keep_bytes` no
        more go than it takes to come down to so many, as far as `measure` has measured; `hold` is what an inbox keeps.
        Repeating it or coming late changes nothing. Raises `Superseded` when `cause` names a lease that somebody else
        has taken.
        """
        return await retention.trim(
            self._context, stream, upto, cause, keep=keep, keep_bytes=keep_bytes, hold=hold, limit=limit
        )

    async def survey(
        self,
        stream: str,
        upto: EntryId | None,
        *,
        keep: int = 0,
        over: int | None = None,
        hold: Hold | None = None,
        after: EntryId | None = None,
        skipped: int = 0,
        limit: int = TRIM_STEP_ENTRIES,
    ) -> Survey:
        """What one step of `trim` would remove, and how the stream stands. Writes nothing.

        Call it again while `more`, with `after` the last id it named and `skipped` the entries counted so far. `over`
        is how many bytes have to go at least (None: no matter).
        """
        return await retention.survey(
            self._context, stream, upto, keep=keep, over=over, hold=hold, after=after, skipped=skipped, limit=limit
        )

    async def ripe(self, streams: Mapping[str, Sequence[Cut]]) -> list[tuple[str, bool | None, EntryId | None]]:
        """Which of these streams have something that one of their cuts lets go, each with its oldest entry.

        None for a stream whose key cannot be read. One short call for hundreds of streams. What cuts keep, and what an
        inbox holds, is not looked at here.
        """
        return await retention.ripe(self._context, streams)

    async def measure(self, stream: str, *, limit: int = TRIM_STEP_ENTRIES) -> tuple[int, bool]:
        """Go on measuring a stream; returns the bytes above its floor so far, and whether there is more to measure.

        What was measured is remembered, so that only what is new costs anything. May be repeated.
        """
        return await retention.measure(self._context, stream, limit=limit)

    async def unread(self, stream: str, after: EntryId, to: EntryId, *, idle_before: int, devices_max: int) -> Unread:
        """What devices have not acknowledged of the numbers above `after` up to `to`, within what is their users'.

        Those seen last before `idle_before` (Redis ms) are left out. Reads the devices of everybody whom the stream is
        for, some at a time, `devices_max` at most.
        """
        return await retention.unread(
            self._context, stream, after, to, idle_before=idle_before, devices_max=devices_max
        )

    # The register

    async def attach(self, mailbox: str, wants: Sequence[Registration]) -> dict[str, Attached]:
        """Put the mailbox on the registers of streams; from then on their entries come through it.

        Answers head and floor of each stream at that moment. May be repeated; a late call with an old token
        changes nothing. A stream whose record cannot be read is missing from the answer. Raises `MailboxGone`.
        """
        return await streams.attach(self._context, mailbox, wants)

    async def detach(self, mailbox: str, wants: Sequence[Registration]) -> None:
        """Take the mailbox off registers, unless a newer token has put it there since."""
        await streams.detach(self._context, mailbox, wants)

    # Devices

    async def open_session(
        self, user: str, device: str, node: str, offsets: Mapping[str, EntryId], *, is_foreign: bool
    ) -> list[OpenedStream]:
        """Register the device and decide where each of the user's streams starts: inbox, groups, `all`.

        `offsets` are those the client brought, `is_foreign` when they belong to another epoch. A brought one
        above the stored one counts as an ack; those of streams that are not the user's are ignored. May be repeated.
        Raises `too_many_devices` for one that is not known, when the user has as many as the limit.
        """
        return await devices.open_session(self._context, user, device, node, offsets, is_foreign=is_foreign)

    async def commit(self, commits: Sequence[Commit]) -> None:
        """Store offsets, only forward, only up to the head, only of devices that are known. May be repeated."""
        await devices.commit(self._context, commits)

    async def progress(
        self, user: str, device: str, *, after: str = "", limit: int
    ) -> tuple[list[StreamProgress], str]:
        """How far a device has come in the user's streams: the inbox, `all`, groups by name. Writes nothing.

        `after` is the name that the call before has answered, "" to begin; "" is answered at the end. At most `limit`
        are looked at; groups that the user is no member of are left out. A device that is not known stands where it
        would begin. Raises `bad_request` for an `after` that was never answered.
        """
        return await devices.progress(self._context, user, device, after=after, limit=limit)

    async def keep_base(
        self, user: str, device: str, base: Base, *, origin: str, forget: Sequence[str], keep_s: float
    ) -> None:
        """Keep the base of a device's bookmarks for `keep_s`, in place of those to `forget`; see `core.bookmarks`.

        `origin` is the one that the client has until it hears of this one, "" for none. Works on a full store. May be
        repeated, and come late.
        """
        await bookmarks.keep(self._context, user, device, base, origin=origin, forget=forget, keep_s=keep_s)

    async def find_base(self, user: str, device: str, name: str) -> tuple[Base | None, str]:
        """The device's base of this name, None where there is none (any more), and how its bases are listed."""
        return await bookmarks.find(self._context, user, device, name)

    # Groups

    async def join(
        self,
        user: str,
        group: str,
        *,
        mailbox: str = "",
        origin: tuple[int, int] | None = None,
        by: str = "",
        by_key: bool = False,
        may_enter: bool = False,
        role: Role | None = None,
    ) -> Membership:
        """Make `user` a member, creating the group if need be. Joining twice adds nothing and answers the first id.

        `by` is the member who puts the user in: raises `not_member` and `not_allowed` unless that is an owner. `by_key`
        is set when a server key asks: it may enter closed groups and always create. `may_enter`: the user's own
        sign-in lets it into this group although it is closed. An owner may always come back. With `role` (only with
        `by` or `by_key`) the user gets that one, also when it is a member already; else who makes a group is its
        owner. Raises `group_closed` (also where creating is not allowed, and while a deleted group is being left),
        `group_full` and `too_many_streams`.

        Carried out within `call_timeout_s` or not at all. An `Uncertain` says how long that may still be
        (`open_for_s`): tell the user after that, and nothing comes after what the user does next.
        """
        return await groups.join(
            self._context,
            user,
            group,
            mailbox=mailbox,
            origin=origin,
            by=by,
            by_key=by_key,
            may_enter=may_enter,
            role=role,
        )

    async def leave(
        self,
        user: str,
        group: str,
        *,
        mailbox: str = "",
        origin: tuple[int, int] | None = None,
        by: str = "",
        by_key: bool = False,
    ) -> Membership:
        """End the membership. `by` is the member who removes the user, an owner; `by_key` as with `join`.

        Raises `not_member` (also when `by` is none), `not_allowed` when `by` is no owner, and `not_found` when a user
        who is to be removed is no member. As to time and `Uncertain`, see `join`.
        """
        return await groups.leave(self._context, user, group, mailbox=mailbox, origin=origin, by=by, by_key=by_key)

    async def configure_group(
        self, group: str, *, is_open: bool | None, announce: int | None, by: str, by_key: bool
    ) -> tuple[GroupState, bool]:
        """Change settings of a group (None leaves one as it is), or make the group; tells which, and how it stands.

        Whoever makes it is its owner, but no member before joining it. May be repeated; as to time, see `join`.
        Raises `not_member` and `not_allowed` unless `by` is an owner, `group_closed` where there is none and `by` may
        not create, or a deleted one still has members, and `too_many_streams` when `by` could not join it.
        """
        return await groups.configure_group(
            self._context, group, is_open=is_open, announce=announce, by=by, by_key=by_key
        )

    async def delete_group(self, group: str, *, by: str, by_key: bool) -> None:
        """Mark a group as deleted: it counts as one that does not exist, but that its members may still leave.

        The caller removes them (`members`, `leave` with `by_key`) and trims the stream; until they are gone nobody can
        make the group anew. May be repeated; as to time, see `join`. Raises `no_group` (to a key), `not_member` and
        `not_allowed`.
        """
        await groups.delete_group(self._context, group, by=by, by_key=by_key)

    async def group(self, group: str, user: str | None) -> GroupState:
        """How a group stands, for a member: raises `not_member`. None asks for a server key: raises `no_group`."""
        return await groups.group(self._context, group, user)

    async def members(self, group: str, cursor: str, count: int) -> tuple[list[Member], str]:
        """Some of the members of a group; begin with cursor "", go on with the one that is answered until it is "".

        About `count` are looked at, former members among them; a small group comes whole. Those who are members all
        the time come at least once. Empty for a group that is none. Raises `bad_request` for a cursor that is none.
        """
        return await groups.members(self._context, group, cursor, count)

    async def forget_members(self, group: str, cursor: int = 0, *, lease: str = "", token: str = "") -> int:
        """Forget stretches of membership, and former members, of which nothing can be fetched and nothing is owed.

        For whoever trims a group's stream, afterwards. One bounded step: returns the cursor of the next one, 0 when
        all members have been looked at. Harmless twice and late. Raises `Superseded` when a lease is named that
        somebody else has taken.
        """
        return await groups.forget_members(self._context, group, cursor, lease=lease, token=token)

    async def group_exists(self, group: str) -> bool:
        """Whether this group was made, and is not deleted."""
        return await groups.group_exists(self._context, group)

    async def is_member(self, user: str, group: str) -> bool:
        """Whether `user` is a member now."""
        return await groups.is_member(self._context, user, group)

    async def stretches(self, user: str, group: str) -> tuple[Stretch, ...]:
        """When `user` was a member, oldest first; empty when never, or when there is no such group."""
        return await groups.stretches(self._context, user, group)

    # Nodes

    async def create_mailbox(self, node: str) -> str:
        """A fresh mailbox for `node`, leased for `mailbox_ttl_s`. Returns its key, which is used once."""
        return await nodes.create_mailbox(self._context, node)

    async def drop_mailbox(self, mailbox: str) -> None:
        """Delete a mailbox. Registers that still name it forget it at their next entry."""
        await nodes.drop_mailbox(self._context, mailbox)

    def mailbox_reader(self) -> MailboxReader:
        """A reader with a connection of its own, for the one task that reads and leases the mailbox."""
        return MailboxReader(self._context)

    async def heartbeat(self, node: str, facts: Mapping[str, str]) -> list[str]:
        """Say that `node` lives, with facts for operators; returns the live nodes, sorted.

        Call it several times within `mailbox_ttl_s`: a node that was silent for longer is dropped.
        """
        return await nodes.heartbeat(self._context, node, facts)

    async def nodes(self) -> list[str]:
        """All nodes on the list, those included that have been silent for a while: what `reconcile` waits for."""
        return await nodes.nodes(self._context)

    async def forget_node(self, node: str) -> None:
        """Take a node off the list, when it shuts down."""
        await nodes.forget_node(self._context, node)

    async def reconcile(
        self, node: str, live: Sequence[str], heads: Mapping[str, EntryId], *, is_late: bool = False
    ) -> bool:
        """Tell a new server the ids this node knows to be given out; where it lags, the stretch is noted as lost.

        `is_late`: the node worked on another server until now. Where others have opened a partition without it, what
        it knows may be of a branch that was lost: offsets of that branch are made void.
        Returns True when every partition is open. While False, call again with the same arguments: a partition
        opens when all `live` nodes have called, or 2 s after the first call. Harmless on an open store.
        """
        return await nodes.reconcile(self._context, node, live, heads, is_late=is_late)
