"""detach: only what is not wanted again by now."""

import pytest

from service.store import Registration, Store
from tests.integration.store.kit import Admin, key_of, listen

pytestmark = pytest.mark.anyio


async def test_it_takes_the_mailbox_off(store: Store, admin: Admin) -> None:
    mailbox = await listen(store, "all", token=4)
    other = await listen(store, "all", node="n2")
    await store.detach(mailbox, [Registration("all", 4)])
    await store.detach(mailbox, [Registration("all", 4)])

    assert set(admin.hkeys(key_of("h", "all"))) == {other.encode()}


async def test_a_late_one_does_not_undo_a_newer_attach(store: Store, admin: Admin) -> None:
    mailbox = await listen(store, "all", token=4)
    await store.attach(mailbox, [Registration("all", 6)])
    await store.detach(mailbox, [Registration("all", 5)])

    assert admin.hget(key_of("h", "all"), mailbox) == b"6"


async def test_an_unreadable_stream_does_not_hold_up_the_others(store: Store, admin: Admin) -> None:
    mailbox = await listen(store, "all")
    admin.set(key_of("h", "user:broken"), "no hash")
    await store.detach(mailbox, [Registration("user:broken", 9), Registration("all", 9)])
    await store.detach(mailbox, [])

    assert not admin.exists(key_of("h", "all"))
    admin.delete(key_of("h", "user:broken"))
