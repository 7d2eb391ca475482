"""`GET /v1/streams/{stream}/messages` and `DELETE …/{id}`: answers, links, refusals."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from migrations import __main__ as migrations
from service.core.names import EntryId, parse_id
from service.errors import ERRORS
from service.store import Store, StoreOptions, TrimCause
from tests.integration.http.web import Caller, check_problem, fetch, look, messages_path, path_of, redact
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Net, eventually, join, leave, n_of
from tests.service import NodeProcess


def numbers(page: dict[str, Any]) -> list[int]:
    return [n_of(message["id"]) for message in page["messages"]]


async def walk(node: NodeProcess, page: dict[str, Any], way: str) -> list[dict[str, Any]]:
    """All pages from this one on, by their links."""
    pages = [page]
    while (link := pages[-1][way]) is not None:
        answer = await fetch(node, link)
        assert answer.status == 200, answer
        pages.append(answer.json)
        assert len(pages) < 200
    return pages


@pytest.mark.anyio
async def test_it_is_answered_as_on_the_wire_but_for_the_links(net: Net, node: NodeProcess, alice: str) -> None:
    phone = await net.open(alice)
    await phone.send_all(f"user:{alice}", ["größe", {"a": [1, 2.50]}])
    await phone.say(type="history", ref=1, stream=f"user:{alice}", limit=1)
    on_the_wire = await phone.wait("history")
    answer = await fetch(node, messages_path(f"user:{alice}", alice, limit=1, colour="blue"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {
        **{name: value for name, value in on_the_wire.items() if name not in ("type", "ref")},
        "next": None,
        "prev": f"/v1/streams/user:{alice}/messages?before={on_the_wire['first']}&limit=1&user={alice}",
    }


@pytest.mark.anyio
async def test_every_spelling_of_an_anchor(net: Net, node: NodeProcess, alice: str) -> None:
    phone = await net.open(alice)
    sent = await phone.send_all(f"user:{alice}", range(9))
    inbox = f"user:{alice}"
    for anchor in ("5", sent[4]["id"]):
        assert numbers(await look(node, inbox, alice, after=anchor, limit=2)) == [6, 7]
        assert numbers(await look(node, inbox, alice, before=anchor, limit=2)) == [3, 4]
        assert numbers(await look(node, inbox, alice, around=anchor, limit=4)) == [3, 4, 5, 6]
    assert numbers(await look(node, inbox, alice, before="9" * 40, limit=1)) == [9]
    assert numbers(await look(node, inbox, alice, after="2020-02-29T12:00:00+01:00", limit=1)) == [1]
    unescaped = f"/v1/streams/{inbox}/messages?user={alice}&after=2020-02-29T12:00:00+01:00&limit=1"
    assert numbers((await fetch(node, unescaped)).json) == [1]


@pytest.mark.parametrize("limit", [1, 7, 200])
@pytest.mark.anyio
async def test_following_the_links_either_way_sees_every_entry_once(
    net: Net, node: NodeProcess, database: Server, fresh: Callable[[str], str], limit: int
) -> None:
    """Trimmed, redacted and lost entries among them; from both ends, and from the middle both ways."""
    alice = fresh("alice")
    inbox = f"user:{alice}"
    phone = await net.open(alice)
    sent = await phone.send_all(inbox, range(60))
    for at in (20, 21, 22, 40, 59):
        assert (await redact(node, inbox, sent[at]["id"], alice)).status == 200
    await phone.leave()
    store = await Store.connect(database.url, options=StoreOptions())
    await store.check_server()
    await store.trim(inbox, parse_id(sent[9]["id"]), TrimCause("old", "max_age"))
    head = (await look(node, inbox, alice))["head"]
    lost = EntryId(parse_id(head).ms, parse_id(head).n + 5)
    await store.reconcile("test", await store.nodes(), {inbox: lost})
    await store.close()
    phone = await net.open(alice)
    await phone.send_all(inbox, range(10))

    everything = [*range(11, 66), *range(71, 81)]
    forwards = await walk(node, await look(node, inbox, alice, after=0, limit=limit), "next")
    backwards = await walk(node, await look(node, inbox, alice, limit=limit), "prev")
    middle = await look(node, inbox, alice, around=42, limit=limit)
    both_ways = [*reversed((await walk(node, middle, "prev"))[1:]), *await walk(node, middle, "next")]
    for pages in (forwards, [*reversed(backwards)], both_ways):
        assert [n for page in pages for n in numbers(page)] == everything
        assert all(len(page["messages"]) <= limit for page in pages)
        gaps = [(n_of(gap["after"]), n_of(gap["to"]), gap["cause"]["kind"]) for page in pages for gap in page["gaps"]]
        assert gaps == [(0, 10, "trimmed"), (65, 70, "lost")]
        ends = [
            (page["found_oldest"], page["prev"] is None, page["found_newest"], page["next"] is None) for page in pages
        ]
        assert ends[0][:2] == (True, True)
        assert ends[-1][2:] == (True, True)
        assert [end for end in ends[1:-1] if any(end)] == []
    redacted = [message for page in forwards for message in page["messages"] if message.get("redacted")]
    assert [n_of(message["id"]) for message in redacted] == [21, 22, 23, 41, 60]
    assert not any("body" in message for message in redacted)


@pytest.mark.anyio
async def test_links_keep_with_and_go_on_where_nothing_is_shown(
    net: Net, alice: str, bob: str, start_node: StartNode
) -> None:
    net = net.at(start_node(limits_history_looked_at=5))
    phone = await net.open(alice)
    await phone.send_all(f"user:{bob}", ["to bob"])
    await phone.send_all(f"user:{alice}", range(22))
    pages = await walk(net.node, await look(net.node, f"user:{alice}", alice, with_=bob), "prev")
    assert [page["looked_at"] for page in pages] == [5, 5, 5, 5, 3]
    assert [len(page["messages"]) for page in pages] == [0, 0, 0, 0, 1]
    assert all(f"with={bob}" in page["prev"] for page in pages[:-1])


@pytest.mark.anyio
async def test_names_that_paths_must_escape(net: Net, node: NodeProcess, fresh: Callable[[str], str]) -> None:
    user = fresh("ä+@|")
    phone = await net.open(fresh("alice"))
    await phone.send_all(f"user:{user}", range(3))
    pages = await walk(node, await look(node, f"user:{user}", user, limit=1), "prev")
    assert [message["body"] for page in pages for message in page["messages"]] == [2, 1, 0]


@pytest.mark.parametrize(
    ("stream", "query", "code"),
    [
        ("user:somebody", {}, "not_allowed"),
        ("group:never-made", {}, "not_member"),
        ("nothing", {}, "bad_stream"),
        ("user:..", {}, "bad_name"),
        ("all", {"limit": "0"}, "bad_request"),
        ("all", {"limit": "201"}, "bad_request"),
        ("all", {"limit": "ten"}, "bad_request"),
        ("all", {"limit": ""}, "bad_request"),
        ("all", {"after": "1", "around": "2"}, "bad_request"),
        ("all", {"after": ""}, "bad_anchor"),
        ("all", {"after": "-1"}, "bad_anchor"),
        ("all", {"after": "1.5"}, "bad_anchor"),
        ("all", {"after": "99999999"}, "bad_anchor"),
        ("all", {"before": "soon"}, "bad_anchor"),
        ("all", {"with_": "bob"}, "bad_request"),
    ],
)
@pytest.mark.anyio
async def test_a_refusal_is_a_problem_with_its_code(
    node: NodeProcess, alice: str, stream: str, query: dict[str, str], code: str
) -> None:
    check_problem(await fetch(node, messages_path(stream, alice, **query)), code)


@pytest.mark.anyio
async def test_who_is_not_signed_in_is_told_so_first(node: NodeProcess) -> None:
    for path in (messages_path("all", None), messages_path("user:bob", None, after="x"), messages_path("all", "a/b")):
        answer = await fetch(node, path)
        check_problem(answer, "unauthorised")
        assert answer.headers["www-authenticate"] == "Bearer"
    check_problem(await fetch(node, "/v1/streams/all/messages/5-1", "DELETE"), "unauthorised")


@pytest.mark.anyio
async def test_a_group_is_refused_alike_whether_or_not_it_exists(
    net: Net, node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    phone = await net.open(alice)
    await join(phone, group)
    [sent] = await phone.send_all(f"group:{group}", ["secret"])
    answers = [await fetch(node, messages_path(name, bob)) for name in (f"group:{group}", "group:never-made")]
    assert answers[0].json == answers[1].json
    check_problem(answers[0], "not_member")
    for name, entry in ((f"group:{group}", sent["id"]), (f"group:{group}", "5-99"), ("group:never-made", sent["id"])):
        check_problem(await redact(node, name, entry, bob), "not_member")


@pytest.mark.anyio
async def test_a_message_is_taken_away_by_its_sender_once(net: Net, node: NodeProcess, alice: str, bob: str) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    [sent] = await phone.send_all(f"user:{bob}", ["secret"])
    received = await other.wait("message", body="secret")

    check_problem(await redact(node, f"user:{bob}", received["id"], bob), "not_allowed")
    check_problem(await redact(node, f"user:{bob}", received["id"], alice), "not_allowed")  # another's inbox
    answer = await redact(node, f"user:{alice}", sent["id"], alice)
    told = await phone.wait("redacted")
    assert answer.status == 200
    assert answer.json == {"stream": f"user:{alice}", "target": sent["id"], "id": told["id"], "duplicate": False}
    assert (await other.wait("redacted"))["target"] == received["id"]
    again = await redact(node, f"user:{alice}", sent["id"], alice)
    assert again.status == 200
    assert again.json == {"stream": f"user:{alice}", "target": sent["id"], "duplicate": True}
    check_problem(await redact(node, f"user:{bob}", received["id"], bob), "not_allowed")  # redacted, and still not his
    for stream, user in ((f"user:{alice}", alice), (f"user:{bob}", bob)):
        page = await look(node, stream, user)
        assert [(m["type"], m.get("redacted", False)) for m in page["messages"]] == [
            ("message", True),
            ("redacted", False),
        ]
        assert page["gaps"] == []


@pytest.mark.anyio
async def test_what_cannot_be_taken_away(
    net: Net, node: NodeProcess, database: Server, fresh: Callable[[str], str]
) -> None:
    alice, bob, group = fresh("alice"), fresh("bob"), fresh("g")
    stream = f"group:{group}"
    phone, other = await net.open(alice), await net.open(bob)
    joined = await join(phone, group)
    [before] = await phone.send_all(stream, ["before"])
    await join(other, group)
    [within] = await phone.send_all(stream, ["within"])
    await leave(other, group)
    [after] = await phone.send_all(stream, ["after"])

    check_problem(await redact(node, stream, joined["id"], alice), "not_found")
    check_problem(await redact(node, stream, "5-99", alice), "not_found")
    check_problem(await redact(node, stream, "nonsense", alice), "bad_id")
    check_problem(await redact(node, "all", "5-99", alice), "not_found")
    check_problem(await redact(node, stream, within["id"], bob), "not_allowed")
    for outside in (before, after):  # nobody learns what is there
        check_problem(await redact(node, stream, outside["id"], bob), "not_found")
    store = await Store.connect(database.url, options=StoreOptions())
    await store.check_server()
    await store.trim(stream, parse_id(before["id"]), TrimCause())
    await store.close()
    check_problem(await redact(node, stream, before["id"], alice), "not_found")
    assert (await redact(node, stream, within["id"], alice)).status == 200


@pytest.mark.anyio
async def test_who_has_left_may_still_take_away_what_they_said(
    net: Net, node: NodeProcess, alice: str, group: str
) -> None:
    phone = await net.open(alice)
    await join(phone, group)
    [sent] = await phone.send_all(f"group:{group}", ["oh"])
    await leave(phone, group)
    answer = await redact(node, f"group:{group}", sent["id"], alice)
    assert (answer.status, answer.json["duplicate"]) == (200, False)
    assert "id" not in answer.json  # it would tell how much has been said since


@pytest.mark.anyio
async def test_a_former_member_is_told_no_number_from_outside_the_membership(
    net: Net, node: NodeProcess, alice: str, bob: str, group: str
) -> None:
    phone, other = await net.open(alice), await net.open(bob)
    stream = f"group:{group}"
    await join(other, group)
    before = await other.send_all(stream, range(20))
    await join(phone, group)
    await other.send_all(stream, range(3))
    await leave(phone, group)
    after = await other.send_all(stream, range(20))
    own = {n_of(message["id"]) for message in (await look(node, stream, alice))["messages"]}
    assert max(own) < n_of(after[0]["id"])
    for sent in (*before[::4], *after[::4]):
        ms = parse_id(sent["id"]).ms
        time = f"{datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec='milliseconds')}".replace("+00:00", "Z")
        for side in ("after", "before", "around"):
            answer = await fetch(node, messages_path(stream, alice, **{side: time}))
            if answer.status != 200:
                continue
            for link in (answer.json["next"], answer.json["prev"]):
                anchor = re.search(r"(?:after|before)=(?:\d+-)?(\d+)", link or "")
                assert anchor is None or min(own) - 1 <= int(anchor[1]) <= max(own) + 1, (side, link, own)


@pytest.mark.anyio
async def test_while_the_store_is_away_it_is_unavailable_and_then_goes_on(fresh: Callable[[str], str]) -> None:
    server, alice = Server("valkey"), fresh("alice")
    node = NodeProcess(server.url, "lonely", call_timeout_s=1)
    try:
        server.start()
        await migrations.up(server.url)
        node.start()
        assert (await look(node, "all", alice))["messages"] == []
        server.kill()
        for _ in range(2):  # the first may find it out
            answer = await fetch(node, messages_path("all", alice))
            check_problem(answer, "unavailable")
            assert answer.json["retry"] is True
            assert str(server.folder) not in str(answer.json)  # nor where the store is
        answer = await redact(node, "all", "5-1", alice)
        check_problem(answer, "unavailable")
        server.start()
        await eventually(node.is_ready, "it is ready again")
        assert (await look(node, "all", alice))["found_newest"] is True
    finally:
        node.remove()
        server.remove()


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        *((method, messages_path("all", "alice"), "method_not_allowed") for method in ("POST", "PUT", "PATCH")),
        ("GET", messages_path("all", "alice").replace("messages?", "messages/1-1?"), "method_not_allowed"),
        ("GET", "/v1/nothing", "no_path"),
        ("GET", messages_path("all", "alice").replace("messages?", "messages/?"), "no_path"),  # no redirect
        ("GET", "/v1/streams/group:g%2Fx/messages?user=alice", "no_path"),
    ],
)
def test_other_paths_and_methods_are_problems_too(node: NodeProcess, method: str, path: str, code: str) -> None:
    body = None if method == "GET" else b"{}"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(node.url + path, body, method=method), timeout=5)
    with refused.value as refusal:
        assert refusal.headers["content-type"] == "application/problem+json"
        said = json.load(refusal)
    assert (refusal.code, said["code"], said["status"], said["retry"]) == (
        ERRORS[code].http,
        code,
        ERRORS[code].http,
        False,
    )
    assert (refusal.headers["allow"] is not None) == (code == "method_not_allowed")


# -- server keys -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_key_with_read_sees_every_stream_whole(
    net: Net, node: NodeProcess, database: Server, fresh: Callable[[str], str]
) -> None:
    alice, bob, group = fresh("alice"), fresh("bob"), fresh("g")
    phone, other = await net.open(alice), await net.open(bob)
    await join(phone, group)
    await phone.send_all(f"group:{group}", range(3))
    await join(other, group)
    await leave(phone, group)
    await other.send_all(f"group:{group}", range(3, 6))
    await other.send_all(f"user:{alice}", ["from bob"])
    server = await Caller.with_key(node, database, "read")
    pages = await server.walk(path_of("streams", f"group:{group}", "messages"), "messages", limit=2, after=0)
    seen = [one for page in pages for one in page]
    assert [one["body"] for one in seen if one["type"] == "message"] == list(range(6))
    assert [n_of(one["id"]) for one in seen] == list(range(1, 10))
    inbox = await server.gets(path_of("streams", f"user:{alice}", "messages"), with_=bob)
    assert [one["body"] for one in inbox["messages"]] == ["from bob"]
    assert (await server.gets(path_of("streams", "all", "messages")))["stream"] == "all"
    check_problem(await server("GET", path_of("streams", "group:never-made", "messages")), "no_group")
    check_problem(await server("GET", path_of("streams", "nothing", "messages")), "bad_stream")
    without = await Caller.with_key(node, database, "send", "groups", "admin")
    check_problem(await without("GET", path_of("streams", f"group:{group}", "messages")), "not_allowed")


@pytest.mark.anyio
async def test_a_key_with_admin_takes_any_message_away(
    net: Net, node: NodeProcess, database: Server, fresh: Callable[[str], str]
) -> None:
    alice, bob, group = fresh("alice"), fresh("bob"), fresh("g")
    phone, other = await net.open(alice), await net.open(bob)
    await join(phone, group)
    [spoken] = await phone.send_all(f"group:{group}", ["bad"])
    [sent] = await phone.send_all(f"user:{bob}", ["worse"])
    received = await other.wait("message", body="worse")
    server = await Caller.with_key(node, database, "admin")
    for stream, entry in ((f"group:{group}", spoken["id"]), (f"user:{bob}", received["id"])):
        path = path_of("streams", stream, "messages", entry)
        for refused in (
            await Caller.with_key(node, database, "send", "read", "groups"),
            Caller(node, bob),
        ):
            answer = await refused("DELETE", path)
            assert answer.status == 403
        answer = await server("DELETE", path)
        assert (answer.status, answer.json["target"], answer.json["duplicate"]) == (200, entry, False)
        assert parse_id(answer.json["id"])
        assert (await server("DELETE", path)).json["duplicate"] is True
    told = await phone.wait("redacted", stream=f"group:{group}")
    assert told["by"].startswith("key:")
    assert (await phone.wait("redacted", stream=f"user:{alice}"))["target"] == sent["id"]
    assert (await other.wait("redacted"))["target"] == received["id"]
    for stream in (f"group:{group}", f"user:{bob}"):
        check_problem(await server("DELETE", path_of("streams", stream, "messages", "5-99")), "not_found")
    check_problem(await server("DELETE", path_of("streams", "group:never-made", "messages", "5-99")), "not_found")


@pytest.mark.anyio
async def test_a_token_is_in_no_link(signed: NodeProcess, alice: str) -> None:
    caller = Caller.with_token(signed, alice)
    for number in range(3):
        await caller.send(f"user:{alice}", number)
    page = await Caller(signed)(
        "GET", path_of("streams", f"user:{alice}", "messages"), token=caller.token, limit=1, around=2
    )
    assert page.json["next"] == f"/v1/streams/user:{alice}/messages?after={page.json['last']}&limit=1"
    assert page.json["prev"] == f"/v1/streams/user:{alice}/messages?before={page.json['first']}&limit=1"
    assert [len(rows) for rows in await caller.walk(page.json["prev"].replace("before", "after"), "messages")] == [1]
