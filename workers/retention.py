"""The job `retention`: every stream by its policy."""

from service.config import Settings
from service.store import Store
from workers.runs import Run


async def run(run: Run, store: Store, settings: Settings) -> None:
    """Looks at every stream."""
    del store, settings
    async for _, streams in run.walk("s"):
        run.report.streams_seen += len(streams)
