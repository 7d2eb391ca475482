"""The folder in which processes of one port leave their numbers for each other."""

import os
import tempfile
from pathlib import Path

import pytest

from service.metrics import Buckets, Snapshot
from service.metrics.snapshot import STALE_S, Folder, OwnFolder, seen_at


def snapshot(node: str, sent: float = 1.0, at: float = 100.0) -> Snapshot:
    values = {
        "waypost_sends_total": {"stored": sent},
        "waypost_connections": {"websocket": 7.0},
        "waypost_ready": {"": 1.0},
    }
    return Snapshot(node, at, values, {"waypost_send_stored_seconds": {"": Buckets([1] * 14, 2.0)}})


def test_what_was_left_is_what_others_find_and_nobody_finds_their_own(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for node in ("edge-1", "edge-2", "ä" * 128):  # a name that no file can have
        folder.write(snapshot(node))
    folder.write(snapshot("edge-2", sent=2.0))
    assert {one.node: one.values["waypost_sends_total"]["stored"] for one in folder.others("edge-1")} == {
        "edge-2": 2.0,
        "ä" * 128: 1.0,
    }
    assert sorted(one.node for one in folder.others("ä" * 128)) == ["edge-1", "edge-2"]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(snapshot("edge-1"))
    (tmp_path / "half.json").write_text('{"node": "edge-2", ')
    (tmp_path / "other.new").write_text("on its way")
    assert [one.node for one in folder.others("edge-3")] == ["edge-1"]
    assert list(Folder(tmp_path / "nowhere").others("edge-3")) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_its_users_alone_and_removed_with_what_was_left_in_it(temporary: Path) -> None:
    own = OwnFolder()
    assert Path(own.path).parent == temporary
    assert Path(own.path).stat().st_mode & 0o077 == 0
    Folder(own.path).write(snapshot("edge-1"))
    own.remove()
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_parent_that_was_killed_is_removed_by_the_next_one_and_no_other(temporary: Path) -> None:
    killed, alive, fresh = OwnFolder(), OwnFolder(), OwnFolder()
    for gone in (killed, fresh):
        gone._lock.close()
    for old in (killed, alive):
        os.utime(Path(old.path, "lock"), (0, 0))
    (temporary / "theirs").mkdir()
    following = OwnFolder()
    assert {path.name for path in temporary.iterdir()} == {
        "theirs",
        *(Path(one.path).name for one in (alive, fresh, following)),
    }
    for one in (alive, fresh, following):
        one.remove()


@pytest.mark.parametrize("age_s", [0.0, 1.0, STALE_S])
def test_a_fresh_snapshot_is_told_as_it_is_with_its_age(age_s: float) -> None:
    told = seen_at(snapshot("edge-1"), 100.0 + age_s)
    assert told.values == snapshot("edge-1").values | {"waypost_snapshot_age_seconds": {"": age_s}}


def test_of_a_silent_process_only_what_it_counted_is_told() -> None:
    told = seen_at(snapshot("edge-1"), 100.0 + STALE_S + 1)
    assert told.values["waypost_sends_total"] == {"stored": 1.0}
    assert "waypost_connections" not in told.values
    assert told.values["waypost_ready"] == {"": 0.0}
    assert told.values["waypost_not_ready"]["silent"] == 1.0
    assert told.histograms == snapshot("edge-1").histograms
