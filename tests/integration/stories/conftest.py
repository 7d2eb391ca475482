"""A server of each kind, and waits of the service made as short as everything else in a story."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.integration.store.kit import Server, binary

settings.register_profile("long", max_examples=2_000)


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that stories may empty, and kill."""
    if binary(request.param) is None:
        pytest.skip("redis-server is not on the PATH")
    with Server(request.param) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses before something is tried again: in a story only their order matters."""
    monkeypatch.setattr("service.node.fence.RETRY_S", 0.005)
    monkeypatch.setattr("service.node.fence.RETRY_S_MAX", 0.02)
    monkeypatch.setattr("service.node.memberships.RETRY_S", 0.005)
    monkeypatch.setattr("service.node.reader.RETRY_S", 0.005)
    monkeypatch.setattr("service.node.pages.FAILED_PAUSE_S", 0.005)
    monkeypatch.setattr("service.store.nodes._RECONCILE_WAIT_MS", 50)
