"""One Chromium for each file of tests, a profile for each person, real nodes behind a site of the test's own."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from migrations import __main__ as migrations
from tests.e2e.browser.kit import Person
from tests.e2e.browser.site import Site
from tests.integration.store.kit import Server
from tests.service import NodeProcess

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Playwright

OPTIONS: dict[str, Any] = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox", "--disable-gpu"]}


class Arrive(Protocol):
    """Somebody sits down before a browser that leads to this node."""

    async def __call__(self, name: str, node: NodeProcess) -> Person: ...


class Reopen(Protocol):
    """The same, with a whole browser of their own, whose profile in this folder outlives it."""

    async def __call__(self, name: str, node: NodeProcess, folder: Path) -> Person: ...


@pytest.fixture(scope="module")
async def playwright() -> AsyncIterator["Playwright"]:
    """What starts browsers."""
    if OPTIONS["executable_path"] is None:
        pytest.skip("chromium is not on the PATH")
    library = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with library.async_playwright() as started:
        yield started


@pytest.fixture(scope="module")
async def chromium(playwright: "Playwright") -> AsyncIterator["Browser"]:
    """A browser, in which everybody has a profile."""
    browser = await playwright.chromium.launch(**OPTIONS)
    yield browser
    await browser.close()


@pytest.fixture
async def database() -> AsyncIterator[Server]:
    """One of its own, to be killed at will; which kind makes no difference to a browser."""
    with Server("valkey") as server:
        await migrations.up(server.url)
        yield server


@pytest.fixture
async def arrive(chromium: "Browser") -> AsyncIterator[Arrive]:
    """People, each with a profile and a network; in the end no page may have had an error that nobody caught."""
    people: list[Person] = []
    async with contextlib.AsyncExitStack() as stack:

        async def arrive(name: str, node: NodeProcess) -> Person:
            site = await stack.enter_async_context(Site(node.port))
            context = await chromium.new_context()
            people.append(Person(name, context, site))
            stack.push_async_callback(people[-1].leave)
            return people[-1]

        yield arrive
    assert [problem for person in people for problem in person.problems] == []


@pytest.fixture
async def reopen(playwright: "Playwright") -> AsyncIterator[Reopen]:
    """As `arrive`."""
    people: list[Person] = []
    async with contextlib.AsyncExitStack() as stack:

        async def reopen(name: str, node: NodeProcess, folder: Path) -> Person:
            site = await stack.enter_async_context(Site(node.port))

            async def start() -> "BrowserContext":
                return await playwright.chromium.launch_persistent_context(folder, **OPTIONS)

            person = Person(name, await start(), site, start)
            people.append(person)
            stack.push_async_callback(person.leave)
            return person

        yield reopen
    assert [problem for person in people for problem in person.problems] == []
