"""Signing in on the wire: by header, query or `hello`; which device; renewing; and how a sign-in ends."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from service.store import Notice
from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import CLOSE, TEXT, Net, join
from tests.service import Frame, NodeProcess, Phone
from tests.tokens import SIGNED, bearer, mint, new_key, open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def signed(net: Net, start_node: StartNode) -> Net:
    """Connections to a node without dev mode, which takes the tokens of `mint`."""
    return net.at(start_node(**SIGNED))


async def come(net: Net, shown: str, /, **hello: object) -> Phone:
    """Signs in by header and says hello."""
    phone = await net.dial(None, additional_headers=bearer(shown))
    await phone.say(type="hello", **hello)
    await phone.wait("live")
    return phone


async def refused(phone: Phone, code: str, close: int) -> Frame:
    """The connection was ended, with this as the last that it was told."""
    assert await phone.ends() == close
    assert (phone.frames[-1]["type"], phone.frames[-1]["code"]) == ("error", code)
    return phone.frames[-1]


# -- three ways in -----------------------------------------------------------------------------------------------------


async def test_a_token_in_the_header_signs_in(signed: Net, alice: str) -> None:
    assert (await come(signed, mint(alice))).welcome()["user"] == alice


async def test_a_token_in_the_query_signs_in(signed: Net, alice: str) -> None:
    bare = await signed.bare(f"/v1/connect?token={mint(alice)}")
    bare.write(TEXT, b'{"type":"hello"}')
    assert json.loads((await bare.read())[1])["user"] == alice


async def test_a_token_in_hello_signs_in_and_what_came_with_it_is_taken_in_order(
    signed: Net, alice: str, bob: str
) -> None:
    bare = await signed.bare("/v1/connect")
    hello = json.dumps({"type": "hello", "token": mint(alice), "device": "phone"})
    send = json.dumps({"type": "send", "to": f"user:{bob}", "body": 1, "ref": 1})
    bare.write(TEXT, f"{hello}\n{send}".encode())
    bare.write(TEXT, b'{"type":"ping","ref":2}')
    came = [json.loads((await bare.read())[1]) for _ in range(4)]
    assert (came[0]["type"], came[0]["user"], came[0]["device"]) == ("welcome", alice, "phone")
    assert {(frame["type"], frame.get("ref")) for frame in came} >= {("sent", 1), ("pong", 2)}


async def test_what_was_shown_at_the_upgrade_counts_and_not_what_hello_says(signed: Net, alice: str, bob: str) -> None:
    assert (await come(signed, mint(alice), token=mint(bob))).welcome()["user"] == alice


@pytest.mark.parametrize(
    ("said", "code", "close"),
    [
        (b'{"type":"hello"}', "unauthorised", 4101),
        (b'{"type":"hello","token":""}', "unauthorised", 4101),
        (b'{"type":"hello","token":"x.y.z"}', "unauthorised", 4101),
        (b'{"type":"hello","token":"wpk_000000000000_secret"}', "unauthorised", 4101),
        (b'{"type":"ping"}', "unauthorised", 4101),
        (b'{"type":"send","to":"all","body":1}', "unauthorised", 4101),
        (b'{"type":"dance"}', "unauthorised", 4101),
        (b"nonsense", "bad_frame", 4103),
        (b'{"type":"hello","token":"' + b"x" * 140_000 + b'"}', "too_large", 4104),
    ],
)
async def test_a_stranger_who_does_not_say_who_they_are_is_told_and_closed(
    signed: Net, said: bytes, code: str, close: int
) -> None:
    bare = await signed.bare("/v1/connect")
    bare.write(TEXT, said)
    assert json.loads((await bare.read())[1])["code"] == code
    opcode, payload = await bare.read()
    assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, close)


async def test_a_stranger_who_says_nothing_is_closed_with_4106(net: Net, start_node: StartNode) -> None:
    phone = await net.at(start_node(**SIGNED, hello_timeout_s=0.3)).dial(None)
    await refused(phone, "hello_timeout", 4106)


async def test_strangers_are_few_and_who_is_signed_in_is_none(net: Net, start_node: StartNode, alice: str) -> None:
    few = net.at(start_node(**SIGNED, limits_strangers=2))
    waiting = [await few.dial(None) for _ in range(2)]
    assert (await refused(await few.dial(None), "unavailable", 4000))["retry"] is True
    for phone in waiting:
        await phone.say(type="hello", token=mint(alice))
        await phone.wait("live")
    assert (await come(few, mint(alice))).welcome()["user"] == alice


async def test_an_expired_token_is_told_as_that(signed: Net, alice: str) -> None:
    phone = await signed.dial(None, additional_headers=bearer(mint(alice, ttl=-1)))
    await refused(phone, "expired", 4102)


async def test_without_dev_mode_nobody_is_taken_at_their_word(signed: Net, alice: str) -> None:
    phone = await signed.dial(alice)
    await refused(phone, "unauthorised", 4101)


async def test_dev_mode_with_a_secret_takes_tokens_too(net: Net, start_node: StartNode, alice: str, bob: str) -> None:
    both = net.at(start_node(jwt_secrets=SIGNED["jwt_secrets"]))
    assert (await come(both, mint(alice))).welcome()["user"] == alice
    assert (await both.open(bob)).welcome()["user"] == bob


# -- claims ------------------------------------------------------------------------------------------------------------


async def test_a_token_binds_its_device(signed: Net, alice: str) -> None:
    token = mint(alice, device="phone")
    assert (await come(signed, token)).welcome()["device"] == "phone"
    other = await signed.dial(None, additional_headers=bearer(token))
    await other.say(type="hello", device="tablet")
    await refused(other, "forbidden", 4105)


async def test_who_may_send_to_everybody_has_the_claim(signed: Net, alice: str, bob: str) -> None:
    plain, speaker = await come(signed, mint(alice)), await come(signed, mint(bob, broadcast=True))
    assert (await plain.send("all", 1))["code"] == "not_allowed"
    assert (await speaker.send("all", 2))["type"] == "sent"
    await plain.wait("message", body=2)


# -- expiry and renewal ------------------------------------------------------------------------------------------------


async def test_a_sign_in_that_expires_ends_with_4102_after_the_time_of_grace(
    net: Net, start_node: StartNode, alice: str
) -> None:
    short = net.at(start_node(**SIGNED, token_grace_s=0.5))
    began = time.monotonic()
    phone = await come(short, mint(alice, ttl=0.5))
    assert 0 <= phone.welcome()["expires_in"] <= 0.5
    await refused(phone, "expired", 4102)
    assert time.monotonic() - began >= 0.9, "the grace was granted"


async def test_who_renews_in_time_stays(net: Net, start_node: StartNode, alice: str, bob: str) -> None:
    short = net.at(start_node(**SIGNED, token_grace_s=0.5))
    phone, other = await come(short, mint(alice, ttl=1)), await come(short, mint(bob, ttl=1))
    await phone.say(type="auth", token=mint(alice, ttl=300, broadcast=True), ref="a")
    answer = await phone.wait("authorised", ref="a")
    assert (answer["user"], 290 < answer["expires_in"] <= 300) == (alice, True)
    await refused(other, "expired", 4102)  # by then the first token has expired too
    assert (await phone.send("all", "still here, and with the new claims"))["type"] == "sent"


async def test_a_token_that_expires_earlier_counts_too(net: Net, start_node: StartNode, alice: str) -> None:
    phone = await come(net.at(start_node(**SIGNED, token_grace_s=0.5)), mint(alice))
    await phone.say(type="auth", token=mint(alice, ttl=0.2), ref=1)
    await phone.wait("authorised", ref=1)
    await refused(phone, "expired", 4102)


@pytest.mark.parametrize(
    ("token", "code", "close"),
    [
        (lambda user: mint(f"{user}x"), "unauthorised", 4101),
        (lambda user: mint(user, secret="another secret, which nobody configured"), "unauthorised", 4101),
        (lambda user: mint(user, ttl=-1), "expired", 4102),
        (lambda user: mint(user, device="tablet"), "forbidden", 4105),
        (lambda _user: "", "unauthorised", 4101),
        (lambda _user: "wpk_000000000000_0000000000000000000000000000000000000000000", "unauthorised", 4101),
    ],
    ids=["another user's", "another issuer's", "expired", "another device's", "empty", "a server key"],
)
async def test_a_renewal_that_is_refused_ends_the_connection(
    signed: Net, alice: str, token: Callable[[str], str], code: str, close: int
) -> None:
    phone = await come(signed, mint(alice), device="phone")
    await phone.say(type="auth", token=token(alice), ref=7)
    assert (await refused(phone, code, close))["ref"] == 7


# -- server keys -------------------------------------------------------------------------------------------------------


async def with_key(net: Net, key: str, user: str | None) -> Phone:
    return await net.dial(user, additional_headers=bearer(key))


async def test_a_server_key_connects_as_whom_it_names(signed: Net, database: Server, alice: str, bob: str) -> None:
    key, _ = await new_key(database.url, "read", "send")
    phone, other = await with_key(signed, key, alice), await come(signed, mint(bob))
    await phone.say(type="hello", device="bot")
    await phone.wait("live")
    assert phone.welcome()["user"] == alice
    assert (await phone.send("all", "hear, hear"))["type"] == "sent"
    assert (await other.wait("message", body="hear, hear"))["from"] == alice


async def test_a_server_key_may_do_on_the_wire_what_its_scopes_say(
    signed: Net, database: Server, alice: str, group: str
) -> None:
    key, _ = await new_key(database.url, "read")
    phone = await with_key(signed, key, alice)
    await phone.say(type="hello")
    await phone.wait("live")
    assert (await phone.send(f"user:{alice}", 1))["code"] == "not_allowed"
    assert (await join(phone, group))["code"] == "not_allowed"


@pytest.mark.parametrize("scopes", [("send",), ("admin", "groups")])
async def test_a_server_key_without_read_does_not_connect(
    signed: Net, database: Server, alice: str, scopes: tuple[str, ...]
) -> None:
    key, _ = await new_key(database.url, *scopes)  # type: ignore[arg-type]  # names of scopes
    await refused(await with_key(signed, key, alice), "unauthorised", 4101)


async def test_a_server_key_that_names_nobody_does_not_connect(signed: Net, database: Server) -> None:
    key, _ = await new_key(database.url, "read", "send")
    await refused(await with_key(signed, key, None), "unauthorised", 4101)


# -- ended from elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture
def two(net: Net, start_node: StartNode) -> tuple[Net, Net]:
    """Connections to two nodes on one store."""
    return net.at(start_node(**SIGNED)), net.at(start_node(**SIGNED, audit_s=59))


async def test_a_revoked_key_ends_its_connections_on_every_node_as_the_next_thing_they_see(
    two: tuple[Net, Net], database: Server, alice: str, bob: str
) -> None:
    key, key_id = await new_key(database.url, "read", "send")
    phones = [await with_key(net, key, alice) for net in two]
    for phone in phones:
        await phone.say(type="hello")
        await phone.wait("live")
    sender = await come(two[0], mint(bob))
    await sender.send(f"user:{alice}", "before")
    for phone in phones:
        await phone.wait("message", body="before")
    store = await open_store(database.url)
    try:
        assert await store.revoke_key(key_id)
        await sender.send(f"user:{alice}", "after")
        for phone in phones:
            await refused(phone, "unauthorised", 4101)
            assert phone.bodies() == ["before"], "what was stored after it reaches nobody whom it ends"
        assert not await store.revoke_key(key_id)
    finally:
        await store.close()
    await refused(await with_key(two[1], key, alice), "unauthorised", 4101)
    assert sender.closed is None


async def test_a_disconnected_user_is_ended_on_every_node_and_others_feel_nothing(
    two: tuple[Net, Net], database: Server, alice: str, bob: str
) -> None:
    phones = [await come(net, mint(alice), device=f"d{at}") for at, net in enumerate(two)]
    other = await come(two[0], mint(bob))
    store = await open_store(database.url)
    try:
        await store.tell_nodes(Notice("disconnect", user=alice, device="d1"))
        await refused(phones[1], "forbidden", 4105)
        assert (await phones[0].send(f"user:{bob}", 1))["type"] == "sent", "another device of the user goes on"
        await store.tell_nodes(Notice("disconnect", user=alice))
        await refused(phones[0], "forbidden", 4105)
    finally:
        await store.close()
    assert (await other.send(f"user:{alice}", 2))["type"] == "sent"
    assert (await come(two[0], mint(alice), device="d0")).bodies() == [1, 2], "nothing is lost by it"


async def test_a_notice_is_heard_however_long_the_mailbox_was_in_doubt(
    two: tuple[Net, Net], database: Server, alice: str
) -> None:
    phone = await come(two[0], mint(alice))
    node: NodeProcess = two[0].node
    store = await open_store(database.url)
    try:
        for mailbox in database.admin.scan_iter(f"wp:*:m:{node.name}.*"):
            database.admin.delete(mailbox)
        await store.tell_nodes(Notice("disconnect", user=alice))
        await refused(phone, "forbidden", 4105)
    finally:
        await store.close()


async def test_a_key_that_was_revoked_while_a_node_stood_still_is_found_out_however_much_was_told_since(
    two: tuple[Net, Net], database: Server, alice: str
) -> None:
    key, key_id = await new_key(database.url, "read")
    phone = await with_key(two[0], key, alice)
    await phone.say(type="hello")
    await phone.wait("live")
    node = two[0].node
    store = await open_store(database.url)
    try:
        node.signal(signal.SIGSTOP)
        assert await store.revoke_key(key_id)
        for at in range(1300):
            await store.tell_nodes(Notice("disconnect", user=f"nobody{at}"))
        for mailbox in database.admin.scan_iter(f"wp:*:m:{node.name}.*"):
            database.admin.delete(mailbox)
        node.signal(signal.SIGCONT)
        await refused(phone, "unauthorised", 4101)
    finally:
        node.signal(signal.SIGCONT)
        await store.close()


async def test_of_renewals_the_last_one_sent_holds(net: Net, start_node: StartNode, alice: str) -> None:
    phone = await come(net.at(start_node(**SIGNED, token_grace_s=0.5)), mint(alice, ttl=60))
    await phone.say(type="auth", token=mint(alice, ttl=60), ref=1)
    await phone.say(type="auth", token=mint(alice, ttl=0.3), ref=2)
    await phone.wait("authorised", ref=2)
    await refused(phone, "expired", 4102)


async def test_notices_of_the_past_end_nobody(net: Net, start_node: StartNode, database: Server, alice: str) -> None:
    store = await open_store(database.url)
    try:
        await store.tell_nodes(Notice("disconnect", user=alice))
    finally:
        await store.close()
    phone = await come(net.at(start_node(**SIGNED, audit_s=58)), mint(alice))
    assert (await phone.send(f"user:{alice}", 1))["type"] == "sent"


# -- pages of other origins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origins", "origin", "may"),
    [
        ("", None, True),
        ("", "http://{host}", True),
        ("", "https://{host}", True),  # behind a proxy that ends TLS
        ("", "http://elsewhere.example", False),
        ("", "http://127.0.0.1:1", False),
        ("", "null", False),
        ("", "http://{host}.elsewhere.example", False),
        ("https://app.example, https://other.example:8443", "https://other.example:8443", True),
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example.elsewhere", False),
        ("*", "https://anywhere.example", True),
    ],
)
async def test_a_page_may_come_from_our_own_origin_or_one_that_is_listed(
    net: Net, start_node: StartNode, alice: str, origins: str, origin: str | None, *, may: bool
) -> None:
    node = start_node(**SIGNED, origins=origins)
    headers = bearer(mint(alice))
    if origin is not None:
        headers["Origin"] = origin.format(host=node.url.removeprefix("http://"))
    phone = await net.at(node).dial(None, additional_headers=headers)
    if may:
        await phone.say(type="hello")
        await phone.wait("live")
    else:
        await refused(phone, "forbidden", 4105)


@pytest.mark.parametrize(
    ("origin", "may"), [("http://localhost:3000", True), ("http://127.0.0.1:9", True), ("http://a.example", False)]
)
async def test_in_dev_mode_pages_of_this_machine_may_come(net: Net, alice: str, origin: str, *, may: bool) -> None:
    phone = await net.dial(alice, additional_headers={"Origin": origin})
    if may:
        await phone.say(type="hello")
        await phone.wait("live")
    else:
        await refused(phone, "forbidden", 4105)


async def test_in_dev_mode_a_name_that_was_made_to_lead_here_is_not_our_own(net: Net, alice: str) -> None:
    headers = {"Origin": "http://rebound.example", "Host": "rebound.example"}
    bare = await net.bare(f"/v1/connect?user={alice}", **headers)
    assert json.loads((await bare.read())[1])["code"] == "forbidden"
    opcode, payload = await bare.read()
    assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, 4105)
