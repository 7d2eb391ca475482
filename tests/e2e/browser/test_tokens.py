"""Tokens in a browser: renewed while it goes on, asked for again, and an end that is told where none can be had."""

import pytest

from tests.e2e.browser.conftest import Arrive
from tests.e2e.browser.kit import Tab
from tests.e2e.browser.site import Site
from tests.e2e.conftest import StartNode
from tests.tokens import SIGNED, mint

pytestmark = pytest.mark.anyio


def upgrades(site: Site) -> int:
    """How many connections were asked for."""
    return sum("/v1/connect" in asked or "/v1/events" in asked for asked in site.asked)


async def another_token(tab: Tab) -> None:
    """Waits until the page is asked for one more."""
    site, given = tab.person.site, tab.person.site.tokens_given
    await tab.until(lambda: site.tokens_given > given, "asks for another token", 6)


async def test_a_short_token_is_renewed_on_the_open_connection(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node("a", **SIGNED, token_grace_s=0.2)
    alice = await arrive("alice", node)
    alice.site.next_token = lambda: mint("alice", ttl=3)
    tab = await alice.tab(asked={"tokens": True}, user=None)
    await tab.live()
    assert await tab.call("client.user") == "alice"
    for n in range(4):
        await tab.say("user:alice", f"m{n}")
        await another_token(tab)
    await tab.until(lambda: len(tab.bodies("user:alice")) >= 4, "has everything")
    assert tab.check("user:alice") == [f"m{n}" for n in range(4)]
    assert upgrades(alice.site) == 1
    assert tab.state == "live"
    assert not any(
        part in asked for asked in alice.site.asked for part in ("token=", "eyJ")
    )  # addresses end up in logs

    alice.site.cut()
    await tab.until(lambda: upgrades(alice.site) >= 2, "connects again")
    await tab.live()
    assert tab.of("refused") == []


async def test_without_a_fresh_token_it_stops_and_says_so_and_another_one_revives_it(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node("a", **SIGNED, token_grace_s=0.2)
    alice = await arrive("alice", node)
    tab = await alice.tab(token=mint("alice", ttl=2), user=None)
    await tab.live()
    await tab.until(lambda: tab.state == "stopped", "stops")
    assert tab.of("state")[-1]["error"]["code"] == "expired"
    await tab.say("user:alice", "kept")
    await tab.until(lambda: tab.of("outbox"), "is kept")
    assert await tab.outbox() == ["kept"]
    await tab.page.evaluate("token => client.reconnect({ token })", mint("alice"))
    await tab.until(lambda: tab.bodies("user:alice") == ["kept"], "is sent")
    await tab.live()


async def test_a_token_that_is_none_stops_it(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node("a", **SIGNED)
    alice = await arrive("alice", node)
    tab = await alice.tab(token=mint("alice", secret="another secret, of the same length as it"), user=None)
    await tab.until(lambda: tab.state == "stopped", "stops")
    assert tab.of("state")[-1]["error"]["code"] == "unauthorised"


async def test_tokens_where_websockets_are_blocked(start_node: StartNode, arrive: Arrive) -> None:
    node = start_node("a", **SIGNED, token_grace_s=0.2)
    alice = await arrive("alice", node)
    alice.site.block_sockets()
    alice.site.next_token = lambda: mint("alice", ttl=3)
    tab = await alice.tab(asked={"tokens": True}, user=None)
    await tab.live()
    for n in range(3):
        await tab.say("user:alice", f"m{n}")
        await another_token(tab)
    await tab.until(lambda: len(tab.bodies("user:alice")) >= 3, "has everything")
    assert tab.check("user:alice") == [f"m{n}" for n in range(3)]
    assert tab.of("refused") == []
