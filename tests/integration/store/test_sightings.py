"""What operators look at: streams, entries, devices, evidence; what they did, and what the survey found."""

import pytest

from service.core.names import ZERO, EntryId
from service.errors import WaypostError
from service.store import Commit, Store, Superseded, TrimCause
from service.store.sights import Action, Kept
from tests.integration.store.kit import (
    EPOCH_KEYS,
    FOREIGN_RUN,
    Admin,
    direct,
    hold,
    key_of,
    listen,
    send,
    to_all,
    to_group,
)
from tests.integration.store.stock import now_ms, stock

pytestmark = pytest.mark.anyio


class TestStreams:
    async def test_each_stands_as_it_does_alone(self, store: Store, admin: Admin) -> None:
        await store.join("alice", "g")
        await send(store, *(to_group("alice", "g") for _ in range(3)), to_all("alice"))
        stock(admin, "user:bob", [600, 100, 50])
        names = ["group:g", "all", "group:never", "user:bob", "user:nobody"]
        found = await store.stream_sights(names, now_ms(admin) - 300_000)
        assert [None if one is None else one.facts for one in found] == [
            await store.stream_facts("group:g"),
            await store.stream_facts("all"),
            None,
            await store.stream_facts("user:bob"),
            await store.stream_facts("user:nobody"),
        ]
        assert [None if one is None else one.recent for one in found] == [4, 1, None, 2, 0]

    async def test_a_key_of_another_type_costs_the_others_nothing(self, store: Store, admin: Admin) -> None:
        await send(store, to_all("alice"))
        admin.set(key_of("s", "user:broken"), "x")
        broken, fine = await store.stream_sights(["user:broken", "all"], 0)
        assert broken is None
        assert fine is not None
        assert fine.facts.entries == 1
        admin.delete(key_of("s", "user:broken"))

    async def test_names_by_a_part(self, store: Store) -> None:
        await send(store, direct("alice", "bob"), direct("alice", "x-axb"), to_all("alice"))
        for part, kind, expected in (
            ("b*b", "", set()),
            ("[b]", "", set()),
            ("x-a", "", {"user:x-axb"}),
            ("bo", "user", {"user:bob"}),
            ("user", "", {"user:bob", "user:alice", "user:x-axb"}),
            ("user", "user", set()),
            ("l", "all", {"all"}),
            ("x", "all", set()),
        ):
            names, cursor = await store.streams_page("", 1000, kind, part)  # type: ignore[arg-type]
            assert (set(names), cursor) == (expected, "")


class TestEntries:
    async def test_the_newest_or_the_oldest_between_two_ids(self, store: Store) -> None:
        ids = await send(store, *(to_all("alice") for _ in range(6)))

        async def numbers(*, above: EntryId | None = None, below: EntryId | None = None, newest: bool) -> list[int]:
            found = await store.entries("all", above=above, below=below, limit=2, newest=newest)
            return [entry.id.n for entry in found]

        assert await numbers(newest=True) == [5, 6]
        assert await numbers(newest=False) == [1, 2]
        assert await numbers(above=ids[1], newest=False) == [3, 4]
        assert await numbers(below=ids[3], newest=True) == [2, 3]
        assert await numbers(above=ids[2], below=ids[4], newest=True) == [4]
        assert await numbers(below=ZERO, newest=True) == await numbers(above=ids[5], newest=False) == []

    async def test_redactions_and_the_ledger(self, store: Store) -> None:
        ids = await send(store, *(to_all("alice") for _ in range(4)))
        await store.redact("all", ids[2], "alice", only_sender=True)
        await store.trim("all", ids[0], TrimCause("all", "max_age=1d"))
        await store.trim("all", ids[1], TrimCause("all", "max_entries=2"))
        assert [one.id for one in await store.redactions("all", [1, 2, 3, 4])] == [ids[2]]
        assert await store.redactions("all", []) == []
        assert [line.limit for line in await store.ledger("all", 10)] == ["max_entries=2", "max_age=1d"]
        assert [line.to for line in await store.ledger("all", 1)] == [ids[1]]

    async def test_the_first_above(self, store: Store) -> None:
        ids = await send(store, *(to_all("alice") for _ in range(3)))
        asked = [("all", ZERO), ("all", ids[0]), ("all", ids[2]), ("user:nobody", ZERO)]
        assert await store.first_above(asked) == [ids[0], ids[1], None, None]


class TestDevices:
    async def test_a_user_with_all_that_is_theirs(self, store: Store) -> None:
        for device in ("old", "new"):
            await store.open_session("alice", device, "n1", {}, is_foreign=False)
        await store.join("alice", "g")
        await store.join("alice", "left")
        await store.join("bob", "g")
        [told] = await send(store, to_group("bob", "g"))
        await store.leave("alice", "left")
        await store.commit([Commit("alice", "new", {"group:g": told})])
        await listen(store, "user:alice", node="n7")
        found = await store.user_sight("alice", 10)
        assert {device.device for device in found.devices} == {"old", "new"}
        assert found.devices_count == 2
        assert {"user:alice", "all", "group:g", "group:left"} == found.streams.keys()
        assert found.streams["user:alice"].nodes == ("n7",)
        assert found.streams["user:alice"].stretches is None
        left = found.streams["group:left"].stretches
        assert left is not None
        assert left[-1].left is not None
        by_name = {device.device: device for device in found.devices}
        assert by_name["new"].offsets["group:g"] == (told, store.epoch)
        assert by_name["new"].node == "n1"
        only = await store.user_sight("alice", 1)
        assert (len(only.devices), only.devices_count) == (1, 2)
        nobody = await store.user_sight("nobody", 10)
        assert (nobody.devices, set(nobody.streams)) == ((), {"user:nobody", "all"})

    async def test_of_a_stream_those_of_some_users(self, store: Store) -> None:
        for user in ("alice", "bob"):
            await store.open_session(user, "phone", "n1", {}, is_foreign=False)
            await store.join(user, "g")
        groups, inboxes = await store.stream_devices([("group:g", ["alice", "bob", "x"]), ("user:x", ["x"])], 5)
        assert [(one.user, one.device, one.offset is not None) for one in groups] == [
            ("alice", "phone", True),
            ("bob", "phone", True),
        ]
        assert all(one.stretches for one in groups)
        assert inboxes == []


class TestEvidence:
    async def test_what_is_kept_of_an_id(self, store: Store) -> None:
        await store.join("alice", "g")
        ids = await send(store, *(to_group("alice", "g") for _ in range(4)))
        await store.redact("group:g", ids[2], "alice", only_sender=True)
        await store.trim("group:g", ids[0], TrimCause("group:*", "max_age=1d"))
        there = await store.evidence("group:g", ids[1], "alice")
        assert there.entry is not None
        assert (there.entry.id, there.other, there.group_exists) == (ids[1], None, True)
        assert there.bounds.stretches
        redacted = await store.evidence("group:g", ids[2], "bob")
        assert redacted.redaction is not None
        assert (redacted.entry, redacted.redaction.by, redacted.bounds.stretches) == (None, "alice", ())
        gone = await store.evidence("group:g", ids[0], "alice")
        assert (gone.entry, gone.removals[-1].limit) == (None, "max_age=1d")
        other = await store.evidence("group:g", EntryId(ids[1].ms - 5, ids[1].n), "alice")
        assert (other.entry, other.other) == (None, ids[1])
        assert (await store.evidence("group:g", ZERO, "alice")).entry is None
        never = await store.evidence("group:never", ids[1], "alice")
        assert never.group_exists is False


class TestActions:
    async def test_they_come_newest_first_in_pages(self, store: Store) -> None:
        assert await store.actions("", 10) == []
        for number in range(5):
            await store.note_action(Action("cli:a@b", "key_new", f"k{number}", reason="it's time", detail="ä"))
        newest = await store.actions("", 2)
        assert [one.target for one in newest] == ["k4", "k3"]
        assert (newest[0].who, newest[0].reason, newest[0].outcome, newest[0].detail) == (
            "cli:a@b",
            "it's time",
            "ok",
            "ä",
        )
        assert abs(newest[0].at_ms - await store.now_ms()) < 60_000
        assert [one.target for one in await store.actions(newest[-1].id, 9)] == ["k2", "k1", "k0"]
        assert await store.actions("0-0", 9) == []

    async def test_on_a_full_and_fenced_store_too(self, store: Store, admin: Admin) -> None:
        for fence in EPOCH_KEYS:
            admin.hset(fence, "run", FOREIGN_RUN)
        admin.config_set("maxmemory", "100kb")
        await store.note_action(Action("dev", "disconnect", "alice"))
        assert [one.target for one in await store.actions("", 10)] == ["alice"]
        assert (await store.user_sight("alice", 1)).devices == ()
        assert await store.entries("all", limit=1, newest=True) == []
        with pytest.raises(WaypostError, match="no_group"):
            await store.stream_facts("group:g")


class TestSurvey:
    async def test_a_part_takes_the_place_of_the_one_before(self, store: Store) -> None:
        assert await store.survey_part("lag") is None
        lease = await hold(store, "survey")
        held = {"job": "survey", "lease": lease.lease, "token": lease.token}
        await store.keep_survey("lag", Kept(1, "run", [{"stream": "all", "value": 3.5}]), **held)
        await store.keep_survey("lag", Kept(2, "run", [{"stream": "ä"}]), **held)
        assert await store.survey_part("lag") == Kept(2, "run", [{"stream": "ä"}])
        assert await store.survey_part("bytes") is None

    async def test_whoever_has_lost_the_lease_keeps_nothing(self, store: Store) -> None:
        lease = await hold(store, "survey")
        with pytest.raises(Superseded):
            await store.keep_survey("lag", Kept(1, "r", []), job="survey", lease=lease.lease, token="1")
        assert await store.survey_part("lag") is None

    async def test_who_holds_a_job(self, store: Store) -> None:
        assert (await store.job_sight("survey")).holder == ""
        await hold(store, "survey", worker="w9")
        found = await store.job_sight("survey")
        assert found.holder == "w9"
        assert 0 < found.lease_ms <= 60_000
