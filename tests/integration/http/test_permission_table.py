"""The permission table of docs/security.md, row by row, on every door that has the action: who may, and who may not.

One closed group, `g`: of its owner; with a member, and with a guest who was a member once.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from service.auth.permissions import SCOPE_FOR
from service.core.server_keys import SCOPES
from tests.integration.http.web import Caller, path_of
from tests.integration.store.kit import Server
from tests.integration.wire.kit import Chat, Net, call, direct
from tests.service import Frame, NodeProcess, Phone
from tests.tokens import bearer, mint, new_key

pytestmark = pytest.mark.anyio

USERS = ("owner", "member", "guest", "stranger", "invited", "speaker")


class World:
    """The cast, on one node: users with tokens, server keys with one scope each, a closed group, a message in it."""

    def __init__(self, node: NodeProcess, net: Net, number: str) -> None:
        self.node, self.net = node, net
        self.group = f"closed{number}"
        self.names = {who: f"{who}{number}" for who in USERS}
        claims: dict[str, dict[str, Any]] = {"invited": {"groups": ["closed*"]}, "speaker": {"broadcast": True}}
        self.shown = {who: mint(name, **claims.get(who, {})) for who, name in self.names.items()}
        self.inbox = f"user:{self.names['member']}"
        self.message = self.own = ""

    def by_http(self, who: str) -> Caller:
        return Caller(self.node, token=self.shown[who])

    async def by_wire(self, who: str) -> Phone:
        """Connected."""
        phone = await self.net.dial(None, additional_headers=bearer(self.shown[who]))
        await phone.say(type="hello", device="table")
        await phone.wait("live")
        return phone


@pytest.fixture
async def world(signed: NodeProcess, net: Net, database: Server, fresh: Callable[[str], str]) -> World:
    world = World(signed, net.at(signed), fresh(""))
    for scope in SCOPES:
        world.shown[scope], _ = await new_key(database.url, scope)
    owner = world.by_http("owner")
    await owner.make(world.group, open=False)
    for who in ("guest", "member"):
        await owner.put_in(world.group, world.names[who])
    await owner("DELETE", path_of("groups", world.group, "members", world.names["guest"]))
    world.message = (await world.by_http("member").send(f"group:{world.group}", "said"))["id"]
    world.own = (await world.by_http("member").send(f"user:{world.names['stranger']}", "dear"))["id"]
    return world


class Row(NamedTuple):
    """An action; what each of these is answered: a code, "" for yes."""

    action: str
    what: str
    answers: dict[str, str]


def per_scope(action: str, refusal: str = "not_allowed") -> dict[str, str]:
    """What server keys are answered: the scope decides."""
    return {scope: "" if scope == SCOPE_FOR[action] else refusal for scope in SCOPES}  # type: ignore[index]


def users(default: str, **others: str) -> dict[str, str]:
    return dict.fromkeys(USERS, default) | others


ROWS = [
    Row("send", "to a user", users("") | per_scope("send")),
    Row("send", "to the group", users("not_member", owner="", member="") | per_scope("send")),
    Row("send", "to all", users("not_allowed", speaker="") | per_scope("send")),
    Row("read", "the member's inbox", users("not_allowed", member="") | per_scope("read")),
    Row("read", "the group", users("not_member", owner="", member="", guest="") | per_scope("read")),
    Row("read", "all", users("") | per_scope("read")),
    Row("read", "the group's members", users("not_member", owner="", member="") | per_scope("read")),
    Row("acknowledge", "in the own inbox", users("") | per_scope("acknowledge")),
    Row("acknowledge", "in the member's inbox", users("not_allowed", member="") | per_scope("acknowledge")),
    Row("acknowledge", "in the group", users("not_member", owner="", member="") | per_scope("acknowledge")),
    Row(
        "redact",
        "the member's message in the group",
        users("not_member", owner="not_allowed", member="", guest="not_found"),
    ),
    Row("redact", "the member's message in its inbox", users("not_allowed", member="") | per_scope("redact")),
    Row("join", "an open group", users("") | per_scope("join")),
    Row("enter", "the group", users("group_closed", owner="", member="", invited="") | per_scope("enter")),
    Row("manage", "the group's settings", users("not_member", owner="", member="not_allowed") | per_scope("manage")),
    Row("manage", "who is put in", users("not_member", owner="", member="not_allowed") | per_scope("manage")),
    Row("manage", "who is taken out", users("not_member", owner="", member="not_allowed") | per_scope("manage")),
    Row("manage", "the group's end", users("not_member", owner="", member="not_allowed") | per_scope("manage")),
    Row("administer", "the list of nodes", users("not_allowed") | per_scope("administer")),
]


def asks(world: World, row: Row, who: str) -> tuple[str, str, object]:
    """The request: method, path, body."""
    me = quote(world.names.get(who, world.names["stranger"]))
    member, group = world.names["member"], world.group
    speaks = {"from": world.names["stranger"]} if who in SCOPES else {}
    offsets = {
        "in the own inbox": {f"user:{me}": "0-0"},
        "in the member's inbox": {world.inbox: "0-0"},
        "in the group": {f"group:{group}": world.message},
    }
    # A server key acknowledges for whom it names.
    acts_as = f"?user={member if row.what != 'in the own inbox' else me}" if who in SCOPES else ""
    requests: dict[tuple[str, str], tuple[str, str, object]] = {
        ("send", "to a user"): ("POST", "/v1/messages", {"to": world.inbox, "body": 1, **speaks}),
        ("send", "to the group"): ("POST", "/v1/messages", {"to": f"group:{group}", "body": 1, **speaks}),
        ("send", "to all"): ("POST", "/v1/messages", {"to": "all", "body": 1, **speaks}),
        ("read", "the member's inbox"): ("GET", path_of("streams", world.inbox, "messages"), None),
        ("read", "the group"): ("GET", path_of("streams", f"group:{group}", "messages"), None),
        ("read", "all"): ("GET", path_of("streams", "all", "messages"), None),
        ("read", "the group's members"): ("GET", path_of("groups", group, "members"), None),
        ("redact", "the member's message in the group"): (
            "DELETE",
            path_of("streams", f"group:{group}", "messages", world.message),
            None,
        ),
        ("redact", "the member's message in its inbox"): (
            "DELETE",
            path_of("streams", world.inbox, "messages", world.own),
            None,
        ),
        ("join", "an open group"): ("PUT", path_of("groups", f"open-{group}", "members", me), {}),
        ("enter", "the group"): ("PUT", path_of("groups", group, "members", me), {}),
        ("manage", "the group's settings"): ("PUT", path_of("groups", group), {"announce": 5}),
        ("manage", "who is put in"): ("PUT", path_of("groups", group, "members", world.names["stranger"] + "x"), {}),
        ("manage", "who is taken out"): ("DELETE", path_of("groups", group, "members", member), None),
        ("manage", "the group's end"): ("DELETE", path_of("groups", group), None),
        ("administer", "the list of nodes"): ("GET", "/v1/admin/nodes", None),
    }
    if row.action == "acknowledge":
        return "PUT", path_of("devices", "table", "offsets") + acts_as, {"offsets": offsets[row.what]}
    return requests[row.action, row.what]


def cases() -> Iterator[Any]:
    for row in ROWS:
        for who, code in row.answers.items():
            yield pytest.param(row, who, code, id=f"{who}: {row.action} {row.what}: {code or 'yes'}")


@pytest.mark.parametrize(("row", "who", "code"), list(cases()))
async def test_over_http(world: World, row: Row, who: str, code: str) -> None:
    # A member who takes itself out leaves, which everybody may.
    code = "" if row.what == "who is taken out" and who == "member" else code
    answer = await world.by_http(who)(*asks(world, row, who))
    assert (answer.status < 300, answer.json.get("code", "")) == (not code, code), answer


def test_every_action_has_its_rows() -> None:
    assert {row.action for row in ROWS} == set(SCOPE_FOR)


# -- on the wire -------------------------------------------------------------------------------------------------------

WIRE: dict[tuple[str, str], Callable[[World], Frame]] = {
    ("send", "to a user"): lambda world: {"type": "send", "to": world.inbox, "body": 1},
    ("send", "to the group"): lambda world: {"type": "send", "to": f"group:{world.group}", "body": 1},
    ("send", "to all"): lambda _world: {"type": "send", "to": "all", "body": 1},
    ("read", "the member's inbox"): lambda world: {"type": "history", "stream": world.inbox},
    ("read", "the group"): lambda world: {"type": "history", "stream": f"group:{world.group}"},
    ("read", "all"): lambda _world: {"type": "history", "stream": "all"},
    ("join", "an open group"): lambda world: {"type": "join", "group": f"open-{world.group}"},
    ("enter", "the group"): lambda world: {"type": "join", "group": world.group},
}


def on_the_wire() -> Iterator[Any]:
    for row in ROWS:
        for who in USERS if (row.action, row.what) in WIRE else ():
            code = row.answers[who]
            yield pytest.param(row, who, code, id=f"{who}: {row.action} {row.what}: {code or 'yes'}")


@pytest.mark.parametrize(("row", "who", "code"), list(on_the_wire()))
async def test_on_the_wire(world: World, row: Row, who: str, code: str) -> None:
    phone = await world.by_wire(who)
    await phone.say(**WIRE[row.action, row.what](world), ref="asked")
    await phone.until(lambda: phone.answer_to("asked"), "an answer")
    answer = phone.answer_to("asked")
    assert answer is not None
    assert (answer["type"] == "error", answer.get("code", "")) == (bool(code), code)


async def test_what_comes_on_the_wire_is_ones_own_alone(world: World) -> None:
    """Nobody is pushed, or given in pages, what the rows refuse: each sees what is said to them, and counts it."""
    phones = {who: await world.by_wire(who) for who in USERS}
    await phones["member"].send(f"group:{world.group}", "inside")
    await phones["stranger"].send(world.inbox, "for the member")
    await phones["speaker"].send("all", "the end")
    for who, phone in phones.items():
        if who != "speaker":  # its own send was answered
            await phone.wait("message", body="the end")
    heard = {
        who: [body for body in phone.bodies() if body in ("inside", "for the member")] for who, phone in phones.items()
    }
    assert heard == {
        "owner": ["inside"],
        "member": ["for the member"],  # its own send was answered
        "guest": [],
        "stranger": [],
        "invited": [],
        "speaker": [],
    }
    said = {who: "said" in phone.bodies() for who, phone in phones.items()}
    assert said == dict.fromkeys(USERS, False) | {"owner": True, "member": True}


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_server_key_connects_with_read_and_no_other_scope(world: World, scope: str) -> None:
    phone = await world.net.dial(world.names["stranger"], additional_headers=bearer(world.shown[scope]))
    if scope == SCOPE_FOR["read"]:
        await phone.say(type="hello")
        await phone.wait("live")
    else:
        assert await phone.ends() == 4101


@pytest.mark.parametrize("scope", SCOPES)
async def test_on_chat_too(world: World, scope: str) -> None:
    """A key that may not read must not be given a text, nor acknowledge it in its owner's place."""
    name = world.names["stranger"]
    chat = Chat(
        await world.net.bare(f"/chat/channel/{name}", Authorization=f"Bearer {world.shown[scope]}"), is_ponging=True
    )
    if scope == SCOPE_FOR["read"]:
        await chat.until(f"user {world.names['member']} send:dear")
    else:
        assert await chat.until_closed() == 4101
        assert "dear" not in "".join(chat.texts)


# -- on /chat ----------------------------------------------------------------------------------------------------------


class OnChat(NamedTuple):
    """What is said, and what then comes beside what was missed: "" for nothing of it refused."""

    what: str
    say: Callable[[World], str]
    refused: dict[str, str]


CHAT = [
    OnChat("to a user", lambda world: direct(world.names["member"], "hi"), {}),
    OnChat(
        "to the group",
        lambda world: call("Group", group=world.group, body="hi"),
        dict.fromkeys(("guest", "stranger", "invited", "speaker"), "not in"),
    ),
    OnChat(
        "to all",
        lambda _world: call("All", body="hi"),
        dict.fromkeys(("owner", "member", "guest", "stranger", "invited"), "broadcast"),
    ),
    OnChat(
        "into the group",
        lambda world: call("UserGroup", group=world.group),
        dict.fromkeys(("guest", "stranger", "speaker"), "closed"),
    ),
    OnChat("into an open group", lambda world: call("UserGroup", group=f"open-{world.group}"), {}),
]


@pytest.mark.parametrize("who", USERS)
@pytest.mark.parametrize("row", CHAT, ids=lambda row: row.what)
async def test_on_chat(world: World, row: OnChat, who: str) -> None:
    name = world.names[who]
    bare = await world.net.bare(f"/chat/channel/{name}?token={world.shown[who]}")
    chat = Chat(bare, is_ponging=True)
    chat.say(row.say(world))
    chat.say("{}")  # answered after it: what is no call at all
    await until(chat, lambda: "error: not understood" in chat.texts)
    # The answer to a send comes from the store, later than one that needs nobody: an own group is joined after it.
    chat.say(call("UserGroup", group=f"mark-{name}"))
    await until(chat, lambda: any(f"mark-{name}" in text for text in chat.texts))
    refusals = [text for text in chat.texts if text.startswith("error: ") or "not in" in text]
    refusals.remove("error: not understood")
    expected = row.refused.get(who)
    assert len(refusals) == (expected is not None), chat.texts
    assert expected is None or expected in refusals[0]


async def until(chat: Chat, condition: Callable[[], bool]) -> None:
    while not condition():
        await chat.until_there_are(len(chat.texts) + 1)


@pytest.mark.parametrize("who", USERS)
async def test_on_chat_nobody_is_somebody_else(world: World, who: str) -> None:
    other = "owner" if who != "owner" else "member"
    chat = Chat(await world.net.bare(f"/chat/channel/{world.names[other]}?token={world.shown[who]}"), is_ponging=True)
    assert await chat.until_closed() == 4101
