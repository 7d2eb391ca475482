"""/openapi.json and /asyncapi.json: they are what their formats say, and describe all that there is."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.requests import Request
from starlette.responses import Response

from service.api.asyncapi import asyncapi
from service.api.openapi import TAGS, openapi
from service.api.operations import at, does
from service.app import HTTP_ROUTES
from service.core.frames import CLIENT_FRAMES, ServerFrame
from service.errors import ERRORS
from tests.schemas import document

PROTOCOL = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
OPERATIONS = [(path, method, one) for path, methods in document()["paths"].items() for method, one in methods.items()]
WIRE = asyncapi()
SIDES = {"Client frames": CLIENT_FRAMES, "Server frames": get_args(ServerFrame)}


def test_it_is_openapi() -> None:
    validate(json.loads(json.dumps(document())))


def test_every_route_is_there_with_every_method() -> None:
    said = {(path, method.upper()) for path, method, _ in OPERATIONS}
    assert said == {(route.path, method) for route in HTTP_ROUTES for method in route.methods or () if method != "HEAD"}
    assert len({one["operationId"] for *_, one in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize(("path", "method", "one"), OPERATIONS)
def test_an_operation_says_what_it_is(path: str, method: str, one: dict[str, Any]) -> None:
    assert one["summary"].endswith(".")
    assert "`GET" not in one["summary"]
    assert set(one["tags"]) <= TAGS.keys()
    assert all(parameter["description"] for parameter in one["parameters"])
    in_path = [parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"]
    assert in_path == re.findall(r"\{(\w+)\}", path)
    assert any(status[0] == "2" for status in one["responses"])
    assert ("requestBody" in one) == (method in ("post", "put"))
    assert ("401" in one["responses"]) == bool(one["security"])


@pytest.mark.parametrize("words", [None, "Does something.", "`GET /another`: something."])
def test_a_route_without_its_description_is_none(words: str | None) -> None:
    async def handler(_request: Request) -> Response:
        raise AssertionError

    handler.__doc__ = words
    with pytest.raises(ValueError, match="is to begin with `GET /x`"):
        openapi([at("/x", GET=does(handler, {200: None}))])


def test_every_refusal_has_its_status() -> None:
    for route in HTTP_ROUTES:
        for method, operation in route.operations.items():
            told = document()["paths"][route.path][method.lower()]["responses"]
            for code in operation.refuses:
                content = told[str(ERRORS[code].http)]["content"]["application/problem+json"]
                assert code in content["schema"]["allOf"][1]["properties"]["code"]["enum"]


def find(reference: str, whole: dict[str, Any]) -> Any:  # noqa: ANN401 - any part of a document
    found: Any = whole
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def references(part: object) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(references(value) for value in part.values()))
    return set().union(*(references(value) for value in part)) if isinstance(part, list) else set()


def test_it_is_asyncapi() -> None:
    assert WIRE["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= WIRE["info"].keys()
    for reference in references(WIRE):
        assert find(reference, WIRE), reference
    assert {channel["address"] for channel in WIRE["channels"].values()} == {"/v1/connect", "/v1/events"}
    for operation in WIRE["operations"].values():
        assert operation["action"] in ("send", "receive")
        own = f"{operation['channel']['$ref']}/messages/"
        assert all(message["$ref"].startswith(own) for message in operation["messages"])
    for schema in WIRE["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("name", "kinds"), [("receive", CLIENT_FRAMES), ("send", get_args(ServerFrame))])
def test_every_frame_is_a_message(name: str, kinds: tuple[type, ...]) -> None:
    told = [find(message["$ref"], WIRE) for message in WIRE["operations"][name]["messages"]]
    messages = [find(one["$ref"], WIRE) for one in told]
    assert [message["name"] for message in messages] == [
        kind.__struct_config__.tag  # type: ignore[attr-defined]
        for kind in kinds
    ]
    assert all(message["summary"] for message in messages)


def frames_shown() -> list[tuple[str, str]]:
    """Side and text of every frame in docs/protocol.md."""
    shown: list[tuple[str, str]] = []
    for title in SIDES:
        section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PROTOCOL, re.MULTILINE | re.DOTALL)
        assert section
        shown += [(title, text) for text in re.findall(r'`(\{"type":.*?\})`', section[1])]
    shown += [("Client frames", text) for text in re.findall(r"^→ (\{.*)$", PROTOCOL, re.MULTILINE)]
    return shown + [("Server frames", text) for text in re.findall(r"^← (\{.*)$", PROTOCOL, re.MULTILINE)]


@pytest.mark.parametrize(("side", "text"), frames_shown())
def test_every_frame_that_is_shown_is_as_described(side: str, text: str) -> None:
    frame = json.loads(text)
    [name] = [kind.__name__ for kind in SIDES[side] if kind.__struct_config__.tag == frame["type"]]
    schema = {"$ref": f"#/components/schemas/{name}", "components": WIRE["components"]}
    Draft202012Validator(schema).validate(frame)
    known = WIRE["components"]["schemas"][name]["properties"]
    assert frame.keys() <= known.keys()
