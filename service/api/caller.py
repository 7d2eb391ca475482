"""Who asks over HTTP, and as whom."""

from starlette.requests import Request

from service.auth import Action, Principal, check_origin, credentials_of, may
from service.auth.permissions import SCOPE_FOR
from service.core.names import parse_stream
from service.errors import WaypostError
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
    if principal.user and not principal.key:
        node.rates.count("requests", principal.user)
    return principal


def node_of(request: Request) -> Node:
    """The node that answers."""
    node: Node = request.app.state.node
    return node


def acting_user(principal: Principal) -> str:
    """As whom the caller asks. Raises `bad_request` for a server key that names nobody."""
    if not principal.user:
        raise WaypostError("bad_request", "a server key acts for nobody in particular: ?user=<id> says for whom")
    return principal.user


def acting_device(principal: Principal, named: str) -> str:
    """The device that is asked for, when the sign-in may be it. Raises `forbidden`."""
    if principal.device not in (None, named):
        raise WaypostError("forbidden", "the token is for another device")
    return named


def check_may(principal: Principal, action: Action, stream: str, why: str = "not allowed with this sign-in") -> None:
    """Raises `not_allowed`, with `why` for a user, and `bad_stream`, `bad_name` for what is no stream."""
    parse_stream(stream)
    if not may(principal, action, stream):
        lacks = f"the server key lacks the scope `{SCOPE_FOR[action]}`"
        raise WaypostError("not_allowed", lacks if principal.key else why)
