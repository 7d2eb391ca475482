"""The data model's table, and where streams live."""

import pytest
from redis.crc import key_slot

from service.store.keys import KEYS, Layout, epoch, job_lease, key, kind_of, mailbox, node, partition_tags


def test_the_tags_spread_evenly_over_the_slots() -> None:
    tags = partition_tags(16)

    assert " ".join(tags) == "10 3 61 43 11 2 60 42 12 1 63 41 13 0 62 40"
    for partition, tag in enumerate(tags):
        for name in (epoch(tag), key(tag, "s", "user:ä"), mailbox(tag, "n1.x"), job_lease(tag, "trim")):
            assert key_slot(name.encode()) // 1024 == partition


@pytest.mark.parametrize("partitions", [1, 2, 3, 64])
def test_each_partition_has_a_tag_of_its_own(partitions: int) -> None:
    assert len(set(partition_tags(partitions))) == partitions


def test_everything_of_a_stream_is_in_its_partition() -> None:
    layout = Layout(16)

    # crc32("user:alice") % 16 == 6: a change here would lose every stream of every store.
    assert layout.tag("user:alice") == layout.user_tag("alice") == layout.tags[6]
    assert layout.stream("user:alice") == "wp:{60}:s:user:alice"
    assert layout.user("alice") == "wp:{60}:u:alice"
    assert layout.group("g") == f"wp:{{{layout.tag('group:g')}}}:g:g"


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("wp:meta", "wp:meta"),
        ("wp:node:n1", "wp:node:<node>"),
        ("wp:{10}:e", "wp:{p}:e"),
        ("wp:{10}:s:user:a:b", "wp:{p}:s:<stream>"),
        ("wp:{10}:o:alice/phone", "wp:{p}:o:<user>/<device>"),
        ("wp:{10}:m:n1.0f", "wp:{p}:m:<node>.<random>"),
        (node("x.y"), "wp:node:<node>"),
    ],
)
def test_a_key_finds_its_row(name: str, pattern: str) -> None:
    kind = kind_of(name)
    assert kind is not None
    assert kind.pattern == pattern


@pytest.mark.parametrize("name", ["meta", "wp:metal", "wp:{a}:e", "wp:{10}:q:x", "wp:{10}:o:alice", "wp:{10}:s:a/b"])
def test_a_foreign_key_has_no_row(name: str) -> None:
    assert kind_of(name) is None


def test_every_row_says_who_writes_and_who_deletes() -> None:
    assert len({kind.pattern for kind in KEYS}) == len(KEYS)
    assert all(kind.writer and kind.deleter and kind.what for kind in KEYS)
