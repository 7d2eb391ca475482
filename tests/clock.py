"""Turning the clock of one process, under way, with libfaketime (Debian's package `faketime`)."""

import tempfile
from pathlib import Path


def library() -> Path | None:
    """The library that fakes the time, None where it is not on this machine."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


class Clock:
    """What a process that is started with `environ` takes for the time; `turn` it any number of times.

    Only what time it is, not how long things take: time-outs and sleeps go by the machine's own clock.
    """

    def __init__(self) -> None:
        found = library()
        assert found is not None
        self._folder = tempfile.TemporaryDirectory(prefix="wp-clock-")
        self._offset = Path(self._folder.name, "offset")
        self.turn(0)
        self.environ = {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",  # read at every look at the clock: it turns at once
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def turn(self, seconds: int) -> None:
        """From now on it is that much later than on this machine, or earlier."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.rename(self._offset)  # never seen half written

    def remove(self) -> None:
        self._folder.cleanup()
