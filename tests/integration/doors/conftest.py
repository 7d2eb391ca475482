"""One database and one node a session, as for the wire."""

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

__all__ = [
    "StartNode",
    "alice",
    "bob",
    "database",
    "fresh",
    "group",
    "net",
    "node",
    "shared_node",
    "start_node",
    "started",
]
