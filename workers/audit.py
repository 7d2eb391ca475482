"""The job `audit`: does everything that is kept agree? What has one right answer is mended; the rest is reported.

What is looked for stands in `service/store/lua/audit_streams.lua` and `audit_nodes.lua`.
"""

from service.config import Settings
from service.errors import WaypostError
from service.store import Store
from workers.runs import Run

STREAMS_A_CALL = 50  # a look at one takes some ten commands
NODE_SILENT_S = 600  # far above `mailbox_ttl_s`, after which any node that lives takes a silent one off the list itself
REPAIRS = frozenset({"head_missing", "head_behind", "floor_ahead", "register_stale"})


async def run(run: Run, store: Store, settings: Settings) -> None:
    """Looks at every stream, then at mailboxes and nodes."""
    del settings
    # Streams by their heads, and before that those that have none.
    async for letter, names in run.walk("shm"):
        try:
            if letter == "m":
                await _look_at_nodes(run, store, names)
            else:
                await _look_at_streams(run, store, names, only_headless=letter == "s")
        except WaypostError as problem:
            run.error(f"{names[0] if names else letter} and others", problem)


async def _look_at_streams(run: Run, store: Store, streams: list[str], *, only_headless: bool) -> None:
    todo = streams
    while todo:
        rows = await store.audit_streams(
            todo[:STREAMS_A_CALL], only_headless=only_headless, lease=run.lease, token=run.token
        )
        for stream, row in zip(todo, rows, strict=False):
            for one in row:
                tell = run.repaired if one.kind in REPAIRS else run.found
                tell(one.kind, f"{stream}: {one.detail}", one.count)
        todo = todo[len(rows) :]
        if not only_headless:
            run.report.streams_seen += len(rows)
        await run.breathe()


async def _look_at_nodes(run: Run, store: Store, mailboxes: list[str]) -> None:
    silent_before_ms = await store.now_ms() - NODE_SILENT_S * 1000
    deleted, silent = await store.audit_nodes(
        run.report.name, mailboxes, silent_before_ms, lease=run.lease, token=run.token
    )
    for mailbox in deleted:
        run.repaired("mailbox_without_ttl", mailbox)
    for node in silent:
        run.repaired("node_silent", node)
