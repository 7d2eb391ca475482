"""`send`: where a message goes, what `sent` says, what keys do, and that bodies stay byte for byte what they were."""

import asyncio
import json
from collections.abc import Callable

import pytest

from tests.integration.wire.kit import Net, join, n_of, raw_texts, types_of
from tests.service import Frame, Phone

pytestmark = pytest.mark.anyio

SENT_FIELDS = {"type", "ref", "stream", "id", "mid", "duplicate", "durability"}
MESSAGE_FIELDS = {"type", "stream", "id", "mid", "from", "to", "body"}
BODY_MAX = 65_536


# -- where it goes -----------------------------------------------------------------------------------------------------


async def test_direct_message_reaches_the_other_and_is_answered_with_the_copy_in_the_own_inbox(
    net: Net, alice: str, bob: str
) -> None:
    sender, receiver = await net.open(alice), await net.open(bob)
    await sender.send(f"user:{bob}", "one")
    sent = await sender.send(f"user:{bob}", "two")
    assert sent.keys() == SENT_FIELDS
    assert sent["stream"] == f"user:{alice}"
    assert n_of(sent["id"]) == 2
    assert sent["duplicate"] is False
    assert sent["durability"] == "fsynced"
    message = await receiver.wait("message", body="two")
    assert message.keys() == MESSAGE_FIELDS
    assert message["stream"] == message["to"] == f"user:{bob}"
    assert message["from"] == alice
    assert message["mid"] == sent["mid"]
    assert sender.messages() == []


async def test_group_message_reaches_every_member_once(net: Net, alice: str, bob: str, group: str) -> None:
    for user in (alice, bob):
        phone = await net.open(user)
        await join(phone, group)
        await phone.leave()
    sender, receiver = await net.open(alice), await net.open(bob)  # live on the group
    sent = await sender.send(f"group:{group}", {"text": "hi"})
    assert sent.keys() == SENT_FIELDS
    assert sent["stream"] == f"group:{group}"
    message = await receiver.wait("message")
    assert message.keys() == MESSAGE_FIELDS
    assert (message["stream"], message["to"], message["from"]) == (f"group:{group}", f"group:{group}", alice)
    assert (message["id"], message["mid"]) == (sent["id"], sent["mid"])
    assert sender.messages() == []


async def test_message_to_all_reaches_everybody(net: Net, alice: str, bob: str, fresh: Callable[[str], str]) -> None:
    sender, receivers = await net.open(alice), [await net.open(user) for user in (bob, fresh("carol"))]
    sent = await sender.send("all", "hear, hear")
    assert sent["stream"] == "all"
    for receiver in receivers:
        message = await receiver.wait("message")
        assert (message["stream"], message["to"], message["from"]) == ("all", "all", alice)
        assert (message["id"], message["mid"]) == (sent["id"], sent["mid"])
    assert sender.messages() == []


@pytest.mark.parametrize("where", ["direct", "group", "all"])
async def test_other_connections_of_the_sender_see_the_message_as_a_message(
    net: Net, alice: str, bob: str, group: str, where: str
) -> None:
    phone, laptop = await net.open(alice, "phone"), await net.open(alice, "laptop")
    tab = await net.open(alice, "phone")  # a second connection of the sending device
    await join(phone, group)
    to = {"direct": f"user:{bob}", "group": f"group:{group}", "all": "all"}[where]
    sent = await phone.send(to, "mine")
    for other in (laptop, tab):
        message = await other.wait("message")
        assert (message["stream"], message["id"], message["mid"]) == (sent["stream"], sent["id"], sent["mid"])
        assert (message["from"], message["to"]) == (alice, to)


async def test_message_to_oneself_is_stored_and_seen_once(net: Net, alice: str) -> None:
    phone, laptop = await net.open(alice, "phone"), await net.open(alice, "laptop")
    first = await phone.send(f"user:{alice}", "note")
    second = await phone.send(f"user:{alice}", "end")
    assert [n_of(first["id"]), n_of(second["id"])] == [1, 2]
    await laptop.wait("message", body="end")
    assert laptop.bodies() == ["note", "end"]
    assert phone.messages() == []


async def test_somebody_nobody_has_ever_heard_of_can_be_sent_to(net: Net, alice: str, bob: str) -> None:
    sender = await net.open(alice)
    assert (await sender.send(f"user:{bob}", "first contact"))["type"] == "sent"
    assert (await net.open(bob)).bodies() == ["first contact"]


async def test_group_one_is_not_in_answers_not_member(net: Net, alice: str, bob: str, group: str) -> None:
    member, stranger = await net.open(alice), await net.open(bob)
    await join(member, group)
    error = await stranger.send(f"group:{group}", "let me in")
    assert (error["type"], error["code"], error["retry"]) == ("error", "not_member", False)
    assert (await member.send(f"group:{group}", "mark"))["id"].endswith("-2")


async def test_group_that_does_not_exist_answers_not_member_too(net: Net, alice: str, group: str) -> None:
    """Whether a group exists is not for strangers to know."""
    phone = await net.open(alice)
    error = await phone.send(f"group:{group}", "anybody there?")
    assert (error["type"], error["code"], error["retry"]) == ("error", "not_member", False)
    assert (await phone.send(f"user:{alice}", "goes on"))["type"] == "sent"


async def test_one_refused_send_does_not_touch_the_others_of_its_frame(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone = await net.open(alice)
    tos = [f"user:{bob}", f"group:{group}", f"user:{bob}", "nonsense", f"user:{bob}"]
    await phone.websocket.send("\n".join(send_line(n, to, n) for n, to in enumerate(tos)))
    await phone.until(lambda: all(phone.answer_to(n) for n in range(5)), "all are answered")
    answers = [phone.answer_to(n) or {} for n in range(5)]
    assert [answer.get("code", answer["type"]) for answer in answers] == [
        "sent", "not_member", "sent", "bad_stream", "sent",
    ]  # fmt: skip
    assert (await net.open(bob)).bodies() == [0, 2, 4]


# -- ref, mid, key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [0, -1, 7, 2**53, 2**64, "", "x", "ü" * 64, '"quoted"\n', None])
async def test_ref_is_echoed_as_it_is(net: Net, alice: str, ref: object) -> None:
    phone = await net.open(alice)
    await phone.say(type="send", ref=ref, to=f"user:{alice}", body=1)
    sent = await phone.wait("sent")
    assert sent.get("ref") == ref


async def test_send_without_ref_is_answered_without_one(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.say(type="send", to=f"user:{alice}", body=1)
    assert (await phone.wait("sent")).keys() == SENT_FIELDS - {"ref"}


async def test_key_becomes_the_mid_and_without_one_the_node_makes_it(net: Net, alice: str, bob: str) -> None:
    phone, receiver = await net.open(alice), await net.open(bob)
    keyed = await phone.send(f"user:{bob}", 1, key="my key / ü")
    assert keyed["mid"] == "my key / ü"
    assert (await receiver.wait("message", body=1))["mid"] == "my key / ü"
    made = [(await phone.send(f"user:{bob}", 2))["mid"] for _ in range(20)]
    assert all(made)
    assert len(set(made)) == 20


@pytest.mark.parametrize("where", ["direct", "self", "group", "all"])
async def test_repeat_with_the_same_key_is_stored_once_and_answered_alike(
    net: Net, alice: str, bob: str, group: str, where: str
) -> None:
    phone, receiver = await net.open(alice), await net.open(bob)
    for member in (phone, receiver):
        await join(member, group)
    to = {"direct": f"user:{bob}", "self": f"user:{alice}", "group": f"group:{group}", "all": "all"}[where]
    first = await phone.send(to, {"a": 1}, key="k")
    again = await phone.send(to, {"a": 1}, key="k")
    assert again["duplicate"] is True
    assert {**again, "ref": 0, "duplicate": False} == {**first, "ref": 0}
    await phone.send(f"user:{bob}", "end")
    await receiver.wait("message", body="end")
    assert len(receiver.messages()) == (1 if where == "self" else 2)


async def test_repeat_from_another_device_after_a_cut_is_known(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice, "phone")
    first = await phone.send(f"user:{bob}", 1, key="k")
    phone.cut()
    laptop = await net.open(alice, "laptop")
    again = await laptop.send(f"user:{bob}", 1, key="k")
    assert (again["duplicate"], again["id"]) == (True, first["id"])
    assert (await net.open(bob)).bodies() == [1]


async def test_repeats_in_one_frame_are_stored_once(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    await phone.websocket.send("\n".join(send_line(n, f"user:{bob}", "same", key="k") for n in range(5)))
    await phone.until(lambda: all(phone.answer_to(n) for n in range(5)), "all are answered")
    answers = [phone.answer_to(n) or {} for n in range(5)]
    assert [answer["duplicate"] for answer in answers] == [False, True, True, True, True]
    assert len({answer["id"] for answer in answers}) == 1
    assert (await net.open(bob)).bodies() == ["same"]


@pytest.mark.parametrize(("first", "second"), [('"a"', '"b"'), ("1", "1.0"), ('{"a":1}', '{"a": 1}')])
async def test_same_key_with_another_body_is_refused_and_the_first_stays(
    net: Net, alice: str, bob: str, first: str, second: str
) -> None:
    phone = await net.open(alice)
    for ref, body in ((1, first), (2, second), (3, first)):
        await phone.websocket.send(f'{{"type":"send","ref":{ref},"to":"user:{bob}","key":"k","body":{body}}}')
    await phone.until(lambda: phone.answer_to(3), "all are answered")
    error = phone.answer_to(2) or {}
    assert (error["type"], error["code"], error["retry"]) == ("error", "key_reused", False)
    assert (phone.answer_to(3) or {})["duplicate"] is True
    assert (await net.open(bob)).bodies() == [json.loads(first)]


async def test_keys_of_other_senders_and_other_streams_are_other_keys(net: Net, alice: str, bob: str) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    answers = [
        await phone.send(f"user:{bob}", 1, key="k"),
        await phone.send(f"user:{alice}", 2, key="k"),
        await other.send(f"user:{bob}", 3, key="k"),
    ]
    assert types_of(answers) == ["sent"] * 3
    assert [answer["duplicate"] for answer in answers] == [False] * 3


# -- bodies ------------------------------------------------------------------------------------------------------------

BODIES = [
    "null",
    "true",
    "0",
    "-0",
    "-0.0",
    "1.0",
    "1.50",
    "1E+2",
    "1e999",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827",
    '""',
    '"\\u0041\\u00e9\\/"',
    '"é\\ud83d\\ude00😀"',
    '"\\u0000\\u001f\\u2028"',
    '"\u2028\u2029\u0085\x7f"',
    '{ "b" : 1 ,\t"a":[ 1,2 , 3 ] }',
    '{"a":1,"a":2}',
    "[]",
    "{}",
    '[[],{},"",null,false]',
    "[" * 128 + "]" * 128,
    '{"a[":' * 128 + "1" + "}" * 128,
    '{"type":"message","stream":"all","id":"1-1"}',
    '"</script>\\n{\\"type\\":\\"live\\"}"',
]


@pytest.mark.parametrize("how", ["live", "paged"])
async def test_body_stays_byte_for_byte_what_it_was(net: Net, alice: str, bob: str, how: str) -> None:
    phone = await net.open(alice)
    hearing = asyncio.create_task(raw_texts(net.node.url, bob, len(BODIES))) if how == "live" else None
    for ref, body in enumerate(BODIES):
        await phone.websocket.send(f'{{"type":"send","ref":{ref},"to":"user:{bob}","body": {body} }}')
    await phone.until(lambda: phone.answer_to(len(BODIES) - 1), "all are answered")
    texts = await (hearing or raw_texts(net.node.url, bob, len(BODIES)))
    assert [text.split('"body":', 1)[1].removesuffix("}") for text in texts] == BODIES


async def test_line_breaks_between_the_tokens_of_a_body_become_blanks(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    body = '{\r\n  "a": [\n    1,\n    "x\\ny"\n  ]\n}'
    await phone.websocket.send(f'{{"type": "send",\n "ref": 1,\n "to": "user:{bob}",\n "body": {body}}}')
    await phone.until(lambda: phone.answer_to(1), "it is answered")
    (text,) = await raw_texts(net.node.url, bob, 1)
    assert text.split('"body":', 1)[1].removesuffix("}") == body.replace("\n", " ").replace("\r", " ")


async def test_frame_of_several_lines_holds_several_objects(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    lines = ["", send_line(1, f"user:{bob}", "a"), "  ", send_line(2, f"user:{bob}", "b") + "\r", '{"type":"ping"}', ""]
    await phone.websocket.send("\n".join(lines))
    await phone.until(lambda: phone.answer_to(2), "all are answered")
    assert "pong" in types_of(phone.frames)
    assert (await net.open(bob)).bodies() == ["a", "b"]


async def test_unknown_fields_are_ignored(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    await phone.say(type="send", ref=1, to=f"user:{alice}", body=1, priority="high", **{"from": "mallory"})
    await phone.wait("sent", ref=1)
    laptop = await net.open(alice, "laptop")
    assert laptop.messages()[0]["from"] == alice


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["other", "oneself", "group", "all"])
async def test_body_of_64_kib_is_the_largest(net: Net, alice: str, bob: str, group: str, to: str) -> None:
    phone, receiver = await net.open(alice), await net.open(bob)
    for member in (phone, receiver):
        await join(member, group)
    stream = {"other": f"user:{bob}", "oneself": f"user:{alice}", "group": f"group:{group}", "all": "all"}[to]
    largest = "x" * (BODY_MAX - 2)  # and two quotation marks
    assert (await phone.send(stream, largest))["type"] == "sent"
    error = await phone.send(stream, largest + "x")
    assert (error["type"], error["code"], error["retry"]) == ("error", "body_too_large", False)
    assert (await phone.send(stream, "goes on"))["type"] == "sent"
    listener = await net.open(alice, "laptop") if to == "oneself" else receiver
    await listener.until(lambda: "goes on" in listener.bodies(), "all of it")
    assert listener.bodies() == [largest, "goes on"]


async def test_size_of_a_body_counts_bytes_not_characters(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    for body, answer in (("ü" * 32_767, "sent"), ("ü" * 32_767 + "x", "error")):
        text = json.dumps(body, ensure_ascii=False)
        await phone.websocket.send(f'{{"type":"send","ref":"{answer}","to":"user:{alice}","body":{text}}}')
        await phone.wait(answer, ref=answer)


async def test_bodies_too_large_for_mailboxes_come_in_their_place(net: Net, alice: str, bob: str) -> None:
    """Above 4 KiB a body goes to mailboxes as a reference: the connection reads it from the stream."""
    phone, receiver, laptop = await net.open(alice), await net.open(bob), await net.open(alice, "laptop")
    bodies = [f"{n}" if n % 3 else f"{n}:".ljust(6 * 1024, "x") for n in range(30)]
    for n, body in enumerate(bodies):
        await phone.say(type="send", ref=n, to=f"user:{bob}", body=body)
    for listener in (receiver, laptop):
        await listener.until(lambda one=listener: len(one.messages()) == 30, "all messages")  # type: ignore[misc]
        assert listener.bodies() == bodies
    await phone.until(lambda: all(phone.answer_to(n) for n in range(30)), "all are answered")
    for n in range(30):
        answers = [frame for frame in phone.frames if frame.get("ref") == n]
        assert types_of(answers) == ["sent"]


async def test_sends_beyond_64_unanswered_wait_and_are_all_answered_in_order(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    for n in range(1000):
        await phone.say(type="send", ref=n, to=f"user:{bob}", body=n)
    await phone.until(lambda: sum(frame["type"] == "sent" for frame in phone.frames) == 1000, "all are answered")
    answers = [frame for frame in phone.frames if frame["type"] == "sent"]
    assert [answer["ref"] for answer in answers] == list(range(1000))
    assert [n_of(answer["id"]) for answer in answers] == list(range(1, 1001))
    assert (await net.open(bob)).bodies() == list(range(1000))


async def test_1000_sends_in_one_frame_are_all_answered(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    await phone.websocket.send("\n".join(send_line(n, f"user:{bob}", n) for n in range(1000)))
    await phone.until(lambda: sum(frame["type"] == "sent" for frame in phone.frames) == 1000, "all are answered")
    assert (await net.open(bob)).bodies() == list(range(1000))


async def test_sends_beyond_256_kib_unanswered_are_all_answered(net: Net, alice: str, bob: str) -> None:
    phone, receiver = await net.open(alice), await net.open(bob)
    bodies = [f"{n}".ljust(60_000, "y") for n in range(40)]
    for n, body in enumerate(bodies):
        await phone.say(type="send", ref=n, to=f"user:{bob}", body=body)
    await phone.until(lambda: all(phone.answer_to(n) for n in range(40)), "all are answered")
    await receiver.until(lambda: len(receiver.messages()) == 40, "all messages")
    assert receiver.bodies() == bodies


async def test_sends_of_many_connections_at_once_are_each_answered_once(
    net: Net, bob: str, fresh: Callable[[str], str]
) -> None:
    receiver = await net.open(bob)
    phones = [await net.open(fresh("many")) for _ in range(10)]

    async def talk(phone: Phone) -> list[Frame]:
        return [await phone.send(f"user:{bob}", [phone.user, n]) for n in range(20)]

    answers = await asyncio.gather(*(talk(phone) for phone in phones))
    assert all(frame["type"] == "sent" for frames in answers for frame in frames)
    await receiver.until(lambda: len(receiver.messages()) == 200, "all messages")
    for phone in phones:
        assert [n for user, n in receiver.bodies() if user == phone.user] == list(range(20))
    assert [n_of(message["id"]) for message in receiver.messages()] == list(range(1, 201))


async def test_what_is_sent_just_before_hanging_up_is_stored(net: Net, alice: str, bob: str) -> None:
    phone = await net.open(alice)
    await phone.say(type="send", to=f"user:{bob}", body="goodbye")
    await phone.leave()
    receiver = await net.open(bob)
    await receiver.until(receiver.messages, "the message")
    assert receiver.bodies() == ["goodbye"]


def send_line(ref: object, to: str, body: object, **more: object) -> str:
    return json.dumps({"type": "send", "ref": ref, "to": to, "body": body, **more})
