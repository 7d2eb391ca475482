"""One database and one node a session, as for the wire; and another node beside them that takes tokens."""

import pytest

from tests.integration.wire.conftest import (
    StartNode,
    alice,
    bob,
    database,
    fresh,
    group,
    net,
    node,
    shared_node,
    start_node,
    started,
)
from tests.service import NodeProcess
from tests.tokens import SIGNED

__all__ = ["alice", "bob", "database", "fresh", "group", "net", "node", "shared_node", "start_node", "started"]


@pytest.fixture
def signed(start_node: StartNode) -> NodeProcess:
    """A node without dev mode, which takes the tokens of `mint`, without limits on how fast anybody asks."""
    return start_node(**SIGNED, limits_user_requests_per_s=0, limits_user_histories_per_s=0, limits_user_joins_per_s=0)
