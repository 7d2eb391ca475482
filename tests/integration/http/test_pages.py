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
from tests.schemas import document
from tests.service import NodeProcess

pytestmark = pytest.mark.anyio

PAGES = ["/openapi.json", "/asyncapi.json", "/docs", *(f"/docs/{name}" for name in folder("docs"))]


async def get(node: NodeProcess, path: str, **headers: str) -> tuple[int, Message, bytes]:
    def ask() -> tuple[int, Message, bytes]:
        try:
            with urllib.request.urlopen(urllib.request.Request(node.url + path, headers=headers), timeout=10) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as other:
            with other:
                return other.code, other.headers, other.read()

    return await asyncio.to_thread(ask)


async def test_the_documents_are_those_of_the_table(signed: NodeProcess) -> None:
    assert (await fetch(signed, "/openapi.json")).json == document()
    assert (await fetch(signed, "/asyncapi.json")).json == asyncapi()


@pytest.mark.parametrize("path", PAGES)
async def test_what_was_had_is_not_sent_again(signed: NodeProcess, path: str) -> None:
    status, headers, content = await get(signed, path)
    assert (status, headers["cache-control"]) == (200, "public, no-cache")
    assert headers["x-content-type-options"] == "nosniff"
    assert content
    for known in (headers["etag"], f'"x", W/{headers["etag"]}', "*"):
        again, told, nothing = await get(signed, path, **{"If-None-Match": known})
        assert (again, told["etag"], nothing) == (304, headers["etag"], b"")
    assert (await get(signed, path, **{"If-None-Match": '"x"'}))[0] == 200


async def test_the_page_has_no_need_of_anybody_else(node: NodeProcess) -> None:
    _, headers, content = await get(node, "/docs")
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
    for name, file in folder("docs").items():
        assert set(re.findall(rb"https?://[^\s\"']+", file.content)) <= {b"http://www.w3.org/2000/svg"}, name


@pytest.mark.parametrize("path", ["/docs/nothing.js", "/docs/..%2f__init__.py", "/docs/%00", "/docs/a/b"])
async def test_no_other_file_is_served(node: NodeProcess, path: str) -> None:
    check_problem(await Caller(node)("GET", path), "no_path")
