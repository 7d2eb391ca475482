"""What a node says of itself with every beat: small, and made of what is at hand anyway."""

import os
import resource
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.node.node import Node

_STATM = Path("/proc/self/statm")


@cache
def version() -> str:
    """The release that runs."""
    try:
        return metadata.version("waypost")
    except metadata.PackageNotFoundError:
        return "unknown"


def resident_bytes() -> int | None:
    """What this process has in memory now, None where the system does not tell (Linux does)."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def memory_bytes() -> int:
    """What this process has in memory now; where the system does not tell, the most that it ever had."""
    found = resident_bytes()
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Vitals:
    """The facts of a node. `load` is the share of a core since the time before, so it is asked once a beat."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._begun_at = self._asked_at = time.monotonic()
        self._used_s = time.process_time()

    def facts(self) -> dict[str, str]:
        """All of them, as texts."""
        node = self._node
        now, used_s = time.monotonic(), time.process_time()
        load = (used_s - self._used_s) / max(now - self._asked_at, 0.001)
        self._asked_at, self._used_s = now, used_s
        return {
            "version": version(),
            "uptime_s": f"{now - self._begun_at:.3f}",
            "connections": str(len(node.connections)),
            "streams": str(len(node.delivery.tracks)),
            "behind": str(sum(len(track.behind) for track in node.delivery.tracks.values())),
            "mailbox": node.reader.mailbox,
            "position": str(node.reader.position),
            "lag_entries": str(node.reader.lag_entries),
            "lag_s": f"{node.reader.lag_s(now):.3f}",
            "load": f"{load:.3f}",
            "memory_bytes": str(memory_bytes()),
        }
