"""attach: registers, tokens, and a mailbox that is not there."""

import pytest

from service.core.names import ZERO
from service.store import Attached, MailboxGone, Registration, Store, TrimCause
from tests.integration.store.kit import Admin, head_of, key_of, send, to_all

pytestmark = pytest.mark.anyio


def token(admin: Admin, stream: str, mailbox: str) -> str | None:
    raw = admin.hget(key_of("h", stream), mailbox)
    return raw.decode() if raw is not None else None


async def test_it_registers_and_answers_where_the_streams_stand(store: Store, admin: Admin) -> None:
    ids = await send(store, to_all("alice"), to_all("alice"))
    await store.trim("all", ids[0], TrimCause())
    mailbox = await store.create_mailbox("n1")
    attached = await store.attach(mailbox, [Registration("all", 3), Registration("user:new", 4)])

    assert attached == {"all": Attached(ids[1], ids[0]), "user:new": Attached(ZERO, ZERO)}
    assert (token(admin, "all", mailbox), token(admin, "user:new", mailbox)) == ("3", "4")


async def test_twice_is_harmless_and_late_changes_nothing(store: Store, admin: Admin) -> None:
    mailbox = await store.create_mailbox("n1")
    first = await store.attach(mailbox, [Registration("all", 5)])
    again = await store.attach(mailbox, [Registration("all", 5)])
    late = await store.attach(mailbox, [Registration("all", 2)])

    assert first == again == late
    assert token(admin, "all", mailbox) == "5"


async def test_a_mailbox_that_is_gone_is_not_registered(store: Store, admin: Admin) -> None:
    mailbox = await store.create_mailbox("n1")
    await store.drop_mailbox(mailbox)
    with pytest.raises(MailboxGone):
        await store.attach(mailbox, [Registration("all", 1)])

    assert not admin.exists(key_of("h", "all"))


async def test_a_head_that_was_deleted_is_read_from_the_stream(store: Store, admin: Admin) -> None:
    [last] = await send(store, to_all("alice"))
    admin.delete(key_of("h", "all"))
    mailbox = await store.create_mailbox("n1")

    assert (await store.attach(mailbox, [Registration("all", 1)]))["all"].head == last
    [following] = await send(store, to_all("alice"))
    assert following.n == last.n + 1 == head_of(admin, "all").n


async def test_a_stream_that_cannot_be_read_is_missing_from_the_answer(store: Store, admin: Admin) -> None:
    admin.set(key_of("h", "user:broken"), "no hash")
    mailbox = await store.create_mailbox("n1")
    attached = await store.attach(mailbox, [Registration("user:broken", 1), Registration("all", 2)])

    assert set(attached) == {"all"}
    admin.delete(key_of("h", "user:broken"))


async def test_thousands_at_a_time(store: Store) -> None:
    mailbox = await store.create_mailbox("n1")
    wants = [Registration(f"user:u{n}", n) for n in range(3000)]

    assert len(await store.attach(mailbox, wants)) == 3000
    await store.detach(mailbox, wants)
    assert await store.attach(mailbox, []) == {}
