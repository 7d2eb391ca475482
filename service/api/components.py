"""Schemas of Structs, as both documents have them: from msgspec, with docstrings as descriptions."""

import inspect
from collections.abc import Iterable
from importlib import metadata

import msgspec

from service.api.operations import Schema

WHERE = "#/components/schemas/{name}"


def components(structs: Iterable[type[msgspec.Struct]]) -> tuple[dict[type[msgspec.Struct], Schema], dict[str, Schema]]:
    """For each Struct what refers to its schema; and all schemas, by name."""
    kinds = list(dict.fromkeys(structs))
    references, found = msgspec.json.schema_components(kinds, ref_template=WHERE)
    plain: dict[str, Schema] = msgspec.json.decode(msgspec.json.encode(found))  # a default may be a tuple
    schemas = {name: plain[name] for name in sorted(plain)}
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return dict(zip(kinds, references, strict=True)), schemas


def about(title: str, description: str) -> Schema:
    """The `info` of a document: which release it is of."""
    try:
        version = metadata.version("waypost")
    except metadata.PackageNotFoundError:  # run from a folder of files
        version = "0"
    return {
        "title": title,
        "version": version,
        "description": description,
        "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
    }
