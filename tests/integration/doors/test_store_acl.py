"""Redis over TLS, with a client certificate, as users of exactly the two ACL lines that the docs give."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from service.store import acl
from tests.certificates import CERTIFICATES
from tests.integration.http.web import Caller, path_of
from tests.integration.store.kit import Server, binary, wait_until
from tests.service import NodeProcess, Phone, free_port
from tests.worker import WorkerProcess

ROOT = Path(__file__).parents[3]
PASSWORDS = {"waypost": "of:the/nodes@and#workers", "waypost-admin": "of-the-operators"}
ESCAPED = {"waypost": "of%3Athe%2Fnodes%40and%23workers", "waypost-admin": "of-the-operators"}
TEXTS = [path.read_text() for path in (*ROOT.glob("service/store/*.py"), *ROOT.glob("service/store/lua/*.lua"))]
TEXTS += [path.read_text() for path in ROOT.glob("migrations/*.py")]


class Guarded(NamedTuple):
    """A server with those users, and where each finds it."""

    server: Server
    urls: dict[str, str]


def lines() -> dict[str, str]:
    """The ACL lines in docs/security.md, by user."""
    found = re.findall(
        r"^ *(user (waypost(?:-admin)?) on .*)$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE
    )
    return {user: line for line, user in found}


def test_the_docs_have_the_lines_of_the_code() -> None:
    expected = {"waypost": acl.line("waypost", acl.SERVICE), "waypost-admin": acl.line("waypost-admin", acl.ADMIN)}
    assert lines() == expected, "copy into docs/security.md:\n" + "\n".join(expected.values())


def test_nothing_is_granted_that_is_not_called() -> None:
    code = "\n".join(TEXTS)
    connecting = {"client|setname", "select"}  # redis-py says them, and the second where the URL has a number
    for command in {*acl.SERVICE, *acl.ADMIN} - connecting:
        name, _, sub = command.upper().partition("|")
        called = rf"""["']{name}["']""" + (rf""",\s*["']{sub}["']""" if sub else "")
        assert re.search(called, code), f"take {command} out of service/store/acl.py"


def test_everything_that_functions_call_is_granted() -> None:
    lua = "\n".join(path.read_text() for path in ROOT.glob("service/store/lua/*.lua"))
    called = re.findall(r"redis\.p?call\('(\w+)'(?:, *'(\w+)')?", lua)
    assert len(called) > 100
    granted = {command.upper().partition("|")[::2] for command in acl.SERVICE}
    lacking = {(name, sub) for name, sub in called if not {(name, ""), (name, sub)} & granted}
    assert not lacking, "grant them in service/store/acl.py"


@pytest.fixture(scope="module", params=["valkey", "redis"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Valkey as it comes has no TLS; Debian's Redis has."""
    if binary(request.param) is None:
        pytest.skip("redis-server is not on the PATH")
    users = tmp_path_factory.mktemp("acl") / "users.acl"
    given = [line.replace("<password>", PASSWORDS[user]) for user, line in lines().items()]
    users.write_text("\n".join(("user default on nopass ~* &* +@all", *given, "")))
    options = ["--aclfile", str(users)]
    port = free_port()
    if request.param == "redis":
        options += ["--tls-port", str(port), "--tls-cert-file", CERTIFICATES.server, "--tls-auth-clients", "yes"]
        options += ["--tls-key-file", CERTIFICATES.server_key, "--tls-ca-cert-file", CERTIFICATES.ca]
    with Server(request.param, *options) as server:
        urls = {}
        for user, password in ESCAPED.items():
            certificate, key = CERTIFICATES.client
            tls = f"ssl_ca_certs={CERTIFICATES.ca}&ssl_certfile={certificate}&ssl_keyfile={key}"
            urls[user] = f"rediss://{user}:{password}@127.0.0.1:{port}/0?{tls}"
            if request.param == "valkey":
                urls[user] = f"unix://{user}:{password}@{server.socket}"
        yield Guarded(server, urls)


def denied(server: Server) -> list[str]:
    return [f"{row['username']}: {row['object']}" for row in server.admin.acl_log()]


def waypost(url: str, *words: str, code: int = 0) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    command = [sys.executable, "-m", "service", *words]
    done = subprocess.run(
        command, env={**environ, "WAYPOST_REDIS_URL": url}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.mark.anyio
async def test_everything_works_with_exactly_these_commands(guarded: Guarded) -> None:
    server, urls = guarded
    server.admin.acl_log_reset()
    assert "new store" in waypost(urls["waypost-admin"], "migrate", "up")
    assert "schema: 1" in waypost(urls["waypost-admin"], "migrate", "status")
    made = json.loads(waypost(urls["waypost-admin"], "key", "new", "--scope", "send,read,groups,admin", "--json"))
    settings = {
        "wait_replicas": 1,
        "wait_timeout_ms": 10,
        "mailbox_ttl_s": 2,
        "not_ready_s": 1,
        "beat_s": 0.2,
        "audit_s": 1,
        "detach_linger_s": 0.1,
        "limits_user_sends_per_s": 50,
    }
    node = NodeProcess(urls["waypost"], "guarded", **settings)
    policies = Path(server.folder, "waypost.toml")
    policies.write_text(  # noqa: ASYNC240 - a line
        '[[retention.policies]]\nmatch = "user:*"\nmax_entries = 5\nhold_unread = "1d"\n'
        '[[retention.policies]]\nmatch = "group:*"\nmax_bytes = 2000\n'
    )
    worker = WorkerProcess(urls["waypost"], config=policies, jobs_retention_every="1s", jobs_audit_every="1s")
    try:
        node.start()
        worker.start()
        alice, bob = await Phone.open(node.url, "alice"), await Phone.open(node.url, "bob")
        for phone in (alice, bob):
            await phone.say(type="join", ref=f"join-{phone.user}", group="g")
            await phone.wait("joined", ref=f"join-{phone.user}")
        sent = await alice.send("user:bob", "hello", key="k1")
        assert (await alice.send("user:bob", "hello", key="k1"))["duplicate"]
        assert (await bob.wait("message", stream="user:bob"))["body"] == "hello"
        await alice.send_all("group:g", ["x" * 500] * 20)
        assert (await alice.send("all", "to all"))["type"] == "sent"
        await bob.until(lambda: len(bob.messages("group:g")) == 20, "the group's messages")
        await bob.acknowledge(bob.last_ids())
        await bob.say(type="history", ref="h", stream="user:bob", limit=10, **{"with": "alice"})
        assert (await bob.wait("history"))["messages"]
        caller = Caller(node, "alice")
        assert (await caller("DELETE", path_of("streams", sent["stream"], "messages", sent["id"]))).status == 200
        await bob.wait("redacted")
        keyed = Caller(node, token=made["key"])
        assert (await keyed("PUT", path_of("groups", "h"), {"open": False})).status == 201
        await keyed.put_in("h", "carol")
        looks = (
            "streams?facts=1",
            "nodes",
            "streams/group:g",
            "streams/group:g/entries",
            "streams/all",
            "jobs",
            "audit",
        )
        for path in (*looks, "users/bob/devices", "survey", "retention/plan", "why?stream=group:g&id=1-1&user=bob"):
            assert (await keyed("GET", f"/v1/admin/{path}")).status == 200
        assert (await keyed("POST", "/v1/messages", {"to": "user:carol", "from": "dave", "body": 1})).status == 201
        assert (await keyed("DELETE", path_of("groups", "h"))).status in (200, 204)
        assert (await keyed("DELETE", "/v1/admin/users/carol/connections")).status in (200, 202, 204)
        await bob.say(type="leave", ref="l", group="g")
        await bob.wait("left", ref="l")
        await bob.leave()
        back = await Phone.open(node.url, "bob")
        assert back.welcome()["streams"]["user:bob"]
        for job in ("retention", "devices", "groups", "audit", "survey"):
            assert "done" in waypost(urls["waypost"], "worker", "--once", job)
        waypost(urls["waypost"], "retention", "plan")
        for user in urls.values():
            for command in (
                "streams",
                "streams --sort lag",
                "show group:g",
                "show all",
                "devices bob",
                "nodes",
                "jobs",
            ):
                waypost(user, *command.split())
            waypost(user, "why", "group:g", "1-1", "bob")
            assert "group_end" in waypost(user, "audit")
        assert "revoked" in waypost(urls["waypost-admin"], "key", "revoke", made["id"])
        assert made["id"] not in waypost(urls["waypost-admin"], "key", "list")
        assert (await keyed("GET", "/v1/admin/nodes")).status == 401

        server.kill()  # the node reconciles with the server that comes after it
        wait_until(lambda: not node.is_ready(), "it notices", 20)
        server.start()
        wait_until(node.is_ready, "it is ready again", 20)
        again = await Phone.open(node.url, "alice")
        assert (await again.send("user:bob", "after the restart"))["type"] == "sent"
        assert denied(server) == []
        assert "NOPERM" not in node.said() + worker.said()
        wait_until(node.is_ready, "it stays ready")
        assert await asyncio.to_thread(node.stop) == 0
        assert worker.stop() == 0
        assert denied(server) == []
    finally:
        await Phone.hang_up_all()
        node.remove()
        worker.remove()


def test_what_is_outside_is_refused(guarded: Guarded) -> None:
    for url in guarded.urls.values():
        client = redis.Redis.from_url(url, protocol=2)
        try:
            for command in acl.DANGEROUS:
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command)  # type: ignore[no-untyped-call]
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.publish("wp:anything", "x")
        finally:
            client.close()


def test_a_wrong_password_or_authority_is_said_without_the_password(guarded: Guarded) -> None:
    url = guarded.urls["waypost-admin"]
    said = waypost(url.replace("of-the-operators", "of-the-burglars"), "migrate", "status", code=1)
    assert "burglars" not in said
    assert "invalid username-password" in said or "WRONGPASS" in said or "cannot connect" in said
    if url.startswith("rediss"):
        said = waypost(url.replace(CERTIFICATES.ca, CERTIFICATES.other[0]), "migrate", "status", code=1)
        assert "cannot connect to the store" in said
        said = waypost(url.replace(CERTIFICATES.ca, "/nowhere/ca.pem"), "migrate", "status", code=1)
        assert "cannot read ssl_ca_certs of the store's URL, /nowhere/ca.pem: No such file or directory" in said
    for wrong in ("redis://:se/cret@127.0.0.1/0", "redis://127.0.0.1/0?ssl_no_such=se/cret"):
        assert "se/cret" not in waypost("", "migrate", "status", "--redis-url", wrong, code=1)
