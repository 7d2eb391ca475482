"""The job `groups`: forget former members of whom nobody needs anything; drop groups that all have left,
`group_empty_max` after the last of them.

A former member's device that has not yet fetched everything of its user's time in the group is owed that, or a gap:
the group stays until every such device has come by, or is forgotten (the job `devices`). Only then is its stream
emptied, and then nobody misses anything. The head is kept: should the group ever be made again, no number of it is
given out twice.
"""

from service.config import Settings
from service.core.names import EntryId, group_stream
from service.core.retention import duration_text
from service.errors import WaypostError
from service.store import Store, TrimCause
from workers.runs import Run

MEMBERS_A_CALL = 100  # former members whose devices one call looks at; a large group takes several
POLICY = "groups"  # whom the ledger names as the cause
_BEYOND = EntryId(2**53 - 1, 2**53 - 1)  # counts as the head


async def run(run: Run, store: Store, settings: Settings) -> None:
    """Looks at every group."""
    empty_max = settings.retention.group_empty_max
    async for _, groups in run.walk("g"):
        before_ms = await store.now_ms() - empty_max * 1000
        run.report.groups_seen += len(groups)
        for group in groups:
            try:
                await _forget(run, store, group)
            except WaypostError as problem:
                run.error(f"group {group}", problem)
        for group in await store.empty_groups(groups, before_ms):
            try:
                await _drop(run, store, group, before_ms, f"group_empty_max={duration_text(empty_max)}")
            except WaypostError as problem:
                run.error(f"group {group}", problem)


async def _forget(run: Run, store: Store, group: str) -> None:
    """Who joins or leaves is looked at then and there; who left for good is looked at here."""
    cursor = await store.forget_members(group)
    while cursor:
        await run.breathe()
        cursor = await store.forget_members(group, cursor)


async def _drop(run: Run, store: Store, group: str, before_ms: int, limit: str) -> None:
    """Look at all former members first: nothing is taken away from a group that has to stay."""
    if not await _pass(run, store, group, before_ms, is_drop=False):
        return
    await _empty(run, store, group, limit)
    if await _pass(run, store, group, before_ms, is_drop=True):
        run.report.groups_dropped += 1


async def _pass(run: Run, store: Store, group: str, before_ms: int, *, is_drop: bool) -> bool:
    """All former members, some at a time. Returns whether none of them stands in the way; the group is gone then."""
    cursor, users, is_last = "", list[str](), False
    while True:
        while len(users) < MEMBERS_A_CALL and not is_last:
            more, cursor = await store.former_members(group, cursor, MEMBERS_A_CALL)
            users += more
            is_last = not cursor
        step = await store.drop_group(
            group, users[:MEMBERS_A_CALL], before_ms, is_drop=is_drop, lease=run.lease, token=run.token
        )
        if step.status == "unreadable":
            run.found("membership_unreadable", f"{step.user} in {group}")
        if step.status == "dropped":
            return True
        if step.status not in ("clear", "more"):
            return False
        await run.breathe()
        del users[: step.looked]
        if is_last and not users:
            # Records came to light that the walk did not show: the next run takes them.
            return step.status == "clear"


async def _empty(run: Run, store: Store, group: str, limit: str) -> None:
    cause = TrimCause(POLICY, limit, run=run.id, lease=run.lease, token=run.token)
    removed = 0
    while True:
        trimmed = await store.trim(group_stream(group), _BEYOND, cause)
        removed += trimmed.removed
        if not trimmed.more:
            break
        await run.breathe()
    run.report.entries_removed += removed
    run.report.streams_trimmed += 1 if removed else 0
