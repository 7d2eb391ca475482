"""TLS at the nodes' own door: the same wire and the same HTTP, close codes, slow and broken clients among them."""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from service.client import Client, GaveUp
from tests.certificates import CERTIFICATES, KEY_PASSWORD
from tests.integration.doors.raw import UPGRADE
from tests.integration.http.web import check_problem, fetch, path_of
from tests.integration.store.kit import wait_until
from tests.integration.wire.conftest import StartNode
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio

TLS: dict[str, object] = {
    "ssl_certfile": CERTIFICATES.server,
    "ssl_keyfile": CERTIFICATES.server_key_encrypted,
    "ssl_keyfile_password": KEY_PASSWORD,
    "head_timeout_s": 1,
    "idle_close_s": 0.5,
    "limits_write_buffer_bytes": 65_536,
    "limits_ws_max_bytes": 200_000,
}


@pytest.fixture
def secure(start_node: StartNode) -> NodeProcess:
    return start_node(**TLS)


@pytest.fixture(autouse=True)
async def phones() -> AsyncIterator[None]:
    yield
    await Phone.hang_up_all()


async def dial(node: NodeProcess, user: str, *, receive_buffer: int = 0) -> Phone:
    return await Phone.dial(node.url, user, ssl=node.trust, receive_buffer=receive_buffer)


async def opened(node: NodeProcess, user: str, device: str = "default") -> Phone:
    phone = await dial(node, user)
    await phone.say(type="hello", device=device)
    await phone.wait("live")
    return phone


async def test_messages_and_http_pass(secure: NodeProcess, alice: str, bob: str) -> None:
    sender, receiver = await opened(secure, alice), await opened(secure, bob)
    body = "x" * 60_000  # several TLS records
    assert (await sender.send(f"user:{bob}", body))["type"] == "sent"
    assert (await receiver.wait("message"))["body"] == body
    asked = await fetch(secure, path_of("streams", f"user:{bob}", "messages") + f"?user={bob}")
    assert (asked.status, asked.json["messages"][0]["body"]) == (200, body)
    assert asked.headers["strict-transport-security"] == "max-age=31536000"
    assert receiver.welcome()["node"] == secure.name


async def test_the_client_trusts_the_authority_it_is_told(secure: NodeProcess, alice: str) -> None:
    phone = await opened(secure, alice)
    async with Client(secure.url, user=alice, device="library", ca_file=CERTIFICATES.ca) as client:
        await client.send(f"user:{alice}", "to myself")
        assert (await phone.wait("message"))["body"] == "to myself"
    async with Client(secure.url, user=alice) as client:
        with pytest.raises(GaveUp, match="cannot trust"):
            await client.send(f"user:{alice}", "never")
    with pytest.raises(ValueError, match="cannot read the authorities"):
        Client(secure.url, user=alice, ca_file=CERTIFICATES.server_key)
    with pytest.raises(ValueError, match="No such file"):
        Client(secure.url, user=alice, ca_file="/nowhere/ca.pem")


async def test_nothing_older_than_tls_1_2(secure: NodeProcess) -> None:
    def shake(least: ssl.TLSVersion, most: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=CERTIFICATES.ca)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version, context.maximum_version = least, most
        with (
            socket.create_connection(("127.0.0.1", secure.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as shaken,
        ):
            return shaken.version()

    assert await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


async def test_close_codes_arrive(secure: NodeProcess, alice: str) -> None:
    twice = await dial(secure, alice)
    await twice.websocket.send("no json")
    assert await twice.ends() == 4103
    large = await opened(secure, alice)
    await large.websocket.send("[" * 150_000)
    assert await large.ends() == 4104
    refused = await Phone.dial(secure.url, None, ssl=secure.trust)
    assert await refused.ends() == 4101


async def test_a_frame_that_the_library_refuses_is_told_though_more_is_coming(secure: NodeProcess, alice: str) -> None:
    """A client that reads when it has sent everything: of a socket that is closed under it it would read nothing."""
    assert secure.trust is not None
    upgrade = "\r\n".join((f"GET /v1/connect?user={alice} HTTP/1.1", *UPGRADE, "", "")).encode()

    def send_all_then_read(trust: ssl.SSLContext) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", secure.port), 10) as plain,
            trust.wrap_socket(plain, server_hostname="127.0.0.1") as shaken,
        ):
            shaken.sendall(upgrade)
            came = shaken.recv(65_536)
            shaken.sendall(b"\x81\xff" + (20_000_000).to_bytes(8, "big") + bytes(4) + b" " * 20_000_000)
            while part := shaken.recv(65_536):
                came += part
            return came

    for _ in range(3):
        assert (1009).to_bytes(2, "big") in await asyncio.to_thread(send_all_then_read, secure.trust)


async def test_a_client_that_drains_nothing_is_closed_and_resumes(secure: NodeProcess, alice: str, bob: str) -> None:
    sender, reader = await opened(secure, alice), await opened(secure, bob, "reads")
    stuck = await dial(secure, bob, receive_buffer=4096)
    await stuck.say(type="hello", device="stuck")
    await stuck.wait("live")
    stuck.stop_reading()
    pad = "y" * 20_000
    await sender.send_all(f"user:{bob}", [[at, pad] for at in range(300)])
    await reader.until(lambda: len(reader.messages()) == 300, "the other device has it all")
    await asyncio.sleep(1.2)  # no one waits for anything: this is how long it is silent
    stuck.go_on_reading()
    assert await stuck.ends() == 4001
    got = [body[0] for body in stuck.bodies()]
    assert got == list(range(len(got)))
    assert len(got) < 300
    again = await dial(secure, bob)
    await again.say(type="hello", device="stuck", offsets=stuck.last_ids())
    await again.wait("live")
    assert [body[0] for body in again.bodies()] == list(range(len(got), 300))
    assert (sender.closed, reader.closed) == (None, None)


async def test_what_is_no_tls_costs_nobody_anything(secure: NodeProcess) -> None:
    silent = [socket.create_connection(("127.0.0.1", secure.port)) for _ in range(20)]
    for nth, one in enumerate(silent):
        one.sendall([b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 100][nth % 4])
    assert (await fetch(secure, "/livez")).status == 200
    for one in silent:
        one.settimeout(5)
        with contextlib.suppress(ConnectionError):
            while one.recv(4096):  # perhaps an alert; then the end, after a second at the latest
                pass
        one.close()


async def test_heads_are_bounded_and_told(secure: NodeProcess) -> None:
    answer = await fetch(secure, "/livez", headers={"X-Large": "x" * 20_000})
    check_problem(answer, "head_too_large")


async def test_it_says_goodbye_to_everybody(database: object, secure: NodeProcess, alice: str) -> None:
    del database
    node = NodeProcess(secure.environ["WAYPOST_REDIS_URL"], "tls-leaves", **TLS)
    node.start()
    try:
        phone, silent = await opened(node, alice), socket.create_connection(("127.0.0.1", node.port))
        code = await asyncio.to_thread(node.stop)
        assert (code, await phone.ends()) == (0, 4002)
        silent.close()
        assert "Traceback" not in node.said()
        assert "drain_cut_short" not in node.said()
        assert re.search(r"serving url=https://127.0.0.1:\d+", node.said())
    finally:
        node.remove()


async def test_several_processes_and_the_command_line(secure: NodeProcess, alice: str) -> None:
    node = NodeProcess(secure.environ["WAYPOST_REDIS_URL"], "tls-many", **TLS)
    del node.environ["WAYPOST_SSL_CERTFILE"], node.environ["WAYPOST_SSL_KEYFILE"]
    options = ["--ssl-certfile", CERTIFICATES.server, "--ssl-keyfile", CERTIFICATES.server_key_encrypted]
    node.arguments = ["--processes", "2", *options]
    try:
        node.start()
        await asyncio.to_thread(wait_until, lambda: "all_ready" in node.said(), "all are ready", 20)
        seen = set()
        for _ in range(40):
            phone = await opened(node, alice)
            seen.add(phone.welcome()["node"])
            await phone.leave()
            if len(seen) == 2:
                break
        assert seen == {"tls-many-1", "tls-many-2"}
        assert await asyncio.to_thread(node.stop) == 0
    finally:
        node.remove()
