"""What all tests share: the event loop they run on, and the one line that says what was left out."""

import shutil

import pytest

from tests.integration.store.kit import environ_with_clock


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """No event loop but asyncio: the service runs on nothing else."""
    return "asyncio"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once what this machine could not test, above pytest's last line."""
    if shutil.which("redis-server") is None:
        terminalreporter.write_line(
            "left out: the tests on Redis, for want of redis-server on the PATH (Debian: apt-get install redis-server)"
        )
    if environ_with_clock(-1) is None:
        terminalreporter.write_line(
            "left out: the tests with a clock set back, for want of libfaketime (Debian: apt-get install libfaketime)"
        )
