"""Who asks over HTTP, and as whom."""

from starlette.requests import Request

from service.auth import Principal, check_origin, credentials_of, may
from service.errors import WaypostError
from service.log import bind
from service.node import Node


async def caller(request: Request) -> Principal:
    """Who asks. A user's request counts against their rate.

    Raises `forbidden` for a page of an origin that may not, `unauthorised`, `expired`, `rate_limited`, and what looking
    at the sign-in raises.
    """
    node = node_of(request)
    check_origin(request, node.settings)
    principal = await node.sign_ins.door.by(credentials_of(request))
    return _counted(node, principal)


async def administrator(request: Request) -> Principal:
    """Who asks, when they may do what operators do. Raises what `caller` raises, and `not_allowed`."""
    node = node_of(request)
    check_origin(request, node.settings)
    principal = _counted(node, await node.sign_ins.door.administrator(credentials_of(request)))
    if not may(principal, "administer"):
        raise WaypostError("not_allowed", "this is for administrators and server keys with the scope `admin`")
    return principal


def _counted(node: Node, principal: Principal | None) -> Principal:
    if principal is None:
        raise WaypostError("unauthorised", "no sign-in was given")
    if principal.user:
        bind(user=principal.user)
    if principal.user and not principal.key:
        node.rates.count("requests", principal.user)
    return principal


def operator_of(principal: Principal) -> str:
    """Who somebody is in the audit: a server key, or whoever is at this machine in dev mode."""
    return f"key:{principal.key}" if principal.key else "dev"


def node_of(request: Request) -> Node:
    """The node that answers."""
    node: Node = request.app.state.node
    return node
