"""Groups and their members."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import Group, GroupSettings, Member, Members, NewMember
from service.api.caller import caller, node_of, operator_of
from service.api.problems import answer, empty
from service.api.reading import Query, body_of, link, reason_of
from service.auth import Action, Principal, check_may, may
from service.core.names import check_name, group_stream
from service.inspection import noted
from service.store import GroupState
from service.store import Member as StoredMember


async def _asked(request: Request, action: Action, *, is_change: bool = False) -> tuple[Principal, str, str]:
    """Who asks, the group, and the user whom the store is to judge, "" for a server key. Raises what `caller` does,
    `bad_name`, `not_allowed`.
    """
    principal, group = await caller(request), check_name(request.path_params["group"])
    check_may(principal, action, group_stream(group))
    if is_change and not principal.key:
        node_of(request).rates.count("joins", principal.user)
    return principal, group, "" if principal.key else principal.user


async def look(request: Request) -> Response:
    """`GET /v1/groups/{group}`: how a group stands, for its members."""
    _, group, by = await _asked(request, "read")
    return answer(_told(await node_of(request).groups.look(group, by)))


async def configure(request: Request) -> Response:
    """`PUT /v1/groups/{group}`: changes the settings of a group, or makes it (201)."""
    _, group, by = await _asked(request, "manage", is_change=True)
    node = node_of(request)
    given = await body_of(request, GroupSettings, most=node.settings.limits.frame_bytes, may_be_empty=True)
    state, is_new = await node.groups.configure(group, by, is_open=given.open, announce=given.announce)
    return answer(_told(state), 201 if is_new else 200)


async def delete(request: Request) -> Response:
    """`DELETE /v1/groups/{group}`: ends a group."""
    principal, group, by = await _asked(request, "manage", is_change=True)
    node = node_of(request)
    if principal.key:
        who, reason = operator_of(principal), reason_of(Query(request))
        async with noted(node.store, who, "group_end", group_stream(group), reason):
            await node.groups.delete(group, by)
    else:
        await node.groups.delete(group, by)
    return empty(204)


async def members(request: Request) -> Response:
    """`GET /v1/groups/{group}/members`: who is in a group, for its members."""
    _, group, by = await _asked(request, "read")
    query = Query(request)
    limit, after = query.limit(), query.text("after") or ""
    found, onward = await node_of(request).groups.members(group, by, after, limit)
    path = f"/v1/groups/{quote(group, safe=':')}/members"
    following = link(path, after=onward, **query.kept(("limit",))) if onward else None
    return answer(Members(tuple(_member(member) for member in found), following))


async def member(request: Request) -> Response:
    """`GET /v1/groups/{group}/members/{user}`: one member of a group."""
    _, group, by = await _asked(request, "read")
    user = check_name(request.path_params["user"])
    return answer(_member(await node_of(request).groups.member(group, user, by)))


async def put_in(request: Request) -> Response:
    """`PUT /v1/groups/{group}/members/{user}`: makes somebody a member (201), or gives a member a role."""
    principal, group, by = await _asked(request, "join", is_change=True)
    user, node = check_name(request.path_params["user"]), node_of(request)
    check_may(principal, "join" if user == by else "manage", group_stream(group))
    given = await body_of(request, NewMember, most=node.settings.limits.frame_bytes, may_be_empty=True)
    may_enter = may(principal, "enter", group_stream(group))
    found, is_new = await node.groups.put_in(group, user, by, role=given.role, may_enter=may_enter)
    return answer(_member(found), 201 if is_new else 200)


async def take_out(request: Request) -> Response:
    """`DELETE /v1/groups/{group}/members/{user}`: leaves a group, or removes somebody from it."""
    principal, group, by = await _asked(request, "join", is_change=True)
    user = check_name(request.path_params["user"])
    check_may(principal, "join" if user == by else "manage", group_stream(group))
    await node_of(request).groups.take_out(group, user, by)
    return empty(204)


def _told(state: GroupState) -> Group:
    return Group(
        group=state.group,
        open=state.is_open,
        announce=state.announce,
        members=state.members,
        head=str(state.head),
        floor=str(state.floor),
        role=state.role,
        since=None if state.since is None else str(state.since),
    )


def _member(member: StoredMember) -> Member:
    return Member(member.user, member.role, str(member.since))
