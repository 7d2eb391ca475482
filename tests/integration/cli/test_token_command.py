"""`waypost token` as its user meets it, and whether what it prints signs in."""

import json
import time
from pathlib import Path

import pytest

from service.auth import Credentials, Principal, SignIn
from service.config import load
from service.core.server_keys import ServerKey
from service.embedded import DataFolder
from tests.integration.cli.test_client_commands import run
from tests.unit.auth.issuer import OTHER_SECRET, SECRET, public_pem
from tests.unit.client.fake import Conversation, Fake

pytestmark = pytest.mark.anyio


async def no_key(_key_id: str) -> ServerKey | None:
    return None


async def whose(token: str, **variables: str) -> Principal | None:
    """Whom the token signs in at a server with these settings."""
    return await SignIn(load(variables), no_key).by(Credentials(authorization=f"Bearer {token}"))


async def test_a_token_for_an_hour() -> None:
    begin = int(time.time())
    code, [token], errors = await run("token", "--user", "alice", WAYPOST_JWT_SECRETS=f"{SECRET},{OTHER_SECRET}")
    assert (code, errors) == (0, [])
    principal = await whose(token, WAYPOST_JWT_SECRETS=SECRET)  # the first one signs
    assert principal is not None
    assert principal.expires_at is not None
    assert begin + 3600 <= principal.expires_at <= time.time() + 3600
    assert principal == Principal(user="alice", expires_at=principal.expires_at)


async def test_all_that_it_can_say() -> None:
    given = {"WAYPOST_JWT_SECRETS": SECRET, "WAYPOST_JWT_AUDIENCE": "chat", "WAYPOST_JWT_ISSUER": "us"}
    words = ["--device", "phone", "--group", "g1", "--group", "team-*", "--broadcast", "--ttl", "5m", "--json"]
    code, [line], _ = await run("token", "--user", "zoë", *words, **given)
    said = json.loads(line)
    assert (code, said.keys(), said["user"]) == (0, {"token", "user", "expires_at"}, "zoë")
    assert await whose(said["token"], **given) == Principal(
        user="zoë",
        device="phone",
        groups=("g1", "team-*"),
        can_broadcast=True,
        expires_at=said["expires_at"],
    )
    assert 290 < said["expires_at"] - time.time() <= 300


async def test_the_secret_that_up_made(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    with folder.hold():
        secret = folder.make_secret()
    _, [token], _ = await run("token", "--user", "bob", WAYPOST_DATA_DIR=str(folder.path))
    principal = await whose(token, WAYPOST_JWT_SECRETS=secret)
    assert principal is not None
    assert principal.user == "bob"


async def test_nothing_to_sign_with(tmp_path: Path) -> None:
    code, out, [error] = await run("token", "--user", "bob", WAYPOST_DATA_DIR=str(tmp_path))
    assert (code, out) == (1, [])
    assert error == "waypost: no secret to sign with: set WAYPOST_JWT_SECRETS, or start `waypost up`, which makes one"
    (tmp_path / "keys.pem").write_text(public_pem("ES256"))
    code, out, [error] = await run("token", "--user", "bob", WAYPOST_JWT_KEYS=str(tmp_path / "keys.pem"))
    assert (code, out) == (1, [])
    assert error.startswith("waypost: tokens are signed elsewhere")


async def test_one_that_no_server_would_take() -> None:
    groups = [word for nth in range(100) for word in ("--group", f"{nth:0128}")]
    code, out, [error] = await run("token", "--user", "bob", *groups, WAYPOST_JWT_SECRETS=SECRET)
    assert (code, out) == (1, [])
    assert error == "waypost: above 8192 bytes no server takes it: name groups as PREFIX*"


# -- what clients do with one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "variables", "header"),
    [
        (("--token", "abc"), {}, "Bearer abc"),
        ((), {"WAYPOST_TOKEN": "abc"}, "Bearer abc"),
        (("--token", "abc"), {"WAYPOST_TOKEN": "def"}, "Bearer abc"),
        (("--user", "ann"), {}, None),
    ],
)
async def test_a_token_goes_into_the_header(
    words: tuple[str, ...], variables: dict[str, str], header: str | None
) -> None:
    shown = []

    async def look(conversation: Conversation) -> None:
        request = conversation.connection.request
        assert request is not None
        shown.append((request.headers.get("authorization"), request.path))
        await conversation.greet()
        await conversation.answer_sends()

    async with Fake(look) as fake:
        code, _, errors = await run("send", "--url", fake.url, *words, "all", "hi", **variables)
    assert (code, errors) == (0, [])
    assert shown == [(header, "/v1/connect" + ("?user=ann" if header is None else ""))]


async def test_who_are_you() -> None:
    code, out, [error] = await run("send", "all", "hi")
    assert (code, out) == (1, [])
    assert error.startswith("waypost: who are you? Give --user (the server is in dev mode) or --token")
