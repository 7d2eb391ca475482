"""Streams with a past: entries of any age, as if they had been published then."""

from collections.abc import Sequence

from service.core.names import EntryId
from tests.integration.store.kit import LAYOUT, Admin, key_of


def now_ms(admin: Admin) -> int:
    """Redis time."""
    seconds, micros = admin.time()
    return int(seconds) * 1000 + int(micros) // 1000


def stock(admin: Admin, stream: str, ages_s: Sequence[float], *, body: bytes = b'"hi"') -> list[EntryId]:
    """Appends messages that are so old (seconds, oldest first); returns their ids."""
    begin = admin.hget(key_of("h", stream), "head")
    number = int(begin.split(b"-")[1]) if begin else 0
    now = now_ms(admin)
    ids = [EntryId(now - int(age * 1000), number + index) for index, age in enumerate(ages_s, 1)]
    pipe = admin.pipeline(transaction=False)
    for entry in ids:
        fields = {"t": "message", "f": "alice", "o": stream, "i": f"m{entry.n}", "b": body}
        pipe.xadd(key_of("s", stream), fields, id=str(entry))
    pipe.hset(key_of("h", stream), "head", str(ids[-1]))
    pipe.execute()
    return ids


def device(admin: Admin, user: str, name: str, *, seen_ms: int, offsets: dict[str, EntryId]) -> None:
    """A device of a user that was seen last at that time of Redis, with its offsets."""
    epoch = admin.hget(f"wp:{{{LAYOUT.tags[0]}}}:e", "epoch").decode()
    tag = LAYOUT.user_tag(user)
    admin.hset(f"wp:{{{tag}}}:d:{user}", name, f'{{"first":1,"last":{seen_ms},"node":"n"}}')
    for stream, offset in offsets.items():
        admin.hset(f"wp:{{{tag}}}:o:{user}/{name}", stream, f"{offset} {epoch}")
