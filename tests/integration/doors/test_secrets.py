"""What must stand in no log and in no answer: every secret that a node knows, or is shown, at the chattiest level."""

import asyncio
import functools
import json
import time
from collections.abc import Mapping

import jwt
import pytest

from migrations import __main__ as migrations
from tests.certificates import CERTIFICATES, KEY_PASSWORD
from tests.integration.doors.raw import UPGRADE, Raw, ask
from tests.integration.store.kit import Server, wait_until
from tests.service import NodeProcess, Phone, free_port
from tests.tokens import bearer, mint, new_key
from tests.worker import WorkerProcess

pytestmark = pytest.mark.anyio

SECRETS = ("first-secret-of-the-issuer-0123456789", "second-secret-of-the-issuer-987654321")
PASSWORD = "the-password-of-redis-0123"
BODY = "a body that is nobody else's business"


class Answers:
    """Every answer that came."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.all = b""

    async def http(self, query: str = "", *headers: str, path: str = "/v1/streams", body: bytes = b"") -> int:
        method = f"POST {path}" if body else f"GET {path}"
        length = [f"Content-Length: {len(body)}"] if body else []
        said = await ask(self.node, f"{method}{query} HTTP/1.1", "Host: 127.0.0.1", *headers, *length, body=body)
        self.all += said.body + json.dumps(said.headers).encode()
        return said.status

    async def wire(
        self,
        query: str = "",
        *frames: dict[str, object],
        path: str = "/v1/connect",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if query:
            raw = await Raw.open(self.node)
            await raw.say("\r\n".join((f"GET {path}{query} HTTP/1.1", *UPGRADE, "", "")).encode())
            await raw.answer()
            try:
                async with asyncio.timeout(0.1):
                    while part := await raw.reader.read(65_536):
                        self.all += part
            except (TimeoutError, OSError):
                pass
            await raw.close()
            return
        phone = await Phone.dial(self.node.url, None, ssl=self.node.trust, additional_headers=headers)
        for frame in frames:
            try:
                await phone.say(**frame)
            except Exception:  # noqa: BLE001 - it may have been closed already
                break
        try:
            await phone.ends(0.1)
        except TimeoutError:
            pass
        self.all += json.dumps(phone.frames).encode() + str(phone.closed).encode()
        await phone.leave()


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_secret_is_said(log_format: str) -> None:
    port = free_port()
    with Server("valkey", "--port", str(port)) as server:
        await migrations.up(server.url)
        server.admin.execute_command("ACL", "SETUSER", "waypost", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        url = f"redis://waypost:{PASSWORD}@127.0.0.1:{port}/0"
        key, key_id = await new_key(server.url, "send", "read")
        settings = {
            "dev": 0,
            "jwt_secrets": ",".join(SECRETS),
            "log_level": "debug",
            "log_format": log_format,
            "ssl_certfile": CERTIFICATES.server,
            "ssl_keyfile": CERTIFICATES.server_key_encrypted,
            "ssl_keyfile_password": KEY_PASSWORD,
            "token": mint("operator", secret=SECRETS[0]),
            "token_grace_s": 0.1,
            "hello_timeout_s": 0.5,
            "beat_s": 0.2,
            "not_ready_s": 1,
            "mailbox_ttl_s": 2,
        }
        node = NodeProcess(url, "discreet", **settings)
        worker = WorkerProcess(
            url, log_level="debug", log_format=log_format, jobs_retention_every="1s", jwt_secrets=",".join(SECRETS)
        )
        tokens = {
            "good": mint("alice", secret=SECRETS[0]),
            "older": mint("alice", secret=SECRETS[1]),
            "forged": mint("alice", secret="x" * 40),
            "expired": mint("alice", secret=SECRETS[0], ttl=-60),
            "another's": mint("bob", secret=SECRETS[0]),
            "for nobody": mint("alice", secret=SECRETS[0], aud="someone-else"),
            "with an odd claim": mint("alice", secret=SECRETS[0], groups={"secret-claim-0815": 1}),
            "short-lived": mint("alice", secret=SECRETS[0], ttl=0.3),
            "unsigned": jwt.encode({"sub": "alice", "exp": time.time() + 60}, "", algorithm="none"),
            "key": key,
            "wrong key": key[:-4] + "AAAA",
            "no key": "wpk_0123456789ab_" + "Q" * 43,
            "rubbish": "rubbish-that-may-be-a-password",
        }
        try:
            node.start()
            worker.start()
            said = Answers(node)
            statuses = set()

            async def show(token: str) -> None:
                statuses.add(await said.http("", f"Authorization: Bearer {token}"))
                statuses.add(await said.http("", f"Authorization: Basic {token}"))
                statuses.add(await said.http(f"?token={token}"))
                statuses.add(await said.http(f"?token={token}", path=f"/v1/streams/{token}/messages"))
                statuses.add(await said.http(f"?token={token}", path="/v1/messages", body=f'{{"to":"{token}"'.encode()))
                statuses.add(await said.http(f"?token={token}&token={token}"))
                statuses.add(await said.http(f"?token={token}", path=f"/nothing/{token}"))
                statuses.add(await said.http("", f"Referer: https://a.example/?{token}"))
                await said.wire(f"?token={token}")
                await said.wire(f"?token={token}", path="/chat/channel/alice")
                await said.wire("", {"type": "hello", "token": token}, {"type": "auth", "ref": 1, "token": token})
                await said.wire("", {"type": "hello"}, headers=bearer(token))

            await asyncio.gather(*map(show, tokens.values()))
            assert statuses >= {200, 400, 401}
            shown = bearer(mint("alice", secret=SECRETS[0]))
            for nth, token in enumerate(tokens.values()):
                phone = await Phone.dial(node.url, None, ssl=node.trust, additional_headers=shown)
                await phone.say(type="hello")
                await phone.wait("live")
                await phone.say(type="auth", ref=nth, token=token)
                await phone.until(functools.partial(phone.answer_to, nth), "an answer")
                said.all += json.dumps(phone.frames).encode()
            phone = await Phone.dial(node.url, None, ssl=node.trust, additional_headers=shown)
            await phone.say(type="hello")
            await phone.wait("live")
            sent = await phone.send("user:alice", BODY)
            await phone.say(type="send", ref="bad", to=BODY, body=1)
            server.kill()
            await asyncio.to_thread(wait_until, lambda: not node.is_ready(), "it notices")
            server.start()  # without that user: it refuses the password
            await asyncio.to_thread(wait_until, lambda: len(server.admin.acl_log()) > 0, "it is refused")
            await said.http("", f"Authorization: Bearer {key}")
            said.all += json.dumps(phone.frames).encode()
            assert sent["type"] == "sent"
            logged = node.said() + worker.said()
            signatures = [
                token.rsplit(".", 1)[-1] for name, token in tokens.items() if "." in token and name != "unsigned"
            ]
            secret_part = key.rsplit("_", 1)[-1]
            hidden = [*SECRETS, PASSWORD, KEY_PASSWORD, *tokens.values(), *signatures, secret_part, "secret-claim-0815"]
            for secret in hidden:
                assert secret not in logged, f"{secret!r} is in the log"
            answered = said.all.decode(errors="replace")
            for secret in (*SECRETS, PASSWORD, KEY_PASSWORD, *signatures, secret_part, "secret-claim-0815"):
                assert secret not in answered, f"{secret!r} is in an answer"
            assert BODY not in logged
            assert "Traceback" not in logged, logged
            assert key_id not in answered
            assert node.stop() == 0
        finally:
            await Phone.hang_up_all()
            node.remove()
            worker.remove()
