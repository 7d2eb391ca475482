"""A user's streams, and how far a device has come in them."""

from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import Offsets, StreamRow, Streams
from service.api.caller import caller, node_of
from service.api.problems import answer
from service.api.reading import Query, body_of, link
from service.auth import Principal, acting_device, acting_user, check_may
from service.core.frames import DEVICE_DEFAULT
from service.core.names import EntryId, check_name, group_of, had, parse_id, user_stream
from service.errors import WaypostError
from service.node import Node
from service.store import OpenedStream, StreamProgress


async def listed(request: Request) -> Response:
    """`GET /v1/streams`: the caller's streams, for a device: inbox, `all`, groups by name."""
    principal, node = await caller(request), node_of(request)
    user, query = acting_user(principal), Query(request)
    check_may(principal, "read", user_stream(user))
    device = acting_device(principal, check_name(query.text("device") or principal.device or DEVICE_DEFAULT))
    limit, after = query.limit(), query.text("after") or ""
    async with node.calls.one():
        found, onward = await node.store.progress(user, device, after=after, limit=limit)
    following = link("/v1/streams", after=onward, **query.kept(("device", "limit"))) if onward else None
    return answer(Streams(tuple(_row(progress) for progress in found), following))


def _row(progress: StreamProgress) -> StreamRow:
    missed = max(0, progress.head.n - progress.offset.n)
    return StreamRow(progress.stream, str(progress.head), str(progress.floor), str(progress.offset), missed)


async def acknowledge(request: Request) -> Response:
    """`PUT /v1/devices/{device}/offsets`: acknowledges: the device has everything up to these ids."""
    principal, node = await caller(request), node_of(request)
    user = acting_user(principal)
    check_may(principal, "acknowledge", user_stream(user))
    device = acting_device(principal, check_name(request.path_params["device"]))
    limits = node.settings.limits
    given = await body_of(request, Offsets, most=limits.frame_bytes)
    if len(given.offsets) > 2 * limits.streams_per_user + 2:
        raise WaypostError("bad_request", "more offsets than a user can have streams")
    offsets = {stream: _offset(principal, user, stream, spelt) for stream, spelt in given.offsets.items()}
    current = await _opened(node, user, device, {})
    for stream, offset in offsets.items():
        _check(stream, offset, current)
    if offsets:
        current = await _opened(node, user, device, offsets)
    stored = {
        stream: str(current[stream].offset if stream in current else offset) for stream, offset in offsets.items()
    }
    return answer(Offsets(stored))


def _offset(principal: Principal, user: str, stream: str, spelt: str) -> EntryId:
    """An offset that is one. Raises `bad_stream`, `bad_name`, `bad_id`, `not_allowed`."""
    check_may(principal, "acknowledge", stream, "an inbox is its owner's alone")
    if stream.startswith("user:") and stream != user_stream(user):
        raise WaypostError("not_allowed", "an inbox is its owner's alone")
    return parse_id(spelt)


async def _opened(node: Node, user: str, device: str, offsets: dict[str, EntryId]) -> dict[str, OpenedStream]:
    """The user's streams, once these offsets are stored. Raises `too_many_devices`."""
    async with node.calls.one():
        opened = await node.store.open_session(user, device, node.name, offsets, is_foreign=False)
    return {one.stream: one for one in opened}


def _check(stream: str, offset: EntryId, current: dict[str, OpenedStream]) -> None:
    if stream not in current:
        raise WaypostError("not_member" if group_of(stream) is not None else "not_allowed")
    head = current[stream].head
    if not had(offset, head):
        raise WaypostError("ack_beyond", f"{stream} {offset} is above the head, which is {head}")
