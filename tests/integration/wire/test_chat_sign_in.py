"""Who may in on `/chat/…`: as the setting `chat` has it; and what the sign-in allows there."""

from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from tests.integration.store.kit import Server
from tests.integration.wire.conftest import StartNode
from tests.integration.wire.kit import Chat, Net, add, call, direct
from tests.service import NodeProcess
from tests.tokens import SIGNED, mint

pytestmark = pytest.mark.anyio

PATHS = [["channel"], ["user"], ["group", "g"], ["all"]]


async def come(net: Net, *path: str, token: str = "") -> Chat:
    """Connects, and waits for nothing."""
    where = "/".join(["/chat", *(quote(part, safe="") for part in path)])
    return Chat(await net.bare(where + (f"?token={token}" if token else "")), is_ponging=True)


async def refused(chat: Chat, close: int, text: str) -> None:
    assert await chat.until_closed() == close
    assert len(chat.texts) == 1
    assert chat.texts[0].startswith("error: ")
    assert text in chat.texts[0]


@pytest.fixture
def signed(start_node: StartNode) -> NodeProcess:
    return start_node(**SIGNED)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[0])
async def test_without_dev_mode_a_token_of_the_user_is_asked_for(
    net: Net, signed: NodeProcess, alice: str, bob: str, path: list[str]
) -> None:
    net = net.at(signed)
    await refused(await come(net, *path, alice), 4101, "")
    await refused(await come(net, *path, alice, token=mint(bob)), 4101, "another user")
    await refused(
        await come(net, *path, alice, token=mint(alice, secret="of somebody else, whom nobody knows")), 4101, ""
    )
    await refused(await come(net, *path, alice, token=mint(alice, ttl=-1)), 4102, "expired")
    chat = await come(net, "channel", alice, token=mint(alice))
    chat.say(call("UserGroup", group=f"g-{alice}"))
    await chat.until(add(alice, f"g-{alice}"))


async def test_a_token_on_chat_allows_what_it_says(net: Net, signed: NodeProcess, alice: str, bob: str) -> None:
    net = net.at(signed)
    plain = await come(net, "channel", alice, token=mint(alice))
    speaker = await come(net, "channel", bob, token=mint(bob, broadcast=True))
    for chat, name in ((plain, alice), (speaker, bob)):
        chat.say(call("UserGroup", group=f"in-{name}"))  # they are in, before anything is sent
        await chat.until(add(name, f"in-{name}"))
    plain.say(call("All", body="may I?"))
    await plain.until_there_are(2)
    assert plain.texts[1].startswith("error: ")
    speaker.say(call("All", body="I may"))
    speaker.say(direct(alice, "and to you"))
    await plain.until_there_are(4)
    assert plain.texts[2:] == [f"user 【{bob}】 send all:I may", f"user {bob} send:and to you"]


async def test_a_token_that_expires_ends_a_chat_too(net: Net, start_node: StartNode, alice: str) -> None:
    chat = await come(net.at(start_node(**SIGNED, token_grace_s=0.5)), "channel", alice, token=mint(alice, ttl=0.5))
    assert await chat.until_closed() == 4102


async def test_a_token_that_binds_a_device_has_its_progress_there(
    net: Net, signed: NodeProcess, database: Server, alice: str
) -> None:
    chat = await come(net.at(signed), "channel", alice, token=mint(alice, device="old-phone"))
    chat.say(call("UserGroup", group=f"g-{alice}"))
    await chat.until(add(alice, f"g-{alice}"))
    [key] = database.admin.scan_iter(f"wp:*:d:{alice}")
    assert set(database.admin.hkeys(key)) == {b"old-phone"}


async def test_chat_may_be_open_without_dev_mode_and_then_speaks_not_to_everybody(
    net: Net, start_node: StartNode, alice: str
) -> None:
    chat = await come(net.at(start_node(**SIGNED, chat="open")), "channel", alice)
    chat.say(call("UserGroup", group=f"g-{alice}"))
    await chat.until(add(alice, f"g-{alice}"))
    chat.say(call("All", body="may I?"))
    await chat.until_there_are(2)
    assert chat.texts[1].startswith("error: ")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[0])
async def test_chat_may_be_off_and_asks_nobody_for_a_token_then(
    net: Net, start_node: StartNode, alice: str, path: list[str]
) -> None:
    net = net.at(start_node(chat="off", jwt_secrets=SIGNED["jwt_secrets"]))
    await refused(await come(net, *path, alice), 4105, "off")
    await refused(await come(net, *path, alice, token=mint(alice)), 4105, "off")


async def test_in_dev_mode_chat_may_ask_for_tokens(net: Net, start_node: StartNode, alice: str) -> None:
    net = net.at(start_node(chat="token", jwt_secrets=SIGNED["jwt_secrets"]))
    await refused(await come(net, "channel", alice), 4101, "")
    chat = await come(net, "channel", alice, token=mint(alice))
    chat.say(call("UserGroup", group=f"g-{alice}"))
    await chat.until(add(alice, f"g-{alice}"))


async def test_a_page_of_another_origin_may_not_chat(net: Net, alice: str) -> None:
    address = net.node.url.replace("http://", "ws://") + f"/chat/channel/{alice}"
    async with connect(address, origin=Origin("http://a.example")) as websocket:
        assert str(await websocket.recv()).startswith("error: ")
        await websocket.wait_closed()
    assert websocket.close_code == 4105
