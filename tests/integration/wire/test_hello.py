"""From the upgrade to `live`: who may in, what `hello` says, and what `welcome` answers."""

import json
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest

from service.core.names import parse_id
from service.store import Store, StoreOptions
from service.store.records import TrimCause
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import CLOSE, TEXT, Net, join, n_of, types_of
from tests.service import Frame

pytestmark = pytest.mark.anyio


# -- the upgrade -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "echoed"),
    [(["waypost.v1"], "waypost.v1"), (["other.v9", "waypost.v1"], "waypost.v1"), (["other.v9"], None), (None, None)],
)
async def test_subprotocol_is_echoed_when_offered_and_not_required(
    net: Net, alice: str, offered: list[str] | None, echoed: str | None
) -> None:
    phone = await net.dial(alice, subprotocols=offered)
    assert phone.websocket.subprotocol == echoed
    await phone.say(type="hello")
    await phone.wait("live")


async def test_frames_are_not_compressed_even_for_a_client_that_could(net: Net, alice: str) -> None:
    phone = await net.dial(alice, compression="deflate")
    assert phone.websocket.protocol.extensions == []


# -- signing in --------------------------------------------------------------------------------------------------------


async def test_user_in_the_query_signs_in(net: Net, alice: str) -> None:
    phone = await net.open(alice)
    assert phone.welcome()["user"] == alice


BAD_USERS = ["", "a b", "a/b", ".", "..", "x" * 129, "e\u0301", "a\u0000b", "½", "%", "<b>", "a\nb"]


@pytest.mark.parametrize("user", [None, *BAD_USERS])
async def test_who_is_not_signed_in_is_accepted_told_and_closed_with_4101(net: Net, user: str | None) -> None:
    phone = await net.dial(None if user is None else quote(user, safe=""))
    assert await phone.ends() == 4101
    (error,) = phone.frames
    assert error["type"] == "error"
    assert error["code"] == "unauthorised"
    assert error["retry"] is False
    assert error["message"]


@pytest.mark.parametrize("options", [{"additional_headers": {"Authorization": "Bearer x.y.z"}}, {}])
async def test_a_token_does_not_sign_in_yet(net: Net, options: dict[str, dict[str, str]]) -> None:
    phone = await net.dial(None, **options)
    assert await phone.ends() == 4101
    assert phone.frames[0]["code"] == "unauthorised"


async def test_what_a_stranger_says_meanwhile_is_ignored(net: Net) -> None:
    bare = await net.bare("/v1/connect")
    bare.write(TEXT, b'{"type":"hello"}')
    bare.write(TEXT, b"nonsense")
    assert json.loads((await bare.read())[1])["code"] == "unauthorised"
    opcode, payload = await bare.read()
    assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, 4101)


# -- hello -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [[], [{"type": "ping"}], [{"type": "hello", "more": True}], [{"type": "hello", "device": "a/b"}]]
)
async def test_no_hello_in_time_ends_with_4106(net: Net, start_node: StartNode, alice: str, said: list[Frame]) -> None:
    net = net.at(start_node(hello_timeout_s=0.3))
    phone = await net.dial(alice)
    for frame in said:
        await phone.say(**frame)
    assert await phone.ends() == 4106
    assert phone.frames[-1]["code"] == "hello_timeout"
    await net.open(alice)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "send", "to": "all", "body": 1},
        {"type": "join", "group": "g"},
        {"type": "leave", "group": "g"},
        {"type": "ack", "offsets": {}},
    ],
)
async def test_frames_before_hello_are_refused_and_hello_still_works(net: Net, alice: str, frame: Frame) -> None:
    phone = await net.dial(alice)
    await phone.say(ref=7, **frame)
    error = await phone.wait("error")
    assert (error["code"], error["ref"], error["retry"]) == ("hello_expected", 7, False)
    await phone.say(type="hello")
    await phone.wait("live")


async def test_offsets_frame_before_hello_is_refused(net: Net, alice: str) -> None:
    phone = await net.dial(alice)
    await phone.say(type="offsets", offsets={})
    assert (await phone.wait("error"))["code"] == "hello_expected"


async def test_ping_before_hello_is_answered(net: Net, alice: str) -> None:
    phone = await net.dial(alice)
    await phone.say(type="ping", ref="x")
    assert await phone.wait("pong") == {"type": "pong", "ref": "x"}


@pytest.mark.parametrize("frame", [{"type": "hello", "device": "other"}, {"type": "offsets", "offsets": {}}])
async def test_hello_twice_is_refused_and_the_connection_goes_on(net: Net, alice: str, frame: Frame) -> None:
    phone = await net.open(alice)
    await phone.say(**frame)
    assert (await phone.wait("error"))["code"] == "hello_twice"
    assert (await phone.send(f"user:{alice}", "still here"))["type"] == "sent"
    assert types_of(phone.frames).count("welcome") == 1


async def test_second_hello_in_the_same_message_is_refused(net: Net, alice: str) -> None:
    phone = await net.dial(alice)
    await phone.websocket.send('{"type":"hello","device":"one"}\n{"type":"hello","device":"two"}')
    assert (await phone.wait("error"))["code"] == "hello_twice"
    await phone.until(lambda: "live" in types_of(phone.frames), "live")
    assert phone.welcome()["device"] == "one"


@pytest.mark.parametrize("device", ["phone", "Ärger-7", "a.b_c~d@e+f:g|h", "x" * 128, "日本"])
async def test_device_may_have_any_name(net: Net, alice: str, device: str) -> None:
    phone = await net.open(alice, device)
    assert phone.welcome()["device"] == device


@pytest.mark.parametrize("device", ["", "a/b", "a b", ".", "..", "x" * 129, "e\u0301", "²", "tab\t"])
async def test_bad_device_name_is_refused_and_hello_may_be_said_again(net: Net, alice: str, device: str) -> None:
    phone = await net.dial(alice)
    await phone.say(type="hello", device=device)
    assert (await phone.wait("error"))["code"] == "bad_name"
    await phone.say(type="hello", device="good")
    assert (await phone.wait("welcome"))["device"] == "good"


async def test_device_is_named_default_when_hello_names_none(net: Net, alice: str) -> None:
    phone = await net.dial(alice)
    await phone.say(type="hello", unknown_field=[1, 2], token="whatever")
    assert (await phone.wait("welcome"))["device"] == "default"


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"offsets": {"user:x": "nonsense"}}, "bad_id"),
        ({"offsets": {"user:x": "01-1"}}, "bad_id"),
        ({"offsets": {"nobody": "1-1"}}, "bad_stream"),
        ({"offsets": {"group:a/b": "1-1"}}, "bad_name"),
        ({"offsets": ["all"]}, "bad_request"),
        ({"more": "yes"}, "bad_request"),
        ({"device": 5}, "bad_request"),
        ({"offsets": {f"group:{n}": "1-1" for n in range(2003)}}, "bad_request"),
    ],
)
async def test_bad_hello_is_refused_and_hello_may_be_said_again(net: Net, alice: str, hello: Frame, code: str) -> None:
    phone = await net.dial(alice)
    await phone.say(type="hello", **hello)
    assert (await phone.wait("error"))["code"] == code
    await phone.say(type="hello")
    await phone.wait("live")


async def test_offsets_come_in_frames_of_their_own_when_hello_says_more(
    net: Net, alice: str, bob: str, fresh: Callable[[str], str]
) -> None:
    groups = [fresh("g") for _ in range(3)]
    talker = await net.open(bob)
    phone = await net.open(alice, "phone")
    brought = {}
    for group in groups:
        for member in (talker, phone):
            await join(member, group)
        first, _ = [await talker.send(f"group:{group}", word) for word in ("first", "second")]
        brought[f"group:{group}"] = first["id"]

    phone = await net.dial(alice)
    one, two, three = ({stream: offset} for stream, offset in brought.items())
    await phone.say(type="hello", device="phone", offsets=one, more=True)
    await phone.say(type="offsets", offsets=two, more=True)
    await phone.say(type="ping", ref=1)
    await phone.wait("pong", ref=1)
    await phone.say(type="send", ref=2, to="all", body="too early")
    assert (await phone.wait("error", ref=2))["code"] == "hello_expected"
    assert "welcome" not in types_of(phone.frames)
    await phone.say(type="offsets", offsets=three)
    await phone.wait("live")
    for stream, offset in brought.items():
        assert phone.welcome()["streams"][stream]["offset"] == offset
        assert phone.bodies(stream) == ["second"]


# -- welcome -----------------------------------------------------------------------------------------------------------


async def test_welcome_says_who_where_which_history_and_what_the_limits_are(net: Net, alice: str) -> None:
    phone = await net.open(alice, "phone")
    welcome = phone.welcome()
    assert welcome.keys() == {"type", "user", "device", "node", "epoch", "ping", "limits", "streams"}
    assert (welcome["user"], welcome["device"], welcome["node"]) == (alice, "phone", net.node.name)
    assert welcome["epoch"]
    assert welcome["ping"] == 25
    limits = welcome["limits"]
    assert (limits["body_bytes"], limits["frame_bytes"]) == (65_536, 131_072)
    assert (limits["unanswered_sends"], limits["unanswered_bytes"]) == (64, 262_144)
    assert limits["streams_per_user"] == 1000
    assert set(welcome["streams"]) == {f"user:{alice}", "all"}
    for state in welcome["streams"].values():
        assert state.keys() == {"offset", "head", "floor", "missed"}
        assert all(re.fullmatch(r"\d+-\d+", state[name]) for name in ("offset", "head", "floor"))
        assert state["missed"] == n_of(state["head"]) - n_of(state["offset"])


async def test_ping_of_welcome_is_the_setting(net: Net, start_node: StartNode, alice: str) -> None:
    phone = await net.at(start_node(ping_s=12.5)).open(alice)
    assert phone.welcome()["ping"] == 12.5


async def test_missed_counts_what_is_to_come(net: Net, alice: str, bob: str) -> None:
    sender = await net.open(bob)
    for number in range(5):
        await sender.send(f"user:{alice}", number)
    phone = await net.open(alice)
    state = phone.welcome()["streams"][f"user:{alice}"]
    assert (state["offset"], state["floor"], state["missed"]) == ("0-0", "0-0", 5)
    assert phone.messages()[-1]["id"] == state["head"]
    assert phone.bodies() == [0, 1, 2, 3, 4]
    assert types_of(phone.frames) == ["welcome", *["message"] * 5, "live"]
    await phone.acknowledge(phone.last_ids())
    await phone.leave()
    phone = await net.open(alice)
    assert phone.welcome()["streams"][f"user:{alice}"] == {**state, "offset": state["head"], "missed": 0}


# -- where a new device starts -----------------------------------------------------------------------------------------


async def test_new_device_starts_at_the_floor_of_its_inbox(net: Net, database: Server, alice: str, bob: str) -> None:
    sender = await net.open(bob)
    for number in range(4):
        await sender.send(f"user:{alice}", number)
    phone = await net.open(alice, "first")
    second = phone.messages()[1]["id"]
    store = await Store.connect(database.url, options=StoreOptions())
    await store.check_server()
    await store.trim(f"user:{alice}", parse_id(second), TrimCause(policy="by hand"))
    await store.close()

    laptop = await net.open(alice, "second")
    assert laptop.welcome()["streams"][f"user:{alice}"]["offset"] == second
    assert laptop.bodies() == [2, 3]
    assert laptop.gaps() == []


async def test_new_device_starts_at_the_point_of_joining_in_a_group(net: Net, alice: str, bob: str, group: str) -> None:
    talker = await net.open(bob)
    await join(talker, group)
    await talker.send(f"group:{group}", "before alice came")
    phone = await net.open(alice, "phone")
    joined = await join(phone, group)
    await talker.send(f"group:{group}", "for alice")
    laptop = await net.open(alice, "laptop")
    assert laptop.welcome()["streams"][f"group:{group}"]["offset"] == joined["id"]
    assert laptop.bodies() == ["for alice"]


async def test_new_device_starts_now_in_all(net: Net, alice: str, bob: str) -> None:
    sender = await net.open(bob)
    before = await sender.send("all", "before")
    phone = await net.open(alice)
    state = phone.welcome()["streams"]["all"]
    assert state["offset"] == state["head"] == before["id"]
    assert state["missed"] == 0
    after = await sender.send("all", "after")
    assert (await phone.wait("message", stream="all"))["id"] == after["id"]
    await phone.leave()
    await sender.send("all", "while away")
    phone = await net.open(alice)
    assert phone.bodies("all") == ["after", "while away"]  # nothing was acknowledged


async def test_streams_above_the_limit_of_one_frame_come_in_further_frames(
    net: Net, start_node: StartNode, alice: str, fresh: Callable[[str], str]
) -> None:
    net = net.at(start_node(limits_welcome_streams=3))
    phone = await net.open(alice)
    groups = [fresh("g") for _ in range(8)]
    for group in groups:
        await join(phone, group)
    await phone.leave()
    phone = await net.open(alice)
    parts = [frame for frame in phone.frames if frame["type"] in ("welcome", "streams")]
    assert types_of(parts) == ["welcome", "streams", "streams", "streams"]
    assert types_of(phone.frames)[:4] == types_of(parts)
    assert [len(part["streams"]) for part in parts] == [3, 3, 3, 1]
    assert [part.get("more", False) for part in parts] == [True, True, True, False]
    named = [stream for part in parts for stream in part["streams"]]
    assert len(named) == len(set(named))
    assert set(named) == {f"user:{alice}", "all", *(f"group:{group}" for group in groups)}


async def test_user_of_600_groups_is_welcomed_in_two_frames_and_gets_all_of_them(
    net: Net, alice: str, bob: str, fresh: Callable[[str], str]
) -> None:
    phone = await net.open(alice)
    groups = [fresh("g") for _ in range(600)]
    await phone.websocket.send("\n".join(json.dumps({"type": "join", "group": g, "ref": g}) for g in groups))
    await phone.until(lambda: phone.answer_to(groups[-1]), "the last join is answered")
    await phone.leave()
    talker = await net.open(bob)
    await join(talker, groups[300])
    phone = await net.open(alice)
    assert len(phone.welcome()["streams"]) == 500
    assert phone.welcome()["more"] is True
    (rest,) = [frame for frame in phone.frames if frame["type"] == "streams"]
    assert len(rest["streams"]) == 102
    assert "more" not in rest
    await talker.send(f"group:{groups[300]}", "hello to one of 600")
    await phone.wait("message", body="hello to one of 600")


# -- what comes before welcome -----------------------------------------------------------------------------------------


async def test_what_is_sent_before_welcome_takes_effect_after_it_in_order(
    net: Net, alice: str, bob: str, group: str
) -> None:
    phone = await net.dial(alice)
    lines: list[Frame] = [
        {"type": "hello", "device": "phone"},
        {"type": "send", "ref": "s1", "to": f"user:{bob}", "body": 1},
        {"type": "join", "ref": "j", "group": group},
        {"type": "send", "ref": "s2", "to": f"group:{group}", "body": 2},
        {"type": "send", "ref": "s3", "to": f"user:{bob}", "body": 3},
    ]
    for line in lines:
        await phone.say(**line)
    await phone.until(lambda: phone.answer_to("s2") and phone.answer_to("s3"), "the last sends are answered")
    answers = {frame["ref"]: frame["type"] for frame in phone.frames if "ref" in frame}
    assert answers == {"s1": "sent", "j": "joined", "s2": "sent", "s3": "sent"}
    assert list(answers)[:2] == ["s1", "j"]
    assert types_of(phone.frames)[0] == "welcome"
    numbers = [n_of(frame["id"]) for frame in phone.frames if frame.get("ref") in ("j", "s2")]
    assert numbers == [1, 2]
    reader = await net.open(bob)
    assert reader.bodies() == [1, 3]
