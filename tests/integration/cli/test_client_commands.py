"""`waypost listen` and `waypost send` as a user meets them: real processes, on a server that is told what to do."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import service
from service.core import frames
from tests.unit.client.fake import Conversation, Fake, body, serve_well
from tests.unit.client.model import message, packed

pytestmark = pytest.mark.anyio

TREE = Path(service.__file__).parents[1]


@asynccontextmanager
async def waypost(*words: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, running; killed at the end when it still does."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "service", *words)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=TREE, env=environ | variables, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def done(process: asyncio.subprocess.Process, given: str = "") -> tuple[int, list[str], list[str]]:
    """Exit code, and the lines of both outputs."""
    out, errors = await asyncio.wait_for(process.communicate(given.encode()), 30)
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), errors.decode().splitlines()


async def run(*words: str, given: str = "", **variables: str) -> tuple[int, list[str], list[str]]:
    async with waypost(*words, **variables) as process:
        return await done(process, given)


async def lines(process: asyncio.subprocess.Process, count: int) -> list[str]:
    """The next lines that it prints."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return [(await process.stdout.readline()).decode().rstrip("\n") for _ in range(count)]


def said(text: str, n: int) -> frames.Message:
    return frames.Message("all", f"2-{n}", f"m{n}", "bob", "all", body(text))


async def speak(conversation: Conversation) -> None:
    """Three messages, then whatever the client wants."""
    hello = await conversation.greet()
    had = int(hello["offsets"].get("all", "1-0").split("-")[1])
    await conversation.say(*[said(text, n) for n, text in enumerate(("one", "two", "three"), 1) if n > had])
    await conversation.say(frames.Live())
    await conversation.answer_sends()


THREE = ["all 2-1 bob: one", "all 2-2 bob: two", "all 2-3 bob: three"]


# -- listen ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_acknowledges_and_leaves_cleanly(number: signal.Signals) -> None:
    async with (
        Fake(speak) as fake,
        waypost("listen", "--user", "ann", "--device", "phone", "--url", fake.url) as listen,
    ):
        assert await lines(listen, 3) == THREE
        listen.send_signal(number)
        code, out, errors = await done(listen)
        assert (code, out) == (0, [])
        said = ["waypost: connected to node as ann, device d", "waypost: up to date"]
        assert errors in (said, said[:1])  # the signal may come before `live`
        last = fake.heard[-1]
        assert (last["type"], last["offsets"]) == ("ack", {"all": "2-3"})
        assert last["ref"] is not None
        assert fake.heard[0]["device"] == "phone"


async def test_it_ends_after_so_many_messages_and_acknowledges_no_more() -> None:
    async with Fake(speak) as fake:
        words = ("listen", "--user", "ann", "--count", "2", "--quiet")
        assert await run(*words, WAYPOST_URL=fake.url) == (0, THREE[:2], [])
        assert fake.acknowledged("all") == "2-2"


async def test_it_need_not_acknowledge() -> None:
    async with Fake(speak) as fake:
        code, out, _ = await run("listen", "--user", "ann", "--count", "3", "--no-ack", "--url", fake.url)
        assert (code, out) == (0, THREE)
        assert fake.acknowledged("all") is None


async def test_it_reconnects_and_says_so_once() -> None:
    async def end(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.say(said("one", 1))
        await conversation.say(frames.Error("draining", "this node is shutting down", True))
        await conversation.connection.close(4002)

    async def refuse(conversation: Conversation) -> None:
        await conversation.hear("hello")
        await conversation.connection.close(4000)

    async with Fake(end, refuse, refuse, speak) as fake:
        code, out, errors = await run("listen", "--user", "ann", "--count", "3", "--url", fake.url)
        assert (code, out) == (0, THREE)
        assert errors[:3] == [
            "waypost: connected to node as ann, device d",
            "waypost: draining: this node is shutting down; trying again",
            "waypost: connected to node as ann, device d",
        ]


async def test_it_waits_for_a_server() -> None:
    async with Fake(speak) as fake:
        pass
    async with waypost("listen", "--user", "ann", "--count", "3", "--url", fake.url) as listen:
        assert listen.stderr is not None
        first = (await asyncio.wait_for(listen.stderr.readline(), 30)).decode()
        assert first.startswith(f"waypost: cannot connect to {fake.url}: ")
        assert first.endswith("; trying again\n")
        async with Fake(speak, port=fake.port):
            assert (await done(listen))[:2] == (0, THREE)


async def test_it_gives_up_when_it_is_of_no_use() -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.say(frames.Error("unauthorised", "no valid sign-in was given", False))
        await conversation.connection.close(4101)

    async with Fake(refuse) as fake:
        code, out, errors = await run("listen", "--user", "ann", "--url", fake.url)
        assert (code, out, errors) == (1, [], ["waypost: unauthorised: no valid sign-in was given"])


async def test_everything_on_one_line() -> None:
    shown = {
        '"two\\nlines \\u001b[31m red"': "two\\nlines \\x1b[31m red",
        '"日本語　\U0001f469\u200d\U0001f680 é"': "日本語　\U0001f469\u200d\U0001f680 é",
        '{"a": [1, "x"]}': '{"a": [1, "x"]}',
        '""': "",
        "12.50": "12.50",
    }

    async def push(conversation: Conversation) -> None:
        await conversation.greet()
        for n, raw in enumerate(shown, 1):
            line = f'{{"type":"message","stream":"all","id":"2-{n}","mid":"m","from":"bob","to":"all","body":{raw}}}'
            await conversation.connection.send(line.encode(), text=True)
        await conversation.say(frames.Message("all", f"2-{len(shown) + 1}", "m", "bob", "all", redacted=True))
        await conversation.answer_sends()

    async with Fake(push) as fake:
        count = str(len(shown) + 1)
        code, out, _ = await run(
            "listen", "--user", "ann", "--count", count, PYTHONIOENCODING="utf-8", WAYPOST_URL=fake.url
        )
        assert code == 0
        assert out == [f"all 2-{n} bob: {text}" for n, text in enumerate((*shown.values(), "(redacted)"), 1)]
        code, out, _ = await run(
            "listen", "--user", "ann", "--count", "2", PYTHONIOENCODING="ascii", WAYPOST_URL=fake.url
        )
        assert out[1].startswith(r"all 2-2 bob: \u65e5\u672c")


async def test_gaps_and_what_is_no_message() -> None:
    policy = frames.Cause("trimmed", "group:*", "max_age 14d")
    lost = frames.Cause("lost")

    async def push(conversation: Conversation) -> None:
        await conversation.greet({"group:g": "1-0", "all": "1-0"})
        await conversation.say(
            frames.Gap("group:g", "1-0", "2-12", 12, policy, next="3-13"),
            frames.Joined("group:g", "3-13", "bob", "g"),
            frames.Redacted("group:g", "3-14", "2-12", "root"),
            frames.Left("group:g", "3-15", "bob", "g"),
            frames.Gap("group:g", "3-15", "3-16", 1, lost),
            frames.Gap("group:g", "3-16", "3-18", 2, lost, causes=(policy, lost)),
            frames.Gap("group:g", "3-18", "3-17", None, frames.Cause("epoch")),
        )
        await conversation.connection.send(b'{"type":"poll","stream":"all","id":"2-1"}', text=True)
        await conversation.say(said("end", 2))
        await conversation.answer_sends()

    async with Fake(push) as fake:
        words = ("listen", "--user", "ann", "--count", "1", "--url", fake.url)
        code, out, errors = await run(*words)
        assert code == 0
        assert out == [
            "-- 12 messages were removed (trimmed by group:* max_age 14d) --",
            "-- 1 message was lost (lost) --",
            "-- 2 messages were lost (trimmed by group:* max_age 14d; lost) --",
            "-- nobody knows what was missed (the store has another history) --",
            "all 2-2 bob: end",
        ]
        assert errors[1:] == [
            "waypost: bob joined g",
            "waypost: root removed the text of group:g 2-12",
            "waypost: bob left g",
            "waypost: all 2-1 is of type poll, and this release cannot read it",
        ]
        code, out, _ = await run(*words, "--json")
        assert [json.loads(line)["type"] for line in out] == [
            *("gap", "joined", "redacted", "left", "gap", "gap", "gap", "poll", "message"),
        ]
        assert out[-1].encode() == packed(said("end", 2))


async def test_it_joins_first() -> None:
    async def admit(conversation: Conversation) -> None:
        await conversation.greet()
        for _ in range(2):
            frame = await conversation.hear("join")
            stream = f"group:{frame['group']}"
            await conversation.say(frames.Joined(stream, "5-5", "ann", frame["group"], frame["ref"]))
            await conversation.say(message(stream, "6-6"))
        await conversation.answer_sends()

    async with Fake(admit) as fake:
        words = ("listen", "--user", "ann", "--join", "g", "--join", "h", "--count", "2", "--quiet", "--url", fake.url)
        assert await run(*words) == (0, ["group:g 6-6 bob: 6-6", "group:h 6-6 bob: 6-6"], [])


async def test_a_group_that_is_closed_ends_it() -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.greet()
        frame = await conversation.hear("join")
        await conversation.say(frames.Error("group_closed", "this group is closed", False, frame["ref"]))
        await conversation.answer_sends()

    async with Fake(refuse) as fake:
        code, out, errors = await run("listen", "--user", "ann", "--join", "g", "--quiet", "--url", fake.url)
        assert (code, out, errors) == (1, [], ["waypost: group_closed: cannot join g: this group is closed"])


async def test_what_could_not_be_printed_is_not_acknowledged() -> None:
    async def trickle(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.say(said("one", 1))
        await reader_gone.wait()
        await conversation.say(said("two", 2))
        await conversation.answer_sends()

    reader_gone = asyncio.Event()
    async with Fake(trickle) as fake, waypost("listen", "--user", "ann", "--url", fake.url) as listen:
        assert await lines(listen, 1) == THREE[:1]
        assert listen.stdout is not None
        listen.stdout._transport.close()  # type: ignore[attr-defined]
        reader_gone.set()
        assert await asyncio.wait_for(listen.wait(), 30) == 141
        assert fake.acknowledged("all") == "2-1"


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("listen",), 1, "waypost: who are you? Give --user (the server is in dev mode) or --token"),
        (("listen", "--user", "ann", "--url", "nowhere"), 1, "waypost: not a URL of a server"),
        (
            ("listen", "--user", "ann", "--count", "0"),
            2,
            "waypost listen: error: argument --count: not a number from 1 on",
        ),
        (("send", "--user", "ann", "nobody", "hi"), 1, "waypost: bad_stream: not a stream: 'nobody'"),
        (("send", "--user", "ann", "all", "{", "--json-body"), 1, "waypost: the body is not JSON: "),
        (("send", "--user", "ann", "all", "x", "--timeout", "-1"), 2, "waypost send: error: argument --timeout: not a"),
    ],
)
async def test_what_cannot_be_meant(words: tuple[str, ...], code: int, problem: str) -> None:
    ended, out, errors = await run(*words)
    assert (ended, out) == (code, [])
    assert errors[-1].startswith(problem)


# -- send --------------------------------------------------------------------------------------------------------------


async def test_a_message_is_sent_and_said_to_be_stored() -> None:
    async with Fake(serve_well) as fake:
        words = ("send", "--user", "ann", "--url", fake.url)
        assert await run(*words, "user:bob", "hi") == (0, ["sent user:bob 9-1 fsynced"], [])
        assert await run(*words, "all", '{"a": 1}', "--json-body", "--key", "k") == (0, ["sent all 9-2 fsynced"], [])
        assert await run(*words, "all", '{"a": 1}', "--json-body", "--key", "k") == (
            0,
            ["sent all 9-2 fsynced (duplicate)"],
            [],
        )
        assert list(fake.stored.values()) == ["hi", {"a": 1}]
        assert {frame["device"] for frame in fake.heard if frame["type"] == "hello"} == {"cli-send"}


async def test_it_repeats_with_the_same_key_until_it_is_stored() -> None:
    async def drop(conversation: Conversation) -> None:
        await conversation.greet()
        await conversation.store(await conversation.hear("send"), answers=False)
        conversation.drop()

    async def refuse_once(conversation: Conversation) -> None:
        await conversation.greet()
        frame = await conversation.hear("send")
        await conversation.say(frames.Error("unavailable", "the store is out of reach", True, frame["ref"]))
        await conversation.answer_sends()

    async with Fake(drop, refuse_once) as fake:
        code, out, errors = await run("send", "--user", "ann", "all", "hi", "--url", fake.url)
        assert (code, out, errors) == (0, ["sent all 9-1 fsynced (duplicate)"], [])
        assert len(fake.stored) == 1


async def test_a_refusal_says_its_code() -> None:
    async def refuse(conversation: Conversation) -> None:
        await conversation.greet()
        frame = await conversation.hear("send")
        await conversation.say(frames.Error("not_member", "not a member of this group", False, frame["ref"]))
        await conversation.answer_sends()

    async with Fake(refuse) as fake:
        code, out, errors = await run("send", "--user", "ann", "group:g", "hi", "--url", fake.url)
        assert (code, out, errors) == (1, [], ["waypost: not_member: not a member of this group"])


async def test_it_tries_no_longer_than_it_may_and_says_how_to_go_on() -> None:
    async with Fake(serve_well) as gone:
        pass
    words = ("send", "--user", "ann", "all", "hi", "--key", "k1", "--timeout", "0.5", "--url", gone.url)
    code, out, [problem] = await run(*words)
    assert (code, out) == (1, [])
    assert problem.startswith(f"waypost: not known to be stored after 0.5 s: cannot connect to {gone.url}: ")
    assert problem.endswith("(sent again with --key k1 it is stored once)")


async def test_lines_of_standard_input_in_order() -> None:
    async with Fake(serve_well) as fake:
        words = ("send", "--user", "ann", "all", "-", "--key", "k", "--url", fake.url)
        code, out, errors = await run(*words, given="one\ntwo\r\n\nfour")
        assert (code, errors) == (0, [])
        assert out == [f"sent all 9-{n} fsynced" for n in (1, 2, 3, 4)]
        assert fake.stored == {"k-1": "one", "k-2": "two", "k-3": "", "k-4": "four"}


async def test_a_line_is_sent_as_soon_as_it_is_there() -> None:
    async with Fake(serve_well) as fake, waypost("send", "--user", "ann", "all", "-", "--url", fake.url) as send:
        assert send.stdin is not None
        for n in (1, 2):
            send.stdin.write(b"line\n")
            assert await lines(send, 1) == [f"sent all 9-{n} fsynced"]
        send.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(send.wait(), 10) == 130, "Ctrl-C need not wait for another line"


async def test_the_first_line_that_is_not_stored_ends_it() -> None:
    async with Fake(serve_well) as fake:
        words = ("send", "--user", "ann", "all", "-", "--json-body", "--url", fake.url)
        code, out, errors = await run(*words, given='1\n\n{"a":2}\nx\n4\n')
        assert (code, out) == (1, ["sent all 9-1 fsynced", "sent all 9-2 fsynced"])
        assert errors[0].startswith("waypost: line 4: the body is not JSON: ")
        assert list(fake.stored.values()) == [1, {"a": 2}]
