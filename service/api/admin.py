"""`/v1/admin/…`: what operators ask, and do."""

from datetime import UTC, datetime
from typing import Literal, get_args

from starlette.requests import Request
from starlette.responses import Response

from service.api import histories
from service.api.bodies import NodeRow, Nodes, StreamFacts, StreamNames
from service.api.caller import administrator, node_of
from service.api.problems import answer, empty
from service.api.reading import Query, link
from service.core.names import check_name, parse_stream
from service.errors import WaypostError
from service.store import Notice

Kind = Literal["user", "group", "all", ""]  # of streams; "" for all of them
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


async def nodes(request: Request) -> Response:
    """`GET /v1/admin/nodes`: the nodes on the list, and what they said of themselves."""
    await administrator(request)
    node = node_of(request)
    async with node.calls.one():
        found = await node.store.node_facts()
    return answer(Nodes(tuple(NodeRow(one.node, _time(one.last_seen), one.facts) for one in found)))


async def streams(request: Request) -> Response:
    """`GET /v1/admin/streams`: the names of all streams, in no order."""
    await administrator(request)
    node, query = node_of(request), Query(request)
    kind, limit, after = query.text("kind") or "", query.limit(), query.text("after") or ""
    if kind not in KINDS:
        raise WaypostError("bad_request", f"kind is to be one of {', '.join(filter(None, KINDS))}")
    async with node.calls.one():
        names, onward = await node.store.streams_page(after, limit, KINDS[kind])
    following = link("/v1/admin/streams", after=onward, **query.kept(("kind", "limit"))) if onward else None
    return answer(StreamNames(tuple(names), following))


async def stream(request: Request) -> Response:
    """`GET /v1/admin/streams/{stream}`: how a stream stands."""
    await administrator(request)
    node, name = node_of(request), request.path_params["stream"]
    parse_stream(name)
    async with node.calls.one():
        facts = await node.store.stream_facts(name)
    told = StreamFacts(
        stream=facts.stream,
        head=str(facts.head),
        floor=str(facts.floor),
        entries=facts.entries,
        bytes=facts.bytes,
        oldest=None if facts.oldest is None else str(facts.oldest),
        newest=None if facts.newest is None else str(facts.newest),
        members=facts.members,
        nodes=facts.nodes,
    )
    return answer(told)


async def entries(request: Request) -> Response:
    """`GET /v1/admin/streams/{stream}/entries`: what lies in a stream, whole."""
    await administrator(request)
    return await histories.page_of(request, "/v1/admin/streams/{}/entries", request.path_params["stream"], None)


async def disconnect(request: Request) -> Response:
    """`DELETE /v1/admin/users/{user}/connections`: ends a user's connections. 202: every node was told."""
    await administrator(request)
    node, user = node_of(request), check_name(request.path_params["user"])
    device = Query(request).text("device")
    notice = Notice("disconnect", user=user, device="" if device is None else check_name(device))
    async with node.calls.one():
        await node.store.tell_nodes(notice)
    return empty(202)


def _time(ms: int) -> str:
    """Redis time in ms as RFC 3339."""
    text = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
