"""The demo page as people use it, found by what it says to a screen reader: roles and names."""

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.browser.conftest import Arrive
from tests.e2e.browser.kit import Person, are_kept
from tests.e2e.conftest import StartNode
from tests.service import Phone

if TYPE_CHECKING:
    from playwright.async_api import ConsoleMessage, Locator, Page, Request

pytestmark = pytest.mark.anyio
expect: Any = pytest.importorskip("playwright.async_api", reason="playwright is not installed").expect
NAMELESS = re.compile(
    r"^\s*- (button|link|textbox|switch|region|navigation|complementary|iframe|table)\b(?! \")", re.MULTILINE
)


class Screen:
    """The page in one tab. `complaints` are what the browser says of it, and what it asks other hosts for."""

    def __init__(self, page: "Page", home: str) -> None:
        self.page = page
        self.home = home
        self.status = page.get_by_role("status")
        self.messages = page.get_by_role("log").locator(".text")
        self.outbox = page.get_by_role("list", name="Not sent yet").get_by_role("listitem")
        self.text = page.get_by_role("textbox", name="Message")
        self.complaints: list[str] = []

    @classmethod
    async def show(cls, person: Person) -> "Screen":
        """The page before anybody has signed in."""
        screen = cls(await person.context.new_page(), person.site.url)
        screen.page.on("console", screen.is_told)
        screen.page.on("pageerror", lambda error: screen.complaints.append(str(error)))
        screen.page.on("request", screen.is_asked_for)
        await screen.page.goto(screen.home)
        return screen

    def is_told(self, said: "ConsoleMessage") -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def is_asked_for(self, request: "Request") -> None:
        if not request.url.startswith(self.home):
            self.complaints.append(request.url)

    @classmethod
    async def sign_in(cls, person: Person) -> "Screen":
        """Somebody's page, live."""
        screen = await cls.show(person)
        await screen.page.get_by_label("Your name").fill(person.name)
        await screen.page.get_by_role("button", name="Sign in").click()
        await expect(screen.status).to_have_text("live")
        return screen

    async def begin(self, name: str, how: str = "Write") -> None:
        """Begins a conversation with somebody, or joins a group."""
        await self.page.get_by_label("Someone or a group").fill(name)
        await self.page.get_by_role("button", name=how).click()
        await expect(self.page.get_by_role("heading", name=name, exact=True)).to_be_visible()

    def row(self, name: str) -> "Locator":
        """What leads to a conversation."""
        return self.page.get_by_role("navigation").get_by_role("link", name=re.compile(f"\\b{re.escape(name)}\\b"))

    async def say(self, *texts: str) -> None:
        for text in texts:
            await self.text.fill(text)
            await self.text.press("Enter")

    async def shows(self, *texts: str) -> None:
        """Waits until the lines of the open conversation are these."""
        await expect(self.messages).to_have_text(list(texts))


@pytest.fixture
async def screens(start_node: StartNode, arrive: Arrive) -> AsyncIterator[tuple[Screen, Screen]]:
    """Alice and bob, signed in; in the end the browser may have had nothing to complain of."""
    node = start_node()
    both = (await Screen.sign_in(await arrive("alice", node)), await Screen.sign_in(await arrive("bob", node)))
    yield both
    assert [complaint for screen in both for complaint in screen.complaints] == []


async def test_two_people_chat_and_what_is_not_seen_is_counted(screens: tuple[Screen, Screen]) -> None:
    alice, bob = screens
    await alice.begin("bob")
    await alice.say("hi", "are you there?")
    await alice.shows("hi", "are you there?")
    await expect(alice.page.get_by_role("log").locator(".state")).to_have_text(["sent", "sent"])
    await expect(bob.row("alice")).to_contain_text("2 unread")
    await expect(bob.page).to_have_title("(2) bob – Waypost")
    await bob.row("alice").click()
    await bob.shows("hi", "are you there?")
    await expect(bob.row("alice")).not_to_contain_text("unread")
    await expect(bob.page).to_have_title("bob – Waypost")
    await bob.say("I am")
    for screen in screens:
        await screen.shows("hi", "are you there?", "I am")
    await alice.page.get_by_role("button", name="Take away").first.click()
    for screen in screens:
        await screen.shows("are you there?", "I am")
        await expect(screen.page.get_by_text("This message was taken away")).to_be_visible()


async def test_a_group_and_its_coming_and_going(screens: tuple[Screen, Screen]) -> None:
    alice, bob = screens
    for screen in screens:
        await screen.begin("club", "Join group")
    await alice.say("welcome")
    await bob.shows("welcome")
    await expect(alice.page.get_by_text("bob has joined the group")).to_be_visible()
    await bob.page.get_by_role("button", name="Leave").click()
    await expect(alice.page.get_by_text("bob has left the group")).to_be_visible()
    await expect(bob.row("club")).to_have_count(0)


async def test_the_offline_switch(screens: tuple[Screen, Screen]) -> None:
    alice, bob = screens
    await alice.begin("bob")
    switch = alice.page.get_by_role("switch", name="Go offline")
    await switch.click()
    await expect(alice.status).to_have_text("offline")
    await expect(switch).to_have_attribute("aria-checked", "true")
    await alice.say("one", "two", "three")
    await expect(alice.outbox).to_have_count(3)
    await expect(bob.row("alice")).to_have_count(0)
    await switch.click()
    await expect(alice.status).to_have_text("live")
    await expect(alice.outbox).to_have_count(0)
    await alice.shows("one", "two", "three")
    await bob.row("alice").click()
    await bob.shows("one", "two", "three")


async def test_what_waits_is_shown_after_a_reload_and_goes_out(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    bob = await Phone.open(node.url, "bob")
    person = await arrive("alice", node)
    alice = await Screen.sign_in(person)
    await alice.begin("bob")
    person.site.sever()
    await expect(alice.status).to_have_text("no connection")
    for count in range(1, 4):
        await alice.say(f"m{count}")
        await expect(alice.outbox).to_have_count(count)
        await are_kept(alice.page, count)
        await alice.page.reload()
        await expect(alice.outbox).to_have_count(count)
    await expect(alice.outbox.first).to_contain_text("queued")
    person.site.mend()
    await expect(alice.outbox).to_have_count(0, timeout=15_000)  # at the latest after a pause of ten seconds
    await alice.shows("m1", "m2", "m3")
    await bob.until(lambda: len(bob.bodies("user:bob")) >= 3, "bob has everything")
    assert bob.bodies("user:bob") == [{"text": f"m{count}"} for count in range(1, 4)]


async def test_history_comes_as_one_scrolls_up(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    phone = await Phone.open(node.url, "alice")
    await phone.send_all("user:bob", [{"text": f"m{n}"} for n in range(160)])
    bob = await Screen.sign_in(await arrive("bob", node))
    await expect(bob.row("alice")).to_contain_text("160 unread")
    await bob.row("alice").click()
    await expect(bob.messages).to_have_count(160)
    await bob.page.reload()
    await expect(bob.status).to_have_text("live")
    await expect(bob.messages.last).to_have_text("m159")
    region = bob.page.get_by_role("region", name="Messages")
    beginning = bob.page.get_by_text("This is the beginning.")
    while not await beginning.is_visible():
        count = await bob.messages.count()
        await region.evaluate("region => { region.scrollTop = region.scrollHeight; }")
        await region.evaluate("region => { region.scrollTop = 0; }")
        await expect(bob.messages.nth(count).or_(beginning).first).to_be_attached()
    await bob.shows(*(f"m{n}" for n in range(160)))
    assert bob.complaints == []


async def test_a_second_device_has_everything_too(screens: tuple[Screen, Screen]) -> None:
    alice, bob = screens
    await bob.begin("alice")
    await bob.page.get_by_role("button", name="Second device").click()
    frame = bob.page.frame_locator("iframe[title='A second device']")
    await expect(frame.get_by_role("status")).to_have_text("live")
    await alice.begin("bob")
    await alice.say("to both")
    await bob.shows("to both")
    await frame.get_by_role("link", name=re.compile(r"\balice\b")).click()
    await expect(frame.get_by_role("log").locator(".text")).to_have_text(["to both"])
    await frame.get_by_role("textbox", name="Message").fill("from the second")
    await frame.get_by_role("textbox", name="Message").press("Enter")
    for screen in screens:
        await screen.shows("to both", "from the second")
    await expect(frame.get_by_role("log").locator(".text")).to_have_text(["to both", "from the second"])


async def test_a_keyboard_is_enough_and_everything_has_a_name(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node()
    bob = await Phone.open(node.url, "bob")
    alice = await Screen.show(await arrive("alice", node))
    page, keys = alice.page, alice.page.keyboard

    async def tab_to(name: str) -> None:
        """Presses Tab until what has this name has the focus."""
        place = page.get_by_label(name).or_(page.get_by_role("button", name=name, exact=True))
        for _ in range(20):
            await keys.press("Tab")
            if await place.first.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"Tab does not lead to {name}")

    assert not NAMELESS.findall(await page.locator("body").aria_snapshot())
    await tab_to("Your name")
    await keys.type("alice")
    await keys.press("Enter")
    await expect(alice.status).to_have_text("live")
    await tab_to("Someone or a group")
    await keys.type("bob")
    await keys.press("Enter")
    await expect(alice.text).to_be_focused()
    await keys.type("by keys")
    await keys.press("Shift+Enter")
    await keys.type("alone")
    await keys.press("Enter")
    await bob.until(lambda: bob.bodies("user:bob") == [{"text": "by keys\nalone"}], "bob has it")
    assert not NAMELESS.findall(await page.locator("body").aria_snapshot())
    await keys.press("Escape")
    await expect(alice.row("bob")).to_be_focused()
    await keys.press("Enter")
    await expect(alice.text).to_be_focused()
    assert alice.complaints == []
