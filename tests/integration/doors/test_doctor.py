"""`waypost doctor`: each check on real servers and settings, as they should be and as they should not."""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest

from migrations import __main__ as migrations
from service import config
from service.cli import doctor, doctor_store
from service.cli.findings import Finding
from service.config import Settings
from service.embedded import DataFolder
from service.store import StoreOptions, acl
from service.store.diagnosis import Diagnosis, diagnose
from tests.certificates import CERTIFICATES
from tests.integration.store.kit import EPOCH_KEYS, Server, wait_until
from tests.integration.wire.conftest import StartNode
from tests.service import NodeProcess, free_port

GOOD = {"WAYPOST_JWT_SECRETS": "s" * 32}


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    """A migrated server that also listens on a port, to be spoilt and mended."""
    port = free_port()
    with Server("valkey", "--port", str(port), "--save", "") as server:
        asyncio.run(migrations.up(server.url))
        server.admin.config_set("maxmemory", "1gb")
        yield server


def port_of(server: Server) -> int:
    return int(server.options[1])


def examine(environ: Mapping[str, str], redis_url: str | None = None) -> dict[str, Finding]:
    """What doctor finds, by check."""
    settings = config.load({"WAYPOST_URL": f"http://127.0.0.1:{free_port()}", **environ})
    args = argparse.Namespace(redis_url=redis_url)
    found = asyncio.run(doctor._examine(args, settings))
    checks = [finding.check for finding in found]
    assert len(checks) == len(set(checks))
    assert all(finding.mend or finding.state == "ok" for finding in found)
    return {finding.check: finding for finding in found}


def states(found: Mapping[str, Finding]) -> dict[str, str]:
    return {check: finding.state for check, finding in found.items() if finding.state != "ok"}


def test_a_sound_deployment(database: Server, node: NodeProcess) -> None:
    database.admin.config_set("maxmemory", "1gb")
    before = database.admin.dbsize()
    try:
        found = examine({**GOOD, "WAYPOST_URL": node.url, "WAYPOST_REDIS_URL": database.url})
    finally:
        database.admin.config_set("maxmemory", "0")
    assert states(found) == {}
    assert len(found) > 20
    assert node.name in found["nodes"].text
    assert "ready" in found["url"].text
    assert database.admin.dbsize() == before


def test_the_docs_have_every_check(patient: Server) -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = text.partition("| check | bad when |")[2].partition("\n\n")[0]
    described = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`([^`]+)`", row.split("|")[1:2][0] if "|" in row else "")
    }
    checks = set(examine({**GOOD, "WAYPOST_REDIS_URL": patient.url})) | {"host"}
    assert described == checks, "mend the table of doctor in docs/operations.md"


@pytest.mark.parametrize(
    ("setting", "wrong", "right", "check", "state"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "eviction", "bad"),
        ("maxmemory", "1", "1gb", "memory", "bad"),
        ("maxmemory", "0", "1gb", "memory", "warn"),
        ("appendonly", "no", "yes", "disk", "bad"),
        ("appendfsync", "no", "always", "disk", "bad"),
        ("appendfsync", "everysec", "always", "disk", "warn"),
        ("no-appendfsync-on-rewrite", "yes", "no", "disk", "warn"),
    ],
)
def test_a_setting_of_the_server(
    patient: Server, setting: str, wrong: str, right: str, *, check: str, state: str
) -> None:
    patient.admin.config_set(setting, wrong)
    try:
        found = examine({**GOOD, "WAYPOST_REDIS_URL": patient.url})
    finally:
        patient.admin.config_set(setting, right)
    assert states(found) == {check: state, "nodes": "warn", "url": "warn"}
    wait_until(lambda: patient.admin.info("persistence")["aof_rewrite_in_progress"] == 0, "the file is written")


def test_replicas(patient: Server) -> None:
    environ = {**GOOD, "WAYPOST_REDIS_URL": patient.url}
    found = examine({**environ, "WAYPOST_WAIT_REPLICAS": "1"})
    assert (found["replicas"].state, "WAYPOST_WAIT_REPLICAS" in found["replicas"].mend) == ("bad", True)
    patient.admin.replicaof("127.0.0.1", str(free_port()))
    try:
        found = examine(environ)
        assert (found["replicas"].state, "replica" in found["replicas"].text) == ("bad", True)
    finally:
        patient.admin.replicaof("NO", "ONE")


def test_what_lies_in_the_store() -> None:
    with Server("valkey") as server:
        environ = {**GOOD, "WAYPOST_REDIS_URL": server.url}
        found = examine(environ)
        assert {check: found[check].state for check in ("schema", "functions", "fence")} == dict.fromkeys(
            ("schema", "functions", "fence"), "bad"
        )
        assert {found[check].mend for check in ("schema", "functions", "fence")} == {"`waypost migrate up`"}
        asyncio.run(migrations.up(server.url))
        found = examine(environ)
        assert {found[check].state for check in ("schema", "functions", "fence")} == {"ok"}
        server.admin.function_delete("page_v1")
        found = examine(environ)
        assert (found["functions"].state, found["functions"].text) == ("bad", "missing: page_v1")
        server.admin.function_load("#!lua name=page_v1\nredis.register_function('page_v1', function() return 1 end)")
        assert "another text" in examine(environ)["functions"].text
        server.admin.hset(EPOCH_KEYS[3], "run", "another")
        assert examine(environ)["fence"].state == "warn"
        server.admin.delete(EPOCH_KEYS[3])
        assert examine(environ)["fence"].state == "bad"
        server.admin.hset("wp:meta", "schema", 99)
        assert "newer" in examine(environ)["schema"].text
        server.admin.zadd("wp:nodes", {"gone": 1})
        found = examine(environ)
        assert (found["nodes"].state, "gone" in found["nodes"].text) == ("warn", True)


def test_who_signs_in(patient: Server) -> None:
    port = port_of(patient)
    plain = {**GOOD, "WAYPOST_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    found = examine(plain)
    assert (found["redis user"].state, found["redis acl"].state, found["redis tls"].state) == ("warn", "warn", "ok")
    assert "flushall" in found["redis acl"].text
    line = acl.line("waypost", acl.SERVICE).replace("<password>", "pw").split()[2:]
    lacking = [word for word in line if word not in ("+xadd", "+config|get")]
    operators = acl.line("ops", acl.ADMIN).replace("<password>", "pw").split()[2:]
    for user, words in (("waypost", line), ("halved", lacking), ("ops", operators)):
        patient.admin.execute_command("ACL", "SETUSER", user, *words)
    try:
        own = {**GOOD, "WAYPOST_REDIS_URL": f"redis://waypost:pw@127.0.0.1:{port}/0"}
        found = examine(own)
        assert (found["redis user"].state, found["redis acl"].state) == ("ok", "warn")
        assert "cannot be asked" in found["redis acl"].text
        operator = f"redis://ops:pw@127.0.0.1:{port}/0"
        found = examine(own, operator)
        assert (found["redis user"].text, found["redis acl"].state) == ("signs in as waypost", "ok")
        halved = {**GOOD, "WAYPOST_REDIS_URL": f"redis://halved:pw@127.0.0.1:{port}/0"}
        found = examine(halved, operator)
        assert (found["redis acl"].state, found["redis acl"].text) == ("bad", "halved lacks config|get, xadd")
        assert found["redis acl"].mend == "ACL SETUSER halved +config|get +xadd"
        found = examine(halved)
        assert (found["disk"].state, "cannot be read" in found["disk"].text) == ("warn", True)
        assert found["eviction"].state == "ok"  # INFO tells it too
        wrong = examine({**GOOD, "WAYPOST_REDIS_URL": f"redis://waypost:sesame@127.0.0.1:{port}/0"})
        assert (wrong["redis"].state, "sesame" in str(wrong)) == ("bad", False)
    finally:
        patient.admin.acl_deluser("waypost", "halved", "ops")


@pytest.fixture(scope="module")
def seen(patient: Server) -> Diagnosis:
    return asyncio.run(diagnose(patient.url, StoreOptions()))


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"clock_ahead_ms": -1500.0}, "clock", "warn"),
        ({"clock_ahead_ms": 60_000.0}, "clock", "bad"),
        ({"clock_ahead_ms": 3.0}, "clock", "ok"),
        ({"ping_ms": 8.0}, "latency", "warn"),
        ({"ping_ms": 80.0}, "latency", "bad"),
        ({"is_too_old": True}, "redis", "bad"),
        ({"info": {"redis_mode": "cluster"}}, "redis", "bad"),
        ({"info": {"aof_enabled": "1", "aof_last_write_status": "err"}}, "disk", "bad"),
        ({"schema": 0}, "schema", "bad"),
        ({"functions": None}, "functions", "bad"),
        ({"nodes": None}, "nodes", "warn"),
        ({"config": {}}, "eviction", "ok"),
        ({"config": {}, "info": {}}, "eviction", "warn"),
    ],
)
def test_what_no_test_can_bring_about(seen: Diagnosis, changes: dict[str, Any], check: str, state: str) -> None:
    changed = msgspec.structs.replace(seen, **changes)
    found = doctor_store.examine(changed, "unix:///s.sock", Settings(), None)
    assert next(finding.state for finding in found if finding.check == check) == state


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("redis://redis.internal/0", "bad"),
        ("rediss://redis.internal/0?ssl_cert_reqs=none", "bad"),
        ("rediss://redis.internal/0", "ok"),
        ("redis://localhost/0", "ok"),
        ("redis://[::1]/0", "ok"),
    ],
)
def test_the_way_to_the_server(seen: Diagnosis, url: str, state: str) -> None:
    found = doctor_store.examine(seen, url, Settings(), None)
    assert next(finding.state for finding in found if finding.check == "redis tls") == state


@pytest.mark.parametrize(
    ("environ", "check", "state"),
    [
        ({"WAYPOST_DEV": "1", "WAYPOST_HOST": "0.0.0.0"}, "dev mode", "bad"),
        ({"WAYPOST_DEV": "1"}, "dev mode", "ok"),
        ({"WAYPOST_HOST": "no.such.host.invalid"}, "host", "bad"),
        ({"WAYPOST_HOST": "0.0.0.0"}, "tls", "warn"),
        ({"WAYPOST_JWT_SECRETS": ""}, "keys", "bad"),
        ({"WAYPOST_JWT_SECRETS": "s" * 32 + ",short"}, "keys", "bad"),
        ({"WAYPOST_JWT_SECRETS": "s" * 20}, "keys", "warn"),
        ({"WAYPOST_JWT_SECRETS": "", "WAYPOST_JWT_JWKS_URL": "http://issuer.example.com/jwks"}, "keys", "bad"),
        ({"WAYPOST_JWT_SECRETS": "", "WAYPOST_JWT_JWKS_URL": "https://issuer.example.com/jwks"}, "keys", "ok"),
        ({"WAYPOST_CHAT": "open"}, "chat", "bad"),
        ({"WAYPOST_CHAT": "open", "WAYPOST_DEV": "1"}, "chat", "ok"),
        ({"WAYPOST_ORIGINS": "*"}, "origins", "warn"),
        ({"WAYPOST_FORWARDED_ALLOW_IPS": "*"}, "proxies", "warn"),
        ({"WAYPOST_SSL_CERTFILE": "/nowhere/cert.pem"}, "tls", "bad"),
    ],
)
def test_a_setting(patient: Server, environ: dict[str, str], check: str, state: str) -> None:
    found = examine({**GOOD, "WAYPOST_REDIS_URL": patient.url, **environ})
    assert (found[check].state, "sss" in str(found)) == (state, False)


def test_files_with_secrets(patient: Server, tmp_path: Path) -> None:
    environ = {"WAYPOST_REDIS_URL": patient.url, "WAYPOST_SSL_CERTFILE": CERTIFICATES.server}
    key = tmp_path / "tls.key"
    key.write_bytes(Path(CERTIFICATES.server_key).read_bytes())
    settings = tmp_path / "waypost.toml"
    settings.write_text(f'jwt_secrets = "{"s" * 32}"\n')
    environ |= {"WAYPOST_SSL_KEYFILE": str(key), "WAYPOST_CONFIG": str(settings)}
    for mode, state in ((0o600, "ok"), (0o640, "warn"), (0o644, "bad")):
        key.chmod(mode)
        settings.chmod(mode)
        found = examine(environ)
        assert (found["tls key"].state, found["config file"].state) == (state, state)
        assert found["tls"].state == "warn"  # good for a day
    settings.chmod(0o666)
    assert "written by others" in examine(environ)["config file"].text
    settings.write_text("port = 8001\n")
    settings.chmod(0o644)
    assert examine({**GOOD, **environ})["config file"].state == "ok"


class NotReady(BaseHTTPRequestHandler):
    """A node that is not ready."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"reasons": ["no beat"]}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
        """Says nothing."""


def test_where_clients_look_for_a_node(patient: Server, database: Server, start_node: StartNode) -> None:
    with HTTPServer(("127.0.0.1", 0), NotReady) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        found = examine({**GOOD, "WAYPOST_REDIS_URL": patient.url, "WAYPOST_URL": url})
        assert (found["url"].state, "no beat" in found["url"].text) == ("bad", True)
    start_node()
    found = examine({**GOOD, "WAYPOST_REDIS_URL": database.url})  # a node is alive, elsewhere
    assert found["url"].state == "bad"
    secure = start_node(ssl_certfile=CERTIFICATES.server, ssl_keyfile=CERTIFICATES.server_key)
    environ = {**GOOD, "WAYPOST_REDIS_URL": database.url, "WAYPOST_URL": secure.url}
    assert examine(environ)["url"].state == "bad"
    assert examine({**environ, "WAYPOST_CA_FILE": CERTIFICATES.ca})["url"].state == "ok"


def test_the_store_of_up(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    environ = {"WAYPOST_DATA_DIR": str(folder.path)}
    assert examine(environ)["redis"].text == "there is no store"
    with folder.hold():
        process = subprocess.Popen(folder.command())
        try:
            wait_until(lambda: asyncio.run(folder.is_ready()), "it answers")
            asyncio.run(migrations.up(folder.url))
            folder.make_secret()
            found = examine(environ)
            assert states(found) == {"memory": "warn", "nodes": "warn", "url": "warn"}
            assert "secret of `waypost up`" in found["keys"].text
            (folder.path / "jwt-secret").chmod(0o644)
            assert examine(environ)["keys"].state == "bad"
        finally:
            process.terminate()
            process.wait()


def test_the_command(patient: Server) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")} | GOOD
    environ["WAYPOST_REDIS_URL"] = patient.url

    def say(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service", "doctor", *words]
        return subprocess.run(command, env=environ | more, capture_output=True, text=True, check=False)

    done = say()
    assert (done.returncode, done.stderr) == (0, "")
    assert any(line.startswith("ok    redis") for line in done.stdout.splitlines())
    done = say("--json", WAYPOST_CHAT="open")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert all(row.keys() == {"check", "state", "text", "mend"} for row in rows)
    [chat] = [row for row in rows if row["check"] == "chat"]
    assert (chat["state"], chat["mend"]) == ("bad", "WAYPOST_CHAT=token, or off")
