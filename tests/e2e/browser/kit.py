"""People with a browser: what their tabs were told, counted outside of the tabs, which may die at any time."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from service.core.names import parse_id
from tests.e2e.browser.site import Site
from tests.service import ENTRY_TYPES

if TYPE_CHECKING:  # where it is not installed, the tests are skipped
    from playwright.async_api import BrowserContext, Page

Note = dict[str, Any]

_READ = """([prefix, at]) => {
  const found = [];
  for (let text; (text = localStorage.getItem(prefix + at)) !== null; at += 1) found.push(JSON.parse(text));
  return found;
}"""

_RECORDS = """() => new Promise((done, failed) => {
  const opening = indexedDB.open("waypost");
  opening.onerror = failed;
  opening.onsuccess = () => {
    const database = opening.result;
    const asking = database.transaction("kept").objectStore("kept").getAllKeys();
    asking.onsuccess = () => done(asking.result.filter((key) => key.includes("/outbox/")).length);
    database.close();
  };
})"""


async def are_kept(page: "Page", count: int) -> None:
    """Waits until so many records of the outbox lie where docs/browser.md says that they are kept."""
    async with asyncio.timeout(20):
        while await page.evaluate(_RECORDS) != count:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.02)


class Tab:
    """One tab, over all its lives: it may be closed, killed, opened again and reloaded.

    `notes` is what its client told its handlers, oldest first; `until` looks again.
    """

    def __init__(self, person: "Person", name: str, asked: Note) -> None:
        self.person = person
        self.name = name
        self.asked = asked
        self.notes: list[Note] = []
        self._page: Page | None = None

    @property
    def page(self) -> "Page":
        assert self._page is not None
        return self._page

    # -- its lives -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens it; its client begins to connect."""
        self._page = await self.person.context.new_page()
        self._page.on("pageerror", lambda error: self.person.problems.append(f"{self.name}: {error}"))
        asked = {**self.asked, "tab": self.name}
        await self._page.goto(f"{self.person.site.url}/test/page?{urlencode({'asked': json.dumps(asked)})}")

    async def reload(self) -> None:
        """The page ends, and begins anew."""
        await self.page.reload()

    async def close(self) -> None:
        """As people close a tab."""
        await self.page.close()

    async def kill(self) -> None:
        """Ends its process at once, in the middle of whatever it does."""
        page = self.page
        session = await self.person.context.new_cdp_session(page)
        gone = asyncio.Event()
        page.on("crash", lambda _: gone.set())
        dying = asyncio.ensure_future(session.send("Page.crash"))  # nobody is left to answer
        async with asyncio.timeout(10):
            await gone.wait()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        await page.close()

    # -- what it does --------------------------------------------------------------------------------------------------

    async def say(self, to: str, *bodies: object, **given: object) -> None:
        """Sends, one after the other without waiting; how each ends is noted."""
        await self.page.evaluate(
            "([to, bodies, given]) => bodies.forEach(body => window.say(to, body, given))", [to, list(bodies), given]
        )

    async def chat(self, to: str, bodies: Iterable[object], every_ms: int) -> None:
        """Begins to send these at a steady pace; they are not waited for."""
        await self.page.evaluate(
            "([to, bodies, every]) => window.chat(to, bodies, every)", [to, list(bodies), every_ms]
        )

    async def call(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page has
        """What the page says to a line of JavaScript; `client` is its client."""
        return await self.page.evaluate(expression)

    async def outbox(self) -> list[Any]:
        """The bodies in its outbox, oldest first."""
        found: list[Any] = await self.call("client.outbox().map(item => item.body)")
        return found

    # -- what it was told ----------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], what: str, seconds: float = 20) -> None:
        """Waits until something is true of `notes`."""
        try:
            async with asyncio.timeout(seconds):
                await self.look()
                while not condition():
                    assert self.person.problems == []
                    await asyncio.sleep(0.03)
                    await self.look()
        except TimeoutError:
            raise AssertionError(
                f"{self}: {what}: not within {seconds} s; of {len(self.notes)} notes the last: {self.notes[-6:]}"
            ) from None

    async def has(self, stream: str, count: int) -> None:
        """Waits until so many different messages of a stream have come."""
        await self.until(lambda: len(set(self.bodies(stream))) >= count, f"has {count} of {stream}")

    async def answered(self, count: int) -> None:
        """Waits until so many sends have resolved."""
        await self.until(lambda: len(self.of("answer")) >= count, f"has {count} answers")

    async def look(self) -> None:
        """Reads on in the notes."""
        self.notes += await self.person.read(f"heard:{self.name}:", len(self.notes))

    def of(self, *types: str) -> list[Note]:
        """The notes of these types."""
        return [note for note in self.notes if note["type"] in types]

    def bodies(self, stream: str) -> list[Any]:
        """The bodies of a stream's messages, as they came."""
        return [note["body"] for note in self.of("message") if note["stream"] == stream]

    def answers(self) -> list[Any]:
        """The bodies whose `send` has resolved, in that order."""
        return [note["body"] for note in self.of("answer")]

    @property
    def state(self) -> str:
        """The state it was told last."""
        states = self.of("state")
        return str(states[-1]["state"]) if states else ""

    async def live(self, seconds: float = 20) -> None:
        """Waits until it is live, in this life."""

        def is_live() -> bool:
            last_life = max((nth for nth, note in enumerate(self.notes) if note["type"] == "opened"), default=0)
            states = [note["state"] for note in self.notes[last_life:] if note["type"] == "state"]
            return bool(states) and states[-1] == "live"

        await self.until(is_live, "is live", seconds)

    def check(self, stream: str, first: int = 1, *, may_repeat: int = 0) -> list[Any]:
        """Nothing of a stream is missing, out of order or twice: its numbers go up by one from `first`, and no gap is
        told. Returns the bodies of its messages.

        `may_repeat`: as many times an entry may have come a second time, right after it came first and the tab was
        killed: no client can both note something and be told so in one step.
        """
        assert [gap for gap in self.of("gap") if gap["stream"] == stream] == []
        came = [
            note
            for note in self.notes
            if note["type"] in (*ENTRY_TYPES, "opened") and note.get("stream", stream) == stream
        ]
        kept: list[Note] = []
        is_new_life = False
        for note in came:
            if note["type"] == "opened":
                is_new_life = True
                continue
            if kept and is_new_life and note["id"] == kept[-1]["id"] and may_repeat:
                may_repeat -= 1
            else:
                kept.append(note)
            is_new_life = False
        numbers = [parse_id(note["id"]).n for note in kept]
        assert numbers == list(range(first, first + len(numbers))), f"{self}: {stream}: {_odd(numbers, first)}"
        return [note["body"] for note in kept if note["type"] == "message"]

    def __str__(self) -> str:
        return f"{self.person.name}'s tab {self.name}"


class Person:
    """Somebody with a browser profile of their own, behind a network of their own."""

    def __init__(
        self,
        name: str,
        context: "BrowserContext",
        site: Site,
        start: "Callable[[], Awaitable[BrowserContext]] | None" = None,
    ) -> None:
        self.name = name
        self.context = context
        self.site = site
        self._start = start  # the browser again, on the same profile
        self.problems: list[str] = []  # what the pages did not catch
        self._book: Page | None = None

    async def tab(self, name: str = "1", *, asked: Note | None = None, **options: object) -> Tab:
        """A new tab with a client that has these options, spelled as the client spells them; see page.js for what else
        may be `asked` of the page.
        """
        given = {"user": self.name, **options}
        given = {name: value for name, value in given.items() if value is not None}
        tab = Tab(self, name, {**(asked or {}), "options": given})
        await tab.open()
        return tab

    async def killed(self) -> None:
        """The whole browser is killed, and started again without a tab. Needs a browser of one's own."""
        assert self._start is not None
        assert self.context.browser is not None
        session = await self.context.browser.new_browser_cdp_session()
        processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
        gone = asyncio.Event()
        self.context.on("close", lambda _: gone.set())
        os.kill(next(process["id"] for process in processes if process["type"] == "browser"), signal.SIGKILL)
        async with asyncio.timeout(10):
            await gone.wait()
        self._book = None
        self.context = await self._start()

    async def leave(self) -> None:
        """Closes the browser, and every tab with it."""
        await self.context.close()

    async def read(self, prefix: str, at: int) -> list[Note]:
        """What is written down under this prefix from this number on, read in a tab that has no client."""
        if self._book is None or self._book.is_closed():
            self._book = await self.context.new_page()
            self._book.on("crash", lambda _: setattr(self, "_book", None))
            await self._book.goto(f"{self.site.url}/test/book")
        found: list[Note] = await self._book.evaluate(_READ, [prefix, at])
        return found

    async def keys(self) -> list[str]:
        """What else is kept in the profile: names in localStorage that are not ours."""
        await self.read("", 0)
        assert self._book is not None
        found: list[str] = await self._book.evaluate("Object.keys(localStorage)")
        return [key for key in found if not key.startswith("heard:")]


def in_order(bodies: list[Any], *said: list[Any]) -> None:
    """These are all that was said, each once, and what one person said is in the order in which it was."""
    assert len(bodies) == len(set(bodies)), f"twice: {sorted(body for body in set(bodies) if bodies.count(body) > 1)}"
    every = {body for one in said for body in one}
    assert set(bodies) == every, f"lost: {sorted(every - set(bodies))}; never said: {sorted(set(bodies) - every)}"
    for one in said:
        mine = set(one)
        assert [body for body in bodies if body in mine] == one


def _odd(numbers: list[int], first: int) -> str:
    """Where numbers leave the line, in a few words."""
    for nth, number in enumerate(numbers):
        if number != first + nth:
            return f"{number} came where {first + nth} was to come, among {numbers[max(0, nth - 3) : nth + 4]}"
    return "nothing odd"
