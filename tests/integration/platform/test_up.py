"""`waypost up` as a user meets it: real processes, signals, and what is left behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import service
from service.embedded import DataFolder
from tests.integration.platform.processes import ask, free_port, is_running, pid_of, wait_until
from tests.integration.platform.test_cli import waypost

TREE = Path(service.__file__).parents[1]
Start = Callable[..., "Up"]


class Up:
    """A running `waypost up`."""

    def __init__(self, folder: DataFolder, output: Path, **variables: str) -> None:
        self.folder = folder
        self.port = int(variables.get("WAYPOST_PORT", 0)) or free_port()
        self._output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "up"],
                cwd=TREE,
                env=environ(WAYPOST_DATA_DIR=str(folder.path), WAYPOST_PORT=str(self.port)) | variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, as a shell gives it
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_ready(self) -> "Up":
        wait_until(lambda: "Stop: Ctrl-C" in self.said or self.process.poll() is not None, "the banner is shown")
        assert self.process.poll() is None, self.said
        assert self.is_ready()
        return self

    def ends(self, expected: int) -> str:
        """What it said, once it has ended with this exit code."""
        assert self.process.wait(30) == expected, self.said
        assert "Traceback" not in self.said
        return self.said

    def stop(self, number: signal.Signals = signal.SIGINT) -> str:
        """End it as Ctrl-C does: the signal goes to the whole process group of the terminal."""
        os.killpg(self.process.pid, number)
        return self.ends(0)


def environ(**variables: str) -> dict[str, str]:
    """Our environment with these settings and no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")} | variables


@pytest.fixture
def start(folder: DataFolder, tmp_path: Path) -> Iterator[Start]:
    """Start `waypost up` on the data folder; any number of times."""
    running: list[Up] = []

    def start(**variables: str) -> Up:
        running.append(Up(folder, tmp_path / f"up-{len(running)}.log", **variables))
        return running[-1]

    yield start
    for up in running:
        if up.process.poll() is None:
            up.process.terminate()
            up.process.wait(30)


def test_it_starts_and_ctrl_c_ends_everything(folder: DataFolder, start: Start) -> None:
    up = start().wait_ready()
    children = [pid_of(folder, child) for child in ("valkey", "node", "worker")]
    assert all(map(is_running, children))
    assert f"serves on http://127.0.0.1:{up.port}" in up.said
    assert f"In a browser: http://127.0.0.1:{up.port}/\n" in up.said
    assert "Scheduled jobs run beside it: retention every 5m, devices every 1h," in up.said
    assert f"listen --url http://127.0.0.1:{up.port} --user bob" in up.said
    assert " info app drained " in up.stop()  # of the node
    assert not any(map(is_running, children))
    assert not list(folder.path.glob("*.pid"))
    assert not folder.socket.exists()


def test_a_second_start_finds_the_data_and_sigterm_ends_it_too(folder: DataFolder, start: Start) -> None:
    up = start().wait_ready()
    assert ask(folder, "SET", "here", "still") == b"+OK"
    up.stop(signal.SIGTERM)
    up = start().wait_ready()
    assert ask(folder, "GET", "here") == b"still"
    up.stop(signal.SIGTERM)


def test_ctrl_c_during_the_start(folder: DataFolder, start: Start) -> None:
    up = start()
    wait_until(lambda: pid_of(folder, "valkey"), "the store is started")
    up.stop()


def test_a_second_one_is_refused_and_the_first_goes_on(folder: DataFolder, start: Start) -> None:
    up = start().wait_ready()
    said = start().ends(1)
    assert f"{folder.path} is in use by `waypost up`, process {up.process.pid};" in said
    assert up.is_ready()
    up.stop()


def test_a_killed_store_is_started_again_and_the_node_stays(folder: DataFolder, start: Start) -> None:
    up = start().wait_ready()
    node, store = pid_of(folder, "node"), pid_of(folder, "valkey")
    assert ask(folder, "SET", "here", "still") == b"+OK"
    os.kill(store, signal.SIGKILL)
    wait_until(lambda: ask(folder, "GET", "here") == b"still", "the store answers again")
    wait_until(up.is_ready, "the node is ready again")
    assert pid_of(folder, "valkey") != store
    assert pid_of(folder, "node") == node
    assert is_running(node)
    up.stop()


def test_a_killed_node_is_started_again(folder: DataFolder, start: Start) -> None:
    up = start().wait_ready()
    node = pid_of(folder, "node")
    os.kill(node, signal.SIGKILL)
    wait_until(lambda: pid_of(folder, "node") != node, "another node is started")
    wait_until(up.is_ready, "it is ready")
    up.stop()


def test_a_killed_worker_is_started_again(folder: DataFolder, start: Start) -> None:
    up = start(WAYPOST_JOBS_AUDIT_EVERY="1s").wait_ready()
    wait_until(lambda: "run_done job=audit" in up.said, "a job has run")
    worker = pid_of(folder, "worker")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: pid_of(folder, "worker") != worker, "another worker is started")
    runs = up.said.count("run_done job=audit")
    wait_until(lambda: up.said.count("run_done job=audit") > runs, "and it runs the job")
    up.stop()


def test_after_a_kill_the_next_one_takes_over(folder: DataFolder, start: Start) -> None:
    up = start().wait_ready()
    assert ask(folder, "SET", "here", "still") == b"+OK"
    children = [pid_of(folder, child) for child in ("valkey", "node", "worker")]
    up.process.kill()
    up.process.wait()
    # At once, on the same port: the next one waits for what the killed one left.
    after = start(WAYPOST_PORT=str(up.port)).wait_ready()
    assert ask(folder, "GET", "here") == b"still"
    assert not any(map(is_running, children))
    after.stop()


def test_a_port_in_use_is_said(folder: DataFolder, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = start(WAYPOST_PORT=str(port)).ends(1)
    assert f"cannot serve on 127.0.0.1 port {port}: Address already in use; choose another with WAYPOST_PORT" in said
    assert not pid_of(folder, "valkey")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WAYPOST_HOST": "0.0.0.0"}, "in dev mode anybody who reaches 0.0.0.0 may sign in as anybody"),
        ({"WAYPOST_HOST": "::"}, "in dev mode anybody who reaches :: may sign in as anybody"),
        ({"WAYPOST_REDIS_URL": "redis://127.0.0.1"}, "`up` runs its own store"),
    ],
)
def test_what_up_does_not_do_is_said(start: Start, variables: dict[str, str], said: str) -> None:
    assert said in start(**variables).ends(1)


def test_without_dev_mode_tokens_sign_in(folder: DataFolder, start: Start) -> None:
    up = start(WAYPOST_DEV="0", WAYPOST_HOST="0.0.0.0").wait_ready()
    assert "(who connects needs a token)" in up.said
    secret_file = folder.path / "jwt-secret"
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    secret = secret_file.read_text().strip()
    assert len(secret) == 43
    assert secret not in up.said
    # As the banner has it, typed into a shell.
    sending = next(line for line in up.said.splitlines() if ' user:bob "hi"' in line)
    assert f"WAYPOST_DATA_DIR={folder.path} " in sending
    sent = subprocess.run(
        sending, shell=True, cwd=TREE, env=typed(), capture_output=True, text=True, timeout=60, check=False
    )
    assert sent.stdout.startswith("sent user:alice "), sent.stderr
    for words in (("--user", "alice"), ("--token", secret)):
        refused = waypost("send", "--url", f"http://127.0.0.1:{up.port}", *words, "user:bob", "hi")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "unauthorised" in refused.stderr
    up.stop()
    again = start(WAYPOST_DEV="0", WAYPOST_PORT=str(up.port)).wait_ready()
    assert secret_file.read_text().strip() == secret
    again.stop()


def typed() -> dict[str, str]:
    """Our environment, with `waypost` where a shell finds it."""
    return environ(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(TREE))


def test_in_dev_mode_a_token_signs_in_too(folder: DataFolder, start: Start) -> None:
    up = start().wait_ready()
    url = f"http://127.0.0.1:{up.port}"
    made = waypost("token", "--user", "alice", WAYPOST_DATA_DIR=str(folder.path))
    assert made.returncode == 0, made.stderr
    sent = waypost("send", "--url", url, "user:bob", "hi", WAYPOST_TOKEN=made.stdout.strip())
    assert sent.stdout.startswith("sent user:alice "), sent.stderr
    sent = waypost("send", "--url", url, "--user", "bob", "--token", made.stdout.strip(), "user:bob", "hi")
    assert "the token is of another user than the one that is named" in sent.stderr
    up.stop()


def test_key_material_of_ones_own_is_used(folder: DataFolder, start: Start) -> None:
    secret = "chosen-by-whoever-runs-this-service"
    up = start(WAYPOST_DEV="0", WAYPOST_JWT_SECRETS=secret).wait_ready()
    assert not (folder.path / "jwt-secret").exists()
    assert '--token "$(WAYPOST_JWT_SECRETS=… ' in up.said
    assert secret not in up.said
    made = waypost("token", "--user", "alice", WAYPOST_JWT_SECRETS=secret)
    sent = waypost("send", "--url", f"http://127.0.0.1:{up.port}", "user:bob", "hi", WAYPOST_TOKEN=made.stdout.strip())
    assert sent.stdout.startswith("sent user:alice "), sent.stderr
    up.stop()


def test_a_secret_that_others_can_read_is_not_used(folder: DataFolder, start: Start) -> None:
    folder.path.mkdir()
    secret_file = folder.path / "jwt-secret"
    secret_file.write_text("x" * 43)
    secret_file.chmod(0o640)
    assert f"{secret_file} is open to others" in start().ends(1)
    made = waypost("token", "--user", "alice", WAYPOST_DATA_DIR=str(folder.path))
    assert (made.returncode, made.stdout) == (1, "")
    assert f"{secret_file} is open to others" in made.stderr


def test_a_folder_named_service_is_not_taken_for_ours(folder: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__main__.py").write_text("raise SystemExit('not ours')")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "service", "up"],
        cwd=tmp_path,
        env=environ(WAYPOST_DATA_DIR="data", WAYPOST_PORT=str(free_port()), PYTHONPATH=str(TREE)),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        assert any("Stop: Ctrl-C" in line for line in lines)
        process.terminate()
    assert process.returncode == 0
    assert not pid_of(folder, "node")
