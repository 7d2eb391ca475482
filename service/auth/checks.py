"""What doors ask of a caller before they go on. Each raises what the caller is told."""

from starlette.requests import HTTPConnection

from service.auth.permissions import SCOPE_FOR, Action, may
from service.auth.principal import Principal
from service.core.names import parse_stream
from service.errors import WaypostError


def given_once(visit: HTTPConnection, name: str, *, refusal: str = "bad_request") -> str | None:
    """A parameter of the query, None when it is not there. Raises `refusal` when it is there twice."""
    given = visit.query_params.getlist(name)
    if len(given) > 1:
        raise WaypostError(refusal, f"{name} is given twice")
    return given[0] if given else None


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
