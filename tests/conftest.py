"""What all tests share: the event loop they run on, and the one line that says what was left out."""

import shutil
from importlib.util import find_spec

import pytest

from tests.clock import library
from tests.proxies import nginx


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """No event loop but asyncio: the service runs on nothing else."""
    return "asyncio"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this machine could not test, a line each, above pytest's last one."""
    if shutil.which("redis-server") is None:
        terminalreporter.write_line(
            "left out: the tests on Redis, for want of redis-server on the PATH (Debian: apt-get install redis-server)"
        )
    if nginx() is None:
        terminalreporter.write_line(
            "left out: the tests through a proxy, for want of nginx on the PATH (Debian: apt-get install nginx-light)"
        )
    if shutil.which("chromium") is None:
        terminalreporter.write_line(
            "left out: the tests in a browser, for want of chromium on the PATH (Debian: apt-get install chromium)"
        )
    elif find_spec("playwright") is None:
        terminalreporter.write_line(
            "left out: the tests of the browser client, for want of playwright (pip install -e '.[dev]')"
        )
    if shutil.which("promtool") is None:
        terminalreporter.write_line(
            "left out: the tests of alert rules, for want of promtool on the PATH (Debian: apt-get install prometheus)"
        )
    if library() is None:
        terminalreporter.write_line(
            "left out: the tests that turn a clock, for want of libfaketime (Debian: apt-get install faketime)"
        )
