"""Why has somebody not got a message? One verdict, and what it rests on: only what the store keeps, nothing guessed.

The first that is so of: the id was never given out (`no_such_entry`), the stream is not for this user (`not_yours`,
`not_member_then`), the message was redacted. Then each device has a verdict, and the one in all is
`delivered_acknowledged` when every device has that, else that of the device that was seen last without it.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from service.core.entries import Removal
from service.core.history import is_of
from service.core.names import ALL, EntryId, check_name, parse_id, parse_stream, user_stream
from service.inspection.devices import DEVICES_MAX, is_connected
from service.inspection.entries import EntryView, LedgerLine, ledger_line, view
from service.inspection.lag import stands_at
from service.inspection.times import age_s, when, when_or_none
from service.store import Store
from service.store.sights import DeviceSight, EntryEvidence, UserSight

Verdict = Literal[
    "delivered_acknowledged",
    "waiting_offline",
    "waiting_behind",
    "waiting_unknown",
    "before_device",
    "not_member_then",
    "not_yours",
    "redacted",
    "trimmed",
    "lost",
    "no_such_entry",
    "no_devices",
    "epoch",
]

SAYS: dict[Verdict, str] = {
    "delivered_acknowledged": "acknowledged: it has arrived",
    "waiting_offline": "not acknowledged, and the device is not connected: it comes when the device does",
    "waiting_behind": "not acknowledged though the device is connected: behind, or its client does not acknowledge",
    "waiting_unknown": "not acknowledged; which of this user's devices is connected is not recorded",
    "before_device": "it was stored before this device began to follow the stream, so it is never told of it",
    "not_member_then": "the user was no member of the group at that number",
    "not_yours": "an inbox is its owner's alone: this user never gets it",
    "redacted": "its body was taken away; the number stays, and devices are told",
    "trimmed": "it was removed by retention before the device had it; the device is told of a gap",
    "lost": "the store lost it (restarted or restored with less); the device is told of a gap",
    "no_such_entry": "this stream never had an entry of this id",
    "no_devices": "the user has no device: nobody ever signed in, or all were forgotten",
    "epoch": "the offset is of another history of the store: the device is told of a gap, and begins anew",
}

NOT_RECORDED = (
    "when it was written to a socket is not recorded: only what a device has acknowledged",
    "that a client is connected is known to within the time that a node stays on the register after it left",
)


class DeviceVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A device and the message. `connected`: see `Device`. `behind_by`: numbers from its offset up to the message."""

    device: str
    verdict: Verdict
    says: str
    offset: str | None
    behind_by: int
    last_seen: str | None
    idle_s: float | None
    node: str
    connected: bool | None


class Membership(msgspec.Struct, frozen=True):
    """A time of membership; `left` is null while it lasts."""

    joined: str
    left: str | None


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict, and its evidence. `entry` is null where it is not there any more; `removal` is the line of the
    ledger that covers it; `nodes` are on the stream's register now, `user_nodes` on that of the user's inbox;
    `memberships` is null where the stream is no group's. `not_recorded` says what nobody can know.
    """

    stream: str
    id: str
    user: str
    as_of: str
    verdict: Verdict
    says: str
    head: str
    floor: str
    entry: EntryView | None
    redacted_by: str | None
    redacted_at: str | None
    removal: LedgerLine | None
    memberships: tuple[Membership, ...] | None
    nodes: tuple[str, ...]
    user_nodes: tuple[str, ...]
    devices: tuple[DeviceVerdict, ...]
    devices_count: int
    not_recorded: tuple[str, ...] = NOT_RECORDED


async def why(store: Store, stream: str, entry: str, user: str) -> Why:
    """What became of a message for a user. Raises `bad_stream`, `bad_name`, `bad_id`."""
    parse_stream(stream)
    check_name(user)
    at = parse_id(entry)
    # The devices first: what is acknowledged afterwards was there.
    sight = await store.user_sight(user, DEVICES_MAX)
    found = await store.evidence(stream, at, user)
    alive = {node.node for node in await store.node_facts() if node.facts}
    return judge(stream, at, found, sight, alive)


def judge(stream: str, at: EntryId, found: EntryEvidence, sight: UserSight, alive: set[str]) -> Why:
    """The verdict, of what was read."""
    bounds = found.bounds
    user_nodes = tuple(node for node in sight.streams[user_stream(sight.user)].nodes if node in alive)
    removal = removal_of(at, found.removals) if found.entry is None else None
    state = entry_state(at, found, removal)
    devices = tuple(
        _device(device, at, state, found=found, sight=sight, user_nodes=user_nodes) for device in sight.devices
    )
    verdict = _in_all(stream, at, state, found=found, user=sight.user, devices=devices)
    redaction = found.redaction
    return Why(
        stream=stream,
        id=str(at),
        user=sight.user,
        as_of=when(sight.now_ms),
        verdict=verdict,
        says=SAYS[verdict],
        head=str(bounds.head),
        floor=str(bounds.floor),
        entry=None if found.entry is None else view(found.entry, sight.now_ms, bodies=False),
        redacted_by=None if redaction is None else redaction.by,
        redacted_at=None if redaction is None else when(redaction.at),
        removal=None if removal is None else ledger_line(removal, sight.now_ms),
        memberships=None
        if bounds.stretches is None
        else tuple(
            Membership(str(one.joined), None if one.left is None else str(one.left)) for one in bounds.stretches
        ),
        nodes=tuple(node for node in bounds.nodes if node in alive),
        user_nodes=user_nodes,
        devices=devices if verdict not in ("no_such_entry", "not_yours", "not_member_then") else (),
        devices_count=sight.devices_count,
    )


State = Literal["there", "redacted", "trimmed", "lost", "no_such_entry"]


def removal_of(at: EntryId, removals: Sequence[Removal]) -> Removal | None:
    """The line of the ledger that covers a number: the newest."""
    return next((line for line in reversed(removals) if line.after.n < at.n <= line.to.n), None)


def entry_state(at: EntryId, found: EntryEvidence, removal: Removal | None) -> State:
    """What became of the entry itself."""
    head, floor = found.bounds.head, found.bounds.floor
    if found.entry is not None:
        return "there"
    if found.redaction is not None:
        return "redacted"
    if found.other is not None or at.n > head.n or at.ms > head.ms or not at.n:
        return "no_such_entry"
    if removal is not None:
        return "lost" if removal.kind == "lost" else "trimmed"
    # Behind the floor without a line: the ledger is capped. Above it without a trace: deleted by hand.
    return "trimmed" if at.n <= floor.n else "lost"


def _device(
    device: DeviceSight,
    at: EntryId,
    state: State,
    *,
    found: EntryEvidence,
    sight: UserSight,
    user_nodes: tuple[str, ...],
) -> DeviceVerdict:
    bounds = found.bounds
    stored = device.offsets.get(bounds.stream)
    connected = is_connected(device, sight.devices, user_nodes)
    verdict = _of_device(device, at, state, found, connected=connected)
    return DeviceVerdict(
        device=device.device,
        verdict=verdict,
        says=SAYS[verdict],
        offset=None if stored is None else str(stored[0]),
        behind_by=max(0, at.n - stands_at(device, bounds).n),
        last_seen=when_or_none(device.last_seen),
        idle_s=None if device.last_seen is None else age_s(device.last_seen, sight.now_ms),
        node=device.node,
        connected=connected,
    )


def _of_device(
    device: DeviceSight, at: EntryId, state: State, found: EntryEvidence, *, connected: bool | None
) -> Verdict:
    stored = device.offsets.get(found.bounds.stream)
    if stored is not None and (stored[0] > found.bounds.head or stored[0].n > found.bounds.head.n):
        return "epoch"
    if stored is not None and stored[0].n >= at.n:
        first = device.first_seen
        # `all` begins at its head for a new device: what lies below was never for it.
        if found.bounds.stream == ALL and first is not None and at.ms < first:
            return "before_device"
        return "delivered_acknowledged"
    if stored is None and found.bounds.stream == ALL:
        return "before_device"
    if state in ("redacted", "trimmed", "lost"):
        return state
    if connected is None:
        return "waiting_unknown"
    return "waiting_behind" if connected else "waiting_offline"


def _in_all(
    stream: str, at: EntryId, state: State, *, found: EntryEvidence, user: str, devices: Sequence[DeviceVerdict]
) -> Verdict:
    kind, owner = parse_stream(stream)
    if kind == "user" and owner != user:
        return "not_yours"
    if found.group_exists is False or state == "no_such_entry":
        return "no_such_entry"
    if found.bounds.stretches is not None and not is_of(found.bounds.stretches, at):
        return "not_member_then"
    if state == "redacted":
        return "redacted"
    if not devices:
        return state if state in ("trimmed", "lost") else "no_devices"
    rest = [one for one in devices if one.verdict not in ("delivered_acknowledged", "before_device")]
    if rest:
        return rest[0].verdict
    acknowledged = any(one.verdict == "delivered_acknowledged" for one in devices)
    return "delivered_acknowledged" if acknowledged else "before_device"
