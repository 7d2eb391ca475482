"""The client over real sockets, against a server that behaves badly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.client import Client, Closed, Connected, Disconnected, Event, GaveUp, Message, Refused, Sent
from service.client.client import address
from service.client.inbox import EVENTS_MOST
from service.core import frames
from tests.unit.client.fake import START, Conversation, Fake, Script, body, serve_well, until
from tests.unit.client.model import message

pytestmark = pytest.mark.anyio


def client_of(fake: Fake, **options: object) -> Client:
    return Client(fake.url, user="ann", device="phone", **options)  # type: ignore[arg-type]


async def ids(client: Client, count: int) -> list[str]:
    """The ids of the next messages."""
    found: list[str] = []
    async with asyncio.timeout(20):
        async for event in client:
            if isinstance(event, Message | Sent):
                found.append(event.id)
                if len(found) == count:
                    client.took()
                    break
    return found


async def first(client: Client, kind: type[Event]) -> Event:
    """The first event of a kind; what comes before it is passed over."""
    async with asyncio.timeout(20):
        async for event in client:
            if isinstance(event, kind):
                return event
    raise AssertionError("it has ended")


def closing(code: int) -> Script:
    async def script(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.say_messages(2)
        await conversation.connection.close(code, "because")

    return script


# -- where and who -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8000", "ws://host:8000/v1/connect?user=ann"),
        ("https://host/", "wss://host/v1/connect?user=ann"),
        ("ws://[::1]:80/way/post/", "ws://[::1]:80/way/post/v1/connect?user=ann"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    assert address(url, "ann") == expected


def test_a_user_is_escaped_and_not_required() -> None:
    assert address("ws://host", "a+b@c") == "ws://host/v1/connect?user=a%2Bb%40c"
    assert address("ws://host") == "ws://host/v1/connect"


@pytest.mark.parametrize("url", ["", "host:8000", "ftp://host", "http://", "http://host:99999", "http://host:x"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
        Client(url, user="ann")


async def test_who_we_are() -> None:
    async with Fake(serve_well) as fake:
        async with client_of(fake, token="abc") as client:
            assert await first(client, Connected) == Connected("ann", "d", "node", "e1")
            assert client.trouble == ""
        (request,) = fake.requests
        assert request.path == "/v1/connect?user=ann"
        assert request.headers["Authorization"] == "Bearer abc"
        assert request.headers["Sec-WebSocket-Protocol"] == "waypost.v1"
        assert "Sec-WebSocket-Extensions" not in request.headers
        assert fake.heard[0]["device"] == "phone"


# -- coming back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1001, 1012, 4000, 4002])
async def test_it_comes_back_and_goes_on_where_it_was(code: int) -> None:
    async def resume(conversation: Conversation) -> None:
        hello = await conversation.greet()
        await conversation.say_messages(3, after=int(hello["offsets"]["all"].split("-")[1]))
        await conversation.answer_sends()

    async with Fake(closing(code), resume) as fake, client_of(fake) as client:
        assert await ids(client, 5) == [f"2-{n}" for n in range(1, 6)]
        await client.close()
        assert fake.acknowledged("all") == "2-5"


@pytest.mark.parametrize("code", [4101, 4103])
async def test_it_gives_up_with_the_reason(code: int) -> None:
    async with Fake(closing(code)) as fake, client_of(fake) as client:
        assert await ids(client, 2) == ["2-1", "2-2"]
        with pytest.raises(GaveUp) as caught:
            await first(client, Disconnected)
        assert caught.value.close_code == code
        with pytest.raises(GaveUp):
            await client.send("all", "hi")
        with pytest.raises(GaveUp):
            await anext(client)
    assert fake.connections == 1


async def test_a_send_on_its_way_hears_that_it_gave_up() -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.hear("send")
        await conversation.connection.close(4103)

    async with Fake(refuse) as fake, client_of(fake) as client:
        with pytest.raises(GaveUp, match="bad_frame"):
            await client.send("all", "hi")


async def test_it_waits_for_a_server_that_is_not_there_yet() -> None:
    async with Fake(serve_well) as gone:
        pass
    async with Client(gone.url, user="ann") as client:
        event = await first(client, Disconnected)
        assert isinstance(event, Disconnected)
        assert event.reason.startswith(f"cannot connect to {gone.url}: ")
        assert client.trouble == event.reason
        async with Fake(serve_well, port=gone.port):
            await first(client, Connected)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_status_that_stays(status: int) -> None:
    async with Fake(serve_well, statuses=[status]) as fake, client_of(fake) as client:
        with pytest.raises(GaveUp, match=f"HTTP status {status}"):
            await first(client, Connected)


async def test_a_status_that_passes() -> None:
    async with Fake(serve_well, statuses=[503, 429, 502]) as fake, client_of(fake) as client:
        await first(client, Connected)
    assert len(fake.requests) == 4


async def test_a_server_that_falls_silent() -> None:
    async def fall_silent(conversation: Conversation) -> None:
        await conversation.greet(ping=0.1)
        while True:
            await conversation.hear("ping")

    async with Fake(fall_silent, serve_well) as fake, client_of(fake) as client:
        event = await first(client, Disconnected)
        assert event == Disconnected("nothing was heard for 0.2 s")
        await first(client, Connected)


async def test_a_server_that_answers_pings_is_alive() -> None:
    async def answer(conversation: Conversation) -> None:
        await conversation.greet(ping=0.1)
        for _ in range(8):
            await conversation.hear("ping")
            await conversation.say(frames.Pong())
        await conversation.say_messages(1)
        await conversation.answer_sends()

    async with Fake(answer) as fake, client_of(fake) as client:
        assert await ids(client, 1) == ["2-1"]
    assert fake.connections == 1


async def test_what_comes_twice_or_with_a_hole() -> None:
    async def stutter(conversation: Conversation) -> None:
        await conversation.greet()
        one, two, four = (message("all", f"2-{n}") for n in (1, 2, 4))
        await conversation.say(one, one, two, one)
        await conversation.say(two, four)
        await conversation.answer_sends()

    async def resume(conversation: Conversation) -> None:
        await conversation.hear("hello")
        await conversation.say(frames.Welcome("ann", "d", "n", "e1", 25.0, {}, {}, more=True))
        states = {stream: frames.StreamState(offset, offset, "0-0", 0) for stream, offset in START.items()}
        await conversation.say(frames.Streams(states))
        await conversation.say_messages(5)
        await conversation.answer_sends()

    async with Fake(stutter, resume) as fake, client_of(fake) as client:
        assert await ids(client, 5) == [f"2-{n}" for n in range(1, 6)]
    assert fake.connections == 2


# -- sending -----------------------------------------------------------------------------------------------------------


async def test_a_send_whose_answer_is_lost_is_stored_once() -> None:
    async def store_and_drop(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.store(await conversation.hear("send"), answers=False)
        conversation.drop()

    async def drop(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.hear("send")
        conversation.drop()

    async with Fake(drop, store_and_drop, store_and_drop, serve_well) as fake, client_of(fake) as client:
        sent = await asyncio.wait_for(client.send("all", {"n": 1}), 10)
        assert (sent.stream, sent.id, sent.duplicate, sent.durability) == ("all", "9-1", True, "fsynced")
        assert list(fake.stored.values()) == [{"n": 1}]
        assert sent.mid in fake.stored


async def test_what_is_unavailable_is_repeated_on_the_same_connection() -> None:
    async def refuse_first(conversation: Conversation) -> None:
        await conversation.greet()
        for code in ("unavailable", "uncertain"):
            frame = await conversation.hear("send")
            await conversation.say(frames.Error(code, "", True, frame["ref"]))
        await conversation.answer_sends()

    async with Fake(refuse_first) as fake, client_of(fake) as client:
        sent = await asyncio.wait_for(client.send("all", "hi", key="k"), 10)
        assert sent.mid == "k"
    assert [frame["key"] for frame in fake.heard if frame["type"] == "send"] == ["k"] * 3
    assert fake.connections == 1


async def test_a_refusal_is_raised() -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.greet()
        for kind in ("send", "join", "leave"):
            frame = await conversation.hear(kind)
            await conversation.say(frames.Error("not_member", "no", False, frame["ref"]))

    async with Fake(refuse) as fake, client_of(fake) as client:
        for call in (client.send("group:g", 1), client.join("g"), client.leave("g")):
            with pytest.raises(Refused) as caught:
                await call
            assert (caught.value.code, caught.value.detail) == ("not_member", "no")


async def test_sends_of_many_tasks_keep_their_order_over_cuts() -> None:
    async def store_some(conversation: Conversation) -> None:
        await conversation.greet()
        for _ in range(7):
            await conversation.store(await conversation.hear("send"))
        conversation.drop()

    async with Fake(store_some, store_some, store_some, serve_well) as fake, client_of(fake, listens=False) as client:
        sending = asyncio.gather(*(client.send("all", number) for number in range(50)))
        await asyncio.wait_for(sending, 20)
    assert list(fake.stored.values()) == list(range(50))


async def test_joining_and_leaving() -> None:
    async def admit(conversation: Conversation) -> None:
        await conversation.greet()
        frame = await conversation.hear("join")
        await conversation.say(frames.Joined("group:g", "5-5", "ann", "g", frame["ref"]), message("group:g", "6-6"))
        frame = await conversation.hear("leave")
        await conversation.say(frames.Left("group:g", "7-7", "ann", "g", frame["ref"]))
        await conversation.answer_sends()

    async with Fake(admit) as fake, client_of(fake) as client:
        assert (await client.join("g")).id == "5-5"
        assert await ids(client, 1) == ["6-6"]
        await client.leave("g")


async def test_a_send_that_nobody_waits_for_is_not_repeated() -> None:
    async def drop(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.hear("send")
        await asyncio.sleep(0.2)
        conversation.drop()

    async with Fake(drop, serve_well) as fake, client_of(fake) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.send("all", "late"), 0.1)
        await client.send("all", "next")
    assert list(fake.stored.values()) == ["next"]


async def test_a_body_without_a_json_form() -> None:
    async with Fake(serve_well) as fake, client_of(fake) as client:
        with pytest.raises(TypeError):
            await client.send("all", object())
        with pytest.raises(ValueError, match="surrogate"):
            await client.send("all", "\ud800")
        await client.send("all", "fine")
    assert list(fake.stored.values()) == ["fine"]


# -- a program that is slow --------------------------------------------------------------------------------------------


async def test_a_slow_program_is_waited_for_and_gets_everything() -> None:
    count, large = 1500, body("x" * 32_768)  # more than all buffers between the two together
    said: list[int] = []

    async def flood(conversation: Conversation) -> None:
        await conversation.greet()
        for n in range(1, count + 1):
            await conversation.say(frames.Message("all", f"2-{n}", "m", "bob", "all", large))
            said.append(n)
        await conversation.answer_sends()

    async with Fake(flood) as fake, client_of(fake) as client:
        await until(lambda: len(said) > EVENTS_MOST)
        before = -1
        while before != len(said):  # until sockets and queues are full
            before = len(said)
            await asyncio.sleep(0.2)
        assert before < count
        assert await ids(client, count) == [f"2-{n}" for n in range(1, count + 1)]


async def test_a_program_may_send_while_it_is_behind() -> None:
    async def flood(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.say_messages(2000)
        await conversation.answer_sends()

    async def answered() -> AsyncIterator[str]:
        async for event in client:
            if isinstance(event, Message):
                yield (await client.send("user:bob", event.id)).mid

    async with Fake(flood) as fake, client_of(fake) as client:
        async with asyncio.timeout(20):
            count = 0
            async for _ in answered():
                count += 1
                if count == 300:
                    break
        assert len(fake.stored) == 300


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_leaving_acknowledges_what_was_taken() -> None:
    async def push(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.say_messages(5)
        await conversation.answer_sends()

    async with Fake(push) as fake:
        async with client_of(fake) as client:
            assert await ids(client, 3) == ["2-1", "2-2", "2-3"]
            await until(lambda: fake.connections)
        assert fake.acknowledged("all") == "2-3"
        assert client.offsets == ("e1", {"user:ann": "1-0", "all": "2-3"})


async def test_who_is_closed_says_so() -> None:
    async def swallow(conversation: Conversation) -> None:
        await conversation.greet()
        while True:
            await conversation.hear("send")

    async with Fake(swallow) as fake:
        client = client_of(fake)
        with pytest.raises(Closed):
            await client.send("all", "early")
        async with client:
            sending = asyncio.create_task(client.send("all", "hi"))
            await until(lambda: any(frame["type"] == "send" for frame in fake.heard))
            await client.close()
            with pytest.raises(Closed):
                await sending
            with pytest.raises(Closed):
                await client.send("all", "late")
            assert [event async for event in client] == []


async def test_leaving_a_server_that_does_not_answer_takes_its_time_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.client.client.LEAVE_S", 0.1)

    async def push(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.say_messages(1)
        while True:
            await conversation.hear("ping")

    async with Fake(push) as fake, client_of(fake) as client:
        assert await ids(client, 1) == ["2-1"]
        await client.close()
        assert fake.acknowledged("all") == "2-1"
