"""One process' engine: it carries bytes for `core`, between the store and its connections. Begin with `node.py`."""

from service.node.node import Node

__all__ = ["Node"]
