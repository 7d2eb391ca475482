"""Bookmarks: whatever has moved, the text says where every stream stands, and nothing else can be read into it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.bookmarks import (
    FULL,
    TEXT_MAX,
    Base,
    Bookmark,
    Mangled,
    decode_base,
    new_base,
    resolve,
    spent,
    split,
)
from service.core.names import PART_MAX, EntryId

STREAMS = [
    "all",
    "user:bob",
    *(f"group:g{n}" for n in range(40)),
    "group:日本",
    "group:a.b~c-d_e|f",
    f"group:{'x' * 128}",
]
ids = st.builds(EntryId, st.integers(0, PART_MAX), st.integers(0, PART_MAX))
places = st.dictionaries(st.sampled_from(STREAMS), ids)


def read(text: str, *bases: Base) -> dict[str, EntryId]:
    """What a text says, to who has these bases."""
    name, moves = split(text)
    [base] = [one for one in bases if one.name == name]
    return resolve(decode_base(name, base.encode().encode()), moves)


@given(places, st.lists(st.tuples(st.sampled_from(STREAMS), ids)), st.lists(st.tuples(st.sampled_from(STREAMS), ids)))
def test_a_bookmark_tells_where_every_stream_stands(
    starts: dict[str, EntryId], first: list[tuple[str, EntryId]], second: list[tuple[str, EntryId]]
) -> None:
    mark = Bookmark()
    mark.at = dict(starts)
    base = new_base("e", mark.standing(starts, 10))
    mark.rest_on(base)
    assert mark.text() == base.name
    for stream, at in first:
        mark.move(stream, at)
    assert read(mark.text(), base) == mark.at == starts | dict(first)
    other = new_base("e", mark.standing(STREAMS, 10))
    for stream, at in second:  # while it is being kept
        mark.move(stream, at)
    assert read(mark.text(), base) == mark.at
    mark.rest_on(other)
    assert read(mark.text(), other) == mark.at == starts | dict(first) | dict(second)
    assert mark.size == len(mark.text()) - len(other.name)
    assert not mark.has_unlisted or not mark.at.keys() <= other.streams.keys()


def test_it_is_as_long_as_what_moved() -> None:
    mark = Bookmark()
    now = 1_795_451_045_726
    mark.at = {f"group:{n}": EntryId(now, 100) for n in range(1000)}
    mark.rest_on(new_base("e", mark.at))
    for n in range(24):
        mark.move(f"group:{n * 40}", EntryId(now + 86_400_000, 1000 + n))
    assert len(mark.text()) < 400
    assert mark.size < FULL < TEXT_MAX / 2


def test_streams_that_are_followed_no_longer_are_remembered_a_while() -> None:
    mark = Bookmark()
    for n in range(6):
        mark.move(f"group:{n}", EntryId(1, n))
    assert mark.has_unlisted
    assert set(mark.standing(["group:1"], 2)) == {"group:1", "group:4", "group:5"}
    assert set(read("0123456789" + mark.text(), Base("0123456789", "e", {}))) == {"group:1", "group:4", "group:5"}


@pytest.mark.parametrize(
    "moves",
    [
        ".", ".0", ".0~1", ".0~1~1~1", ".1~1~1", ".0~~1", ".0~1_0~1", ".0~+1~1", ".0~ 1~1", ".0~A~1", ".0~-2~0",
        ".0~0~-2", ".0~zzzzzzzzzzzz~0", ".-1~1~1", ".~~1~1", ".~bm9uZQ~1~1", ".~====~1~1", ".~_w~1~1", ".0~\u0661~1",
    ],
)  # fmt: skip
def test_what_is_mangled_says_nothing(moves: str) -> None:
    base = Base("0123456789", "e", {"all": EntryId(1, 1)})
    with pytest.raises(Mangled):
        resolve(base, split(base.name + moves)[1])


@pytest.mark.parametrize("text", ["", "x", "0123456789.0~1~1" * 500, "0123456789x", "ABCDEFABCD", "0123456789\n"])
def test_what_is_no_bookmark_is_none(text: str) -> None:
    with pytest.raises(Mangled):
        split(text)


@given(st.text(max_size=60))
def test_any_text_is_a_bookmark_or_mangled(text: str) -> None:
    base = Base("0123456789", "e", {"all": EntryId(1, 1)})
    for told in (text, base.name + "." + text):
        try:
            name, moves = split(told)
            at: Any = resolve(base, moves)
        except Mangled:
            continue
        assert name == base.name or not at
        assert all(0 <= part <= PART_MAX for entry in at.values() for part in entry)


@pytest.mark.parametrize("kept", [b"", b"{}", b'["e"]', b'["e",[["all",1]]]', b'["e",[["all","1",1]]]', b"\xff"])
def test_a_base_that_cannot_be_read_is_mangled(kept: bytes) -> None:
    with pytest.raises(Mangled):
        decode_base("0123456789", kept)


def test_who_comes_back_needs_neither_what_was_before_nor_what_never_arrived() -> None:
    order = "other< a< b<a c<b d<b e<d f<other"
    assert set(spent(order, "b")) == {"a", "c", "d", "e"}
    assert spent(order, "e") == ["d", "b", "a"]
    assert spent("a<b b<a", "a") == ["b"]
    assert spent("", "a") == []
