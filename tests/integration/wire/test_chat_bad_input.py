"""Bad frames on `/chat/…` are answered with an error text, end no connection and come to nobody else."""

import json

import pytest

from tests.integration.wire.kit import BINARY, TEXT, Net, add, call, direct

pytestmark = pytest.mark.anyio

BAD_CALLS = [
    b"",
    b"hello",
    b"{",
    b"{}",
    b"[]",
    b"null",
    b"5",
    b'"All"',
    b'{"Method":5,"MsgBody":"x"}',
    b'{"Method":null,"MsgBody":"x"}',
    b'{"MsgBody":"no method"}',
    b'{"Method":"All"}',
    b'{"Method":"All","MsgBody":null}',
    b'{"Method":"All","MsgBody":5}',
    b'{"Method":"All","MsgBody":{"a":1}}',
    b'{"Method":"All","MsgBody":["x"]}',
    b'{"Method":"All","MsgBody":"\\ud800"}',
    b'{"Method":"Shout"}',
    b'{"Method":"One"}',
    b'{"Method":"One","MsgBody":"x"}',
    b'{"Method":"One","MsgBody":null}',
    b'{"Method":"One","MsgBody":[]}',
    b'{"Method":"One","MsgBody":{}}',
    b'{"Method":"One","MsgBody":{"Id":"bob"}}',
    b'{"Method":"One","MsgBody":{"Msg":"x"}}',
    b'{"Method":"One","MsgBody":{"Id":5,"Msg":"x"}}',
    b'{"Method":"One","MsgBody":{"Id":"bob","Msg":5}}',
    b'{"Method":"One","MsgBody":{"Id":"","Msg":"x"}}',
    b'{"Method":"One","MsgBody":{"Id":"a/b","Msg":"x"}}',
    b'{"Method":"UserGroup"}',
    b'{"Method":"UserGroup","Group":5}',
    b'{"Method":"UserGroup","Group":""}',
    b'{"Method":"UserGroup","Group":"a b"}',
    b'{"Method":"Group","MsgBody":"x"}',
    b'{"Method":"Group","Group":"g","MsgBody":{}}',
    b'{"Method":"Group","Group":"..","MsgBody":"x"}',
    b'{"Method":"Group","Group":"g"}',
    b'{"Method":"All","MsgBody":' + b"[" * 30_000,
    b'{"Method":"All","MsgBody":"' + b"x" * 65_536 + b'"}',
    b'{"Method":"All","MsgBody":"x"}{"Method":"All","MsgBody":"y"}',
]


@pytest.mark.parametrize("said", BAD_CALLS, ids=lambda said: said[:60].decode())
async def test_bad_frame_is_answered_with_an_error_text_and_disturbs_nobody(
    net: Net, alice: str, bob: str, said: bytes
) -> None:
    chat, other = await net.chat("channel", alice), await net.chat("channel", bob)
    chat.bare.write(TEXT, said)
    chat.say(call("All", body="mark"))
    await other.until(f"user 【{alice}】 send all:mark")
    await chat.until_there_are(1)
    assert len(chat.texts) == 1
    assert chat.texts[0].startswith("error: ")
    assert chat.close_code is None


async def test_binary_rubbish_is_answered_on_every_path(net: Net, alice: str, group: str) -> None:
    for path in (["channel"], ["user"], ["group", group], ["all"]):
        chat = await net.chat(*path, alice)
        if path[0] == "group":
            await chat.until(add(alice, group))
        before = len(chat.texts)
        chat.bare.write(BINARY, b"\xff\xfe")
        await chat.until_there_are(before + 1)
        assert chat.texts[before].startswith("error: "), path
        assert chat.close_code is None


@pytest.mark.parametrize("said", ["", "hi", "{}", '{"Id":"bob"}', '{"Id":5,"Msg":"x"}', '{"Id":"a/b","Msg":"x"}', "[]"])
async def test_bad_frame_on_the_path_of_direct_messages_is_answered(net: Net, alice: str, bob: str, said: str) -> None:
    chat, other = await net.chat("user", alice), await net.chat("user", bob)
    chat.say(said)
    await chat.until_there_are(1)
    assert chat.texts[0].startswith("error: ")
    chat.say(json.dumps({"Id": bob, "Msg": "mark"}))
    await other.until(f"user {alice} send:mark")


async def test_all_bad_frames_one_after_the_other_are_survived(net: Net, alice: str, bob: str) -> None:
    chat, other = await net.chat("channel", alice), await net.chat("channel", bob)
    for said in BAD_CALLS:
        chat.bare.write(TEXT, said)
    chat.say(direct(bob, "mark"))
    await other.until(f"user {alice} send:mark")
    await chat.until_there_are(len(BAD_CALLS))
    assert all(text.startswith("error: ") for text in chat.texts)
