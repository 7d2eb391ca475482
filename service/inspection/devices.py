"""The devices of a user: where each stands in every stream, and what it would lose if it stayed away."""

from collections.abc import Collection

import msgspec

from service.config import Settings
from service.core.names import check_name, user_stream
from service.core.retention import policy_of
from service.inspection.lag import Lag, lag, stands_at, unread_after, with_loss
from service.inspection.times import age_s, id_or_none, when, when_or_none
from service.store import Store
from service.store.sights import DeviceSight, StreamBounds, UserSight

DEVICES_MAX = 50  # that are looked at, those seen last: of one who has more, the rest has not been used for long


class DeviceStream(msgspec.Struct, frozen=True, kw_only=True):
    """A device in a stream. `offset` is what it has acknowledged, null where it never did.

    `lag_messages`: numbers that it has not acknowledged (`joined`, `left`, redacted ones among them), `gone` of them
    removed by now. `first_unread`: the first of them that is there; `lag_s` from that to the head, `waiting_s` from
    that to now. `loses_at`: when the policy begins to take what it lacks, by the limit `loses_by`. `is_member` is null
    where the stream is no group's. `epoch_differs`: the offset is of an earlier history of the store.
    """

    stream: str
    offset: str | None
    head: str
    floor: str
    lag_messages: int
    gone: int
    first_unread: str | None
    lag_s: float
    waiting_s: float
    loses_at: str | None
    loses_in_s: float | None
    loses_by: str
    policy: str
    is_member: bool | None
    epoch_differs: bool


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device. `node` is that of its latest `hello`. `connected` is false when no node has anybody of this user
    connected, or not the node of this device; true when that node has and no other device was there last; null when
    several were there: which of them is connected is not recorded. A node stays on the register for `detach_linger_s`
    after the last connection. `lag_messages` is the sum over its streams, `waiting_s` the longest of them.
    """

    device: str
    first_seen: str | None
    last_seen: str | None
    idle_s: float | None
    node: str
    connected: bool | None
    lag_messages: int
    waiting_s: float
    streams: tuple[DeviceStream, ...]


class Devices(msgspec.Struct, frozen=True):
    """A user's devices, those seen last first; `devices_count` is how many there are in all. `nodes` have somebody of
    this user connected.
    """

    user: str
    as_of: str
    devices_count: int
    nodes: tuple[str, ...]
    devices: tuple[Device, ...]


async def devices(store: Store, settings: Settings, user: str) -> Devices:
    """The devices of a user, none for a user that the store does not know. Raises `bad_name`."""
    check_name(user)
    sight = await store.user_sight(user, DEVICES_MAX)
    alive = {node.node for node in await store.node_facts() if node.facts}
    nodes = tuple(node for node in sight.streams[user_stream(user)].nodes if node in alive)
    asked = []
    for device in sight.devices:
        for stands in sight.streams.values():
            after = unread_after(stands_at(device, stands), stands.head, stands.stretches)
            if after is not None:
                asked.append(((device.device, stands.stream), (stands.stream, after)))
    firsts = await store.first_above([one for _, one in asked])
    first_of = {key: first for (key, _), first in zip(asked, firsts, strict=True)}
    found = []
    for device in sight.devices:
        rows = []
        for stands in sight.streams.values():
            how_far = lag(
                stands_at(device, stands),
                stands.head,
                stands.floor,
                stands.stretches,
                first=first_of.get((device.device, stands.stream)),
                now_ms=sight.now_ms,
            )
            rows.append(_row(device, stands, how_far, sight, settings))
        found.append(_device(device, rows, sight, nodes))
    return Devices(user, when(sight.now_ms), sight.devices_count, nodes, tuple(found))


def _row(device: DeviceSight, stands: StreamBounds, found: Lag, sight: UserSight, settings: Settings) -> DeviceStream:
    stored = device.offsets.get(stands.stream)
    policy = policy_of(stands.stream, settings.retention.policies)
    told = with_loss(
        found, stands.stream, stands.head, policy, last_seen=device.last_seen, idle_s=settings.retention.device_idle_max
    )
    return DeviceStream(
        stream=stands.stream,
        offset=None if stored is None else str(stored[0]),
        head=str(stands.head),
        floor=str(stands.floor),
        lag_messages=told.messages,
        gone=told.gone,
        first_unread=id_or_none(told.first),
        lag_s=told.lag_s,
        waiting_s=told.waiting_s,
        loses_at=when_or_none(told.loses_ms),
        loses_in_s=None if told.loses_ms is None else age_s(sight.now_ms, told.loses_ms),
        loses_by=told.loses_by,
        policy=policy.match,
        is_member=None if stands.stretches is None else stands.stretches[-1].left is None,
        epoch_differs=stored is not None and stored[1] != sight.epoch,
    )


def _device(device: DeviceSight, rows: list[DeviceStream], sight: UserSight, nodes: Collection[str]) -> Device:
    return Device(
        device=device.device,
        first_seen=when_or_none(device.first_seen),
        last_seen=when_or_none(device.last_seen),
        idle_s=None if device.last_seen is None else age_s(device.last_seen, sight.now_ms),
        node=device.node,
        connected=is_connected(device, sight.devices, nodes),
        lag_messages=sum(row.lag_messages for row in rows),
        waiting_s=max((row.waiting_s for row in rows), default=0.0),
        streams=tuple(rows),
    )


def is_connected(device: DeviceSight, all_devices: Collection[DeviceSight], nodes: Collection[str]) -> bool | None:
    """See `Device`."""
    if device.node not in nodes:
        return False
    return True if sum(other.node == device.node for other in all_devices) == 1 else None
