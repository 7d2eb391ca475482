"""The store room: the only part of the service that knows Redis. Records in and out, never raw replies.

What every method may raise, beside what it names itself:

- `Unavailable`: the store is out of reach; nothing was written. The same call may be made again.
- `Fenced`: the server is not the one the epoch key names, or the epoch is another: `fence_state`, `reconcile`.
- `Reset`: the store was emptied or never migrated. `waypost migrate up` decides, no node does.
- `Uncertain`: a write was sent and its answer is missing. All but `publish` without a key, and `redact` and
  `join`/`leave` in what they answer, are harmless twice.
- `WaypostError("storage_full")`: refused for want of memory; nothing was written.

No call is repeated here. A cancelled call may have been carried out.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from service.core.entries import Durability, Page, Stretch
from service.core.history import Past, Question
from service.core.names import EntryId
from service.store import devices, groups, history, nodes, streams
from service.store.connection import Link
from service.store.context import Context
from service.store.mailbox import MailboxReader
from service.store.records import (
    BODY_INLINE_BYTES,
    Attached,
    Beat,
    Commit,
    FenceState,
    Lease,
    MailboxGone,
    Membership,
    OpenedStream,
    Outcome,
    Outgoing,
    Registration,
    StoreOptions,
    StoreRefused,
    Superseded,
    TrimCause,
    Trimmed,
)

__all__ = [
    "BODY_INLINE_BYTES",
    "Attached",
    "Beat",
    "Commit",
    "FenceState",
    "Lease",
    "MailboxGone",
    "MailboxReader",
    "Membership",
    "OpenedStream",
    "Outcome",
    "Outgoing",
    "Registration",
    "Store",
    "StoreOptions",
    "StoreRefused",
    "Superseded",
    "TrimCause",
    "Trimmed",
]


class Store:
    """One process' door to the store. Made by `connect`, ended by `close`; safe for any number of tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context

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

        One `Outcome` per message, in the same order. What happened to single messages (`not_member`,
        `key_reused`, `bad_request`, `internal`, `uncertain`) are codes there; an exception speaks of the whole
        batch. After `uncertain`, a message with a key may be repeated with it, and is completed.
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

    async def history(self, user: str, question: Question, *, max_bytes: int, looked_max: int) -> Past:
        """What `user` asks of a stream's history, read in one moment; `core.history.answer` says what it means.

        Only what is the user's is read: an inbox is taken for the user's own, of a group it is the stretches of
        membership. Up to `max_bytes` of entries, at least one each way that is asked for; with a partner, up to
        `looked_max` entries are looked at each way. Writes nothing. Raises `not_member` for a group that the user
        never was in, whether or not it exists.
        """
        return await history.history(self._context, user, question, max_bytes=max_bytes, looked_max=looked_max)

    async def redact(self, stream: str, entry: EntryId, by: str, *, only_sender: bool) -> EntryId | None:
        """Take away the body of a message, in both inboxes when it is a direct one; the number stays.

        Returns the id of the `redacted` entry in `stream`, None when the message was redacted before. Raises
        `not_found`, and `not_allowed` with `only_sender` when it is not from `by`. Whether `by` may do it at all
        is the caller's business.
        """
        return await streams.redact(self._context, stream, entry, by, only_sender=only_sender)

    async def trim(self, stream: str, upto: EntryId, cause: TrimCause, *, limit: int = 500) -> Trimmed:
        """Remove entries up to and including `upto`, at most `limit` of them, and note it in the ledger.

        Call it again while `more`. Repeating it or coming late changes nothing. Raises `Superseded` when
        `cause` names a lease that somebody else has taken.
        """
        return await streams.trim(self._context, stream, upto, cause, limit=limit)

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
        """
        return await devices.open_session(self._context, user, device, node, offsets, is_foreign=is_foreign)

    async def commit(self, commits: Sequence[Commit]) -> None:
        """Store offsets, only forward, only up to the head, only of devices that are known. May be repeated."""
        await devices.commit(self._context, commits)

    # Groups

    async def join(
        self, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None, by_key: bool = False
    ) -> Membership:
        """Make `user` a member, creating the group if need be. Joining twice adds nothing and answers the first id.

        `by_key` is set when a server key asks: it may enter closed groups and always create. Raises
        `group_closed` (also where creating is not allowed) and `too_many_streams`.
        """
        return await groups.join(self._context, user, group, mailbox=mailbox, origin=origin, by_key=by_key)

    async def leave(self, user: str, group: str, *, mailbox: str, origin: tuple[int, int] | None) -> Membership:
        """End the membership. Raises `not_member`."""
        return await groups.leave(self._context, user, group, mailbox=mailbox, origin=origin)

    async def group_exists(self, group: str) -> bool:
        """Whether anybody ever made this group."""
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
