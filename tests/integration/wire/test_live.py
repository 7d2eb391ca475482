"""What goes on while a connection is open: `live`, falling behind and catching up, and pings in both directions."""

import asyncio
import json
import time

import pytest

from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import CLOSE, PING, PONG, TEXT, BareSocket, Net, eventually, join, types_of
from tests.service import Frame

pytestmark = pytest.mark.anyio


# -- live --------------------------------------------------------------------------------------------------------------


async def test_live_comes_once_and_after_all_that_was_missed(net: Net, alice: str, bob: str, group: str) -> None:
    talker, phone = await net.open(bob), await net.open(alice)
    for member in (talker, phone):
        await join(member, group)
    await phone.leave()
    for number in range(300):  # more than a page
        await talker.say(type="send", to=f"group:{group}", body=number)
        await talker.say(type="send", to=f"user:{alice}", body=number)
    await talker.send("all", "last")
    phone = await net.open(alice)
    assert types_of(phone.frames)[0] == "welcome"
    assert types_of(phone.frames)[-1] == "live"
    assert phone.bodies(f"group:{group}") == phone.bodies(f"user:{alice}") == list(range(300))
    assert phone.bodies("all") == ["last"]
    await talker.send(f"user:{alice}", "new")
    await phone.wait("message", body="new")
    assert [frame for frame in phone.frames if frame["type"] == "live"] == [{"type": "live"}]


async def test_live_comes_at_once_when_nothing_was_missed(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    assert phone.frames[1:] == [{"type": "live"}]


async def test_joining_a_group_later_is_not_told_with_a_live(net: Net, alice: str, group: str) -> None:
    phone = await net.open(alice)
    await join(phone, group)
    await phone.send(f"group:{group}", "x")
    await phone.send(f"user:{alice}", "y")
    assert types_of(phone.frames).count("live") == 1


async def test_stream_that_fell_behind_a_slow_socket_is_told_live_again_and_nothing_is_missing(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    net = net.at(start_node(limits_write_buffer_bytes=65_536))
    slow = await net.bare(f"/v1/connect?user={alice}")
    slow.write(TEXT, b'{"type":"hello"}')
    frames: list[Frame] = []

    async def read_until(type_: str, **fields: object) -> None:
        while not frames or frames[-1]["type"] != type_ or any(frames[-1].get(k) != v for k, v in fields.items()):
            opcode, payload = await slow.read()
            assert opcode == TEXT
            frames.extend(map(json.loads, payload.split(b"\n")))

    await read_until("live")
    slow.pause()
    sender, other = await net.open(bob), await net.open(bob, "other")
    count = 2000
    for number in range(count):  # 8 MiB: more than the kernel's buffers hold
        await sender.say(type="send", to=f"user:{alice}", body=f"{number}".ljust(4000))
    await sender.send(f"user:{bob}", "mark")
    await other.wait("message", body="mark")  # the others lose nothing by it
    slow.resume()
    await read_until("live", stream=f"user:{alice}")
    bodies = [int(frame["body"]) for frame in frames if frame["type"] == "message"]
    assert bodies == list(range(count))
    lives = [frame for frame in frames if frame["type"] == "live"]
    assert lives[0] == {"type": "live"}
    assert {frame.get("stream") for frame in lives[1:]} <= {f"user:{alice}", "all"}
    await sender.send(f"user:{alice}", "new")
    await read_until("message", body="new")


async def test_client_that_drains_nothing_is_closed_as_slow_and_resumes(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    node = start_node(limits_write_buffer_bytes=65_536, idle_close_s=0.5)
    net = net.at(node)
    slow = await net.bare(f"/v1/connect?user={alice}")
    slow.write(TEXT, b'{"type":"hello","device":"slow"}')
    for _ in range(2):
        await slow.read()
    slow.pause()
    sender = await net.open(bob)
    count = 2000
    for number in range(count):
        await sender.say(type="send", to=f"user:{alice}", body=f"{number}".ljust(4000))
    await sender.send(f"user:{bob}", "mark")
    await asyncio.sleep(1.0)  # twice the time it has
    slow.resume()
    seen: list[tuple[int, bytes]] = []
    try:
        while not seen or seen[-1][0] != CLOSE:
            seen.append(await slow.read())
    except (asyncio.IncompleteReadError, ConnectionError):  # cut: it did not read the goodbye in time
        pass
    else:
        assert int.from_bytes(seen[-1][1][:2]) == 4001
        assert json.loads(seen[-2][1])["code"] == "slow"
    again = await net.open(alice, "slow")
    assert [int(body) for body in again.bodies()] == list(range(count))


async def test_large_bodies_leave_a_stream_live(net: Net, alice: str, bob: str) -> None:
    sender, phone = await net.open(alice), await net.open(bob)
    for number in range(10):
        await sender.send(f"user:{bob}", f"{number}".ljust(10_000))
        await sender.send(f"user:{bob}", number)
    await phone.until(lambda: len(phone.messages()) == 20, "all messages")
    assert [int(str(body)) for body in phone.bodies()] == [n for n in range(10) for _ in range(2)]
    lives = [frame for frame in phone.frames if frame["type"] == "live"]
    assert lives[0] == {"type": "live"}
    assert all(frame == {"type": "live", "stream": f"user:{bob}"} for frame in lives[1:])


# -- ping and pong in JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [1, "x", 0, ""])
async def test_ping_is_answered_with_pong_and_its_ref(net: Net, alice: str, ref: object) -> None:
    phone = await net.open(alice)
    await phone.say(type="ping", ref=ref)
    assert await phone.wait("pong") == {"type": "pong", "ref": ref}


async def test_ping_without_ref_is_answered_without_one(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.say(type="ping")
    assert await phone.wait("pong") == {"type": "pong"}


async def test_pings_are_answered_in_order_while_sends_are_under_way(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    for number in range(50):
        await phone.say(type="send", ref=f"s{number}", to=f"user:{bob}", body=number)
        await phone.say(type="ping", ref=number)
    await phone.until(lambda: phone.answer_to("s49") and phone.answer_to(49), "all answers")
    assert [frame["ref"] for frame in phone.frames if frame["type"] == "pong"] == list(range(50))


# -- pings of WebSocket ------------------------------------------------------------------------------------------------


async def test_websocket_ping_of_a_client_is_answered(net: Net, alice: str) -> None:
    bare = await net.bare(f"/v1/connect?user={alice}")
    bare.write(PING, b"are you there")
    assert await bare.read() == (PONG, b"are you there")


async def test_server_pings_and_a_client_that_answers_stays(net: Net, start_node: StartNode, alice: str) -> None:
    net = net.at(start_node(ping_s=0.3))
    bare = await net.bare(f"/v1/connect?user={alice}")
    bare.write(TEXT, b'{"type":"hello"}')
    for _ in range(2):
        await bare.read()
    for _ in range(4):  # four periods without a word but pongs
        opcode, payload = await bare.read()
        assert opcode == PING
        bare.write(PONG, payload)
    bare.write(TEXT, b'{"type":"ping","ref":1}')
    while (frame := await bare.read())[0] == PING:
        pass
    assert frame == (TEXT, b'{"type":"pong","ref":1}')


@pytest.mark.parametrize("has_said_hello", [True, False])
async def test_client_that_answers_nothing_is_dropped_after_two_periods(
    net: Net, start_node: StartNode, alice: str, *, has_said_hello: bool
) -> None:
    net = net.at(start_node(ping_s=0.3))
    bare = await net.bare(f"/v1/connect?user={alice}")
    if has_said_hello:
        bare.write(TEXT, b'{"type":"hello"}')
    began = time.monotonic()
    assert await bare.is_cut()
    assert 0.5 < time.monotonic() - began < 5


async def test_client_that_says_anything_at_all_is_not_dropped(net: Net, start_node: StartNode, alice: str) -> None:
    net = net.at(start_node(ping_s=0.3))
    bare = await net.bare(f"/v1/connect?user={alice}")
    bare.write(TEXT, b'{"type":"hello"}')
    began = time.monotonic()
    pongs = 0
    while time.monotonic() - began < 1.2:
        bare.write(TEXT, b'{"type":"ping"}')
        while (await bare.read())[1] != b'{"type":"pong"}':
            pass
        pongs += 1
        await asyncio.sleep(0.05)
    assert pongs > 10


async def test_dropped_client_does_not_hold_up_the_others(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    net = net.at(start_node(ping_s=0.3))
    silent = await net.bare(f"/v1/connect?user={alice}")
    silent.write(TEXT, b'{"type":"hello"}')
    sender, receiver = await net.open(bob), await net.open(alice, "receiver")
    cut = asyncio.create_task(silent.is_cut())
    count = 0
    while not cut.done():
        await sender.send(f"user:{alice}", count)
        count += 1
    await eventually(lambda: len(receiver.messages()) == count, "all messages")
    assert receiver.bodies() == list(range(count))


async def test_goodbye_of_a_client_is_answered(net: Net, alice: str) -> None:
    bare: BareSocket = await net.bare(f"/v1/connect?user={alice}")
    bare.write(CLOSE, (1000).to_bytes(2) + b"bye")
    opcode, payload = await bare.read()
    assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, 1000)
    assert await bare.is_cut()
