"""What `/openapi.json` says of a request and its answer, for tests that have had one."""

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from starlette.routing import Match

from service.api.asyncapi import SERVER_FRAMES, asyncapi
from service.api.openapi import openapi
from service.api.operations import Described
from service.app import HTTP_ROUTES

# What is answered before any operation is asked.
BEFORE_ANY = ("no_path", "method_not_allowed", "bad_http", "head_too_large")


@cache
def document() -> dict[str, Any]:
    return openapi(HTTP_ROUTES)


@cache
def validator(path: str, method: str, status: str, kind: str) -> Draft202012Validator:
    """Of the body of an answer. Fails for an answer that is not described."""
    where = f"{method.upper()} {path}"
    told = document()["paths"][path][method]["responses"]
    assert status in told, f"{where} answered {status}: say so in service/api/routes.py"
    content = told[status].get("content", {})
    assert kind in content, f"{where} answered {status} as {kind}: say so in service/api/routes.py"
    return Draft202012Validator({**content[kind]["schema"], "components": document()["components"]})


def route_of(path: str) -> Described | None:
    """The route that a path, without its query, leads to."""
    scope = {"type": "http", "path": path, "root_path": "", "method": "GET"}
    return next((route for route in HTTP_ROUTES if route.matches(scope)[0] != Match.NONE), None)


def check_answer(method: str, path: str, status: int, kind: str, body: dict[str, Any]) -> None:
    """An answer is one that the document describes. `path`: decoded, without its query; `body`: {} where it is none."""
    route = route_of(path)
    if route is None or method not in route.operations or body.get("code") in BEFORE_ANY:
        return
    if kind:
        validator(route.path, method.lower(), str(status), kind).validate(body)
    else:
        told = document()["paths"][route.path][method.lower()]["responses"]
        assert str(status) in told, f"{method} {route.path} answered {status}: say so in service/api/routes.py"
        assert "content" not in told[str(status)]


@cache
def frame_validators() -> dict[str, Draft202012Validator]:
    """Of what a node says on the wire, by the type of the frame."""
    wire = asyncapi()
    return {
        str(kind.__struct_config__.tag): Draft202012Validator(
            {"$ref": f"#/components/schemas/{kind.__name__}", "components": wire["components"]}
        )
        for kind in SERVER_FRAMES
    }


def check_frame(frame: dict[str, Any]) -> None:
    """A frame of a node is one that /asyncapi.json describes."""
    validators = frame_validators()
    assert frame["type"] in validators, frame
    validators[frame["type"]].validate(frame)
