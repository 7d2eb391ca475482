"""`/chat/…`, the pub/sub cluster's protocol: its texts to the letter, and what was missed comes when one is back."""

import json
from collections.abc import Callable

import pytest

from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, add, call, direct, enter, eventually, join, leave, stored_offset

pytestmark = pytest.mark.anyio

Fresh = Callable[[str], str]


# -- the texts, to the letter ------------------------------------------------------------------------------------------


async def test_direct_message(net: Net, alice: str, bob: str) -> None:
    sender, receiver = await net.chat("channel", alice), await net.chat("channel", bob)
    sender.say(direct(bob, "hi"))
    await receiver.until(f"user {alice} send:hi")
    receiver.say(direct(alice, "hi yourself"))
    await sender.until(f"user {bob} send:hi yourself")


async def test_group_message(net: Net, alice: str, bob: str, group: str) -> None:
    sender, receiver = await net.chat("channel", alice), await net.chat("channel", bob)
    await enter(receiver, bob, group)
    await enter(sender, alice, group)
    sender.say(call("Group", group=group, body="Hi All"))
    await receiver.until(
        add(bob, group),
        f"group 【{group}】 user 【{alice}】 send:{add(alice, group)}",
        f"group 【{group}】 user 【{alice}】 send:Hi All",
    )
    receiver.say(call("Group", group=group, body="Hi Alice"))
    await sender.until(add(alice, group), f"group 【{group}】 user 【{bob}】 send:Hi Alice")


async def test_message_to_everybody(net: Net, alice: str, bob: str, fresh: Fresh) -> None:
    sender = await net.chat("channel", alice)
    receivers = [await net.chat("channel", user) for user in (bob, fresh("carol"))]
    sender.say(call("All", body="Hello All"))
    for receiver in receivers:
        await receiver.until(f"user 【{alice}】 send all:Hello All")


@pytest.mark.parametrize("method", ["", "all", "Shout", "one", "GROUP", "Ä"])
async def test_any_other_method_counts_as_all(net: Net, alice: str, bob: str, method: str) -> None:
    sender, receiver = await net.chat("channel", alice), await net.chat("channel", bob)
    sender.say(call(method, group="ignored", body="x"))
    await receiver.until(f"user 【{alice}】 send all:x")


async def test_group_that_does_not_exist(net: Net, alice: str, group: str) -> None:
    chat = await net.chat("channel", alice)
    chat.say(call("Group", group=group, body="anybody there?"))
    await chat.until(f"group【{group}】 not exists")


async def test_group_one_is_not_in(net: Net, alice: str, bob: str, group: str) -> None:
    member, stranger = await net.chat("channel", alice), await net.chat("channel", bob)
    await enter(member, alice, group)
    stranger.say(call("Group", group=group, body="let me in"))
    await stranger.until(f"user 【{bob}】 not in 【{group}】")
    stranger.say(direct(alice, "mark"))
    await member.until(add(alice, group), f"user {bob} send:mark")


async def test_joining_a_group_that_does_not_exist_creates_it(net: Net, alice: str, bob: str, group: str) -> None:
    chat = await net.chat("channel", alice)
    chat.say(call("Group", group=group, body="x"))
    chat.say(call("UserGroup", group=group))
    chat.say(call("Group", group=group, body="x"))
    await chat.until(f"group【{group}】 not exists", add(alice, group))
    other = await net.chat("channel", bob)
    other.say(call("Group", group=group, body="x"))
    await other.until(f"user 【{bob}】 not in 【{group}】")


async def test_joining_again_is_told_to_the_joiner_alone(net: Net, alice: str, bob: str, group: str) -> None:
    chat, other = await net.chat("channel", alice), await net.chat("channel", bob)
    await enter(other, bob, group)
    await enter(chat, alice, group)
    chat.say(call("UserGroup", group=group))
    await chat.until(add(alice, group), add(alice, group))
    chat.say(call("Group", group=group, body="mark"))
    await other.until(
        add(bob, group),
        f"group 【{group}】 user 【{alice}】 send:{add(alice, group)}",
        f"group 【{group}】 user 【{alice}】 send:mark",
    )


@pytest.mark.parametrize(
    "text", ["", " ", "Grüße 😀", 'say "hi" \\ to\nall\tof <b>us</b>', "】", "{}", "null", "\u0000\u2028", "x" * 65_000]
)
async def test_text_arrives_as_it_was_written(net: Net, alice: str, bob: str, group: str, text: str) -> None:
    sender, receiver = await net.chat("channel", alice), await net.chat("channel", bob)
    await enter(receiver, bob, group)
    sender.say(call("UserGroup", group=group))
    await sender.until(add(alice, group))
    for said in (direct(bob, text), call("Group", group=group, body=text), call("All", body=text)):
        sender.say(said)
    await receiver.until_there_are(5)
    assert sorted(receiver.texts) == sorted(  # streams overtake each other
        [
            add(bob, group),
            f"group 【{group}】 user 【{alice}】 send:{add(alice, group)}",
            f"user {alice} send:{text}",
            f"group 【{group}】 user 【{alice}】 send:{text}",
            f"user 【{alice}】 send all:{text}",
        ]
    )


async def test_sender_hears_nothing_of_what_it_said(net: Net, alice: str, bob: str, group: str) -> None:
    phone, other_phone = await net.chat("channel", alice), await net.chat("channel", alice)
    receiver = await net.chat("channel", bob)
    await enter(receiver, bob, group)
    await enter(phone, alice, group)
    for said in (
        direct(bob, "1"),
        direct(alice, "to myself"),
        call("Group", group=group, body="2"),
        call("All", body="3"),
    ):
        phone.say(said)
    await receiver.until_there_are(5)
    receiver.say(call("Group", group=group, body="mark"))
    await phone.until(add(alice, group), f"group 【{group}】 user 【{bob}】 send:mark")
    await other_phone.until(f"group 【{group}】 user 【{bob}】 send:mark")
    await other_phone.leave()
    late = await net.chat("channel", alice)
    receiver.say(direct(alice, "end"))
    await late.until_there_are(1)
    assert not [text for text in late.texts if f"user {alice} " in text or f"user 【{alice}】" in text]


async def test_two_connections_of_a_user_are_both_told(net: Net, alice: str, bob: str) -> None:
    tabs = [await net.chat("channel", bob) for _ in range(2)]
    sender = await net.chat("channel", alice)
    for number in range(10):
        sender.say(direct(bob, f"{number}"))
    for tab in tabs:
        await tab.until(*(f"user {alice} send:{number}" for number in range(10)))


# -- what was missed ---------------------------------------------------------------------------------------------------


async def test_texts_missed_come_in_order_on_reconnect(net: Net, alice: str, bob: str, group: str) -> None:
    receiver, sender = await net.chat("channel", bob), await net.chat("channel", alice)
    await enter(receiver, bob, group)
    sender.say(call("UserGroup", group=group))
    joined = f"group 【{group}】 user 【{alice}】 send:{add(alice, group)}"
    await receiver.until(add(bob, group), joined)
    await receiver.leave()

    for number in range(50):
        sender.say(direct(bob, f"{number}"))
        sender.say(call("Group", group=group, body=f"{number}"))
        sender.say(call("All", body=f"{number}"))
    sender.say(call("Group", group="nowhere-at-all", body="x"))
    await sender.until_there_are(2)

    receiver = await net.chat("channel", bob)
    await receiver.until_there_are(150)
    kinds = (f"user {alice} send:", f"group 【{group}】 user 【{alice}】 send:", f"user 【{alice}】 send all:")
    for kind in kinds:
        said = [text.removeprefix(kind) for text in receiver.texts if text.startswith(kind) and text != joined]
        assert said == [f"{number}" for number in range(50)], kind


async def test_user_never_seen_before_gets_the_direct_messages_sent_so_far(net: Net, alice: str, bob: str) -> None:
    sender = await net.open(alice)
    for number in range(3):
        await sender.send(f"user:{bob}", f"{number}")
    receiver = await net.chat("channel", bob)
    await receiver.until(*(f"user {alice} send:{number}" for number in range(3)))


async def test_who_never_answered_the_ping_gets_the_texts_again(net: Net, alice: str, bob: str) -> None:
    sender = await net.open(alice)
    for number in range(3):
        await sender.send(f"user:{bob}", f"{number}")
    texts = [f"user {alice} send:{number}" for number in range(3)]
    for _ in range(2):
        receiver = await net.chat("channel", bob, is_ponging=False)
        await receiver.until(*texts)
        await receiver.until_pinged()
        await receiver.cut()
    receiver = await net.chat("channel", bob)
    await receiver.until(*texts)


async def test_who_answered_the_ping_does_not_get_the_texts_again(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    sender = await net.open(alice)
    for number in range(3):
        await sender.send(f"user:{bob}", f"{number}")
    receiver = await net.chat("channel", bob)
    await receiver.until(*(f"user {alice} send:{number}" for number in range(3)))
    stream = f"user:{bob}"
    await eventually(lambda: (stored_offset(database, bob, "chat", stream) or "").endswith("-3"), "it is stored")
    await receiver.cut()
    receiver = await net.chat("channel", bob)
    await sender.send(f"user:{bob}", "new")
    await receiver.until(f"user {alice} send:new")


async def test_pong_acknowledges_what_was_written_before_its_ping_and_no_more(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    stream = f"user:{bob}"
    sender = await net.open(alice)
    receiver = await net.chat("channel", bob, is_ponging=False)
    await sender.send(stream, "first")
    await receiver.until_pinged()
    await sender.send(stream, "second")
    await receiver.until(f"user {alice} send:first", f"user {alice} send:second")
    for payload in (b"", b"7", b"unasked", b"-1"):
        receiver.pong(payload)
    receiver.pong(receiver.pings[0])
    await eventually(lambda: stored_offset(database, bob, "chat", stream) not in ("0-0", None), "it is stored")
    await receiver.until_pinged(2)  # for what came after
    await receiver.cut()
    assert (stored_offset(database, bob, "chat", stream) or "").endswith("-1")
    receiver = await net.chat("channel", bob)
    await receiver.until(f"user {alice} send:second")


async def test_pong_that_nobody_asked_for_acknowledges_nothing(
    net: Net, database: Server, alice: str, bob: str
) -> None:
    sender = await net.open(alice)
    await sender.send(f"user:{bob}", "x")
    receiver = await net.chat("channel", bob, is_ponging=False)
    await receiver.until_pinged()
    for payload in (b"", b"0", b"2", b"x" * 125):
        receiver.pong(payload)
    await sender.send(f"user:{bob}", "y")
    await receiver.until(f"user {alice} send:x", f"user {alice} send:y")
    assert stored_offset(database, bob, "chat", f"user:{bob}") == "0-0"


# -- the paths of the first version ------------------------------------------------------------------------------------


async def test_path_of_direct_messages(net: Net, alice: str, bob: str) -> None:
    sender, receiver = await net.chat("user", alice), await net.chat("user", bob)
    sender.say(json.dumps({"Id": bob, "Msg": "hi"}))
    await receiver.until(f"user {alice} send:hi")


async def test_path_of_a_group_joins_it_and_takes_bare_text(net: Net, alice: str, bob: str, group: str) -> None:
    receiver = await net.chat("group", group, bob)
    await receiver.until(add(bob, group))
    sender = await net.chat("group", group, alice)
    await sender.until(add(alice, group))
    for text in ("Hi All", '{"Method":"One"}', ""):
        sender.say(text)
    await receiver.until(
        add(bob, group),
        f"group 【{group}】 user 【{alice}】 send:{add(alice, group)}",
        f"group 【{group}】 user 【{alice}】 send:Hi All",
        f'group 【{group}】 user 【{alice}】 send:{{"Method":"One"}}',
        f"group 【{group}】 user 【{alice}】 send:",
    )


async def test_path_of_a_group_brings_what_was_missed_there(net: Net, alice: str, bob: str, group: str) -> None:
    receiver = await net.chat("group", group, bob)
    await receiver.until(add(bob, group))
    await receiver.leave()
    sender = await net.chat("group", group, alice)
    await sender.until(add(alice, group))
    for number in range(5):
        sender.say(f"{number}")
    sender.say("end")
    listener = await net.chat("group", group, bob)
    await listener.until_there_are(8)
    missed = [text for text in listener.texts if text != add(bob, group)]
    said = [add(alice, group), *(f"{number}" for number in range(5)), "end"]
    assert missed == [f"group 【{group}】 user 【{alice}】 send:{text}" for text in said]


async def test_path_of_everybody_takes_bare_text(net: Net, alice: str, bob: str) -> None:
    sender, receiver = await net.chat("all", alice), await net.chat("all", bob)
    sender.say("Hello All")
    await receiver.until(f"user 【{alice}】 send all:Hello All")


async def test_each_older_path_delivers_its_own_kind_only(
    net: Net, alice: str, bob: str, group: str, fresh: Fresh
) -> None:
    other_group = fresh("g")
    sender = await net.open(alice)
    whole = await net.chat("channel", bob)
    await enter(whole, bob, group)
    whole.say(call("UserGroup", group=other_group))
    await whole.until(add(bob, group), add(bob, other_group))
    for name in (group, other_group):
        await join(sender, name)
    paths = {"user": await net.chat("user", bob), "all": await net.chat("all", bob)}
    paths["group"] = await net.chat("group", group, bob)
    await paths["group"].until_there_are(2)
    for to in (f"group:{other_group}", f"group:{group}", f"user:{bob}", "all"):
        await sender.send(to, "x")
    for to in ("all", f"user:{bob}", f"group:{group}"):
        await sender.send(to, "mark")
    from_alice = f"group 【{group}】 user 【{alice}】 send:"
    await paths["user"].until(f"user {alice} send:x", f"user {alice} send:mark")
    await paths["all"].until(f"user 【{alice}】 send all:x", f"user 【{alice}】 send all:mark")
    await paths["group"].until_there_are(4)
    assert sorted(paths["group"].texts) == sorted(
        [add(bob, group), f"{from_alice}{add(alice, group)}", f"{from_alice}x", f"{from_alice}mark"]
    )
    await whole.until_there_are(2 + 2 + 7)


# -- with users of the wire --------------------------------------------------------------------------------------------


async def test_text_reaches_users_of_the_wire_as_a_string(net: Net, alice: str, bob: str, group: str) -> None:
    chat, phone = await net.chat("channel", alice), await net.open(bob)
    await join(phone, group)
    await enter(chat, alice, group)
    chat.say(direct(bob, "d ü"))
    chat.say(call("Group", group=group, body="g"))
    chat.say(call("All", body="a"))
    for stream, text in ((f"user:{bob}", "d ü"), (f"group:{group}", "g"), ("all", "a")):
        await phone.until(lambda stream=stream: phone.bodies(stream), "it comes")  # type: ignore[misc]
        (message,) = phone.messages(stream)
        assert (message["from"], message["body"], message["to"]) == (alice, text, stream)
    (joined,) = [f for f in phone.frames if f["type"] == "joined" and f["user"] == alice]
    assert joined["stream"] == f"group:{group}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('"text"', "text"),
        ('"\\u00fc\\n\\""', 'ü\n"'),
        ('{ "a": [1, 2.50] }', '{ "a": [1, 2.50] }'),
        ("null", "null"),
        ("1.0", "1.0"),
        ("[]", "[]"),
    ],
)
async def test_body_of_the_wire_reaches_users_of_chat_as_text(
    net: Net, alice: str, bob: str, group: str, *, body: str, text: str
) -> None:
    phone, chat = await net.open(alice), await net.chat("channel", bob)
    await enter(chat, bob, group)
    await join(phone, group)
    for to in (f"user:{bob}", f"group:{group}"):
        await phone.websocket.send(f'{{"type":"send","to":"{to}","body":{body}}}')
        await phone.wait("sent")
    await chat.until_there_are(4)
    assert sorted(chat.texts) == sorted(
        [
            add(bob, group),
            f"group 【{group}】 user 【{alice}】 send:{add(alice, group)}",
            f"user {alice} send:{text}",
            f"group 【{group}】 user 【{alice}】 send:{text}",
        ]
    )


async def test_leaving_by_the_wire_has_no_text(net: Net, alice: str, bob: str, group: str) -> None:
    phone, chat = await net.open(alice), await net.chat("channel", bob)
    await enter(chat, bob, group)
    await join(phone, group)
    await leave(phone, group)
    await phone.send(f"user:{bob}", "mark")
    await chat.until_there_are(3)
    assert sorted(chat.texts) == sorted(
        [add(bob, group), f"group 【{group}】 user 【{alice}】 send:{add(alice, group)}", f"user {alice} send:mark"]
    )


async def test_group_joined_or_left_by_the_users_phone_is_followed_by_its_chat(
    net: Net, alice: str, bob: str, group: str
) -> None:
    talker, phone, chat = await net.open(bob), await net.open(alice), await net.chat("channel", alice)
    for member in (talker, phone):
        await join(member, group)
    await talker.send(f"group:{group}", "in")
    await chat.until(f"group 【{group}】 user 【{bob}】 send:in")
    await leave(phone, group)
    await talker.send(f"group:{group}", "out")
    await talker.send(f"user:{alice}", "mark")
    await chat.until(f"group 【{group}】 user 【{bob}】 send:in", f"user {bob} send:mark")


# -- who may in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["a b", "e\u0301", "½", "x" * 129, "a\u0000b", "<b>", ".."])
@pytest.mark.parametrize("path", [["channel"], ["user"], ["group", "g"], ["all"]], ids=lambda path: path[0])
async def test_user_with_an_invalid_name_is_told_and_closed(net: Net, path: list[str], user: str) -> None:
    chat = await net.chat(*path, user)
    assert await chat.until_closed() == 4101
    assert len(chat.texts) == 1
    assert chat.texts[0].startswith("error: ")


@pytest.mark.parametrize("group", ["a b", "..", "x" * 129])
async def test_group_with_an_invalid_name_is_told_and_closed(net: Net, alice: str, group: str) -> None:
    chat = await net.chat("group", group, alice)
    assert 4100 <= await chat.until_closed() < 4200
    assert len(chat.texts) == 1
    assert chat.texts[0].startswith("error: ")


@pytest.mark.parametrize("user", ["Zoë", "日本", "a.b-c~d@e+f:g|h"])
async def test_user_may_have_any_name(net: Net, bob: str, fresh: Fresh, user: str) -> None:
    user = fresh(user)
    sender, receiver = await net.chat("channel", user), await net.chat("channel", bob)
    sender.say(direct(bob, "hi"))
    await receiver.until(f"user {user} send:hi")
    receiver.say(direct(user, "hi"))
    await sender.until(f"user {bob} send:hi")


# -- time --------------------------------------------------------------------------------------------------------------


async def test_silent_client_of_chat_is_dropped_and_one_that_answers_pings_stays(
    net: Net, start_node: StartNode, alice: str, bob: str
) -> None:
    net = net.at(start_node(ping_s=0.3))
    silent = await net.chat("channel", alice, is_ponging=False)
    awake = await net.chat("channel", bob)
    assert await silent.until_closed() == 1006
    awake.say(direct(bob, "x"))
    await awake.until_pinged(4)
    assert awake.close_code is None
