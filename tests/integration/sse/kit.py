"""What the tests of streams of events share."""

from typing import Any, cast

from tests.events import EventPhone
from tests.integration.wire.kit import Net
from tests.service import Phone


class EventNet(Net):
    """As the wire's, with phones that can only listen: so that the wire's scenarios are told of them."""

    def at(self, node: Any) -> "EventNet":  # noqa: ANN401 - as the wire's
        """The same for another node."""
        return EventNet(node, self._database)

    async def dial(self, user: str | None, **options: Any) -> Phone:  # noqa: ANN401 - as the wire's
        return await EventPhone.dial(self.node.url, user, **options)

    async def listen(self, user: str, device: str = "default", **how: Any) -> EventPhone:  # noqa: ANN401 - see `listen`
        """A stream, and everything missed has come."""
        return await EventPhone.open(self.node.url, user, device, **how)

    async def speaker(self, user: str, device: str = "speaker") -> Phone:
        """Somebody who speaks, over a WebSocket."""
        return await Phone.open(self.node.url, user, device)


async def come_back(phone: EventPhone, url: str = "") -> EventPhone:
    """The same client again, as an `EventSource` comes back."""
    again = EventPhone(url or phone.url, phone.user, device=phone.device)
    again.query = dict(phone.query)
    await again.listen(phone.bookmark)
    again.bookmark = again.bookmark or phone.bookmark
    return again


def as_events(phone: Phone) -> EventPhone:
    return cast("EventPhone", phone)
