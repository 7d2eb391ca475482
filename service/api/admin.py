"""`/v1/admin/…`: what operators ask, and do."""

from typing import Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service import inspection, trimming
from service.api import histories
from service.api.bodies import StreamNames
from service.api.caller import administrator, node_of, operator_of
from service.api.problems import answer, empty
from service.api.reading import Query, link, reason_of
from service.core.names import check_name, parse_id, parse_stream
from service.errors import WaypostError
from service.store import Notice

Kind = Literal["user", "group", "all", ""]  # of streams; "" for all of them
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


async def nodes(request: Request) -> Response:
    """`GET /v1/admin/nodes`: the nodes on the list, and what they said of themselves."""
    await administrator(request)
    node = node_of(request)
    async with node.calls.one():
        return answer(await inspection.nodes(node.store))


async def streams(request: Request) -> Response:
    """`GET /v1/admin/streams`: the names of all streams, in no order; with `facts=1` how each stands."""
    await administrator(request)
    node, query = node_of(request), Query(request)
    kind, limit, after = query.text("kind") or "", query.limit(), query.text("after") or ""
    part, facts = query.text("part") or "", query.text("facts") or "0"
    if kind not in KINDS:
        raise WaypostError("bad_request", f"kind is to be one of {', '.join(filter(None, KINDS))}")
    if facts not in ("0", "1"):
        raise WaypostError("bad_request", "facts is to be 0 or 1")
    rows = None
    async with node.calls.one():
        names, onward = await node.store.streams_page(after, limit, KINDS[kind], part)
        if facts == "1":
            rows = await inspection.stream_views(node.store, node.settings, names, await node.store.now_ms())
    kept = query.kept(("kind", "limit", "part", "facts"))
    return answer(StreamNames(tuple(names), link("/v1/admin/streams", after=onward, **kept) if onward else None, rows))


async def stream(request: Request) -> Response:
    """`GET /v1/admin/streams/{stream}`: how a stream stands."""
    await administrator(request)
    node, name = node_of(request), request.path_params["stream"]
    parse_stream(name)
    async with node.calls.one():
        return answer(await inspection.stream_view(node.store, node.settings, name))


async def entries(request: Request) -> Response:
    """`GET /v1/admin/streams/{stream}/entries`: what lies in a stream, whole."""
    await administrator(request)
    return await histories.page_of(request, "/v1/admin/streams/{}/entries", request.path_params["stream"], None)


async def devices(request: Request) -> Response:
    """`GET /v1/admin/users/{user}/devices`: a user's devices, and what each has not got."""
    await administrator(request)
    node, user = node_of(request), check_name(request.path_params["user"])
    async with node.calls.one():
        return answer(await inspection.devices(node.store, node.settings, user))


async def disconnect(request: Request) -> Response:
    """`DELETE /v1/admin/users/{user}/connections`: ends a user's connections. 202: every node was told."""
    principal = await administrator(request)
    node, user, query = node_of(request), check_name(request.path_params["user"]), Query(request)
    device = query.text("device")
    notice = Notice("disconnect", user=user, device="" if device is None else check_name(device))
    target = user if device is None else f"{user}/{device}"
    async with (
        inspection.noted(node.store, operator_of(principal), "disconnect", target, reason_of(query)),
        node.calls.one(),
    ):
        await node.store.tell_nodes(notice)
    return empty(202)


async def jobs(request: Request) -> Response:
    """`GET /v1/admin/jobs`: the scheduled jobs, and their last runs."""
    await administrator(request)
    node = node_of(request)
    async with node.calls.one():
        return answer(await inspection.jobs(node.store, node.settings))


async def plan(request: Request) -> Response:
    """`GET /v1/admin/retention/plan`: what retention would remove now, from one stream or from all."""
    await administrator(request)
    node, name = node_of(request), Query(request).text("stream")
    if name is not None:
        parse_stream(name)
    async with node.calls.one():
        made = await trimming.plan(node.store, node.settings.retention, None if name is None else [name])
    return answer(made)


async def audit(request: Request) -> Response:
    """`GET /v1/admin/audit`: what operators did, newest first."""
    await administrator(request)
    node, query = node_of(request), Query(request)
    limit, after = query.limit(), query.text("after") or ""
    if after:
        parse_id(after)
    async with node.calls.one():
        found = await inspection.audit(node.store, before=after, limit=limit)
    if found.next is not None:
        onward = link("/v1/admin/audit", after=found.next, **query.kept(("limit",)))
        found = msgspec.structs.replace(found, next=onward)
    return answer(found)


async def why(request: Request) -> Response:
    """`GET /v1/admin/why`: what became of a message for a user."""
    await administrator(request)
    node, query = node_of(request), Query(request)
    said = {name: query.text(name) for name in ("stream", "id", "user")}
    lacking = [name for name, text in said.items() if not text]
    if lacking:
        raise WaypostError("bad_request", f"say {', '.join(lacking)}")
    async with node.calls.one():
        return answer(await inspection.why(node.store, said["stream"] or "", said["id"] or "", said["user"] or ""))


async def survey(request: Request) -> Response:
    """`GET /v1/admin/survey`: what the job `survey` found: totals, the foremost streams, the devices most behind."""
    await administrator(request)
    node, query = node_of(request), Query(request)
    sort, limit = query.text("sort") or "lag", query.limit()
    found = next((order for order in inspection.ORDERS if order == sort), None)
    if found is None:
        raise WaypostError("bad_request", f"sort is to be one of {', '.join(inspection.ORDERS)}")
    async with node.calls.one():
        return answer(await inspection.survey(node.store, node.settings, found, limit=limit))
