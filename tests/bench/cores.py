"""Which cores processes run on (Linux).

Where the load generator moves about between the cores of the servers, figures differ by who has to share one with it.
"""

import os
from collections.abc import Iterable
from pathlib import Path


class Cores:
    """The last core for the load generator, which is this process; all others for the servers."""

    def __init__(self) -> None:
        *self._servers, self._own = sorted(os.sched_getaffinity(0))

    @staticmethod
    def can_be_kept_apart() -> bool:
        """Whether there are two."""
        return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1

    def take_own(self) -> None:
        """From now on this process has its core. Children begin there too, until `give` moves them."""
        os.sched_setaffinity(0, {self._own})

    def give(self, pids: Iterable[int]) -> None:
        """These processes, all threads that they have so far, go to the cores of the servers."""
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), self._servers)

    def leave(self) -> None:
        """This process may go anywhere again."""
        os.sched_setaffinity(0, {*self._servers, self._own})
