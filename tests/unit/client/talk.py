"""A client in conversation with a test."""

from typing import Any

from service.client.events import Connected, Disconnected, Event
from service.client.state import State
from service.core import frames
from service.core.frames import Gap, Live
from tests.unit.client.model import packed, said, welcome

START = {"user:ann": "1-0", "all": "1-0"}


class Talk:
    """A client in conversation with a test, which speaks for the server."""

    def __init__(self, **options: object) -> None:
        self.state = State(device="phone", jitter=lambda: 1.0, **options)  # type: ignore[arg-type]
        self.now = 100.0

    def open(self, offsets: dict[str, str] = START, epoch: str = "e1") -> list[dict[str, Any]]:
        """Connects; returns what the client said before the welcome."""
        greeting = said(self.state.begin())
        self.hear(welcome(offsets, epoch=epoch))
        return greeting

    def hear(self, *sent: frames.ServerFrame) -> None:
        self.state.receive(packed(*sent), self.now)

    def cut(self, code: int | None = 1006) -> float:
        return self.state.lost(self.now, code)

    def events(self) -> list[Event]:
        """Everything there is, taken."""
        events = []
        while (event := self.state.next_event()) is not None:
            events.append(event)
            self.state.took()
        return events

    def entries(self) -> list[str]:
        """The ids of the entries there are, and gaps as from..to."""
        return [
            f"{event.after}..{event.to}" if isinstance(event, Gap) else str(getattr(event, "id", ""))
            for event in self.events()
            if not isinstance(event, Connected | Disconnected | Live)
        ]

    def says(self, after_s: float = 0.0) -> list[dict[str, Any]]:
        self.now += after_s
        return said(self.state.flush(self.now))

    def acks(self) -> dict[str, str]:
        """What is acknowledged within the next half second and a bit."""
        heard = [*self.says(), *self.says(0.6)]
        return {s: i for frame in heard if frame["type"] == "ack" for s, i in frame["offsets"].items()}


def opened(**options: object) -> Talk:
    talk = Talk(**options)
    talk.open()
    talk.events()
    return talk
