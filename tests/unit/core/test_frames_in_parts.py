"""A message of many lines, taken a few at a time: the same frames as at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.frames import ClientFrame, Malformed, Ping, decode, decode_some


def in_parts(data: bytes, most: int) -> list[list[ClientFrame | Malformed]]:
    parts = []
    while data:
        part, data = decode_some(data, most)
        parts.append(part)
    return parts


LINE = st.sampled_from([b"", b" \t\r", b'{"type":"ping","ref":1}', b'{"type":"dance","ref":2}', b'{"type":"ping"} '])


@given(st.lists(LINE, min_size=1, max_size=30), st.integers(1, 5))
def test_the_parts_are_the_whole_and_none_is_longer_than_it_may_be(lines: list[bytes], most: int) -> None:
    data = b"\n".join([*lines, b'{"type":"ping","ref":"last"}'])
    parts = in_parts(data, most)
    assert [frame for part in parts for frame in part] == decode(data)
    assert max(map(len, parts)) <= most


@pytest.mark.parametrize("blanks", [b"\n" * 9, b" \n\t\n\r\n\n\n\n"])
def test_blank_lines_are_no_frames_and_no_fault_wherever_they_are(blanks: bytes) -> None:
    ping = b'{"type":"ping"}\n'
    assert in_parts(blanks + ping + blanks + ping + ping + blanks, 2) == [[Ping()], [Ping(), Ping()]]
    assert [frame for part in in_parts(blanks, 2) for frame in part] == decode(blanks)


def test_nothing_after_what_is_no_frame_is_taken() -> None:
    ping = b'{"type":"ping"}\n'
    for at in range(6):
        data = at * ping + b"no frame\n" + 9 * ping
        assert [frame for part in in_parts(data, 3) for frame in part] == decode(data)


def test_one_object_over_many_lines_is_one_frame() -> None:
    assert in_parts(b'{\n"type"\n:\n"ping"\n,\n"ref"\n:\n7\n}', 2) == [[Ping(7)]]
