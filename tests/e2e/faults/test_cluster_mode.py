"""This release works on one server. One in cluster mode is refused before anything is written to it."""

from collections.abc import Iterator

import pytest

from tests.e2e.faults.kit import run_cli
from tests.integration.store.kit import Server, binary
from tests.service import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that waits to be one of a cluster."""
    if binary(request.param) is None:
        pytest.skip("redis-server is not on the PATH")
    port = free_port() % 10_000 + 20_000  # the bus is 10,000 above
    with Server(request.param, "--cluster-enabled", "yes", "--port", str(port)) as server:
        yield server


async def test_a_server_in_cluster_mode_is_refused_by_migrate_and_stays_empty(cluster: Server) -> None:
    code, said = await run_cli(cluster, "migrate", "up")
    assert (code, said.count("\n")) == (1, 1)
    assert "cluster mode" in said
    assert cluster.admin.dbsize() == 0
