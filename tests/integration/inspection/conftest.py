"""The same servers and stores as the store's own tests have."""

from tests.integration.store.conftest import admin, options, product, server, shared_server, store

__all__ = ["admin", "options", "product", "server", "shared_server", "store"]
