"""The numbers of one process at one moment, and the folder in which the processes of one port leave theirs.

`waypost serve --processes N` starts several nodes on one port. A scrape reaches any one of them, and is to hear of all.
Each writes its numbers into the folder of their parent, and whoever is asked reads those of the others. A process that
has died leaves its last numbers until the one that replaces it writes its own, under the same name.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

from service.metrics.table import METRICS

# Between two snapshots of a process: a scrape comes every few seconds.
WRITE_S = 1.0
# Above it a process is gone, or hangs, and what it measured (not: counted) is not told any more.
STALE_S = 5.0
_SUFFIX = ".json"
_PREFIX = "waypost-numbers-"
_LOCK = "lock"
_BEING_MADE_S = 60.0  # a lock that is younger may be about to be taken


class Buckets(msgspec.Struct, frozen=True):
    """A histogram: `counts` of each bucket alone, the last without bound, and the sum of what was observed."""

    counts: list[int]
    sum: float


class Snapshot(msgspec.Struct, frozen=True):
    """What a node has counted and measured. Samples are by label values, joined with commas, "" without labels.

    `at` is monotonic time, which is the same for all processes of a machine.
    """

    node: str
    at: float
    values: dict[str, dict[str, float]]
    histograms: dict[str, dict[str, Buckets]]


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Snapshot)


class Folder:
    """Where the processes of one port leave their snapshots. Made, and removed, by their parent: see `OwnFolder`."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def write(self, snapshot: Snapshot) -> None:
        """Leave a snapshot in place of the one before, whole or not at all. Raises `OSError`."""
        path = self._file(snapshot.node)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(_encode(snapshot))
        fresh.replace(path)

    def others(self, node: str) -> Iterator[Snapshot]:
        """What the other processes have left, by name. What cannot be read is left out."""
        own = self._file(node)
        try:
            paths = sorted(path for path in self._path.iterdir() if path.suffix == _SUFFIX and path != own)
        except OSError:
            return
        for path in paths:
            try:
                yield _decoder.decode(path.read_bytes())
            except (OSError, msgspec.DecodeError):
                continue

    def _file(self, node: str) -> Path:
        # A node may be named as no file can be.
        return self._path / f"{blake2b(node.encode(), digest_size=16).hexdigest()}{_SUFFIX}"


class OwnFolder:
    """The folder of one parent, made among the temporary files, readable for its user alone.

    The parent holds a lock in it for as long as it lives. One that was killed leaves its folder behind: the next parent
    of the same user, which can take the lock, removes it.
    """

    def __init__(self) -> None:
        """Raises `OSError`."""
        _sweep(Path(tempfile.gettempdir()))
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = Path(self.path, _LOCK).open("wb")  # noqa: SIM115 - closed, and given back, by `remove` or the end
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove it, with all that was left in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _sweep(among: Path) -> None:
    for folder in among.glob(f"{_PREFIX}*"):
        try:
            with (folder / _LOCK).open("rb") as lock:
                if time.time() - os.fstat(lock.fileno()).st_mtime > _BEING_MADE_S:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # its parent lives, or it is another user's


def seen_at(snapshot: Snapshot, now: float) -> Snapshot:
    """The snapshot of another process as it is to be told at `now` (monotonic): with its age. Of one that is gone, or
    hangs, is told what it has counted, and that it is not ready.
    """
    age_s = max(0.0, now - snapshot.at)
    values = dict(snapshot.values)
    if age_s > STALE_S:
        values = {name: samples for name, samples in values.items() if METRICS[name].kind == "counter"}
        reasons = dict.fromkeys(METRICS["waypost_not_ready"].labels["reason"], 0.0)
        values["waypost_ready"] = {"": 0.0}
        values["waypost_not_ready"] = {**reasons, "silent": 1.0}
    values["waypost_snapshot_age_seconds"] = {"": age_s}
    return msgspec.structs.replace(snapshot, values=values)
