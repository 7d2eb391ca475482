"""The documents and the page as they are served: to anybody, once, and with nothing of other hosts."""

import asyncio
import re
import urllib.error
import urllib.request
from email.message import Message

import pytest

from service.api.asyncapi import asyncapi
from service.web import folder
from tests.integration.http.web import Caller, check_problem, fetch
from tests.integration.wire.conftest import StartNode
from tests.schemas import document
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio

CLIENT = ["/client/waypost.js", "/client/waypost.d.ts"]
PAGES = ["/openapi.json", "/asyncapi.json", "/docs", *(f"/docs/{name}" for name in folder("docs")), *CLIENT]
DEMO = ["/", *(f"/demo/{name}" for name in folder("demo"))]
KINDS = {"": "text/html", "html": "text/html", "css": "text/css", "js": "text/javascript", "ts": "text/plain"}


async def get(node: NodeProcess, path: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    def ask() -> tuple[int, Message, bytes]:
        request = urllib.request.Request(node.url + path, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as other:
            with other:
                return other.code, other.headers, other.read()

    return await asyncio.to_thread(ask)


async def test_the_documents_are_those_of_the_table(signed: NodeProcess) -> None:
    assert (await fetch(signed, "/openapi.json")).json == document()
    assert (await fetch(signed, "/asyncapi.json")).json == asyncapi()


@pytest.mark.parametrize("path", [*PAGES, *DEMO])
async def test_what_was_had_is_not_sent_again(node: NodeProcess, signed: NodeProcess, path: str) -> None:
    await check_is_kept(node if path in DEMO else signed, path)


async def check_is_kept(signed: NodeProcess, path: str) -> None:
    status, headers, content = await get(signed, path)
    assert (status, headers["cache-control"]) == (200, "public, no-cache")
    assert headers["x-content-type-options"] == "nosniff"
    assert content
    for known in (headers["etag"], f'"x", W/{headers["etag"]}', "*"):
        again, told, nothing = await get(signed, path, **{"If-None-Match": known})
        assert (again, told["etag"], nothing) == (304, headers["etag"], b"")
    assert (await get(signed, path, **{"If-None-Match": '"x"'}))[0] == 200
    status, told, nothing = await get(signed, path, "HEAD")
    assert (status, told["etag"], nothing) == (200, headers["etag"], b"")
    assert told["content-length"] == str(len(content))


@pytest.mark.parametrize(("page", "files"), [("/docs", "docs"), ("/", "demo")])
async def test_a_page_has_no_need_of_anybody_else(node: NodeProcess, page: str, files: str) -> None:
    _, headers, content = await get(node, page)
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    text = content.decode()
    wanted = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert wanted
    for path in wanted:
        assert path.startswith("/")
        assert (await get(node, path))[0] == 200
    assert not re.search(r"<script>|<style|style=| on\w+=", text)
    for name, file in folder(files).items():
        assert set(re.findall(rb"https?://[^\s\"']+", file.content)) <= {b"http://www.w3.org/2000/svg"}, name


@pytest.mark.parametrize("path", [*CLIENT, *DEMO])
async def test_files_say_what_they_are(node: NodeProcess, path: str) -> None:
    _, headers, _ = await get(node, path)
    assert headers["content-type"] in (
        f"{KINDS.get(path.rpartition('.')[2].strip('/'))}; charset=utf-8",
        "image/svg+xml",
    )


@pytest.mark.parametrize("path", DEMO)
async def test_the_demo_page_is_there_in_dev_mode_alone(signed: NodeProcess, path: str) -> None:
    check_problem(await Caller(signed)("GET", path), "no_path")


async def test_the_demo_page_may_be_in_a_frame_of_its_own_and_of_nobody_else(node: NodeProcess) -> None:
    _, headers, _ = await get(node, "/")
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    _, headers, _ = await get(node, "/docs")
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", CLIENT)
@pytest.mark.parametrize("origins", ["", "https://app.example", "*"])
async def test_pages_of_any_origin_may_import_the_client(start_node: StartNode, path: str, origins: str) -> None:
    node = start_node(origins=origins)
    for origin in ("https://app.example", "https://other.example"):
        status, headers, _ = await get(node, path, Origin=origin)
        assert status == 200
        assert headers["access-control-allow-origin"] in ("*", origin)
        assert len(headers.get_all("access-control-allow-origin", [])) == 1
        assert headers["access-control-allow-credentials"] is None
        _, again, _ = await get(node, path, Origin=origin, **{"If-None-Match": headers["etag"]})
        assert again["access-control-allow-origin"] == headers["access-control-allow-origin"]
    _, headers, _ = await get(node, "/", Origin="https://other.example")
    assert headers["access-control-allow-origin"] == ("*" if origins == "*" else None)


NO_FILES = ["nothing.js", "..%2f__init__.py", "%2e%2e%2fdocs%2fpage.js", "%00", "a/b", "__init__.py", "docs", "."]


@pytest.mark.parametrize("path", [f"/{place}/{name}" for place in ("docs", "client", "demo") for name in NO_FILES])
async def test_no_other_file_is_served(node: NodeProcess, path: str) -> None:
    check_problem(await Caller(node)("GET", path), "no_path")
