"""What the tests of real processes share: a data folder that nobody may be running on when the test is over."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.embedded import DataFolder
from tests.integration.platform.processes import wait_until, words_of, working_on


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    """A data folder that does not exist yet. Afterwards every process that names it must be gone."""
    folder = DataFolder(tmp_path / "data")
    yield folder
    try:
        wait_until(lambda: not working_on(folder), "every process of the data folder has ended", 10.0)
    except AssertionError as error:
        left = {pid: " ".join(words_of(pid)) for pid in working_on(folder)}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"left running: {left}") from error
