"""The two documents that say what a node takes and answers, and the page to try it on. Nobody has to sign in."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, Self

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service import web
from service.api.operations import Schema
from service.errors import WaypostError

# Kept by browsers, and asked for again each time by the tag: the next release has another text at the same address.
KEPT = "public, no-cache"
# The page needs nothing of other hosts, and runs nothing that is not a file of ours.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
INDEX = "index.html"


class Page(NamedTuple):
    """Something that is the same for everybody: its bytes, their media type, and the tag that they are known by."""

    content: bytes
    kind: str
    etag: str

    @classmethod
    def of(cls, content: bytes, kind: str) -> Self:
        """A page with its tag."""
        return cls(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class Pages(NamedTuple):
    """All pages of a node, built once."""

    openapi: Page
    asyncapi: Page
    docs: Mapping[str, Page]

    @classmethod
    def of(cls, openapi: Schema, asyncapi: Schema) -> Self:
        """The pages, from the two documents."""
        return cls(
            Page.of(msgspec.json.encode(openapi), "application/json"),
            Page.of(msgspec.json.encode(asyncapi), "application/json"),
            {name: Page.of(*found) for name, found in web.folder("docs").items()},
        )


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`: this document (OpenAPI 3.1)."""
    return _told(request, _pages(request).openapi)


async def asyncapi(request: Request) -> Response:
    """`GET /asyncapi.json`: the wire `waypost.v1`, for the WebSocket and Server-Sent Events (AsyncAPI 3.0)."""
    return _told(request, _pages(request).asyncapi)


async def docs(request: Request) -> Response:
    """`GET /docs`: a page to try the operations on."""
    return _told(request, _pages(request).docs[INDEX])


async def docs_file(request: Request) -> Response:
    """`GET /docs/{file}`: what that page is made of."""
    found = _pages(request).docs.get(request.path_params["file"])
    if found is None:
        raise WaypostError("no_path")
    return _told(request, found)


def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


def _told(request: Request, page: Page) -> Response:
    headers = {"cache-control": KEPT, "content-security-policy": POLICY, "etag": page.etag}
    given = request.headers.get("if-none-match", "")
    known = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    if known & {page.etag, "*"}:
        return Response(None, 304, headers)
    return Response(page.content, 200, headers, page.kind)
