"""Pages of what lies in a stream, with links to the pages next to them."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from service.api.bodies import Messages
from service.api.caller import node_of
from service.api.problems import answer
from service.api.reading import Query, link
from service.core.anchors import parse_anchor
from service.core.frames import HISTORY_LIMIT_DEFAULT
from service.core.history import History, ask, owner_of
from service.node.history import history_frame

KEPT = ("with", "limit")  # of a query, in its links


async def page_of(request: Request, path: str, stream: str, user: str | None) -> Response:
    """The page of `stream` that the query asks for, as `user` sees it; None: whole. `path` has a place for the stream.

    Raises `bad_stream`, `bad_name`, `bad_request`, `bad_anchor`, `not_allowed`, `not_member`, `no_group`.
    """
    query = Query(request)
    anchor = parse_anchor(*(query.anchor(side) for side in ("after", "before", "around")))
    whose = owner_of(stream) if user is None else user
    question = ask(stream, whose, anchor, query.limit(HISTORY_LIMIT_DEFAULT), query.text("with"))
    found = await node_of(request).histories.read(user, question)
    told = history_frame(stream, found)
    values = {name: getattr(told, name) for name in told.__struct_fields__ if name != "ref"}
    here, kept = path.format(quote(stream, safe=":")), query.kept(KEPT)
    after, before = _after(found), _before(found)
    return answer(
        Messages(
            **values,
            next=None if after is None else link(here, after=after, **kept),
            prev=None if before is None else link(here, before=before, **kept),
        )
    )


def _after(found: History) -> str | None:
    """After what the page begins that follows, None when nothing does. Where no entry is shown, a number says it:
    nobody knows the id of what lies in a gap.
    """
    if found.found_newest:
        return None
    is_shown = found.entries and found.entries[-1].id == found.last
    return str(found.last if is_shown else found.high.n)


def _before(found: History) -> str | None:
    """Before what the page ends that comes before, in the same way."""
    if found.found_oldest:
        return None
    is_shown = found.entries and found.entries[0].id == found.first
    return str(found.first if is_shown else found.low.n + 1)
