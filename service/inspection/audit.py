"""What operators did: noted with every action that changes something, by whichever door it came."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from service.errors import WaypostError
from service.inspection.times import age_s, when
from service.log import Log
from service.store import Store
from service.store.sights import Action

log = Log("audit")


class AuditLine(msgspec.Struct, frozen=True):
    """Something that an operator did: `who` (`key:<id>` of a server key, `cli:<user>@<host>`, `dev` in dev mode) did
    `action` to `target`. `outcome` is `ok`, or the code of what went wrong.
    """

    id: str
    at: str
    age_s: float
    who: str
    action: str
    target: str
    reason: str
    outcome: str
    detail: str


class Audit(msgspec.Struct, frozen=True):
    """What operators did, newest first. `next` is where the following page begins, null at the end."""

    as_of: str
    actions: tuple[AuditLine, ...]
    next: str | None


async def audit(store: Store, *, before: str = "", limit: int) -> Audit:
    """A page of it, beginning below the line `before`. Raises `internal` for what is no id."""
    found = await store.actions(before, limit)
    now_ms = await store.now_ms()
    rows = tuple(
        AuditLine(
            one.id,
            when(one.at_ms),
            age_s(one.at_ms, now_ms),
            one.who,
            one.action,
            one.target,
            one.reason,
            one.outcome,
            one.detail,
        )
        for one in found
    )
    return Audit(when(now_ms), rows, rows[-1].id if len(rows) == limit else None)


class Noting:
    """What is to be noted of an action that is under way: its `outcome` and `detail` may be set."""

    def __init__(self) -> None:
        self.outcome = "ok"
        self.detail = ""
        self.target: str | None = None


@asynccontextmanager
async def noted(store: Store, who: str, action: str, target: str, reason: str = "") -> AsyncIterator[Noting]:
    """Around an action: notes it afterwards, with how it went. What went wrong is raised as it was.

    That it cannot be noted (the store went away) is logged, and undoes nothing.
    """
    noting = Noting()
    try:
        yield noting
    except WaypostError as problem:
        noting.outcome = problem.code
        raise
    except BaseException:  # broken off, or a bug: nobody knows whether it was done
        noting.outcome = "uncertain"
        raise
    finally:
        target = target if noting.target is None else noting.target
        done = Action(who, action, target, reason, noting.outcome, noting.detail)
        try:
            await store.note_action(done)
        except WaypostError as problem:
            log.warning("not_noted", detail=f"{who} {action} {target} {noting.outcome}: {problem.detail}")
