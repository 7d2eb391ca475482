"""`history` on the wire: what is asked and answered, what is refused, that it moves nothing and holds nothing up."""

import asyncio
import json
from collections.abc import Callable

import pytest

from migrations import __main__ as migrations
from service.core.names import parse_id
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import CLOSE, PATIENCE_S, TEXT, Net, eventually, join, leave, n_of, stored_offset
from tests.service import Frame, NodeProcess, Phone

pytestmark = pytest.mark.anyio


async def ask(phone: Phone, stream: str, **fields: object) -> Frame:
    """Asks and returns the answer: `history` or `error`."""
    ref = f"h{len(phone.frames)}"
    await phone.say(type="history", ref=ref, stream=stream, **fields)
    await phone.until(lambda: phone.answer_to(ref), "an answer")
    answer = phone.answer_to(ref)
    assert answer is not None
    return answer


async def test_what_was_said_is_answered_as_it_was_pushed(net: Net, alice: str, bob: str) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    await phone.send_all(f"user:{bob}", [{"text": "hi"}, [1, 2.50], "größe"])
    await other.until(lambda: len(other.messages()) == 3, "three")

    answer = await ask(other, f"user:{bob}", limit=2)
    assert answer["messages"] == other.messages()[1:]
    assert {name: value for name, value in answer.items() if name != "messages"} == {
        "type": "history",
        "ref": answer["ref"],
        "stream": f"user:{bob}",
        "floor": "0-0",
        "head": other.messages()[-1]["id"],
        "found_oldest": False,
        "found_newest": True,
        "gaps": [],
        "looked_at": 2,
        "first": other.messages()[1]["id"],
        "last": other.messages()[2]["id"],
    }


async def test_every_spelling_of_an_anchor(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    sent = await phone.send_all(f"user:{alice}", range(9))
    inbox, fifth = f"user:{alice}", sent[4]["id"]

    def numbers(answer: Frame) -> list[int]:
        return [n_of(message["id"]) for message in answer["messages"]]

    for anchor in (5, fifth):
        assert numbers(await ask(phone, inbox, after=anchor, limit=2)) == [6, 7]
        assert numbers(await ask(phone, inbox, before=anchor, limit=2)) == [3, 4]
        assert numbers(await ask(phone, inbox, around=anchor, limit=4)) == [3, 4, 5, 6]
    assert numbers(await ask(phone, inbox, after="2020-02-29T12:00:00Z", limit=1)) == [1]
    assert numbers(await ask(phone, inbox, before="2999-01-01T00:00:00+14:00", limit=1)) == [9]
    assert numbers(await ask(phone, inbox, before=1000, limit=1)) == [9]
    assert numbers(await ask(phone, inbox, after=None)) == list(range(1, 10))
    empty = await ask(phone, inbox, before=0)
    assert (empty["messages"], empty["found_oldest"], "first" in empty) == ([], True, False)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"after": 1, "before": 5}, "bad_request"),
        ({"limit": 0}, "bad_request"),
        ({"limit": 201}, "bad_request"),
        ({"limit": "10"}, "bad_request"),
        ({"after": 1.5}, "bad_request"),
        ({"after": True}, "bad_request"),
        ({"after": ["5-1"]}, "bad_request"),
        ({"with": 5}, "bad_request"),
        ({"with": "a/b"}, "bad_name"),
        ({"after": "yesterday"}, "bad_anchor"),
        ({"after": "12"}, "bad_anchor"),
        ({"after": -1}, "bad_anchor"),
        ({"after": 99}, "bad_anchor"),
        ({"around": 99}, "bad_anchor"),
        ({"after": "2999-01-01T00:00:00Z"}, "bad_anchor"),
        ({"before": "5-1"}, "bad_anchor"),  # the first entry has another id
        ({"stream": "nothing"}, "bad_stream"),
        ({"stream": "user:a/b"}, "bad_name"),
        ({"stream": None}, "bad_request"),
        ({"stream": "user:somebody"}, "not_allowed"),
        ({"stream": "group:never-made"}, "not_member"),
    ],
)
async def test_what_is_wrong_is_an_error_and_the_connection_goes_on(
    net: Net, alice: str, fields: Frame, code: str
) -> None:
    phone = await net.open(alice)
    await phone.send_all(f"user:{alice}", ["x"])
    refused = await ask(phone, **{"stream": f"user:{alice}", **fields})
    assert (refused["type"], refused["code"], refused["retry"]) == ("error", code, False)
    assert len((await ask(phone, f"user:{alice}"))["messages"]) == 1


async def test_a_group_answers_members_for_their_stretches(net: Net, alice: str, bob: str, group: str) -> None:
    stream = f"group:{group}"
    phone, other = await net.open(alice), await net.open(bob)
    await join(phone, group)
    await phone.send_all(stream, ["before"])
    assert (await ask(other, stream))["code"] == (await ask(other, "group:never-made"))["code"] == "not_member"
    await join(other, group)
    await phone.send_all(stream, ["within"])
    left = await leave(other, group)
    await phone.send_all(stream, ["after"])

    answer = await ask(other, stream)
    assert [(m["type"], m.get("body")) for m in answer["messages"]] == [
        ("joined", None),
        ("message", "within"),
        ("left", None),
    ]
    assert (answer["head"], answer["found_oldest"], answer["found_newest"]) == (left["id"], True, True)


async def test_it_may_be_said_with_hello_and_is_answered_after_welcome(net: Net, alice: str) -> None:
    phone = await net.dial(alice)
    frames = [{"type": "hello"}, {"type": "history", "ref": 1, "stream": "all", "limit": 1}]
    await phone.websocket.send("\n".join(map(json.dumps, frames)))
    answer = await phone.wait("history", ref=1)
    assert phone.frames[0]["type"] == "welcome"
    assert answer["stream"] == "all"
    phone = await net.dial(alice)
    await phone.say(type="history", ref=1, stream="all")
    assert (await phone.wait("error", ref=1))["code"] == "hello_expected"


async def test_it_moves_nothing(net: Net, database: Server, alice: str, bob: str) -> None:
    sender, phone = await net.open(bob), await net.open(alice, "phone")
    await sender.send_all(f"user:{alice}", range(3))
    await phone.until(lambda: len(phone.messages()) == 3, "three")
    await phone.leave()
    phone = await net.open(alice, "phone")  # nothing was acknowledged
    assert phone.bodies() == [0, 1, 2]
    first = await ask(phone, f"user:{alice}")
    beyond = str(parse_id(first["last"])._replace(n=99))
    await phone.say(type="ack", ref="a", offsets={f"user:{alice}": beyond})
    assert (await phone.wait("error", ref="a"))["code"] == "ack_beyond"
    assert stored_offset(database, alice, "phone", f"user:{alice}") == "0-0"
    assert [frame["type"] for frame in phone.frames].count("live") == 1
    await sender.send_all(f"user:{alice}", [3])
    await phone.wait("message", body=3)  # it is live as before


async def test_more_questions_than_may_be_unanswered_are_all_answered_in_order(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.send_all(f"user:{alice}", range(5))
    for ref in range(200):
        await phone.say(type="history", ref=ref, stream=f"user:{alice}", limit=1 + ref % 5)
    await phone.until(lambda: phone.answer_to(199), "all answers")
    answers = [frame for frame in phone.frames if frame["type"] == "history"]
    assert [answer["ref"] for answer in answers] == list(range(200))
    assert [len(answer["messages"]) for answer in answers] == [1 + ref % 5 for ref in range(200)]


async def test_answers_wait_for_room_in_the_socket_and_pushes_to_others_do_not(
    net: Net, alice: str, bob: str, start_node: StartNode
) -> None:
    """Who asks for megabytes and takes none of them costs a buffer and an answer, and nobody else anything."""
    net = net.at(start_node(limits_write_buffer_bytes=65_536))
    phone = await net.open(alice)
    big = "x" * 60_000
    await phone.send_all(f"user:{alice}", [big] * 8)
    before = net.node.memory_bytes()
    bare = await net.bare(f"/v1/connect?user={alice}")
    bare.write(TEXT, b'{"type":"hello"}')
    bare.pause()
    for ref in range(63):
        bare.write(TEXT, json.dumps({"type": "history", "ref": ref, "stream": f"user:{alice}"}).encode())
    other = await net.open(bob)
    grown = 0
    for n in range(100):
        await other.send_all(f"user:{bob}", [n])
        grown = max(grown, net.node.memory_bytes() - before)
        await asyncio.sleep(0.005)
    assert grown < 4_000_000  # all answers together are 15 MB
    bare.resume()
    answered: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(answered) < 63:
            opcode, payload = await bare.read()
            assert opcode != CLOSE
            if opcode == TEXT and (frame := json.loads(payload))["type"] == "history":
                answered.append(frame["ref"])
    assert answered == list(range(63))


async def test_a_client_that_goes_away_takes_its_questions_with_it(net: Net, node: NodeProcess, alice: str) -> None:
    phone = await net.open(alice)
    await phone.send_all(f"user:{alice}", ["x"])
    for ref in range(50):
        await phone.say(type="history", ref=ref, stream=f"user:{alice}")
    phone.cut()
    again = await net.open(alice)
    assert (await ask(again, f"user:{alice}"))["messages"]
    await eventually(node.is_ready, "the node is well")


async def test_while_the_store_is_away_the_answer_is_unavailable(fresh: Callable[[str], str]) -> None:
    server = Server("valkey")
    node = NodeProcess(server.url, "lonely", call_timeout_s=1)
    try:
        server.start()
        await migrations.up(server.url)
        node.start()
        phone = await Phone.open(node.url, fresh("alice"))
        server.kill()
        refused = await ask(phone, "all")
        assert (refused["code"], refused["retry"]) == ("unavailable", True)
        server.start()
        await eventually(node.is_ready, "it is ready again")
        assert (await ask(phone, "all"))["type"] == "history"
        await phone.leave()
    finally:
        node.remove()
        server.remove()
