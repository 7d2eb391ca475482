"""The Python client: connect, iterate over what comes, send; it reconnects and resumes by itself.

    async with Client("http://127.0.0.1:8000", user="bob", device="phone") as client:
        async for event in client:
            if isinstance(event, Message):
                print(event.stream, event.id, event.body)

`client.py` does the I/O and nothing else; what is said, handed out, acknowledged and repeated is decided in `state.py`
and the modules under it, which need neither a network nor a clock.
"""

from service.client.client import Client
from service.client.events import Closed, Connected, Disconnected, Event, GaveUp, Refused
from service.client.wire import Entry, Unknown, encode_event
from service.core.frames import Gap, Joined, Left, Live, Message, Redacted, Sent

# Reads like `websockets.connect`: async with connect(url, user=…) as client.
connect = Client

__all__ = [
    "Client",
    "Closed",
    "Connected",
    "Disconnected",
    "Entry",
    "Event",
    "Gap",
    "GaveUp",
    "Joined",
    "Left",
    "Live",
    "Message",
    "Redacted",
    "Refused",
    "Sent",
    "Unknown",
    "connect",
    "encode_event",
]
