"""What a node serves to browsers: two documents and the page to try them on, the client, and the demo page of dev mode.

Nobody has to sign in for them.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
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
# The client is a module, and a page of another origin imports that only where it is allowed to everybody. What the
# setting `origins` opens is another thing: asking the service.
FOR_EVERYBODY = {"access-control-allow-origin": "*"}
# The demo page shows a second device of the same user in a frame, which is this page once more, and signs in by a form.
DEMO_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"
IN_OUR_OWN_FRAME = {"content-security-policy": DEMO_POLICY, "x-frame-options": "SAMEORIGIN"}
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
    client: Mapping[str, Page]
    demo: Mapping[str, Page]

    @classmethod
    def of(cls, openapi: Schema, asyncapi: Schema) -> Self:
        """The pages, from the two documents."""
        return cls(
            Page.of(msgspec.json.encode(openapi), "application/json"),
            Page.of(msgspec.json.encode(asyncapi), "application/json"),
            _folder("docs"),
            _folder("."),
            _folder("demo"),
        )


def _folder(name: str) -> dict[str, Page]:
    return {file: Page.of(*found) for file, found in web.folder(name).items()}


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
    return _told(request, _named(request, _pages(request).docs))


async def client_file(request: Request) -> Response:
    """`GET /client/{file}`: the client for browsers, `waypost.js`, and its types, `waypost.d.ts`.

    Pages of any origin may import it.
    """
    return _told(request, _named(request, _pages(request).client), FOR_EVERYBODY)


async def demo(request: Request) -> Response:
    """`GET /`: the demo page. In dev mode only."""
    _check_is_dev(request)
    return _told(request, _pages(request).demo[INDEX], IN_OUR_OWN_FRAME)


async def demo_file(request: Request) -> Response:
    """`GET /demo/{file}`: what the demo page is made of. In dev mode only."""
    _check_is_dev(request)
    return _told(request, _named(request, _pages(request).demo), IN_OUR_OWN_FRAME)


def _check_is_dev(request: Request) -> None:
    """Elsewhere nobody can sign in on the demo page: it is not there."""
    if not request.app.state.settings.dev:
        raise WaypostError("no_path")


def _named(request: Request, files: Mapping[str, Page]) -> Page:
    found = files.get(request.path_params["file"])
    if found is None:
        raise WaypostError("no_path")
    return found


def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


def _told(request: Request, page: Page, more: Mapping[str, str] = MappingProxyType({})) -> Response:
    headers = {"cache-control": KEPT, "content-security-policy": POLICY, "etag": page.etag, **more}
    given = request.headers.get("if-none-match", "")
    known = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    if known & {page.etag, "*"}:
        return Response(None, 304, headers)
    return Response(page.content, 200, headers, page.kind)
