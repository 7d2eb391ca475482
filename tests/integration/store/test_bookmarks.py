"""Bases of bookmarks in the store: kept for a device, not for ever, and not too many."""

import pytest

from service.core.bookmarks import Base, new_base
from service.core.names import EntryId
from service.errors import Fenced
from service.store import Store
from service.store.bookmarks import KEPT_MAX
from tests.integration.store.kit import Admin, key_of, leaks

pytestmark = pytest.mark.anyio

KEY = key_of("v", "user:bob", "bob/web")


def made(store: Store, **streams: EntryId) -> Base:
    return new_base(store.epoch, {"all": EntryId(1, 2), **streams})


async def keep(store: Store, base: Base, origin: str = "", forget: tuple[str, ...] = (), keep_s: float = 60) -> None:
    await store.keep_base("bob", "web", base, origin=origin, forget=forget, keep_s=keep_s)


async def found(store: Store, *bases: Base) -> list[bool]:
    return [(await store.find_base("bob", "web", base.name))[0] == base for base in bases]


async def test_a_base_is_found_by_its_device_alone(store: Store, admin: Admin) -> None:
    base = made(store)
    await keep(store, base)
    await keep(store, base)  # twice
    assert await store.find_base("bob", "web", base.name) == (base, f"{base.name}<")
    assert await store.find_base("bob", "other", base.name) == (None, "")
    assert (await store.find_base("eve", "web", base.name))[0] is None
    assert (await store.find_base("bob", "web", "/order"))[0] is None
    assert 50_000 < admin.pttl(KEY) <= 60_000
    assert not leaks(admin)


async def test_what_is_spent_goes_and_what_came_later_stays_however_late_it_is_told(store: Store, admin: Admin) -> None:
    first, second, third, late = (made(store) for _ in range(4))
    await keep(store, first)
    await keep(store, second, first.name)
    await keep(store, third, second.name, (first.name,))
    assert await found(store, first, second, third) == [False, True, True]
    await keep(store, late, first.name, ())  # it knew nothing of the others
    assert await found(store, second, third, late) == [True, True, True]
    assert set(admin.hkeys(KEY)) == {b"/order", *(one.name.encode() for one in (second, third, late))}


async def test_the_oldest_go_and_one_that_is_gone_on_from_is_not_old(store: Store, admin: Admin) -> None:
    first, second = made(store), made(store)
    await keep(store, first)
    await keep(store, second)
    for number in range(KEPT_MAX):
        await keep(store, made(store), first.name if number == KEPT_MAX - 2 else "")
    assert await found(store, first, second) == [True, False]
    assert admin.hlen(KEY) == KEPT_MAX + 1


async def test_one_that_cannot_be_read_counts_as_gone(store: Store, admin: Admin) -> None:
    base = made(store)
    await keep(store, base)
    admin.hset(KEY, base.name, b"\xff")
    assert (await store.find_base("bob", "web", base.name))[0] is None


async def test_another_epoch_is_refused(store: Store, admin: Admin) -> None:
    with pytest.raises(Fenced):
        await keep(store, new_base("another", {}))
    assert not admin.exists(KEY)


async def test_a_full_store_keeps_them(store: Store, admin: Admin) -> None:
    await keep(store, made(store))
    admin.config_set("maxmemory", 1)
    try:
        base = made(store)
        await keep(store, base)
        assert await found(store, base) == [True]
    finally:
        admin.config_set("maxmemory", 0)
