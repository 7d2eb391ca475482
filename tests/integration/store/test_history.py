"""history: every kind of anchor, what is the user's, what is gone, and what a look costs. Read and answered."""

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from service.core.anchors import parse_anchor
from service.core.history import LIMIT_MAX, History, answer, ask
from service.core.names import ZERO, EntryId
from service.core.paging import Gap
from service.errors import WaypostError
from service.store import Store, StoreOptions, TrimCause
from tests.integration.store.kit import Admin, Server, direct, head_of, key_of, send, to_all, to_group

pytestmark = pytest.mark.anyio


async def look(
    store: Store,
    stream: str = "all",
    user: str = "alice",
    *,
    after: int | str | EntryId | None = None,
    before: int | str | EntryId | None = None,
    around: int | str | EntryId | None = None,
    limit: int = 50,
    partner: str | None = None,
    max_bytes: int = 262_144,
    looked_max: int = 1000,
) -> History:
    """What a user is answered."""
    spelt = [str(at) if isinstance(at, EntryId) else at for at in (after, before, around)]
    question = ask(stream, user, parse_anchor(*spelt), limit, partner)
    past = await store.history(user, question, max_bytes=max_bytes, looked_max=looked_max)
    return answer(past, user, question)


def numbers(found: History) -> list[int]:
    return [entry.id.n for entry in found.entries]


def gaps(found: History) -> list[tuple[int, int, str]]:
    return [(gap.after.n, gap.to.n, gap.causes[-1].kind) for gap in found.gaps]


def ends(found: History) -> tuple[bool, bool]:
    return found.found_oldest, found.found_newest


def span(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


async def spread(store: Store, admin: Admin, count: int) -> list[EntryId]:
    """Messages to all, each in a millisecond of its own: the clock of the head is moved on in between."""
    ids: list[EntryId] = []
    for _ in range(count):
        ids += await send(store, to_all("alice"))
        admin.hset(key_of("h", "all"), "head", f"{ids[-1].ms + 10}-{ids[-1].n}")
    admin.hset(key_of("h", "all"), "head", str(ids[-1]))
    return ids


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- anchors ----------------------------------------------------------------------------------------------------------


async def test_without_an_anchor_the_newest_come_oldest_first(store: Store) -> None:
    ids = await send(store, *(to_all("alice", b"%d" % n) for n in range(100)))
    found = await look(store, limit=30)

    assert numbers(found) == span(71, 100)
    assert [entry.body for entry in found.entries[:2]] == [b"70", b"71"]
    assert (found.floor, found.head, found.first, found.last) == (ZERO, ids[99], ids[70], ids[99])
    assert (ends(found), found.gaps, found.looked_at) == ((False, True), (), 30)
    assert ends(await look(store, limit=100)) == (True, True)


@pytest.mark.parametrize("spelling", ["id", "n", "time"])
async def test_after_before_and_around_by_id_by_number_and_by_time(store: Store, admin: Admin, spelling: str) -> None:
    ids = await spread(store, admin, 20)
    at: str | int
    at = str(ids[9]) if spelling == "id" else 10 if spelling == "n" else rfc3339(ids[9].ms)

    after, before = await look(store, after=at, limit=5), await look(store, before=at, limit=5)
    around = await look(store, around=at, limit=5)
    assert numbers(after) == span(11, 15)
    assert numbers(before) == span(5, 9)
    assert numbers(around) == span(8, 12)
    assert [ends(found) for found in (after, before, around)] == [(False, False)] * 3
    assert ends(await look(store, after=at)) == (False, True)
    assert ends(await look(store, before=at)) == (True, False)
    assert ends(await look(store, around=at, limit=100)) == (True, True)


async def test_a_time_between_two_entries_and_beside_all_of_them(store: Store, admin: Admin) -> None:
    ids = await spread(store, admin, 5)
    between = rfc3339(ids[2].ms + 5)

    assert numbers(await look(store, after=between)) == [4, 5]
    assert numbers(await look(store, before=between)) == [1, 2, 3]
    half = rfc3339(ids[2].ms).replace("Z", "5Z")  # half a millisecond later
    assert numbers(await look(store, after=half)) == [4, 5]
    assert numbers(await look(store, before=half)) == [1, 2, 3]
    early = await look(store, before="1969-12-31T23:00:00Z")
    assert (numbers(early), ends(early)) == ([], (True, False))
    assert numbers(await look(store, after="1969-12-31T23:00:00+02:00")) == span(1, 5)
    assert numbers(await look(store, before="2999-01-01T00:00:00Z")) == span(1, 5)
    for side in ("after", "around"):
        with pytest.raises(WaypostError, match="bad_anchor"):
            await look(store, **{side: "2999-01-01T00:00:00Z"})  # type: ignore[arg-type]


async def test_a_time_after_the_last_entry_is_no_error_when_it_has_come(store: Store, admin: Admin) -> None:
    await send(store, to_all("alice"))
    fields = {"t": "message", "f": "bob", "o": "user:alice", "b": "1", "i": "x"}
    admin.xadd(key_of("s", "user:alice"), fields, id="5-1")  # long ago
    seconds, _ = admin.time()
    found = await look(store, "user:alice", after=rfc3339(int(seconds) * 1000))
    assert (numbers(found), ends(found)) == ([], (False, True))


async def test_anchors_at_and_above_the_head_and_zero(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(5)))

    for at in (5, ids[4]):
        found = await look(store, after=at)
        assert (numbers(found), ends(found), found.first, found.last) == ([], (False, True), None, None)
    for at in (6, 99, 2**60, EntryId(ids[4].ms + 5, 99)):
        assert numbers(await look(store, before=at, limit=2)) == [4, 5]
        for side in ("after", "around"):
            with pytest.raises(WaypostError, match="bad_anchor"):
                await look(store, **{side: at})  # type: ignore[arg-type]
    for at in (0, ZERO):
        assert numbers(await look(store, after=at, limit=2)) == [1, 2]
        assert ends(await look(store, after=at, limit=2)) == (True, False)
        assert numbers(await look(store, around=at, limit=3)) == [1, 2, 3]
        found = await look(store, before=at)
        assert (numbers(found), ends(found), found.gaps) == ([], (True, False), ())


async def test_an_id_of_another_history_is_a_bad_anchor(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(5)))
    await store.redact("all", ids[3], "alice", only_sender=True)
    foreign = [
        EntryId(ids[1].ms - 1, 2),  # its number is taken by another entry
        EntryId(ids[1].ms + 1, 2),
        EntryId(ids[3].ms + 1, 4),  # by a redacted one
        EntryId(ids[4].ms + 10**6, 3),
        EntryId(ids[0].ms - 1, 60),
    ]
    for at in foreign:
        for side in ("after", "before", "around"):
            with pytest.raises(WaypostError, match="bad_anchor"):
                await look(store, **{side: at})  # type: ignore[arg-type]
    for at in ids:
        await look(store, around=at)


async def test_an_empty_stream(store: Store) -> None:
    for anchor in ({}, {"after": 0}, {"before": 0}, {"before": 7}, {"around": 0}):
        found = await look(store, "user:alice", **anchor)  # type: ignore[arg-type]
        assert (found.entries, found.gaps, ends(found), found.head) == ((), (), (True, True), ZERO)
    with pytest.raises(WaypostError, match="bad_anchor"):
        await look(store, "user:alice", after=1)


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_bytes_end_an_answer_but_one_message_always_comes(store: Store) -> None:
    await send(store, *(to_all("alice", b'"%s"' % (b"x" * 1000)) for _ in range(9)))

    assert numbers(await look(store, max_bytes=10)) == [9]
    assert numbers(await look(store, after=0, max_bytes=10)) == [1]
    assert numbers(await look(store, max_bytes=3 * 1050)) == [7, 8, 9]
    assert numbers(await look(store, after=2, max_bytes=3 * 1050)) == [3, 4, 5]
    around = await look(store, around=5, max_bytes=5 * 1050)
    assert numbers(around) == [3, 4, 5, 6, 7]
    assert ends(around) == (False, False)
    assert numbers(await look(store, around=5, max_bytes=10)) == [4, 5]


async def test_many_redacted_messages_come_no_more_than_were_asked_for(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(150)))
    for entry in ids:
        await store.redact("all", entry, "alice", only_sender=True)

    seen: list[int] = []
    at: int | EntryId = 0
    while True:
        found = await look(store, after=at, limit=20)
        assert len(found.entries) <= 20
        seen += numbers(found)
        if found.found_newest:
            break
        assert found.last is not None
        at = found.last
    assert seen == span(1, 300)
    back: list[int] = []
    found = await look(store, limit=20)
    while not found.found_oldest:
        back[:0] = numbers(found)
        assert found.first is not None
        found = await look(store, before=found.first, limit=20)
    assert numbers(found) + back == span(1, 300)
    middle = await look(store, around=75, limit=9)
    assert numbers(middle) == span(71, 79)
    assert all(entry.is_redacted and entry.body is None for entry in middle.entries)


# -- what is gone ------------------------------------------------------------------------------------------------------


async def test_what_was_trimmed_is_a_gap_with_its_cause_never_an_empty_answer(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(10)))
    await store.trim("all", ids[3], TrimCause("old", "max_age=1"))

    whole = await look(store)
    assert (numbers(whole), gaps(whole), ends(whole)) == (span(5, 10), [(0, 4, "trimmed")], (True, True))
    assert (whole.gaps[0].causes[0].limit, whole.gaps[0].next, whole.floor) == ("max_age=1", ids[4], ids[3])
    for at in (2, ids[1]):
        after = await look(store, after=at, limit=2)
        assert (numbers(after), gaps(after), ends(after)) == ([5, 6], [(2, 4, "trimmed")], (False, False))
        before = await look(store, before=at)
        assert (numbers(before), gaps(before), ends(before)) == ([], [(0, 1, "trimmed")], (True, False))
        around = await look(store, around=at, limit=2)
        assert (numbers(around), gaps(around)[-1][1]) == ([5, 6], 4)
        assert sum(to - after for after, to, _ in gaps(around)) == 4
    assert gaps(await look(store, after=ids[3])) == []
    early = await look(store, after=rfc3339(ids[0].ms - 1000), limit=2)
    assert (numbers(early), gaps(early)) == ([5, 6], [(0, 4, "trimmed")])
    for time in ("1970-01-01T00:00:00Z", rfc3339(ids[0].ms - 1000)):  # where in it a time lies nobody knows any more
        before = await look(store, before=time)
        assert (numbers(before), gaps(before), ends(before)) == ([], [(0, 4, "trimmed")], (True, False))
    with pytest.raises(WaypostError, match="bad_anchor"):
        await look(store, after=EntryId(ids[3].ms + 10**6, 2))


async def test_everything_trimmed_is_one_gap(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    await store.trim("all", ids[2], TrimCause())
    for anchor in ({}, {"after": 0}, {"before": 9}, {"around": 2}):
        found = await look(store, **anchor)  # type: ignore[arg-type]
        assert numbers(found) == []
        assert sum(to - after for after, to, _ in gaps(found)) == 3
    found = await look(store, after=3)
    assert (found.gaps, ends(found)) == ((), (False, True))


async def test_what_was_lost_is_a_gap_in_the_middle(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(4)))
    await store.reconcile("n1", ["n1"], {"all": EntryId(ids[3].ms, 9)})
    await send(store, *(to_all("alice") for _ in range(3)))

    whole = await look(store)
    assert (numbers(whole), gaps(whole)) == ([1, 2, 3, 4, 10, 11, 12], [(4, 9, "lost")])
    assert gaps(await look(store, limit=3)) == []
    assert gaps(await look(store, limit=4)) == [(4, 9, "lost")]
    for at in (7, EntryId(ids[3].ms, 7)):
        after, before = await look(store, after=at, limit=1), await look(store, before=at, limit=1)
        assert (numbers(after), gaps(after)) == ([10], [(7, 9, "lost")])
        assert (numbers(before), gaps(before)) == ([4], [(4, 6, "lost")])
    assert numbers(await look(store, around=7, limit=4)) == [3, 4, 10, 11]


async def test_a_redacted_message_keeps_its_place_and_no_gap_is_told(store: Store) -> None:
    ids = await send(store, *(to_all("alice", key=f"m{n}") for n in range(5)))
    await store.redact("all", ids[2], "alice", only_sender=True)

    found = await look(store)
    assert (numbers(found), found.gaps) == (span(1, 6), ())
    assert [(e.id.n, e.is_redacted, e.body, e.mid) for e in found.entries[2:4]] == [
        (3, True, None, "m2"),
        (4, False, b'"hi"', "m3"),
    ]
    assert (found.entries[-1].type, found.entries[-1].target) == ("redacted", str(ids[2]))
    assert numbers(await look(store, around=3, limit=3)) == [2, 3, 4]
    assert numbers(await look(store, after=3, limit=1)) == [4]
    assert numbers(await look(store, before=3, limit=1)) == [2]
    assert numbers(await look(store, around=ids[2], limit=3)) == [2, 3, 4]


# -- whose it is -------------------------------------------------------------------------------------------------------


async def test_a_group_is_its_members_for_the_stretches_of_their_membership(store: Store) -> None:
    await store.join("alice", "g", mailbox="", origin=None)  # 1
    await send(store, to_group("alice", "g"))  # 2
    await store.join("bob", "g", mailbox="", origin=None)  # 3
    await send(store, to_group("alice", "g"))  # 4
    left = await store.leave("bob", "g", mailbox="", origin=None)  # 5
    await send(store, *(to_group("alice", "g") for _ in range(3)))  # 6-8
    with pytest.raises(WaypostError, match="not_member"):
        await look(store, "group:g", "eve")
    with pytest.raises(WaypostError, match="not_member"):
        await look(store, "group:none", "eve")

    former = await look(store, "group:g", "bob")
    assert (numbers(former), ends(former), former.gaps) == ([3, 4, 5], (True, True), ())
    assert former.head == left.id  # what goes on there since is none of his
    with pytest.raises(WaypostError, match="bad_anchor"):
        await look(store, "group:g", "bob", after=7)
    await store.join("bob", "g", mailbox="", origin=None)  # 9
    await send(store, to_group("alice", "g"))  # 10
    whole = await look(store, "group:g", "bob")
    assert (numbers(whole), ends(whole), whole.gaps) == ([3, 4, 5, 9, 10], (True, True), ())
    assert numbers(await look(store, "group:g", "bob", limit=3)) == [5, 9, 10]
    assert numbers(await look(store, "group:g", "bob", after=4)) == [5, 9, 10]
    assert numbers(await look(store, "group:g", "bob", after=7, limit=1)) == [9]
    assert numbers(await look(store, "group:g", "bob", before=7, limit=1)) == [5]
    early = await look(store, "group:g", "bob", after=1, limit=2)
    assert (numbers(early), ends(early)) == ([3, 4], (True, False))
    assert numbers(await look(store, "group:g", "alice")) == span(1, 10)


async def test_a_gap_is_told_within_the_stretches_alone(store: Store) -> None:
    await store.join("alice", "g", mailbox="", origin=None)
    await send(store, *(to_group("alice", "g") for _ in range(3)))  # 2-4
    await store.join("bob", "g", mailbox="", origin=None)  # 5
    ids = await send(store, *(to_group("alice", "g") for _ in range(4)))  # 6-9
    await store.trim("group:g", ids[1], TrimCause("old", "max_age"))

    found = await look(store, "group:g", "bob")
    assert (numbers(found), gaps(found), ends(found)) == ([8, 9], [(5, 7, "trimmed")], (True, True))
    assert gaps(await look(store, "group:g", "bob", after=6, limit=1)) == [(6, 7, "trimmed")]
    assert gaps(await look(store, "group:g", "bob", before=7)) == [(5, 6, "trimmed")]
    for n in (3, 6):
        found = await look(store, "group:g", "bob", around=n, limit=1)
        assert (numbers(found), gaps(found)) == ([8], [(5, 7, "trimmed")])
    assert gaps(await look(store, "group:g", "bob", before=5)) == []
    assert gaps(await look(store, "group:g", "alice")) == [(1, 7, "trimmed")]


class TestUnannounced:
    @pytest.fixture
    def options(self) -> StoreOptions:
        return StoreOptions(announce=1)

    async def test_where_joining_is_not_announced_the_entry_at_its_point_is_anothers(self, store: Store) -> None:
        await store.join("alice", "g", mailbox="", origin=None)  # 1
        await send(store, to_group("alice", "g"))  # 2
        await store.join("bob", "g", mailbox="", origin=None)  # at 2
        await send(store, to_group("alice", "g"))  # 3
        await store.leave("bob", "g", mailbox="", origin=None)  # at 3
        await send(store, to_group("alice", "g"))  # 4
        await store.join("bob", "g", mailbox="", origin=None)  # at 4
        await send(store, to_group("alice", "g"))  # 5

        assert numbers(await look(store, "group:g", "bob")) == [3, 5]
        for n in (2, 4):
            assert n not in numbers(await look(store, "group:g", "bob", around=n))
        assert numbers(await look(store, "group:g", "bob", limit=1)) == [5]
        assert numbers(await look(store, "group:g", "bob", before=5)) == [3]


async def test_direct_messages_with_one_user(store: Store, admin: Admin) -> None:
    await send(store, direct("alice", "bob", b"1"), direct("alice", "carol", b"2"), direct("alice", "alice", b"3"))
    outcomes = await store.publish([direct("bob", "alice", b"4"), direct("carol", "alice", b"5")], "")
    own = (await send(store, direct("alice", "bob", b"6", key="gone")))[0]
    await store.redact("user:alice", own, "alice", only_sender=True)
    assert outcomes[0].code is None

    with_bob = await look(store, "user:alice", partner="bob")
    assert [(entry.sender, entry.body, entry.is_redacted) for entry in with_bob.entries] == [
        ("alice", b"1", False),
        ("bob", b"4", False),
        ("alice", None, True),
    ]
    assert (with_bob.looked_at, ends(with_bob), with_bob.gaps) == (7, (True, True), ())
    assert [entry.body for entry in (await look(store, "user:alice", partner="carol")).entries] == [b"2", b"5"]
    assert [entry.body for entry in (await look(store, "user:alice", partner="alice")).entries] == [b"3"]
    assert numbers(await look(store, "user:alice", partner="nobody")) == []


async def test_a_partners_answer_that_shows_nothing_can_be_gone_on_from(store: Store) -> None:
    await send(store, direct("alice", "bob", b'"first"'), *(direct("alice", "carol") for _ in range(25)))
    await send(store, direct("alice", "bob", b'"last"'), *(direct("alice", "carol") for _ in range(25)))

    found, seen, looked, calls = await look(store, "user:alice", partner="bob", looked_max=10), [], 0, 0
    while True:
        seen += [entry.body for entry in found.entries]
        looked, calls = looked + found.looked_at, calls + 1
        assert found.looked_at <= 10
        if found.found_oldest:
            break
        assert found.first is not None
        found = await look(store, "user:alice", partner="bob", looked_max=10, before=found.first)
    assert (seen, looked, calls) == ([b'"last"', b'"first"'], 52, 6)
    around = await look(store, "user:alice", partner="bob", around=27, looked_max=10)
    assert (numbers(around), around.looked_at) == ([27], 20)
    assert around.last is not None
    on = await look(store, "user:alice", partner="bob", after=around.last, looked_max=100)
    assert (numbers(on), ends(on)) == ([], (False, True))


# -- what it costs -----------------------------------------------------------------------------------------------------


def ranges_read(admin: Admin) -> int:
    stats = admin.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("xrange", "xrevrange"))


def fill(admin: Admin, count: int, *, without: Iterable[int] = (), step_ms: int = 7) -> None:
    """A stream as if written over a long time, but for some numbers."""
    missing, key, entries = set(without), key_of("s", "all"), admin.pipeline(transaction=False)
    for n in range(1, count + 1):
        if n not in missing:
            fields = {"t": "message", "f": "alice", "o": "all", "i": f"m{n}", "b": str(n)}
            entries.xadd(key, fields, id=f"{1_700_000_000_000 + n // 3 * step_ms}-{n}")  # three in a millisecond
        if n % 10_000 == 0:
            entries.execute()
    entries.execute()
    head = f"{1_700_000_000_000 + count // 3 * step_ms}-{count}"
    admin.hset(key_of("h", "all"), "head", head)


async def test_a_number_is_found_by_a_bounded_search(store: Store, admin: Admin) -> None:
    missing = [*range(500, 600), 60_000, 60_001, 99_999]
    fill(admin, 100_000, without=missing, step_ms=20_000_000)  # over two centuries
    costs = []
    for n in (1, 2, 3, 499, 500, 550, 599, 600, 33_333, 60_000, 60_001, 99_998, 99_999, 100_000):
        before = ranges_read(admin)
        found = await look(store, around=n, limit=6)
        costs.append(ranges_read(admin) - before)
        have = [m for m in range(max(n - 200, 1), min(n + 200, 100_000) + 1) if m not in missing]
        below = [m for m in have if m < n][-3:]
        assert numbers(found) == [*below, *[m for m in have if m >= n][: 6 - len(below)]]
        lost = {m for gap in found.gaps for m in range(gap.after.n + 1, gap.to.n + 1)}
        assert lost <= set(missing)
    assert 20 < max(costs) <= 50


async def test_many_entries_in_one_millisecond(store: Store, admin: Admin) -> None:
    await send(store, *(to_all("alice") for _ in range(2)))
    ms = head_of(admin, "all").ms + 10_000_000  # the clock was set back: all that follows has the head's millisecond
    admin.hset(key_of("h", "all"), "head", f"{ms}-2")
    for _ in range(10):
        await send(store, *(to_all("alice") for _ in range(200)))
    before = ranges_read(admin)
    assert numbers(await look(store, around=1500, limit=5)) == span(1498, 1502)
    assert ranges_read(admin) - before <= 60
    assert numbers(await look(store, after=2, limit=3)) == [3, 4, 5]
    assert numbers(await look(store, before=3, limit=3)) == [1, 2]


async def test_a_look_is_read_in_steps_and_not_as_a_scan(store: Store, admin: Admin) -> None:
    fill(admin, 20_000)
    for anchor in ({}, {"after": 5}, {"before": 20_000}, {"around": "2023-11-14T22:13:30Z"}):
        before = ranges_read(admin)
        found = await look(store, limit=LIMIT_MAX, **anchor)
        assert len(found.entries) == LIMIT_MAX
        assert ranges_read(admin) - before <= 60


async def test_it_writes_nothing_and_nothing_is_read_from_a_fenced_store(store: Store, server: Server) -> None:
    await send(store, to_all("alice"))
    admin = server.admin
    before = {key: admin.dump(key) for key in admin.keys("*")}
    await look(store)
    assert {key: admin.dump(key) for key in admin.keys("*")} == before
    admin.hset(key_of("e", "all", "").removesuffix(":all"), "run", "f" * 40)
    with pytest.raises(WaypostError, match="unavailable"):
        await look(store)


async def test_a_gap_is_a_gap(store: Store) -> None:
    ids = await send(store, *(to_all("alice") for _ in range(3)))
    await store.trim("all", ids[0], TrimCause())
    found = await look(store, before=3)
    assert found.gaps == (Gap(ZERO, ids[0], 1, found.gaps[0].causes, ids[1]),)
    assert found.first == EntryId(0, 1)
    again = await look(store, before=found.first)
    assert (again.entries, again.gaps, ends(again)) == ((), (), (True, False))
