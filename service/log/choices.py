"""What of the settings is about logging, and the names that both sides of it know."""

from typing import Literal, Protocol

ROOT = "waypost"  # the logger above all of ours


class Choices(Protocol):
    """What of the settings is about logging."""

    @property
    def log_level(self) -> Literal["debug", "info", "warning", "error"]:
        """From where on lines are written."""

    @property
    def log_format(self) -> Literal["auto", "text", "json"]:
        """How. `auto`: with colours on a terminal, else text."""

    @property
    def node(self) -> str:
        """Who writes them."""
