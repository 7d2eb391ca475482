"""The keys that the functions build in Lua are those of the data model, and nothing else comes into being."""

import pytest

from service.core.names import ZERO
from service.store import Registration, Store, TrimCause, keys
from tests.integration.store.kit import EPOCH_KEYS, LAYOUT, Admin, direct, send

pytestmark = pytest.mark.anyio


async def test_lua_and_python_name_the_same_keys(store: Store, admin: Admin) -> None:
    user, other, group, device = "ä|b:c", "bob@x", "g~1", "tab+2"
    await store.join(user, group, mailbox="", origin=None)
    first, second = await send(store, direct(user, user, key="k"), direct(user, other))
    await store.open_session(user, device, "n1", {}, is_foreign=False)
    await store.redact(f"user:{user}", second, user, only_sender=True)
    await store.trim(f"user:{user}", first, TrimCause())
    await store.heartbeat("n1", {})
    mailbox = await store.create_mailbox("n1")
    await store.attach(mailbox, [Registration("all", 1)])
    await store.page(f"user:{user}", ZERO, [], max_entries=1, max_bytes=1)

    inbox, theirs, room = f"user:{user}", f"user:{other}", f"group:{group}"
    own = LAYOUT.tag(inbox)
    [bucket] = [raw.decode() for raw in admin.keys("wp:{*}:k:*")]
    assert {raw.decode() for raw in admin.scan_iter()} == {
        *EPOCH_KEYS,
        keys.META,
        keys.NODES,
        keys.node("n1"),
        mailbox,
        bucket,
        LAYOUT.stream(inbox),
        LAYOUT.stream(theirs),
        LAYOUT.stream(room),
        LAYOUT.group(group),
        LAYOUT.user(user),
        keys.key(own, "h", inbox),
        keys.key(LAYOUT.tag(theirs), "h", theirs),
        keys.key(LAYOUT.tag(room), "h", room),
        keys.key(LAYOUT.tag("all"), "h", "all"),
        keys.key(own, "x", inbox),
        keys.key(own, "z", inbox),
        keys.key(LAYOUT.tag(theirs), "z", theirs),
        keys.key(own, "d", user),
        keys.key(own, "o", f"{user}/{device}"),
    }
    assert bucket.startswith(keys.key(own, "k", ""))
