"""The page at /docs in a real browser: all operations, what is typed in is sent, and no other host is asked."""

import asyncio
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.integration.wire.kit import eventually
from tests.schemas import document
from tests.service import NodeProcess

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the PATH"),
]

# Fills in a form by its labels and sends it; waits for the status that is shown.
ASK = """(async () => {
  const card = document.getElementById(%s), given = %s;
  card.open = true;
  document.getElementById("user").value = given.user;
  for (const [name, value] of Object.entries(given.fields)) card.querySelector(`[data-name="${name}"]`).value = value;
  if (given.body) card.querySelector("textarea").value = given.body;
  card.querySelector("button").click();
  for (let look = 0; look < 500; look++) {
    const pre = card.querySelector("[aria-live] pre");
    if (pre && pre.textContent) return [card.querySelector(".status").textContent, pre.textContent];
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  return ["nothing came", ""];
})()"""


class Browser:
    """A tab of a headless Chromium, by its debugging protocol: what was asked for, and what it complained of."""

    def __init__(self, tab: ClientConnection) -> None:
        self._tab = tab
        self._numbers = itertools.count(1)
        self.asked: list[str] = []
        self.complaints: list[object] = []

    async def call(self, method: str, **given: object) -> dict[str, Any]:
        number = next(self._numbers)
        await self._tab.send(json.dumps({"id": number, "method": method, "params": given}))
        async with asyncio.timeout(20):
            while True:
                told: dict[str, Any] = json.loads(await self._tab.recv())
                if told.get("id") == number:
                    assert "error" not in told, told
                    result: dict[str, Any] = told["result"]
                    return result
                self._hear(told)

    def _hear(self, told: dict[str, Any]) -> None:
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(told["params"])
            case "Log.entryAdded" if told["params"]["entry"]["level"] == "error":
                self.complaints.append(told["params"])

    async def value(self, script: str) -> Any:  # noqa: ANN401 - whatever the script returns
        told = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str) -> None:
        async with asyncio.timeout(20):
            while not await self.value(script):  # noqa: ASYNC110 - nothing here signals it
                await asyncio.sleep(0.02)

    async def ask(self, operation: str, user: str, body: str = "", **fields: str) -> tuple[str, Any]:
        given = {"user": user, "body": body, "fields": fields}
        status, text = await self.value(ASK % (json.dumps(operation), json.dumps(given)))
        return status, json.loads(text)


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="wp-chromium-", ignore_cleanup_errors=True) as profile:
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
        process = subprocess.Popen(  # noqa: ASYNC220 - begun in no time
            [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            said = Path(profile, "DevToolsActivePort")
            await eventually(lambda: "\n" in text_of(said), "the browser listens", 20)
            port, path = text_of(said).split("\n")[:2]
            async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, compression=None) as whole:
                made = await Browser(whole).call("Target.createTarget", url="about:blank")
                tab = f"ws://127.0.0.1:{port}/devtools/page/{made['targetId']}"
                async with connect(tab, max_size=None, compression=None) as one:
                    browser = Browser(one)
                    for domain in ("Page", "Network", "Runtime", "Log"):
                        await browser.call(f"{domain}.enable")
                    yield browser
        finally:
            process.terminate()
            process.wait(20)


async def test_operations_are_tried_on_it(node: NodeProcess, alice: str, browser: Browser) -> None:
    await browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True)
    await browser.call("Page.navigate", url=f"{node.url}/docs")
    await browser.until("document.querySelectorAll('.operation').length > 0")
    shown = await browser.value("[...document.querySelectorAll('.operation')].map(one => one.id)")
    assert sorted(shown) == sorted(
        one["operationId"] for methods in document()["paths"].values() for one in methods.values()
    )

    sent = {"to": f"user:{alice}", "body": "<b>hi</b>", "key": "k-1"}
    status, told = await browser.ask("messages_post", alice, json.dumps(sent))
    assert (status, told["mid"]) == ("201 Created", "k-1")
    status, told = await browser.ask("messages_read", alice, stream=f"user:{alice}", limit="1")
    assert (status, told["messages"][0]["body"]) == ("200 OK", "<b>hi</b>")
    status, told = await browser.ask("groups_look", alice, group="a/b")
    assert (status, told["code"]) == ("404 Not Found", "no_path")

    assert await browser.value("document.documentElement.scrollWidth <= innerWidth"), "it is wider than a phone"
    assert await browser.value("document.querySelector('#operations b')") is None
    await browser.value("(find => { find.value = 'members put'; find.dispatchEvent(new Event('input')); })($('find'))")
    visible = "[...document.querySelectorAll('.operation')].filter(one => one.offsetParent).map(one => one.id)"
    assert await browser.value(visible) == ["groups_put_in"]

    assert browser.asked
    assert all(url.startswith(node.url) for url in browser.asked), browser.asked
    assert all("404" in str(one) for one in browser.complaints), browser.complaints  # the refusal above, nothing else


async def test_a_script_that_is_no_file_of_ours_does_not_run(node: NodeProcess, browser: Browser) -> None:
    await browser.call("Page.navigate", url=f"{node.url}/docs")
    await browser.until("document.querySelectorAll('.operation').length > 0")
    script = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    await browser.value(script)
    assert await browser.value("window.ran") is None
    assert any("Content Security Policy" in str(one) for one in browser.complaints), browser.complaints
