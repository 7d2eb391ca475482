"""Files for browsers, as they are served."""

from importlib import resources
from typing import NamedTuple

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",  # browsers show it; for tools it is a file like any other
}


class WebFile(NamedTuple):
    """A file: its bytes, and its media type."""

    content: bytes
    kind: str


def folder(name: str = ".") -> dict[str, WebFile]:
    """The files of a folder beside this module, by their names; without `name`: the client, which lies here itself."""
    found = sorted(resources.files(__name__).joinpath(name).iterdir(), key=lambda one: one.name)
    return {
        one.name: WebFile(one.read_bytes(), KINDS[suffix])
        for one in found
        if one.is_file() and (suffix := "." + one.name.rpartition(".")[2]) in KINDS
    }
