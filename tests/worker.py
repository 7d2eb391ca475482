"""What tests of real worker processes share: starting `waypost worker`, and looking at what its runs leave."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from service.store import JobReport, Store


class WorkerProcess:
    """`waypost worker` against a store that somebody else runs."""

    def __init__(self, redis_url: str, *, environ: Mapping[str, str] | None = None, **settings: object) -> None:
        self.output = Path(tempfile.mkstemp(prefix="wp-worker-")[1])
        self._environ = {key: value for key, value in os.environ.items() if not key.startswith("WAYPOST_")}
        self._environ |= {"WAYPOST_REDIS_URL": redis_url, **(environ or {})}
        self._environ |= {f"WAYPOST_{key.upper()}": str(value) for key, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "worker"], env=self._environ, stdout=output, stderr=output
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ends(self, seconds: float = 20) -> int:
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        return code

    def stop(self) -> int:
        """Ends it as an operator would; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.ends()

    def remove(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.ends()
        self.output.unlink()


async def reports(store: Store, count: int, seconds: float = 20) -> list[JobReport]:
    """All reports, oldest first, as soon as there are so many."""
    try:
        async with asyncio.timeout(seconds):
            while len(found := await store.job_reports(1000)) < count:  # noqa: ASYNC110 - it happens in the store
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{len(await store.job_reports(1000))} reports, not {count}, within {seconds} s") from None
    return found[::-1]
