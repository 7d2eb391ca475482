"""What handlers are given: gaps in their place, and the same entry again until it is taken."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from service.core.names import parse_id
from tests.e2e.browser.conftest import Arrive
from tests.e2e.conftest import StartNode
from tests.e2e.faults.kit import run_cli
from tests.e2e.kit import true
from tests.integration.http.web import Caller
from tests.integration.store.kit import Server
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio


async def stored_offset(node: NodeProcess, user: str, device: str) -> int:
    """The number up to which the server believes that this device has the inbox."""
    row: dict[str, Any]
    for page in await Caller(node, user).walk(f"/v1/streams?device={quote(device)}", "streams"):
        for row in page:
            if row["stream"] == f"user:{user}":
                return parse_id(row["offset"]).n
    raise AssertionError(f"{user} has no inbox")


async def test_a_gap_is_handed_out_in_its_place_with_cause_and_count(
    database: Server, start_node: StartNode, arrive: Arrive, tmp_path: Path
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    tab = await bob.tab()
    await tab.live()
    await alice.send_all("user:bob", range(10))
    await tab.until(lambda: len(tab.bodies("user:bob")) >= 10, "has the first ten")
    await tab.close()
    await true(lambda: bob.site.sockets == 0, "the connection has gone with the tab")
    await alice.send_all("user:bob", range(10, 60))
    policies = tmp_path / "policies.toml"
    policies.write_text('[[retention.policies]]\nmatch = "user:*"\nmax_entries = 20\n')
    code, said = await run_cli(database, "retention", "run", WAYPOST_CONFIG=str(policies))
    assert code == 0, said
    await tab.open()
    await tab.live()
    [gap] = tab.of("gap")
    assert (gap["stream"], gap["missed"], gap["cause"]["kind"]) == ("user:bob", 30, "trimmed")
    assert (gap["cause"]["policy"], gap["cause"]["limit"]) == ("user:*", "max_entries=20")
    assert (parse_id(gap["after"]).n, parse_id(gap["to"]).n) == (10, 40)
    came = [note["body"] if note["type"] == "message" else "gap" for note in tab.of("message", "gap")]
    assert came == [*range(10), "gap", *range(40, 60)]
    await tab.reload()
    await tab.live()
    await alice.send("user:bob", "after")
    await tab.until(lambda: "after" in tab.bodies("user:bob"), "goes on")
    assert (len(tab.of("gap")), len(tab.bodies("user:bob"))) == (1, 31)


async def test_a_handler_that_throws_gets_the_same_entry_again_before_the_next(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    tab = await bob.tab(asked={"fails": {"m5": 2}})
    await alice.send_all("user:bob", [f"m{n}" for n in range(20)])
    await tab.until(lambda: len(tab.bodies("user:bob")) >= 20, "has everything")
    came = [(note["type"], note["body"]) for note in tab.of("message", "threw")]
    before, after = [("message", f"m{n}") for n in range(5)], [("message", f"m{n}") for n in range(5, 20)]
    assert came == [*before, ("threw", "m5"), ("threw", "m5"), *after]
    assert [note["code"] for note in tab.of("error")] == ["handler_failed"] * 2


async def test_nothing_is_acknowledged_beyond_an_entry_that_was_not_taken(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    tab = await bob.tab(asked={"fails": {"m5": 1_000}}, device="desk")
    await alice.send_all("user:bob", [f"m{n}" for n in range(20)])
    await tab.until(lambda: len(tab.of("threw")) >= 2, "fails")
    progress = (await tab.call("state(), progress()"))["user:bob"]
    assert (parse_id(progress["offset"]).n, parse_id(progress["acked"]).n <= 5) == (5, True)
    await tab.close()
    assert await stored_offset(node, "bob", "desk") <= 5
    tab.asked["fails"] = {}
    await tab.open()
    await tab.until(lambda: len(tab.bodies("user:bob")) >= 20, "has everything")
    assert tab.check("user:bob") == [f"m{n}" for n in range(20)]


@pytest.mark.parametrize("how", ["left alone", "killed"])
async def test_a_handler_that_takes_its_time_is_waited_for(start_node: StartNode, arrive: Arrive, how: str) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    pause_ms = 1_500 if how == "left alone" else 60_000
    tab = await bob.tab(asked={"pauses": {"m5": pause_ms}}, device="desk")
    await alice.send_all("user:bob", [f"m{n}" for n in range(20)])
    await tab.until(lambda: tab.of("begun"), "begins")
    assert tab.bodies("user:bob") == [f"m{n}" for n in range(5)]
    assert await stored_offset(node, "bob", "desk") <= 5
    if how == "killed":
        await tab.kill()
        tab.asked["pauses"] = {}
        await tab.open()
    await tab.until(lambda: len(tab.bodies("user:bob")) >= 20, "has everything")
    assert tab.check("user:bob") == [f"m{n}" for n in range(20)]


async def test_more_than_fits_while_the_handler_stands_still_comes_when_it_goes_on(
    start_node: StartNode, arrive: Arrive
) -> None:
    node = start_node()
    alice, bob = await Phone.open(node.url, "alice"), await arrive("bob", node)
    tab = await bob.tab(asked={"pauses": {"0": 3_000}})
    await tab.live()
    for begin in range(0, 4_000, 500):
        await alice.send_all("user:bob", range(begin, begin + 500))
    assert len(tab.bodies("user:bob")) == 0
    await tab.until(lambda: len(tab.bodies("user:bob")) >= 4_000, "has everything")
    assert tab.check("user:bob") == list(range(4_000))
    assert tab.of("error") == []
