"""`/asyncapi.json`: the wire `waypost.v1` as AsyncAPI 3.0, made from its frames."""

import inspect
from typing import get_args

import msgspec

from service.api.components import about, components
from service.api.openapi import SIGN_IN
from service.api.operations import DEVICE, NAME, Schema
from service.core.frames import CLIENT_FRAMES, ServerFrame

INTRODUCTION = (
    "The wire `waypost.v1`. A text frame of the WebSocket holds one JSON object, or several, one a line; an event of "
    "`/v1/events` holds one. Received is what clients say, sent is what the node says. An entry of a type that is not "
    "described here may come, and counts like any other; so may fields that are not."
)
SERVER_FRAMES: tuple[type[msgspec.Struct], ...] = get_args(ServerFrame)
QUERY: Schema = {
    "type": "object",
    "properties": {
        "token": {"type": "string", "description": SIGN_IN["token_in_query"]["description"]},
        "user": {**NAME, "description": SIGN_IN["user"]["description"]},
    },
}


def asyncapi() -> Schema:
    """The document."""
    references, schemas = components([*CLIENT_FRAMES, *SERVER_FRAMES])
    # Both sides have a frame named `history`: components go by the Structs' names, which differ.
    messages = {
        kind.__name__: {
            "name": str(kind.__struct_config__.tag),
            "summary": " ".join(inspect.cleandoc(kind.__doc__ or "").split()),
            "contentType": "application/json",
            "payload": references[kind],
        }
        for kind in (*CLIENT_FRAMES, *SERVER_FRAMES)
    }
    return {
        "asyncapi": "3.0.0",
        "info": about("Waypost: the wire waypost.v1", INTRODUCTION),
        "defaultContentType": "application/json",
        "channels": {
            "connect": {
                "address": "/v1/connect",
                "title": "A WebSocket, subprotocol `waypost.v1`",
                "messages": _in_components(*CLIENT_FRAMES, *SERVER_FRAMES),
                "bindings": {"ws": {"method": "GET", "query": QUERY, "bindingVersion": "0.1.0"}},
            },
            "events": {
                "address": "/v1/events",
                "title": f"Server-Sent Events: what the node says to a device (`?{DEVICE.name}=`)",
                "messages": _in_components(*SERVER_FRAMES),
            },
        },
        "operations": {
            "receive": _operation("receive", "connect", CLIENT_FRAMES, "What a client says"),
            "send": _operation("send", "connect", SERVER_FRAMES, "What the node says"),
            "send_events": _operation("send", "events", SERVER_FRAMES, "What the node says, as events"),
        },
        "components": {"schemas": schemas, "messages": messages, "securitySchemes": _sign_in()},
    }


def _in_components(*kinds: type[msgspec.Struct]) -> Schema:
    return {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in kinds}


def _operation(action: str, channel: str, kinds: tuple[type[msgspec.Struct], ...], summary: str) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _sign_in()],
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind.__name__}"} for kind in kinds],
    }


def _sign_in() -> dict[str, Schema]:
    """The same ways in as over HTTP. AsyncAPI says `httpApiKey` where OpenAPI says `apiKey`."""
    return {
        name: {**scheme, "type": "httpApiKey"} if scheme["type"] == "apiKey" else scheme
        for name, scheme in SIGN_IN.items()
    }
