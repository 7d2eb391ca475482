"""What failures of the connection mean: not sent, not answered, given up; and that calls never mix up replies."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from service.core.names import ZERO
from service.errors import Unavailable, Uncertain
from service.store import Store, StoreOptions, StoreRefused
from service.store.connection import Link
from tests.integration.store.kit import Admin, Server, numbers_in, send, to_all, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions(call_timeout_s=0.3, connect_timeout_s=0.3, connections_max=2)


@pytest.fixture
async def link(server: Server, options: StoreOptions) -> AsyncIterator[Link]:
    link = Link(server.url, options)
    yield link
    await link.close()


def blocked(admin: Admin) -> int:
    return int(admin.info("clients")["blocked_clients"])


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait in a thread: closing a connection takes a turn of the loop."""
    await asyncio.to_thread(wait_until, condition, what)


async def blocking_call(link: Link, admin: Admin, *, is_write: bool) -> asyncio.Task[object]:
    """A call that was sent and that the server holds back."""
    task: asyncio.Task[object] = asyncio.create_task(link.call("BLPOP", "held", 0, is_write=is_write))
    while not await asyncio.to_thread(blocked, admin):
        pass
    return task


async def test_no_answer_in_time(link: Link, admin: Admin) -> None:
    with pytest.raises(Uncertain, match="no answer in time"):
        await link.call("BLPOP", "held", 0, is_write=True)
    with pytest.raises(Unavailable, match="no answer in time"):
        await link.call("BLPOP", "held", 0, is_write=False)
    assert await link.call("PING", is_write=False) == b"PONG"
    await until(lambda: blocked(admin) == 0, "both connections were closed")


async def test_a_connection_cut_under_a_call(link: Link, admin: Admin) -> None:
    for is_write, error in ((True, Uncertain), (False, Unavailable)):
        task = await blocking_call(link, admin, is_write=is_write)
        admin.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(error, match="connection lost"):
            await task
        await until(lambda: blocked(admin) == 0, "the call is over")
    assert await link.call("PING", is_write=False) == b"PONG"


async def test_a_connection_that_was_cut_while_idle_is_replaced(link: Link, admin: Admin) -> None:
    await link.call("PING", is_write=True)
    await asyncio.to_thread(admin.client_kill_filter, _type="normal", skipme=True)
    # The next turn of the loop sees the end of the connection, before anything is sent on it.
    assert await asyncio.to_thread(admin.ping)
    assert await link.call("PING", is_write=True) == b"PONG"


async def test_a_cancelled_call_leaves_no_reply_behind(link: Link, admin: Admin) -> None:
    task = await blocking_call(link, admin, is_write=True)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: blocked(admin) == 0, "its connection was closed")
    admin.rpush("held", "late")
    assert [await link.call("ECHO", str(n), is_write=False) for n in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    admin.delete("held")


async def test_calls_wait_for_a_free_connection_but_not_for_ever(link: Link, admin: Admin) -> None:
    held = [asyncio.create_task(link.call("BLPOP", "held", 0, is_write=True)) for _ in range(2)]
    while await asyncio.to_thread(blocked, admin) < 2:
        pass
    queued = asyncio.create_task(link.call("PING", is_write=True))
    admin.rpush("held", "1")
    assert await queued == b"PONG"
    admin.rpush("held", "2")
    assert sorted(await asyncio.gather(*held)) == [[b"held", b"1"], [b"held", b"2"]]


async def test_when_every_connection_is_taken_nothing_is_sent(server: Server, admin: Admin) -> None:
    link = Link(server.url, StoreOptions(call_timeout_s=0.2, connections_max=1))
    held = asyncio.create_task(link.pipeline([("BLPOP", "held", 0)], is_write=True, wait_s=60))
    while await asyncio.to_thread(blocked, admin) < 1:
        pass
    with pytest.raises(Unavailable, match="busy"):
        await link.call("SET", "k", "v", is_write=True)
    assert not admin.exists("k")
    admin.rpush("held", "1")
    assert await held == [[b"held", b"1"]]
    await link.close()


async def test_a_server_that_is_away_is_unavailable_and_comes_back_by_itself(own_server: Server) -> None:
    link = Link(own_server.url, StoreOptions())
    assert await link.call("PING", is_write=True) == b"PONG"
    await asyncio.to_thread(own_server.kill)
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot connect"):
            await link.call("PING", is_write=True)
    await asyncio.to_thread(own_server.start)
    assert await link.call("PING", is_write=True) == b"PONG"
    await link.close()


async def test_a_server_that_accepts_and_says_nothing_is_unavailable(server: Server, options: StoreOptions) -> None:
    socket = server.folder / "silent.sock"
    accepted: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_unix_server(lambda _, writer: accepted.append(writer), socket)
    store = await Store.connect(f"unix://{socket}", options=options)
    with pytest.raises(Unavailable, match="no answer in time"):
        await store.ping()
    await store.close()
    silent.close()
    for writer in accepted:
        writer.close()
        await writer.wait_closed()


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.ping()


async def test_a_call_at_closing_time_ends_and_its_connection_too(server: Server, admin: Admin) -> None:
    link = Link(server.url, StoreOptions())
    task = await blocking_call(link, admin, is_write=True)
    await link.close()
    admin.rpush("held", "1")
    assert await task == [b"held", b"1"]
    await until(lambda: not [c for c in admin.client_list() if c["name"] == "waypost"], "no connection is left")


async def test_when_another_server_has_answered_no_connection_from_before_is_used_again(
    server: Server, admin: Admin
) -> None:
    def ids() -> set[int]:
        return {int(client["id"]) for client in admin.client_list() if client["name"] == "waypost"}

    link = Link(server.url, StoreOptions())
    busy = await blocking_call(link, admin, is_write=True)
    await link.call("PING", is_write=False)
    before = ids()
    await link.reconnect()
    assert await link.call("CLIENT", "ID", is_write=False) not in before
    admin.rpush("held", "1")
    assert await busy == [b"held", b"1"]
    await until(lambda: not before & ids(), "the busy one has ended with its call")
    await link.close()


@pytest.mark.parametrize("url", ["http://localhost", "nonsense", ""])
async def test_an_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StoreRefused):
        await Store.connect(url, options=StoreOptions())


async def test_connecting_needs_no_server() -> None:
    store = await Store.connect("redis://127.0.0.1:1", options=StoreOptions())
    with pytest.raises(Unavailable, match="cannot connect"):
        await store.check_server()
    await store.close()
    secure = await Store.connect("rediss://127.0.0.1:1", options=StoreOptions())
    with pytest.raises(Unavailable, match="cannot connect"):
        await secure.ping()
    await secure.close()


async def test_a_paused_server_makes_a_publish_uncertain(store: Store, admin: Admin) -> None:
    admin.client_pause(600, all=False)
    with pytest.raises(Uncertain):
        await send(store, to_all("alice"))
    await until(lambda: bool(admin.set("wp:migrate", "x", px=1)), "the pause is over")
    await send(store, to_all("alice"))
    stored = numbers_in(admin, "all")
    assert stored in ([1], [1, 2])
    page = await store.page("all", ZERO, [], max_entries=9, max_bytes=999)
    assert [entry.id.n for entry in page.entries] == stored


async def test_many_calls_at_once_get_their_own_answers(link: Link) -> None:
    answers = await asyncio.gather(*(link.call("ECHO", str(n), is_write=False) for n in range(200)))
    assert answers == [str(n).encode() for n in range(200)]
