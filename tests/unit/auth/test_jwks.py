"""The keys that an issuer publishes, fetched from a real HTTP server on this machine."""

import asyncio
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import URLError
from urllib.request import Request

import msgspec
import pytest

from service.auth import jwks as module
from service.auth.jwks import Jwks, parse
from service.auth.tokens import Tokens
from service.config import load
from service.errors import Unavailable, WaypostError
from tests.unit.auth.issuer import SECRET, jwk, public_pem, token

pytestmark = pytest.mark.anyio

TTL_S, PAUSE_S = 300.0, 10.0


class Issuer:
    """Publishes keys at `url`: `status`, `headers`, and `content` in pieces, once `may_answer` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.content = b""
        self.piece = 65_536  # bytes at a time; 1: slowly
        self.may_answer = threading.Event()
        self.may_answer.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.may_answer.wait(20)
                try:
                    is_moved = bool(issuer.headers) and self.path != "/keys"
                    self.send_response(200 if is_moved else issuer.status)
                    for name, value in ({} if is_moved else issuer.headers).items():
                        self.send_header(name, value)
                    self.send_header("Connection", "close")
                    self.end_headers()
                    for begin in range(0, len(issuer.content), issuer.piece):
                        self.wfile.write(issuer.content[begin : begin + issuer.piece])
                        if issuer.piece == 1:
                            time.sleep(0.02)
                except OSError:
                    pass  # whoever asked has had enough

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library has it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # its end waits for them
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def publish(self, *members: object) -> None:
        self.content = json.dumps({"keys": members}).encode()

    def stop(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    issuer.publish(jwk("ES256", kid="one"), jwk("EdDSA", kid="two"))
    yield issuer
    issuer.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def published(issuer: Issuer, clock: Clock) -> Jwks:
    return Jwks(issuer.url, ttl_s=TTL_S, pause_s=PAUSE_S, now=clock)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it happens in a thread
            await asyncio.sleep(0.005)


async def algorithms(published: Jwks, kid: str | None) -> list[str]:
    return [key.algorithm for key in await published.keys(kid)]


async def test_they_are_fetched_once_and_kept(issuer: Issuer, published: Jwks) -> None:
    for _ in range(3):
        assert await algorithms(published, "one") == ["ES256"]
        assert await algorithms(published, "two") == ["EdDSA"]
        assert await algorithms(published, None) == ["ES256", "EdDSA"]
    assert issuer.asked == ["/keys"]


async def test_many_who_wait_share_one_fetch(issuer: Issuer, published: Jwks) -> None:
    issuer.may_answer.clear()
    waiting = [
        asyncio.create_task(algorithms(published, kid)) for kid in ("one", "two", None, "three") for _ in range(25)
    ]
    await until(lambda: issuer.asked)
    waiting.pop(0).cancel()  # one who goes away takes nobody along
    issuer.may_answer.set()
    answers = await asyncio.gather(*waiting)
    assert answers == 24 * [["ES256"]] + 25 * [["EdDSA"]] + 25 * [["ES256", "EdDSA"]] + 25 * [[]]
    assert len(issuer.asked) == 1


async def test_the_loop_goes_on_while_the_issuer_takes_its_time(issuer: Issuer, published: Jwks) -> None:
    issuer.may_answer.clear()
    waiting = asyncio.create_task(algorithms(published, "one"))
    await until(lambda: issuer.asked)
    begin = time.monotonic()
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert time.monotonic() - begin < 2
    assert not waiting.done()
    issuer.may_answer.set()
    assert await waiting == ["ES256"]


async def test_an_old_set_is_fetched_again_and_nobody_waits(issuer: Issuer, published: Jwks, clock: Clock) -> None:
    assert await algorithms(published, "one") == ["ES256"]
    issuer.publish(jwk("RS256", kid="one"))
    issuer.may_answer.clear()
    clock.now += TTL_S
    assert await algorithms(published, "one") == ["ES256"]
    await until(lambda: len(issuer.asked) == 2)
    assert await algorithms(published, "one") == ["ES256"]
    issuer.may_answer.set()
    await until(lambda: published._fetching is not None and published._fetching.done())
    assert await algorithms(published, "one") == ["RS256"]
    assert await algorithms(published, "two") == []  # withdrawn
    assert len(issuer.asked) == 2


async def test_an_unknown_id_is_asked_for_at_once(issuer: Issuer, published: Jwks, clock: Clock) -> None:
    await published.keys("one")
    issuer.publish(jwk("ES256", kid="one"), jwk("RS256", kid="new"))
    clock.now += PAUSE_S
    assert await algorithms(published, "new") == ["RS256"]
    assert len(issuer.asked) == 2


async def test_made_up_ids_do_not_reach_the_issuer(issuer: Issuer, published: Jwks, clock: Clock) -> None:
    for nth in range(200):
        assert await published.keys(f"made-up-{nth}") == []
    assert len(issuer.asked) == 1
    clock.now += PAUSE_S - 0.1
    assert await published.keys("another") == []
    assert len(issuer.asked) == 1
    clock.now += 0.1
    for nth in range(200):
        assert await published.keys(f"made-up-{nth}") == []
    assert len(issuer.asked) == 2


async def test_while_there_never_were_keys(
    issuer: Issuer, published: Jwks, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.status = 500
    for _ in range(5):
        with pytest.raises(Unavailable) as caught:
            await published.keys("one")
        assert (caught.value.retry, caught.value.retry_after) == (True, PAUSE_S)
    assert len(issuer.asked) == 1
    assert [record.getMessage() for record in caplog.records] == ["jwks_not_fetched"]
    issuer.status = 200
    clock.now += PAUSE_S
    assert await algorithms(published, "one") == ["ES256"]


async def test_a_fetch_that_fails_leaves_what_there_is(
    issuer: Issuer, published: Jwks, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await published.keys("one")
    issuer.content = b"<html>"
    clock.now += TTL_S
    assert await algorithms(published, "one") == ["ES256"]
    await until(lambda: caplog.records)
    assert [record.getMessage() for record in caplog.records] == ["jwks_not_fetched"]
    assert await algorithms(published, "one") == ["ES256"]
    # Who knows whether that key exists: nobody is told that it does not.
    with pytest.raises(Unavailable):
        await published.keys("new")
    issuer.publish(jwk("ES256", kid="new"))
    clock.now += PAUSE_S
    assert await algorithms(published, "new") == ["ES256"]


async def test_nobody_listens_there(clock: Clock) -> None:
    published = Jwks("http://127.0.0.1:1/keys", ttl_s=TTL_S, pause_s=PAUSE_S, now=clock)
    with pytest.raises(Unavailable):
        await published.keys(None)


@pytest.mark.parametrize("what", ["nothing", "one byte at a time"])
async def test_an_issuer_that_takes_for_ever(
    issuer: Issuer, published: Jwks, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.2)
    if what == "nothing":
        issuer.may_answer.clear()
    else:
        issuer.piece = 1
    with pytest.raises(Unavailable):
        await published.keys("one")
    assert len(issuer.asked) == 1


async def test_an_answer_that_is_too_large(issuer: Issuer, published: Jwks, caplog: pytest.LogCaptureFixture) -> None:
    issuer.content += b" " * module.ANSWER_BYTES_MAX
    with pytest.raises(Unavailable):
        await published.keys("one")
    assert "more than 1048576 bytes" in caplog.records[0].__dict__["fields"]["error"]


async def test_a_redirect_is_followed(issuer: Issuer, published: Jwks) -> None:
    issuer.status, issuer.headers = 302, {"Location": "/elsewhere"}
    assert await algorithms(published, "one") == ["ES256"]
    assert issuer.asked == ["/keys", "/elsewhere"]


@pytest.mark.parametrize(
    "location", ["file:///etc/hostname", "ftp://127.0.0.1/keys", "data:application/json,{}", "/keys"]
)
async def test_a_redirect_that_leads_astray_is_not(issuer: Issuer, published: Jwks, location: str) -> None:
    issuer.status, issuer.headers = 302, {"Location": location}
    with pytest.raises(Unavailable):
        await published.keys("one")
    assert len(issuer.asked) <= 11


def test_from_https_no_redirect_leads_to_http() -> None:
    handler = module._SameScheme()
    request = Request("https://id.example/keys")
    with pytest.raises(URLError, match="another scheme"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "http://id.example/keys")
    for begin, end in (("https://a/", "https://b/"), ("http://a/", "https://b/"), ("http://a/", "http://b/")):
        assert handler.redirect_request(Request(begin), io.BytesIO(), 302, "Found", {}, end) is not None


def test_members_that_are_for_something_else_are_skipped() -> None:
    good = [jwk("ES256", kid="a"), jwk("RS256"), jwk("EdDSA", kid=7), jwk("ES256-2", use="sig", alg="ES256", kid="b")]
    good += [jwk("RS256-2", key_ops=["verify", "sign"], kid="c", d="AQAB")]
    others: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
        jwk("RSA1024"),
        jwk("P384"),
        jwk("Ed448"),
        jwk("ES256", use="enc"),
        jwk("RS256", alg="RS512"),
        jwk("RS256", alg="HS256"),
        jwk("ES256", key_ops=["encrypt"]),
        jwk("ES256", key_ops="verify"),
        jwk("ES256", x="!"),
        jwk("ES256", x=None),
        jwk("EdDSA", x="AAAA"),
        {"kty": "RSA"},
        {"kty": ["RSA"]},
        {},
        [],
        None,
        "x",
    ]
    found = parse(json.dumps({"keys": [*others, *good]}).encode())
    assert [(kid, key.algorithm) for kid, key in found] == [
        ("a", "ES256"),
        (None, "RS256"),
        (None, "EdDSA"),
        ("b", "ES256"),
        ("c", "RS256"),
    ]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b"\xff", b'{"keys":["\xff"]}']
)
def test_what_is_no_set(content: bytes) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        parse(content)


def test_a_set_of_too_many() -> None:
    with pytest.raises(ValueError, match="more than 100 keys"):
        parse(json.dumps({"keys": [{}] * 101}).encode())


async def test_a_set_without_keys_is_an_answer(
    issuer: Issuer, published: Jwks, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await published.keys("one")
    issuer.publish()
    clock.now += PAUSE_S
    assert await published.keys("new") == []
    assert await published.keys("one") == []
    assert [record.getMessage() for record in caplog.records] == ["jwks_without_keys"]


# -- with tokens -------------------------------------------------------------------------------------------------------


async def refused(tokens: Tokens, shown: str) -> str:
    with pytest.raises(WaypostError) as caught:
        await tokens.principal(shown)
    assert caught.value.code == "unauthorised"
    return caught.value.detail


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_tokens_by_their_key_id(issuer: Issuer, kind: str) -> None:
    issuer.publish(jwk(kind, kid="one"), jwk(f"{kind}-2", kid="two"))
    tokens = Tokens(load({"WAYPOST_JWT_JWKS_URL": issuer.url}))
    assert (await tokens.principal(token(kind, headers={"kid": "one"}))).user == "alice"
    assert (await tokens.principal(token(f"{kind}-2", headers={"kid": "two"}))).user == "alice"
    assert (await tokens.principal(token(f"{kind}-2"))).user == "alice"  # without an id: whichever fits
    for shown in (token(kind, headers={"kid": "two"}), token(kind, headers={"kid": "three"}), token(f"{kind}-3")):
        assert await refused(tokens, shown) == "the token's signature is of none of our keys"
    assert "not signed with one of RS256, ES256, EdDSA" in await refused(tokens, token("HS256", headers={"kid": "one"}))
    assert len(issuer.asked) == 1


async def test_an_id_chooses_a_key_and_no_algorithm(issuer: Issuer) -> None:
    issuer.publish(jwk("RS256", kid="one"))
    tokens = Tokens(load({"WAYPOST_JWT_JWKS_URL": issuer.url}))
    assert (
        await refused(tokens, token("ES256", headers={"kid": "one"})) == "the token's signature is of none of our keys"
    )


async def test_a_file_and_a_url_and_secrets_together(issuer: Issuer, tmp_path: Any) -> None:  # noqa: ANN401
    path = tmp_path / "keys.pem"
    path.write_text(public_pem("ES256-2"))
    issuer.status = 500
    tokens = Tokens(
        load({"WAYPOST_JWT_JWKS_URL": issuer.url, "WAYPOST_JWT_KEYS": str(path), "WAYPOST_JWT_SECRETS": SECRET})
    )
    # What needs no issuer does not wait for one.
    assert (await tokens.principal(token("ES256-2", headers={"kid": "x"}))).user == "alice"
    assert (await tokens.principal(token())).user == "alice"
    assert issuer.asked == []
    with pytest.raises(Unavailable):
        await tokens.principal(token("ES256", headers={"kid": "one"}))


async def test_what_is_logged_names_no_token(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="waypost")
    shown = token("ES256", headers={"kid": "one"})
    tokens = Tokens(load({"WAYPOST_JWT_JWKS_URL": issuer.url}))
    await tokens.principal(shown)
    await refused(tokens, shown[:-4])
    said = [str(record.__dict__.get("fields")) for record in caplog.records if record.name.startswith("waypost")]
    assert said == ["{'count': 2}"]


@pytest.mark.parametrize("content", [b'{"keys":' + b"[" * 100_000, b'{"a":' * 50_000], ids=["lists", "objects"])
def test_a_set_that_nests_without_an_end_is_none(content: bytes) -> None:
    """It must not pass for an error of ours: the keys that there were stay, as after any answer that is none."""
    with pytest.raises(ValueError, match="brackets within brackets"):
        parse(content)
