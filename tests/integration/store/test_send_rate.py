"""publish under `user_sends_per_s`: a bucket of tokens per user, the same for all nodes.

No test waits for time to pass: the bucket is set by hand.
"""

import pytest

from service.core.names import ZERO
from service.store import Outcome, Outgoing, Registration, Store, StoreOptions
from tests.integration.store.kit import (
    LAYOUT,
    Admin,
    Server,
    direct,
    head_of,
    key_of,
    numbers_in,
    received,
    send,
    to_all,
    to_group,
)
from tests.integration.store.stock import now_ms

pytestmark = pytest.mark.anyio
HOUR_MS = 3_600_000
RATE = 0.001  # messages a second: none comes back while a test runs
BURST = 5
SLOW = pytest.mark.parametrize("options", [StoreOptions(user_sends_per_s=RATE, user_sends_burst=BURST)])


def bucket(user: str) -> str:
    return f"wp:{{{LAYOUT.user_tag(user)}}}:t:{user}"


def fill(admin: Admin, user: str, tokens: float, *, ago_ms: int = 0) -> None:
    admin.set(bucket(user), f"{tokens} {now_ms(admin) - ago_ms}", px=HOUR_MS)


def tokens(admin: Admin, user: str) -> float:
    return float(admin.get(bucket(user)).split()[0])


def codes(outcomes: list[Outcome]) -> list[str | None]:
    return [outcome.code for outcome in outcomes]


@SLOW
async def test_what_is_in_the_bucket_may_be_sent_in_order_and_no_more(store: Store, admin: Admin) -> None:
    outcomes = await store.publish([to_all("alice", b"%d" % n) for n in range(8)], "")

    assert codes(outcomes) == [None] * BURST + ["rate_limited"] * 3
    for refused in outcomes[BURST:]:
        assert (refused.id, refused.recipient_id, refused.is_duplicate) == (None, None, False)
        assert refused.retry_after is not None
        assert 990 < refused.retry_after <= 1000
    assert [outcome.retry_after for outcome in outcomes[:BURST]] == [None] * BURST
    page = await store.page("all", ZERO, [], max_entries=99, max_bytes=999)
    assert [entry.body for entry in page.entries] == [b"0", b"1", b"2", b"3", b"4"]


@SLOW
async def test_a_refusal_writes_nothing(store: Store, admin: Admin) -> None:
    await store.join("alice", "g")
    mailbox = await store.create_mailbox("n1")
    await store.attach(mailbox, [Registration(stream, 1) for stream in ("all", "user:alice", "user:bob", "group:g")])
    fill(admin, "alice", 0)
    before = {name: admin.dump(name) for name in admin.scan_iter(count=1000)}
    batch = [direct("alice", "bob", key="k"), to_group("alice", "g"), to_all("alice", key="k")]
    assert codes(await store.publish(batch, mailbox)) == ["rate_limited"] * 3
    assert {name: admin.dump(name) for name in admin.scan_iter(count=1000)} == before
    assert await received(store, mailbox) == []
    # The key was not used up.
    fill(admin, "alice", 1)
    [outcome] = await store.publish([direct("alice", "bob", b"2", key="k")], "")
    assert (outcome.code, outcome.is_duplicate) == (None, False)


@SLOW
async def test_users_have_buckets_of_their_own_and_nodes_have_not(store: Store, server: Server, admin: Admin) -> None:
    other = await Store.connect(server.url, options=StoreOptions(user_sends_per_s=RATE, user_sends_burst=BURST))
    await other.check_server()
    for n in range(BURST):
        assert codes(await (other if n % 2 else store).publish([to_all("alice")], "")) == [None]
    outcomes = await other.publish([to_all("alice"), to_all("bob"), direct("alice", "carol"), to_all("bob")], "")
    assert codes(outcomes) == ["rate_limited", None, "rate_limited", None]
    assert tokens(admin, "bob") == pytest.approx(BURST - 2, abs=0.1)
    await other.close()


@SLOW
async def test_a_direct_message_costs_the_sender_one_and_the_recipient_none(store: Store, admin: Admin) -> None:
    await send(store, direct("alice", "bob"), direct("alice", "alice"))
    assert tokens(admin, "alice") == pytest.approx(BURST - 2, abs=0.1)
    assert not admin.exists(bucket("bob"))


@SLOW
async def test_what_is_refused_otherwise_or_was_stored_before_costs_nothing(store: Store, admin: Admin) -> None:
    await send(store, direct("alice", "bob", key="k"))
    admin.set(key_of("s", "user:broken"), "no stream")
    fill(admin, "alice", 1)
    batch = [
        direct("alice", "bob", key="k"),
        direct("alice", "bob", b"2", key="k"),
        to_group("alice", "nowhere"),
        to_all("alice", b'"\xff"'),
        direct("alice", "broken"),
        to_all("alice"),
        direct("alice", "bob", key="k"),
        to_all("alice"),
    ]
    outcomes = await store.publish(batch, "")
    assert [outcome.code or outcome.is_duplicate for outcome in outcomes] == [
        True,
        "key_reused",
        "no_group",
        "bad_request",
        "internal",
        False,
        True,
        "rate_limited",
    ]
    admin.delete(key_of("s", "user:broken"))


@SLOW
async def test_what_is_half_stored_is_completed_without_another_token(store: Store, admin: Admin) -> None:
    await send(store, direct("alice", "alice"))
    given = admin.hget(key_of("h", "user:alice"), "head")
    admin.xadd(key_of("s", "user:alice"), {"t": "message"}, id="9999999999999-9")
    fill(admin, "alice", 1)
    assert codes(await store.publish([direct("alice", "bob", key="k")], "")) == ["uncertain"]
    assert tokens(admin, "alice") == pytest.approx(0, abs=0.1)
    admin.hset(key_of("h", "user:alice"), "head", "9999999999999-9")
    assert codes(await store.publish([direct("alice", "bob", key="k")], "")) == [None]
    assert given != admin.hget(key_of("h", "user:alice"), "head")
    assert numbers_in(admin, "user:bob") == [1]


@SLOW
async def test_the_system_has_no_limit(store: Store, admin: Admin) -> None:
    fill(admin, "alice", 0)
    before = admin.dump(bucket("alice"))
    batch = [Outgoing("all", "alice", "all", f"m{n}", b"1", "", None, None, is_system=True) for n in range(20)]
    assert codes(await store.publish(batch, "")) == [None] * 20
    assert admin.dump(bucket("alice")) == before
    batch = [Outgoing("all", "office", "all", "m", b"1", "", None, None, is_system=True), to_all("alice")]
    assert codes(await store.publish(batch, "")) == [None, "rate_limited"]
    assert not admin.exists(bucket("office"))


@pytest.mark.parametrize("options", [StoreOptions(user_sends_per_s=10, user_sends_burst=20)])
async def test_it_fills_with_time_up_to_the_brim(store: Store, admin: Admin) -> None:
    fill(admin, "alice", 0, ago_ms=1000)  # ten more by now, and not many more
    outcomes = await store.publish([to_all("alice") for _ in range(20)], "")
    sent = sum(outcome.code is None for outcome in outcomes)
    assert 10 <= sent < 20
    last = outcomes[-1].retry_after
    assert last is not None
    assert 0 < last <= 0.1  # one token, whatever is missing

    fill(admin, "alice", 3, ago_ms=HOUR_MS)
    outcomes = await store.publish([to_all("alice") for _ in range(40)], "")
    assert codes(outcomes[:20]) == [None] * 20
    assert outcomes[20].code == "rate_limited"


@pytest.mark.parametrize("options", [StoreOptions(user_sends_per_s=3, user_sends_burst=1)])
async def test_after_the_wait_that_was_told_there_is_a_token(store: Store, admin: Admin) -> None:
    fill(admin, "alice", 0.1)
    [refused] = await store.publish([to_all("alice")], "")
    assert refused.retry_after is not None
    assert 0.1 < refused.retry_after <= 0.3
    # As if that much time had passed.
    admin.set(bucket("alice"), f"0.1 {now_ms(admin) - round(0.9 / 3 * 1000)}", px=1000)
    assert codes(await store.publish([to_all("alice")], "")) == [None]


@SLOW
async def test_a_clock_that_was_set_back_locks_nobody_out(store: Store, admin: Admin) -> None:
    fill(admin, "alice", 2, ago_ms=-HOUR_MS)
    outcomes = await store.publish([to_all("alice") for _ in range(3)], "")
    assert codes(outcomes) == [None, None, "rate_limited"]
    # Also when nothing of it could be sent: from now on it fills.
    fill(admin, "alice", 0, ago_ms=-HOUR_MS)
    [refused] = await store.publish([to_all("alice")], "")
    assert refused.retry_after is not None
    assert refused.retry_after <= 1 / RATE
    assert int(admin.get(bucket("alice")).split()[1]) <= now_ms(admin)


@SLOW
async def test_a_bucket_goes_when_it_would_be_full(store: Store, admin: Admin) -> None:
    await send(store, to_all("alice"), to_all("alice"))
    assert 2 / RATE - 60 < admin.ttl(bucket("alice")) <= 2 / RATE
    await send(store, to_all("alice"))
    assert 3 / RATE - 60 < admin.ttl(bucket("alice")) <= 3 / RATE


@pytest.mark.parametrize("options", [StoreOptions(user_sends_per_s=1e-300, user_sends_burst=2)])
async def test_however_slow_it_is_the_server_takes_its_lifetime(store: Store, admin: Admin) -> None:
    assert codes(await store.publish([to_all("alice") for _ in range(2)], "")) == [None, None]
    assert admin.pttl(bucket("alice")) > HOUR_MS


@SLOW
@pytest.mark.parametrize("rubbish", ["", "x", "nan 1", "1", "1 2 3", "-5 1"])
async def test_a_bucket_that_cannot_be_read_is_a_new_one(store: Store, admin: Admin, rubbish: str) -> None:
    admin.set(bucket("alice"), rubbish, px=HOUR_MS)
    outcomes = await store.publish([to_all("alice") for _ in range(BURST + 1)], "")
    assert None in codes(outcomes)
    assert codes(outcomes)[-1] == "rate_limited"


@SLOW
async def test_one_of_another_type_refuses_its_user_alone(store: Store, admin: Admin) -> None:
    admin.rpush(bucket("alice"), "no string")
    head = head_of(admin, "all")
    outcomes = await store.publish([to_all("alice"), to_all("bob"), to_all("alice")], "")
    assert codes(outcomes) == ["internal", None, "internal"]
    assert head_of(admin, "all").n == head.n + 1
    admin.delete(bucket("alice"))


@SLOW
async def test_it_costs_no_disk_and_no_replica(store: Store, server: Server, admin: Admin) -> None:
    def mentions(text: bytes) -> int:
        return sum(path.read_bytes().count(text) for path in (server.folder / "appendonlydir").iterdir())

    before = mentions(bucket("alice").encode())  # other tests fill it by hand
    await send(store, to_all("alice", b'"on disk"'))
    assert admin.exists(bucket("alice"))
    assert mentions(b'"on disk"') == 1
    assert mentions(bucket("alice").encode()) == before


async def test_without_a_limit_there_is_no_bucket(store: Store, admin: Admin) -> None:
    await send(store, *(to_all("alice") for _ in range(2000)))
    assert not list(admin.scan_iter("wp:{*}:t:*"))


async def test_the_limit_of_another_node_is_looked_at_alone_by_that_one(store: Store, admin: Admin) -> None:
    fill(admin, "alice", 0)
    assert codes(await store.publish([to_all("alice")], "")) == [None]


def commands_of(admin: Admin) -> dict[str, int]:
    """How often the server has carried out each command since the last reset."""
    stats = admin.info("commandstats")
    return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}


@pytest.mark.parametrize(
    ("options", "count"),
    [(StoreOptions(user_sends_per_s=RATE, user_sends_burst=99), 2), (StoreOptions(), 0)],
    ids=["limited", "free"],
)
async def test_a_bucket_is_read_and_written_once_a_call_at_most(store: Store, admin: Admin, count: int) -> None:
    batch = [to_all(sender) for _ in range(30) for sender in ("alice", "bob")]
    await store.publish(batch, "")
    admin.config_resetstat()
    await store.publish(batch, "")
    commands = commands_of(admin)
    assert (commands.get("get", 0), commands.get("set", 0)) == (count, count)
