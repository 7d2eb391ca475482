"""`/metrics` of a node under real traffic: the numbers are those of what was sent and what came, exactly."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect

from service.config import Settings
from service.node import Node
from service.store import Store, StoreOptions, TrimCause
from tests.events import EventPhone
from tests.integration.lines import running
from tests.integration.ops.conftest import StartNode
from tests.integration.ops.scrape import OPENMETRICS, Numbers, ask, ask_over, dial, scrape, scrape_until
from tests.integration.store.kit import Server
from tests.service import ENTRY_TYPES, Phone
from tests.tokens import mint, open_store
from workers import __main__ as workers

pytestmark = pytest.mark.anyio

SENT = 30


def entries(phone: Phone) -> int:
    """How many entries were written to it. What answers a request of its own is none."""
    return sum(frame["type"] in ENTRY_TYPES and "ref" not in frame for frame in phone.frames)


def deliveries(numbers: Numbers) -> float:
    return sum(numbers.of("waypost_deliveries_total", "a", way=way) for way in ("live", "paged"))


async def test_what_was_sent_and_delivered_is_counted_exactly(database: Server, start_node: StartNode) -> None:
    node = start_node()
    alice, bob, carol = [await Phone.open(node.url, user) for user in ("alice", "bob", "carol")]
    for phone in (alice, bob, carol):
        await phone.say(type="join", ref="join", group="g")
        await phone.wait("joined", ref="join")
    await alice.send_all("group:g", range(SENT))
    first = await alice.send("group:g", "once", key="k1")
    again = await alice.send("group:g", "once", key="k1")
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    refused = await alice.send("group:nowhere", "no such group")
    assert refused["code"] == "not_member"  # as a user is told it
    for phone in (bob, carol):
        await phone.wait("message", body="once")
    await carol.acknowledge(carol.last_ids())
    await carol.leave()
    await alice.send_all("group:g", range(SENT))
    back = await Phone.open(node.url, "carol")
    assert back.bodies("group:g") == list(range(SENT))

    def is_all_there(numbers: Numbers) -> bool:
        came = sum(map(entries, (alice, bob, carol, back)))
        return deliveries(numbers) >= came and numbers.of("waypost_connections", "a", transport="websocket") == 3

    numbers = await scrape_until(node.url, is_all_there, "everything that came is counted")
    came = sum(map(entries, (alice, bob, carol, back)))
    assert deliveries(numbers) == came
    assert numbers.of("waypost_deliveries_total", "a", way="paged") >= SENT
    stored = 2 * SENT + 1
    assert numbers.of("waypost_sends_total", "a", outcome="stored") == stored
    assert numbers.of("waypost_sends_total", "a", outcome="duplicate") == 1
    assert numbers.of("waypost_sends_total", "a", outcome="no_group") == 1
    assert numbers.total("waypost_sends_total") == stored + 2
    assert numbers.of("waypost_errors_total", "a", code="not_member") == 1
    assert numbers.total("waypost_errors_total") == 1
    assert numbers.of("waypost_send_stored_seconds_count", "a") == stored
    live = numbers.of("waypost_deliveries_total", "a", way="live")
    assert numbers.of("waypost_delivery_written_seconds_count", "a") == live
    assert numbers.of("waypost_publish_batch_messages_sum", "a") == stored + 2
    batches = numbers.of("waypost_publish_batch_messages_count", "a")
    assert numbers.of("waypost_store_calls_total", "a", function="publish", outcome="ok") == batches
    assert numbers.of("waypost_store_call_seconds_count", "a", function="publish") == batches
    assert numbers.of("waypost_replays_total", "a", of="connection") == 4  # each `hello` led to `live`
    assert numbers.of("waypost_closes_total", "a", code="client") == 1
    assert numbers.strange_labels() == []
    assert numbers.of("waypost_ready", "a") == 1
    assert numbers.of("waypost_streams_attached", "a") == 5  # three inboxes, `all`, the group
    assert numbers.of("waypost_connections_behind", "a") == 0
    assert numbers.total("waypost_mailbox_doubts_total") == numbers.total("waypost_gaps_total") == 0
    assert "alice" not in (await asyncio.to_thread(ask, node.url)).text


async def test_a_gap_is_counted_with_its_cause(database: Server, start_node: StartNode) -> None:
    node = start_node()
    bob = await Phone.open(node.url, "bob")
    await bob.leave()
    alice = await Phone.open(node.url, "alice")
    await alice.send_all("user:bob", range(SENT))
    store = await open_store(database.url)
    trimmed = await store.trim("user:bob", None, TrimCause("max_age", "14d"))
    await store.close()
    assert trimmed.removed == SENT
    bob = await Phone.open(node.url, "bob")
    [gap] = bob.gaps()
    numbers = await scrape_until(
        node.url, lambda seen: seen.of("waypost_gaps_total", "a", cause="trimmed") == 1, "the gap is counted"
    )
    assert numbers.of("waypost_gap_entries_total", "a", cause="trimmed") == gap["missed"] == SENT
    assert numbers.of("waypost_gaps_total", "a", cause="lost") == 0


async def test_every_transport_is_counted_by_its_name(start_node: StartNode) -> None:
    node = start_node()
    alice = await Phone.open(node.url, "alice")
    dave = await EventPhone.open(node.url, "dave")
    async with connect(f"ws{node.url.removeprefix('http')}/chat/channel/erin", compression=None) as erin:
        await alice.send("user:erin", "hi")
        assert await erin.recv() == "user alice send:hi"
        await alice.send("user:dave", "hi")
        await dave.wait("message", body="hi")
        numbers = await scrape_until(node.url, lambda seen: deliveries(seen) >= 2, "both are delivered")
        assert deliveries(numbers) == 2  # what alice hears of her own messages is `sent`
        for transport in ("websocket", "sse", "chat"):
            assert numbers.of("waypost_connections", "a", transport=transport) == 1

    def is_gone(numbers: Numbers) -> bool:
        return numbers.of("waypost_connections", "a", transport="chat") == 0

    await scrape_until(node.url, is_gone, "who has left is not counted any more")


async def test_refusals_are_counted_on_every_door(start_node: StartNode) -> None:
    node = start_node(limits_user_joins_per_s=0.001, limits_user_joins_burst=1)
    stranger = await Phone.dial(node.url, None)
    assert await stranger.ends() == 4101
    alice = await Phone.open(node.url, "alice")
    for ref in ("one", "two"):
        await alice.say(type="join", ref=ref, group="g")
    assert await alice.ends() == 4003
    told = await asyncio.to_thread(ask, node.url, None, "DELETE")
    assert told.status == 405
    numbers = await scrape_until(node.url, lambda seen: seen.total("waypost_errors_total") >= 3, "all are counted")
    assert numbers.of("waypost_errors_total", "a", code="unauthorised") == 1
    assert numbers.of("waypost_errors_total", "a", code="rate_limited") == 1
    assert numbers.of("waypost_errors_total", "a", code="method_not_allowed") == 1
    assert numbers.of("waypost_rate_limited_total", "a", limit="joins") == 1
    assert numbers.of("waypost_closes_total", "a", code="4101") == 1
    assert numbers.of("waypost_closes_total", "a", code="4003") == 1


async def test_a_store_that_is_away_is_seen_in_the_numbers(database: Server, start_node: StartNode) -> None:
    node = start_node()
    alice = await Phone.open(node.url, "alice")
    database.kill()
    assert (await alice.send("user:bob", "hi"))["code"] in ("unavailable", "uncertain")

    def is_noticed(numbers: Numbers) -> bool:
        return numbers.of("waypost_ready", "a") == 0 and numbers.of("waypost_not_ready", "a", reason="store") == 1

    numbers = await scrape_until(node.url, is_noticed, "it is not ready")
    refused = ("unavailable", "uncertain")
    assert sum(numbers.of("waypost_sends_total", "a", outcome=code) for code in refused) == 1
    assert sum(numbers.of("waypost_errors_total", "a", code=code) for code in refused) == 1
    assert numbers.of("waypost_store_doubts_total", "a") >= 1
    database.start()

    def is_back(numbers: Numbers) -> bool:
        return numbers.of("waypost_ready", "a") == 1 and numbers.total("waypost_mailbox_doubts_total") >= 1

    numbers = await scrape_until(node.url, is_back, "it is ready again, with another mailbox")
    assert numbers.strange_labels() == []


async def test_a_node_that_is_shutting_down_is_scraped_to_its_end(start_node: StartNode) -> None:
    node = start_node(drain_s=60)
    asleep = await Phone.open(node.url, "asleep")
    asleep.websocket.transport.pause_reading()  # so that the node waits for its goodbye
    connection = dial(node.url)
    before = Numbers(await asyncio.to_thread(ask_over, connection))
    assert before.of("waypost_draining_seconds", "a") == 0
    assert before.of("waypost_drain_limit_seconds", "a") == 60
    node.signal(signal.SIGTERM)
    numbers = before
    async with asyncio.timeout(20):
        while not numbers.of("waypost_draining_seconds", "a"):
            numbers = Numbers(await asyncio.to_thread(ask_over, connection))
            await asyncio.sleep(0.1)
    connection.close()
    assert numbers.of("waypost_ready", "a") == 0
    assert numbers.of("waypost_not_ready", "a", reason="draining") == 1
    asleep.cut()
    assert await asyncio.to_thread(node.ends) == 0


@pytest.fixture
async def store(database: Server) -> AsyncIterator[Store]:
    store = await Store.connect(database.url, options=StoreOptions())
    yield store
    await store.close()


async def test_jobs_and_the_memory_of_the_store_are_read_from_the_store(database: Server, store: Store) -> None:
    settings = Settings(node="a", dev=True, redis_url=database.url)
    database.admin.config_set("maxmemory", 100_000_000)
    async with running(Node(store, settings)) as node:
        report = await workers.once(settings, "retention")
        await node.gauges.ask()
        told = node.gauges.snapshot().values
    assert told["waypost_job_last_state"]["retention,done"] == 1
    assert told["waypost_job_last_state"]["retention,failed"] == 0
    assert told["waypost_job_last_duration_seconds"] == {"retention": report.duration_ms / 1000}
    assert told["waypost_job_last_unread_lost_entries"] == {"retention": 0}
    assert abs(told["waypost_job_last_start_timestamp_seconds"]["retention"] - report.started_ms / 1000) < 10
    assert told["waypost_job_interval_seconds"]["retention"] == settings.jobs.retention.every
    assert told["waypost_store_memory_limit_bytes"] == {"": 100_000_000}
    assert 0 < told["waypost_store_memory_bytes"][""] < 100_000_000


async def test_both_formats_can_be_parsed_and_say_the_same(start_node: StartNode) -> None:
    node = start_node()
    plain, open_metrics = await scrape(node.url), await scrape(node.url, Accept=OPENMETRICS)
    assert [family.name for family in plain.families] == [family.name for family in open_metrics.families]
    assert [family.type for family in plain.families] == [family.type for family in open_metrics.families]
    for accept in (
        OPENMETRICS.replace("1.0.0", "one"),
        "text/plain; version=x",
        "application/openmetrics-text; version=,",
    ):
        assert (await asyncio.to_thread(ask, node.url, {"Accept": accept})).status == 200
    assert (await asyncio.to_thread(ask, node.url, None, "HEAD")).text == ""


TOKEN = "a token for prometheus"


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {}, 200),  # local: who asks on this machine
        ({}, {"X-Forwarded-For": "198.51.100.7"}, 403),
        ({}, {"Host": "waypost.example"}, 403),
        ({"metrics": "open"}, {"Host": "waypost.example"}, 200),
        ({"metrics": "open"}, {"Origin": "https://evil.example"}, 403),
        ({"metrics": "off"}, {}, 403),
        ({"metrics_token": TOKEN}, {}, 401),
        ({"metrics_token": TOKEN}, {"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"metrics_token": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, 401),
        ({"metrics_token": TOKEN}, {"Authorization": "Bearer \xff"}, 401),
        ({"metrics_token": TOKEN}, {"Authorization": f"bearer {TOKEN}", "X-Forwarded-For": "198.51.100.7"}, 200),
    ],
)
async def test_who_may_have_the_numbers(
    start_node: StartNode, settings: dict[str, str], headers: dict[str, str], status: int
) -> None:
    node = start_node(dev=0, jwt_secrets="s" * 32, **settings)
    told = await asyncio.to_thread(ask, node.url, headers)
    assert told.status == status
    assert TOKEN not in told.text


async def test_a_users_token_opens_nothing_here(start_node: StartNode) -> None:
    node = start_node(dev=0, jwt_secrets="s" * 32, metrics_token=TOKEN)
    told = await asyncio.to_thread(ask, node.url, {"Authorization": f"Bearer {mint('alice', secret='s' * 32)}"})
    assert told.status == 401
