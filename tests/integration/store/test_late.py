"""Joining and leaving are carried out in the span of time that they were meant for, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from migrations import __main__ as migrations
from service.errors import Unavailable, Uncertain, WaypostError
from service.store import Store, StoreOptions
from service.store.clock import DRIFT_MS, Clock
from service.store.records import Late
from tests.integration.store.kit import Admin, Server, numbers_in, wait_until
from tests.proxy import Proxy

pytestmark = pytest.mark.anyio
HOUR_MS = 3_600_000
TIMEOUT_S = 0.3


def now_ms(admin: Admin) -> int:
    """The server's time."""
    seconds, micros = admin.time()
    return int(seconds * 1000 + micros // 1000)


def everything(admin: Admin) -> dict[bytes, bytes]:
    """All that is stored."""
    return {name: admin.dump(name) for name in admin.scan_iter(count=1000)}


async def call(store: Store, verb: str, not_before: int, not_after: int) -> object:
    """Alice joins or leaves g within a span of the server's time. Returns the id."""
    tag = store._context.layout.tag
    arg = {
        "epoch": store.epoch,
        "user": "alice",
        "user_tag": tag("user:alice"),
        "group": "g",
        "group_tag": tag("group:g"),
        "mailbox": "",
        "mailbox_cap": 100,
        "connection": 0,
        "send": 0,
        "announce": 10,
        "streams_max": 10,
        "may_create": True,
        "members_max": 10,
        "may_enter": False,
        "by": "",
        "role": "",
        "not_before": not_before,
        "not_after": not_after,
    }
    [entry, *_] = await store._context.call(verb, arg)
    return entry


@pytest.fixture(params=["join", "leave"])
async def verb(request: pytest.FixtureRequest, store: Store) -> str:
    """What is tried. For leaving, alice is a member."""
    if request.param == "leave":
        await store.join("alice", "g", mailbox="", origin=None)
    return str(request.param)


@pytest.mark.parametrize(("begins", "ends"), [(-HOUR_MS, -1), (HOUR_MS, 2 * HOUR_MS)], ids=["late", "clock set back"])
async def test_outside_of_its_span_nothing_is_written(
    store: Store, admin: Admin, verb: str, begins: int, ends: int
) -> None:
    before = everything(admin)
    now = now_ms(admin)
    with pytest.raises(Late) as refusal:
        await call(store, verb, now + begins, now + ends)

    assert (refusal.value.code, refusal.value.retry) == ("unavailable", True)
    assert now <= refusal.value.server_ms <= now_ms(admin)
    assert everything(admin) == before


async def test_just_in_time_it_is_carried_out(store: Store, admin: Admin, verb: str) -> None:
    now = now_ms(admin)
    await call(store, verb, now, now + 1000)
    assert await store.is_member("alice", "g") == (verb == "join")
    assert numbers_in(admin, "group:g") == ([1] if verb == "join" else [1, 2])


async def test_twice_in_its_span_is_harmless(store: Store, admin: Admin, verb: str) -> None:
    span = now_ms(admin) - 1000, now_ms(admin) + 60_000
    first = await call(store, verb, *span)
    before = everything(admin)
    if verb == "join":
        assert await call(store, verb, *span) == first
    else:
        with pytest.raises(WaypostError, match="not_member"):
            await call(store, verb, *span)
    assert everything(admin) == before


@pytest.mark.parametrize("wrong_ms", [-HOUR_MS, HOUR_MS])
async def test_a_clock_that_was_set_costs_one_more_question(
    store: Store, admin: Admin, verb: str, wrong_ms: int
) -> None:
    store._context.clock.told(now_ms(admin) + wrong_ms)
    changed = await getattr(store, verb)("alice", "g", mailbox="", origin=None)
    assert changed.is_new
    span = store._context.clock.span(1)  # the refusal told the time
    assert span["not_before"] <= now_ms(admin) <= span["not_after"]


async def test_refused_for_its_time_again_it_is_unavailable(
    store: Store, admin: Admin, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store._context.clock.told(now_ms(admin) - HOUR_MS)
    monkeypatch.setattr(Clock, "told", lambda *_: None)
    before = everything(admin)
    with pytest.raises(Unavailable):
        await getattr(store, verb)("alice", "g", mailbox="", origin=None)
    assert everything(admin) == before


class TestHeldUp:
    """A call that lies in a buffer on its way to the server."""

    @pytest.fixture
    def proxy(self, server: Server) -> Iterator[Proxy]:
        with Proxy(server.url) as proxy:
            yield proxy

    @pytest.fixture
    async def behind(self, server: Server, proxy: Proxy) -> AsyncIterator[Store]:
        """A store that is reached through the proxy."""
        await migrations.up(server.url)
        store = await Store.connect(proxy.url, options=StoreOptions(call_timeout_s=TIMEOUT_S))
        await store.check_server()
        yield store
        await store.close()

    async def test_it_changes_nothing_after_what_came_later(
        self, store: Store, behind: Store, proxy: Proxy, admin: Admin, verb: str
    ) -> None:
        held = proxy.hold_calls(f"{verb}_v4")
        with pytest.raises(Uncertain) as uncertain:
            await getattr(behind, verb)("alice", "g", mailbox="", origin=None)
        assert uncertain.value.open_for_s <= DRIFT_MS / 1000 + 0.05  # the timer may be a little early
        await asyncio.sleep(uncertain.value.open_for_s)
        for then in ("join", "leave") if verb == "join" else ("leave", "join"):
            await getattr(store, then)("alice", "g", mailbox="", origin=None)
        before = everything(admin)
        held.release()
        wait_until(lambda: held.carried_out == 1, "the call reaches the server")
        assert everything(admin) == before

    async def test_an_answer_that_is_lost_says_how_long_the_call_may_still_come(
        self, behind: Store, proxy: Proxy, verb: str
    ) -> None:
        proxy.lose_answers(f"{verb}_v4")
        with pytest.raises(Uncertain) as uncertain:
            await getattr(behind, verb)("alice", "g", mailbox="", origin=None)
        assert DRIFT_MS / 1000 < uncertain.value.open_for_s <= TIMEOUT_S + DRIFT_MS / 1000


def test_a_clock_that_nobody_told_the_time_is_of_no_use() -> None:
    with pytest.raises(Unavailable):
        Clock().span(1)
