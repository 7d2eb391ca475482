"""`/openapi.json`: the table of routes as OpenAPI 3.1."""

import inspect
import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from service.api.bodies import ANSWERS, REQUESTS
from service.api.components import about, components
from service.api.operations import Described, Operation, Parameter, Said, Schema
from service.auth.visitor import COOKIE
from service.core.problems import Problem
from service.core.server_keys import PREFIX as KEY_PREFIX
from service.errors import ERRORS

INTRODUCTION = (
    "Durable messaging: what is sent waits in a stream for everybody who is away. Decide by the `code` of a refusal. "
    "Who listens does so on the WebSocket `/v1/connect`, which `/asyncapi.json` describes. HEAD is answered as GET, "
    "fields that nobody knows are ignored, and `next` and `prev` are links to follow as they are."
)
TAGS = {
    "messages": "Sending, history, and taking a message away",
    "streams": "A user's streams, and how far a device has come",
    "groups": "Groups and their members",
    "admin": "What operators ask and do",
    "sse": "Listening: the wire as Server-Sent Events",
    "health": "Whether the node lives, and should get connections",
    "metrics": "What the node counts, for Prometheus",
    "pages": "These documents, the client for browsers, and the demo page",
}
SIGN_IN: dict[str, Schema] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A user's token: acts as that user.",
    },
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": f"A server key, `{KEY_PREFIX}…`: acts for the system, within its scopes.",
    },
    "token_in_query": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "A user's token, where no header can be set. Addresses end up in logs.",
    },
    "user": {
        "type": "apiKey",
        "in": "query",
        "name": "user",
        "description": "In dev mode: who asks, believed as it is. With a server key: for whom it asks.",
    },
}
FOR_METRICS: Schema = {
    "type": "http",
    "scheme": "bearer",
    "description": "What WAYPOST_METRICS_TOKEN says, where `/metrics` is not open.",
}
BY_COOKIE: Schema = {
    "type": "apiKey",
    "in": "cookie",
    "name": COOKIE,
    "description": "A user's token, shown by a page of our own origin.",
}
WAYS_IN: list[dict[str, list[str]]] = [
    {"token": []},
    {"key": []},
    {"key": [], "user": []},
    {"token_in_query": []},
    {"user": []},
]
WITH_COOKIE: list[dict[str, list[str]]] = [{"cookie": []}]
MAYBE_METRICS: list[dict[str, list[str]]] = [{}, {"metrics": []}]  # without anything, or with that
# What a success means; more is said by the summary and the schema.
MEANINGS = {
    200: "As asked",
    201: "Made, or stored",
    202: "Every node has been told",
    204: "Done",
    304: "As it was when the `etag` of `if-none-match` was given",
    503: "Not ready, with the reasons",
}
_HEADING = re.compile(r"`([A-Z]+) (\S+)`: ")
RETRY_AFTER: Schema = {"description": "Whole seconds, where known", "schema": {"type": "integer", "minimum": 1}}
CHALLENGE: Schema = {"description": "Always `Bearer`", "schema": {"const": "Bearer"}}


def openapi(routes: Iterable[Described]) -> Schema:
    """The document for these routes. Raises `ValueError` for a route that does not say what it is."""
    references, schemas = components([*REQUESTS, *ANSWERS])
    return {
        "openapi": "3.1.0",
        "info": about("Waypost", INTRODUCTION),
        "servers": [{"url": "/", "description": "The node that answers this"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": {
            route.path: {
                method.lower(): _operation(route, method, one, references) for method, one in route.operations.items()
            }
            for route in routes
        },
        "components": {"schemas": schemas, "securitySchemes": {**SIGN_IN, "cookie": BY_COOKIE, "metrics": FOR_METRICS}},
    }


def _operation(route: Described, method: str, one: Operation, references: Mapping[type[Struct], Schema]) -> Schema:
    summary, description = _words(route, method, one)
    tag = one.handler.__module__.rpartition(".")[2]
    told: Schema = {
        "operationId": f"{tag}_{getattr(one.handler, '__name__', '')}",
        "summary": summary,
        "tags": [tag],
        "security": _security(one),
        "parameters": [_parameter(parameter) for parameter in one.parameters],
        "responses": _responses(one, references),
    }
    if description:
        told["description"] = description
    if one.body is not None:
        content = {"application/json": {"schema": references[one.body]}}
        told["requestBody"] = {"required": not one.is_body_optional, "content": content}
    return told


def _security(one: Operation) -> list[dict[str, list[str]]]:
    if one.is_open:
        return MAYBE_METRICS if "unauthorised" in one.refuses else []
    return WAYS_IN + WITH_COOKIE if one.takes_cookie else WAYS_IN


def _words(route: Described, method: str, one: Operation) -> tuple[str, str]:
    """The docstring of the handler: its first paragraph without method and path, and the rest."""
    first, _, rest = inspect.cleandoc(one.handler.__doc__ or "").partition("\n\n")
    heading = _HEADING.match(first)
    if heading is None or heading.groups() != (method, route.path):
        raise ValueError(f"the docstring of the handler is to begin with `{method} {route.path}`: ")
    words = " ".join(first[heading.end() :].split())
    return words[:1].upper() + words[1:], rest


def _parameter(one: Parameter) -> Schema:
    told = {"name": one.name, "in": one.place, "description": one.description, "schema": one.schema}
    return {**told, "required": True} if one.place == "path" else told


def _responses(one: Operation, references: Mapping[type[Struct], Schema]) -> Schema:
    told = {status: _success(status, said, references) for status, said in one.answers.items()}
    for status in sorted({ERRORS[code].http for code in one.refuses}):
        codes = sorted(code for code in one.refuses if ERRORS[code].http == status)
        refusal = _refusal(status, codes, references)
        if status in told:  # not ready, or refused
            told[status]["content"].update(refusal["content"])
        else:
            told[status] = refusal
    return {str(status): told[status] for status in sorted(told)}


def _success(status: int, said: Said, references: Mapping[type[Struct], Schema]) -> Schema:
    told: Schema = {"description": MEANINGS[status]}
    if isinstance(said, str):
        told["content"] = {said: {"schema": {"type": "object"} if said == "application/json" else {}}}
    elif said is not None:
        told["content"] = {"application/json": {"schema": references[said]}}
    return told


def _refusal(status: int, codes: list[str], references: Mapping[type[Struct], Schema]) -> Schema:
    narrower = {"properties": {"code": {"enum": codes}, "status": {"const": status}}}
    schema = {"allOf": [references[Problem], narrower]}
    told: Schema = {
        "description": "; ".join(f"`{code}`: {ERRORS[code].text}" for code in codes),
        "content": {"application/problem+json": {"schema": schema}},
    }
    if status in (429, 503):
        told["headers"] = {"Retry-After": RETRY_AFTER}
    if status == 401:
        told["headers"] = {"WWW-Authenticate": CHALLENGE}
    return told
