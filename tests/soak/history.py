"""What a client of the soak writes down: every attempt, every answer, everything that came, outside the system.

One file a device, one JSON array a line, in the order in which it happened there. The checker reads nothing else of the
clients.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec


class _Record(msgspec.Struct, array_like=True, frozen=True, gc=False, tag_field="what"):
    """One line. `at` is the time of this machine in seconds, the same clock for all processes."""

    at: float


class Attempt(_Record, frozen=True, tag="try"):
    """A send is about to be written, perhaps again. Without a `key` it is never repeated."""

    value: str
    to: str
    key: str


class Stored(_Record, frozen=True, tag="sent"):
    """A send was answered `sent`."""

    value: str
    to: str
    stream: str
    id: str
    is_duplicate: bool
    durability: str


class Refused(_Record, frozen=True, tag="refused"):
    """A send, a join or a leave (`value` is `join <group>` then) was answered with an error."""

    value: str
    code: str
    retry: bool


class Opened(_Record, frozen=True, tag="open"):
    """A `welcome`: the streams that this connection follows, and from where."""

    node: str
    epoch: str
    starts: dict[str, str]


class Came(_Record, frozen=True, tag="came"):
    """An entry was pushed or paged. `value` is a message's, else "". `user` is its sender, or who joined or left."""

    stream: str
    id: str
    type: str
    user: str
    value: str


class Answered(_Record, frozen=True, tag="member"):
    """A join or a leave was answered: the point in the group's stream from which, or up to which, one is a member."""

    stream: str
    id: str
    is_join: bool


class Gap(_Record, frozen=True, tag="gap"):
    """A gap was announced. `missed` is None for a gap of another epoch; `kinds` are those of its causes."""

    stream: str
    after: str
    to: str
    missed: int | None
    kinds: tuple[str, ...]


class Acknowledged(_Record, frozen=True, tag="acked"):
    """An acknowledgement was confirmed as stored."""

    offsets: dict[str, str]


class Cut(_Record, frozen=True, tag="cut"):
    """The connection has ended, by whichever side."""

    code: int
    why: str


Record = Attempt | Stored | Refused | Opened | Came | Answered | Gap | Acknowledged | Cut

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class Writer:
    """The file of one device, `<user>.<device>.jsonl`."""

    def __init__(self, folder: Path, user: str, device: str) -> None:
        self._file = (folder / f"{user}.{device}.jsonl").open("ab", buffering=1 << 16)

    def write(self, record: Record) -> None:
        self._file.write(_encode(record) + b"\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path) -> Iterator[Record]:
    """The records of one device, in order."""
    with path.open("rb") as file:
        for line in file:
            yield _decoder.decode(line)


def devices(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """User, device and file of every device that wrote something down."""
    for path in sorted(folder.glob("*.jsonl")):
        user, device, _ = path.name.split(".")
        yield user, device, path
