"""`waypost streams|show|tail|devices|nodes|jobs|why|audit|completion` against a running service with real traffic."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from migrations import __main__ as migrations
from service.cli import tables
from service.core.names import parse_id
from service.store import Store, StoreOptions, TrimCause
from tests.integration.cli.test_client_commands import lines, run, waypost
from tests.integration.store.kit import Server
from tests.service import NodeProcess, Phone

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with Server("valkey") as server:
        yield server


class Scene(NamedTuple):
    """A node with traffic: alice, connected, who has sent five messages to a group and redacted the second; bob, whose
    tablet was there and has read two of them, and whose inbox has one more. The group's first two entries are trimmed.
    """

    database: Server
    node: NodeProcess
    store: Store
    alice: Phone
    ids: list[str]

    async def waypost(self, *words: str, code: int = 0) -> list[str]:
        """What the command prints."""
        found, out, errors = await run(*words, WAYPOST_REDIS_URL=self.database.url)
        assert found == code, (out, errors)
        assert "Traceback" not in "".join(errors)
        return out

    async def json(self, *words: str) -> Any:  # noqa: ANN401 - whatever it is
        return json.loads("\n".join(await self.waypost(*words, "--json")))

    async def rows(self, *words: str) -> dict[str, dict[str, str]]:
        """The first table that the command prints, by the first cell."""
        out = await self.waypost(*words)
        table = out[: out.index("")] if "" in out else out
        head = table[0]
        starts = [at for at in range(len(head)) if head[at] != " " and (not at or head[at - 2 : at] == "  ")]
        ends = [*starts[1:], None]
        cut = [[line[at:end].strip() for at, end in zip(starts, ends, strict=True)] for line in table]
        return {row[0]: dict(zip(cut[0], row, strict=True)) for row in cut[1:]}


@pytest.fixture
async def scene(database: Server) -> AsyncIterator[Scene]:
    database.admin.flushall()
    await migrations.up(database.url)
    node = NodeProcess(database.url, "n1", beat_s=0.1).start()
    store = await Store.connect(database.url, options=StoreOptions())
    await store.check_server()
    try:
        alice, tablet = await Phone.open(node.url, "alice", "phone"), await Phone.open(node.url, "bob", "tablet")
        for phone in (alice, tablet):
            await phone.say(type="join", ref="j", group="g")
            await phone.wait("joined", ref="j")
        sent = [(await alice.send("group:g", f"secret {number}"))["id"] for number in range(5)]
        await tablet.wait("message", body="secret 4")
        await tablet.ack(group_g=sent[1])
        await tablet.leave()
        await alice.send("user:bob", "dear")
        await store.redact("group:g", parse_id(sent[1]), "alice", only_sender=True)
        [_, joined] = await store.entries("group:g", limit=2, newest=False)
        await store.trim("group:g", joined.id, TrimCause("group:*", "max_age=1d"))
        yield Scene(database, node, store, alice, sent)
    finally:
        await Phone.hang_up_all()
        await store.close()
        node.remove()


async def test_nodes(scene: Scene) -> None:
    async def has_told() -> bool:
        [row] = (await scene.json("nodes"))["nodes"]
        return bool(row["connections"] and row["position"] > 5)

    async with asyncio.timeout(20):
        while not await has_told():
            pass
    [row] = (await scene.json("nodes"))["nodes"]
    assert (row["node"], row["is_silent"], row["connections"], row["behind"]) == ("n1", False, 1, 0)
    told = (await scene.rows("nodes"))["n1"]
    assert (told["state"], told["connections"], told["behind"]) == ("alive", "1", "0")
    assert "ago)" in told["last heard"]
    assert "MB" in told["memory"]
    scene.node.kill()
    scene.database.admin.delete("wp:node:n1")
    assert (await scene.rows("nodes"))["n1"]["state"] == "silent"
    scene.database.admin.delete("wp:nodes")
    assert await scene.waypost("nodes") == ["no node"]


async def test_streams(scene: Scene) -> None:
    found = {row["stream"]: row for row in (await scene.json("streams"))["streams"]}
    assert found.keys() == {"user:alice", "user:bob", "group:g", "all"}
    group = found["group:g"]
    assert (group["entries"], group["members"], group["nodes"]) == (5, 2, ["n1"])
    assert (group["policy"], group["limits"]) == ("group:*", "max_age=30d")
    assert group["rate_per_min"] > 0
    rows = await scene.rows("streams")
    assert rows.keys() == found.keys()
    assert (rows["group:g"]["entries"], rows["group:g"]["policy"]) == ("5", "max_age=30d")
    assert (await scene.rows("streams", "--kind", "user")).keys() == {"user:alice", "user:bob"}
    assert (await scene.rows("streams", "bo")).keys() == {"user:bob"}
    assert await scene.waypost("streams", "nothing-like-it") == ["no stream"]

    assert (await scene.json("streams", "--sort", "lag"))["streams"] == []
    assert await scene.waypost("devices", code=1) == []
    await scene.waypost("worker", "--once", "survey")
    most = await scene.rows("devices")
    assert most.keys() == {"alice", "bob"}
    assert (most["bob"]["stream"], most["bob"]["device"]) == ("group:g", "tablet")
    assert [total["streams"] for total in (await scene.json("devices"))["totals"]] == [2, 1, 1]
    by_lag = await scene.json("streams", "--sort", "lag", "--limit", "1")
    assert ([row["stream"] for row in by_lag["streams"]], by_lag["next"]) == (["group:g"], None)
    assert by_lag["order_as_of"] is not None
    assert (await scene.waypost("streams", "--sort", "bytes"))[-1].startswith("in the order of the survey of 20")


async def test_streams_in_pages(scene: Scene) -> None:
    for number in range(60):
        await scene.alice.send(f"user:u{number}", number)
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        after = ["--after", cursor] if cursor else []
        page = await scene.json("streams", "--kind", "user", "--limit", "20", *after)
        names += [row["stream"] for row in page["streams"]]
        cursor = page["next"]
        assert 1 <= len(page["streams"]) < 62
    assert set(names) == {"user:alice", "user:bob", *(f"user:u{number}" for number in range(60))}
    out = await scene.waypost("streams", "--limit", "10")
    assert out[-1].startswith("there are more: --after ")


async def test_show_masks_bodies_unless_they_are_asked_for(scene: Scene) -> None:
    found = await scene.json("show", "group:g")
    assert (found["facts"]["stream"], found["entries"]["of"]) == ("group:g", 5)
    entries = found["entries"]["entries"]
    assert [entry["type"] for entry in entries] == ["message", "message", "message", "message", "message", "redacted"]
    assert "secret" not in json.dumps(found)
    tombstone = entries[1]
    assert (tombstone["redacted_by"], tombstone["body_bytes"], tombstone["id"]) == ("alice", None, scene.ids[1])
    assert (found["ledger"][0]["limit"], found["ledger"][0]["count"]) == ("max_age=1d", 2)
    assert found["entries"]["looked_at"] == 5

    shown = await scene.json("show", "group:g", "--bodies", "--limit", "2", "--after", scene.ids[1])
    assert [entry["body"] for entry in shown["entries"]["entries"]] == ["secret 2", "secret 3"]
    before = await scene.json("show", "group:g", "--before", scene.ids[3], "--limit", "1")
    assert [entry["id"] for entry in before["entries"]["entries"]] == [scene.ids[2]]
    assert (await scene.json("show", "group:g", "--after", "2099-01-01T00:00:00Z"))["entries"]["entries"] == []
    mine = await scene.json("show", "user:bob", "--from", "alice")
    assert [entry["sender"] for entry in mine["entries"]["entries"]] == ["alice"]
    assert mine["entries"]["looked_at"] == 2  # and the `joined` entry

    text = "\n".join(await scene.waypost("show", "group:g"))
    assert "secret" not in text
    for words in ("looked at 5 of 5", "redacted by alice at 20", "max_age=1d", "(10 B)", "most behind:", "next trim:"):
        assert words in text, text
    assert '"secret 4"' in "\n".join(await scene.waypost("show", "group:g", "--bodies"))


async def test_tail_follows(scene: Scene) -> None:
    async with waypost("tail", "group:g", "--last", "1", "--json", WAYPOST_REDIS_URL=scene.database.url) as process:
        [last] = await lines(process, 1)
        assert json.loads(last)["type"] == "redacted"
        answers = [await scene.alice.send("group:g", f"news {number}") for number in range(3)]
        came = [json.loads(line) for line in await lines(process, 3)]
        assert [entry["id"] for entry in came] == [answer["id"] for answer in answers]
        assert {entry.get("body") for entry in came} == {None}
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 130
    words = ("tail", "group:g", "--last", "2", "--bodies")
    async with waypost(*words, WAYPOST_REDIS_URL=scene.database.url) as process:
        assert [line.split()[-1] for line in await lines(process, 2)] == ['1"', '2"']
        await scene.alice.send("group:g", "more")
        [line] = await lines(process, 1)
        assert line.endswith('  message  alice  "more"')


async def test_devices(scene: Scene) -> None:
    found = await scene.json("devices", "bob")
    [tablet] = found["devices"]
    assert (tablet["device"], tablet["node"]) == ("tablet", "n1")
    rows = {row["stream"]: row for row in tablet["streams"]}
    assert rows["group:g"]["offset"] == scene.ids[1]
    assert rows["group:g"]["lag_messages"] == 4
    assert rows["group:g"]["first_unread"] == scene.ids[2]
    assert rows["group:g"]["loses_by"] == "max_age=30d"
    assert (await scene.rows("devices", "bob"))["tablet"]["lag"] == str(tablet["lag_messages"])
    text = "\n".join(await scene.waypost("devices", "bob"))
    assert scene.ids[2] in text
    assert "by max_age=30d" in text
    assert "nothing unread in 1 other stream" in text
    [phone] = (await scene.json("devices", "alice"))["devices"]
    assert phone["connected"] is True
    code, out, errors = await run("devices", "nobody", WAYPOST_REDIS_URL=scene.database.url)
    assert (code, out, errors) == (1, [], ["waypost: no device of nobody"])


async def test_jobs(scene: Scene) -> None:
    assert {row["state"] for row in (await scene.json("jobs"))["jobs"]} == {"never"}
    await scene.waypost("worker", "--once", "audit")
    found = {row["job"]: row for row in (await scene.json("jobs"))["jobs"]}
    assert (found["audit"]["state"], found["audit"]["last_state"], found["audit"]["holder"]) == ("idle", "done", "")
    assert 3000 < found["audit"]["next_run_in_s"] <= 3600
    assert [report["name"] for report in found["audit"]["runs"]] == ["audit"]
    rows = await scene.rows("jobs")
    assert (rows["audit"]["schedule"], rows["audit"]["ended"], rows["devices"]["state"]) == (
        "every 1h",
        "done",
        "never",
    )


async def test_why(scene: Scene) -> None:
    found = await scene.json("why", "group:g", scene.ids[0], "bob")
    assert (found["verdict"], found["devices"][0]["verdict"]) == ("delivered_acknowledged", "delivered_acknowledged")
    assert (await scene.json("why", "group:g", scene.ids[1], "bob"))["verdict"] == "redacted"
    waiting = await scene.json("why", "group:g", scene.ids[2], "bob")
    assert waiting["verdict"] in ("waiting_offline", "waiting_behind")  # the node may not have detached yet
    text = "\n".join(await scene.waypost("why", "group:g", scene.ids[1], "bob"))
    assert text.startswith("redacted: ")
    assert "by alice at 20" in text
    assert "is not recorded" in text
    assert (await scene.waypost("why", "user:alice", "1-1", "bob"))[0].startswith("not_yours: ")


async def test_audit(scene: Scene) -> None:
    assert await scene.waypost("audit") == ["nothing was done"]
    [key] = await scene.waypost("key", "new", "--scope", "admin", "--name", "ops", "--reason", "the inspector")
    key_id = key.split("_")[1]
    await scene.waypost("key", "revoke", key_id)
    await scene.waypost("key", "revoke", key_id, code=1)
    await scene.waypost("retention", "run", "--stream", "all", "--reason", "trying")
    found = (await scene.json("audit"))["actions"]
    rows = [(row["action"], row["target"], row["reason"], row["outcome"]) for row in found]
    assert rows == [
        ("retention_run", "all", "trying", "ok"),
        ("key_revoke", key_id, "", "not_found"),
        ("key_revoke", key_id, "", "ok"),
        ("key_new", key_id, "the inspector", "ok"),
    ]
    assert {row["who"].split(":")[0] for row in found} == {"cli"}
    assert key[17:] not in json.dumps(found)
    out = await scene.waypost("audit", "--limit", "1")
    assert "retention_run" in out[1]
    onward = out[-1].split()[-1]
    assert (await scene.json("audit", "--before", onward))["actions"][0]["action"] == "key_revoke"


async def test_it_works_though_no_node_does_and_the_store_is_fenced(scene: Scene) -> None:
    scene.node.kill()
    scene.database.kill()
    scene.database.start()
    for words in (
        ("nodes",),
        ("streams",),
        ("show", "group:g"),
        ("devices", "bob"),
        ("jobs",),
        ("why", "group:g", scene.ids[2], "bob"),
        ("audit",),
    ):
        assert await scene.waypost(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "groups"), "not a stream"),
        (("show", "all", "--limit", "0"), "1 to 1000"),
        (("why", "all", "1", "bob"), "not an entry id"),
        (("why", "all", "1-1"), "user"),
        (("devices", "a b"), "not a name"),
        (("streams", "--sort", "size"), "size"),
        (("audit", "--before", "x"), "not an entry id"),
        (("completion", "fish"), "fish"),
    ],
)
async def test_what_cannot_be_meant_is_refused(words: tuple[str, ...], said: str) -> None:
    code, _, errors = await run(*words)
    assert code == 2
    assert said in errors[-1]


async def test_what_is_not_there(scene: Scene, tmp_path: Path) -> None:
    for words in (("show", "group:never"), ("tail", "group:never")):
        code, out, errors = await run(*words, WAYPOST_REDIS_URL=scene.database.url)
        assert (code, out) == (1, [])
        assert errors[-1].startswith("waypost: ")
    assert await scene.waypost("show", "group:g", "--after", "yesterday", code=1) == []
    for command in ("streams", "nodes", "jobs", "audit"):
        code, _, errors = await run(command, WAYPOST_DATA_DIR=str(tmp_path))
        assert (code, errors) == (1, ["waypost: no store: set WAYPOST_REDIS_URL or give --redis-url"])


async def test_shells_take_what_completion_prints(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "tcsh"):
        code, out, _ = await run("completion", shell)
        assert code == 0
        text = "\n".join(out)
        for word in ("streams", "why", "retention"):
            assert word in text
        path = tmp_path / shell
        path.write_text(text)
        if shell == "bash" and (program := shutil.which(shell)) is not None:
            script = f"source {path}; COMP_WORDS=(waypost stre); COMP_CWORD=1; complete -p waypost"
            told = await asyncio.to_thread(
                subprocess.run, [program, "-c", script], capture_output=True, text=True, check=True
            )
            assert "waypost" in told.stdout


def test_a_terminal_gets_a_table_that_fits_and_nothing_is_taken_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    tables.show(("stream", "n"), [("group:" + "x" * 60, "1"), ("[bold]all", "22")], numbers=("n",))
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, out)) <= 40
    assert "".join(line.split()[0] for line in out[1:3]) == "group:" + "x" * 60
    assert out[-1].startswith("[bold]all")
    assert out[-1].endswith(" 22")


def test_a_table_never_cuts_a_cell_when_it_is_piped(capsys: pytest.CaptureFixture[str]) -> None:
    name = "group:" + "x" * 300
    tables.show(("stream", "n"), [(name, "1"), ("[bold]all", "22")], numbers=("n",))
    out = capsys.readouterr().out
    assert out.splitlines() == [f"stream{' ' * 300}  n", f"{name}  1", f"[bold]all{' ' * 297}  22"]
