"""The settings of TLS: what is wrong is said at the start with all else, and `up` serves by them too."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service import config
from service.cli.children import environ as with_tree
from service.config import SettingsError
from service.config.tls import server_context
from tests.certificates import CERTIFICATES, KEY_PASSWORD
from tests.integration.platform.test_cli import waypost
from tests.integration.store.kit import wait_until
from tests.service import free_port

C = CERTIFICATES


def lines(**settings: str) -> list[str]:
    given = {f"WAYPOST_{name.upper()}": value for name, value in settings.items()}
    try:
        config.load(given, is_serving=True)
    except SettingsError as error:
        return error.lines
    return []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ssl_certfile": C.server, "ssl_keyfile": C.server_key}, ""),
        ({"ssl_certfile": C.server, "ssl_keyfile": C.server_key_encrypted, "ssl_keyfile_password": KEY_PASSWORD}, ""),
        ({"ssl_keyfile": C.server_key}, "SSL_CERTFILE: Expected the certificate that WAYPOST_SSL_KEYFILE belongs to"),
        ({"ssl_certfile": "/nowhere/c.pem"}, "SSL_CERTFILE: cannot read /nowhere/c.pem: No such file or directory"),
        ({"ssl_certfile": C.server, "ssl_keyfile": "/nowhere"}, "SSL_KEYFILE: cannot read /nowhere: No such file"),
        ({"ssl_certfile": C.server}, f"SSL_KEYFILE: Expected a PEM file with a private key: {C.server} has none"),
        ({"ssl_certfile": C.server, "ssl_keyfile": C.other[1]}, "SSL_KEYFILE: Expected the key of the certificate"),
        (
            {"ssl_certfile": C.server, "ssl_keyfile": C.server_key_encrypted},
            "SSL_KEYFILE_PASSWORD: Expected the password",
        ),
        (
            {"ssl_certfile": C.server, "ssl_keyfile": C.server_key_encrypted, "ssl_keyfile_password": "sesame"},
            "SSL_KEYFILE_PASSWORD: Expected the password",
        ),
        (
            {"ssl_certfile": C.server_key, "ssl_keyfile": C.server_key},
            f"SSL_CERTFILE: Expected a PEM file with a certificate: {C.server_key} has none",
        ),
        ({"ssl_certfile": str(C.folder)}, "SSL_CERTFILE: cannot read"),
    ],
)
def test_files(settings: dict[str, str], expected: str) -> None:
    said = lines(**settings)
    assert (said == []) == (expected == "")
    assert all(line.startswith(f"WAYPOST_{expected}") for line in said), said
    assert "sesame" not in str(said)


@pytest.mark.parametrize(
    ("value", "is_right"),
    [
        ("127.0.0.1", True),
        ("10.0.0.0/8, ::1", True),
        ("*", True),
        ("proxy.internal", False),
        ("10.0.0.1/8", False),
        ("127.0.0.1,*", False),
    ],
)
def test_proxies(value: str, *, is_right: bool) -> None:
    assert (lines(forwarded_allow_ips=value) == []) == is_right


def test_only_those_who_serve_look_at_the_files() -> None:
    settings = config.load({"WAYPOST_SSL_CERTFILE": "/nowhere/c.pem"})
    assert settings.url == "https://127.0.0.1:8000"
    with pytest.raises(ValueError, match="cannot read"):
        server_context(settings)


def test_all_that_is_wrong_is_said_at_once() -> None:
    done = waypost("serve", "--ssl-certfile", "/nowhere/c.pem", WAYPOST_PORT="0", WAYPOST_REDIS_URL="redis://127.0.0.1")
    assert done.returncode == 2
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [" WAYPOST_PORT", " WAYPOST_SSL_CERTFILE"]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    del tmp_path
    import socket  # noqa: PLC0415 - for this alone

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = waypost(
            "serve",
            WAYPOST_REDIS_URL="redis://127.0.0.1:1",
            WAYPOST_DEV="1",
            WAYPOST_PORT=str(taken.getsockname()[1]),
            WAYPOST_SSL_CERTFILE=C.server,
            WAYPOST_SSL_KEYFILE=C.server_key,
        )
    assert done.returncode == 1
    assert "cannot_serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_serves_and_is_spoken_to(tmp_path: Path) -> None:
    port, output = free_port(), tmp_path / "output"
    own = {"DATA_DIR": str(tmp_path / "data"), "PORT": str(port), "CA_FILE": C.ca, "NODE": "over-tls"}
    variables = with_tree(**{f"WAYPOST_{name}": value for name, value in own.items()})
    command = [sys.executable, "-m", "service", "up", "--ssl-certfile", C.server, "--ssl-keyfile", C.server_key]
    with output.open("w") as file:
        process = subprocess.Popen(command, env=variables, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_until(lambda: "Stop: Ctrl-C" in output.read_text() or process.poll() is not None, "the banner", 30)
        said = output.read_text()
        assert process.poll() is None, said
        assert f"Waypost serves on https://127.0.0.1:{port} (dev mode" in said
        assert f"listen --url https://127.0.0.1:{port} --ca-file {C.ca} --user bob" in said
        address = f"https://127.0.0.1:{port}"
        sent = waypost("send", "--url", address, "--ca-file", C.ca, "--user", "alice", "user:bob", "hi")
        assert (sent.returncode, sent.stdout[:19]) == (0, "sent user:alice 1" + sent.stdout[17:19]), sent.stderr
        came = waypost("listen", "--url", address, "--user", "bob", "--count", "1", WAYPOST_CA_FILE=C.ca)
        assert came.stdout.endswith("alice: hi\n")
        refused = waypost("send", "--url", address, "--user", "alice", "user:bob", "hi")
        assert (refused.returncode, "cannot trust" in refused.stderr) == (1, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
