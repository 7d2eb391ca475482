"""history for a server key: all of a group, an inbox as its owner sees it."""

import pytest

from service.core.anchors import parse_anchor
from service.core.history import History, Question, answer
from service.errors import WaypostError
from service.store import Store, TrimCause
from tests.integration.store.kit import Admin, direct, key_of, send, to_all, to_group

pytestmark = pytest.mark.anyio


async def look(
    store: Store, stream: str, user: str | None = None, *, before: int | None = None, partner: str = ""
) -> History:
    """What a user is answered, or a server key: for an inbox, in its owner's place."""
    question = Question(stream, parse_anchor(None, before, None), 50, partner)
    past = await store.history(user, question, max_bytes=262_144, looked_max=1000)
    owner = stream.removeprefix("user:") if stream.startswith("user:") else ""
    return answer(past, owner if user is None else user, question)


def numbers(found: History) -> list[int]:
    return [entry.id.n for entry in found.entries]


async def test_a_server_key_sees_all_of_a_group(store: Store) -> None:
    await store.join("alice", "g")
    ids = await send(store, to_group("alice", "g"), to_group("alice", "g"))
    await store.join("bob", "g")
    await store.trim("group:g", ids[0], TrimCause())
    assert numbers(await look(store, "group:g", "bob")) == [4]

    found = await look(store, "group:g")
    assert numbers(found) == [3, 4]
    assert [(gap.after.n, gap.to.n, gap.causes[-1].kind) for gap in found.gaps] == [(0, 2, "trimmed")]
    assert found.found_oldest
    assert found.found_newest
    assert numbers(await look(store, "group:g", before=4)) == [3]
    await store.leave("alice", "g")
    await store.leave("bob", "g")
    assert numbers(await look(store, "group:g")) == [3, 4, 5, 6]


async def test_a_server_key_is_told_that_there_is_no_group(store: Store, admin: Admin) -> None:
    with pytest.raises(WaypostError, match="no_group"):
        await look(store, "group:g")
    admin.hset(key_of("g", "group:g", "g"), "alice", "member|0-0,")  # without settings, as if written by hand
    assert numbers(await look(store, "group:g")) == []
    await store.delete_group("g", by="", by_key=True)
    with pytest.raises(WaypostError, match="no_group"):
        await look(store, "group:g")


async def test_a_server_key_sees_an_inbox_as_its_owner_does(store: Store) -> None:
    await send(store, direct("alice", "bob"), direct("carol", "bob"), direct("bob", "alice"), to_all("alice"))
    assert numbers(await look(store, "user:bob")) == [1, 2, 3]
    assert numbers(await look(store, "user:bob", partner="alice")) == [1, 3]
    assert await look(store, "user:bob", partner="alice") == await look(store, "user:bob", "bob", partner="alice")
    assert numbers(await look(store, "all")) == [1]
    assert numbers(await look(store, "user:nobody")) == []
