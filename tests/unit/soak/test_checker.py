"""The soak's checker finds what is wrong in made-up histories, and nothing in one that is as it should be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.core.names import EntryId
from tests.soak.checker import Fault, Kept, Span, StreamFacts, Verdict, check
from tests.soak.history import Answered, Attempt, Came, Cut, Gap, Opened, Record, Refused, Stored, Writer

NOW = 1000.0


def at(n: int) -> str:
    return f"{5000 + n}-{n}"


def opened(n: int = 0, epoch: str = "e1") -> Opened:
    return Opened(NOW, "a", epoch, {"user:u1": at(0), "group:g1": at(n)})


def attempt(n: int, to: str = "group:g1", key: str = "k") -> Attempt:
    return Attempt(NOW, f"u0-{n}", to, key)


def stored(n: int, *, again: bool = False) -> Stored:
    return Stored(NOW, f"u0-{n}", "group:g1", "group:g1", at(n), again, "fsynced")


def came(n: int, value: int | None = None, stream: str = "group:g1") -> Came:
    return Came(NOW, stream, at(n), "message", "u0", f"u0-{value or n}")


def gap(after: int, to: int, kind: str = "lost") -> Gap:
    return Gap(NOW, "group:g1", at(after), at(to), to - after, (kind,))


def facts(*numbers: int, head: int, lost: tuple[Span, ...] = ()) -> dict[str, StreamFacts]:
    entries = frozenset(EntryId(5000 + n, n) for n in numbers)
    return {"group:g1": StreamFacts(EntryId(5000 + head, head), EntryId(0, 0), entries, frozenset(), lost)}


SENDER: list[Record] = [opened(), *(record for n in (1, 2, 3) for record in (attempt(n), stored(n)))]
GOOD: list[Record] = [opened(), came(1), came(2), came(3)]


class Run:
    """Histories of a sender and of one who receives, and what the store holds in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[Fault] = []
        self.facts = facts(1, 2, 3, head=3)
        self.kept = Kept({("u1", "g1"): [(at(0), "")], ("u0", "g1"): [(at(0), "")]}, {}, {"e1": NOW + 1}, [])

    def check(self, received: list[Record], sent: list[Record] | None = None) -> Verdict:
        for user, records in (("u0", SENDER if sent is None else sent), ("u1", received)):
            with Writer(self.folder, user, "phone") as writer:
                for record in records:
                    writer.write(record)
        return check(self.folder, self.faults, self.facts, self.kept)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_history_as_it_should_be_is_clean(run: Run) -> None:
    verdict = run.check(GOOD)
    assert verdict.violations == {}
    assert (verdict.counts["attempted"], verdict.counts["acknowledged"], verdict.counts["came"]) == (3, 3, 3)


def test_what_comes_again_after_a_cut_is_no_fault(run: Run) -> None:
    assert run.check([opened(), came(1), came(2), Cut(NOW, 1006, ""), opened(1), came(2), came(3)]).is_clean


def test_a_sent_that_is_told_while_pages_are_read_comes_again_as_a_message(run: Run) -> None:
    sent: list[Record] = [opened(), attempt(1), stored(1), attempt(2), attempt(3), stored(3), came(1), came(2), came(3)]
    assert run.check(GOOD, [*sent, stored(2, again=True)]).is_clean


@pytest.mark.parametrize(
    ("received", "kind"),
    [
        ([opened(), came(1), came(2)], "lost"),
        ([opened(), came(1), came(3)], "hole"),
        ([opened(), came(1), came(1), came(2), came(3)], "twice or out of order"),
        ([opened(), came(1), came(3), came(2)], "twice or out of order"),
        ([opened(), came(1), Cut(NOW, 1006, ""), opened(2), came(3)], "skipped"),
        ([opened(), came(1), came(2, value=9), came(3)], "unlike"),
        ([*GOOD, came(4, value=77)], "unexpected"),
        ([*GOOD, came(4, value=2)], "doubled"),
        ([opened(), came(1), gap(1, 2), came(3)], "unexplained gap"),
        ([*GOOD, came(1, value=1, stream="user:u7")], "not theirs"),
        ([*GOOD, Came(NOW, "group:g2", at(1), "message", "u0", "u0-1")], "not theirs"),
        ([*GOOD, Refused(NOW, "u1-1", "internal", retry=True)], "refused"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_must_never_come_is_found(run: Run, received: list[Record], kind: str) -> None:
    assert kind in run.check(received).violations


def test_a_gap_that_a_fault_explains_covers_what_was_acknowledged(run: Run) -> None:
    run.faults = [Fault("power cut", NOW - 1, frozenset({"lost"}))]
    run.facts = facts(1, 3, head=3, lost=(Span(EntryId(5001, 1), EntryId(5002, 2)),))
    verdict = run.check([opened(), came(1), gap(1, 2), came(3)])
    assert verdict.violations == {}
    assert verdict.counts["numbers in gaps lost"] == 1


@pytest.mark.parametrize(
    "told",
    [
        gap(0, 2),  # begins before what the device has
        Gap(NOW, "group:g1", at(1), at(2), 7, ("lost",)),  # counts wrong
        gap(1, 3),  # spans an entry that is there
    ],
)
def test_a_gap_that_is_not_exact_is_found(run: Run, told: Gap) -> None:
    run.faults = [Fault("power cut", NOW - 1, frozenset({"lost"}))]
    run.facts = facts(1, 3, head=3, lost=(Span(EntryId(5001, 1), EntryId(5002, 2)),))
    assert "gap" in run.check([opened(), came(1), told, *([came(3)] if told.to == at(2) else [])]).violations


def test_a_gap_whose_fault_came_later_is_not_explained(run: Run) -> None:
    run.faults = [Fault("power cut", NOW + 1, frozenset({"lost"}))]
    assert "unexplained gap" in run.check([opened(), came(1), gap(1, 2), came(3)]).violations


def test_sends_of_one_device_in_the_wrong_order_are_found(run: Run) -> None:
    swapped: list[Record] = [opened(), came(1, value=2), came(2, value=1), came(3)]
    sent: list[Record] = [opened(), attempt(1), attempt(2), attempt(3)]
    assert "reordered" in run.check(swapped, sent).violations


def test_a_number_that_is_nowhere_in_the_store_is_found(run: Run) -> None:
    run.facts = facts(1, 3, head=3)
    assert "hole in the store" in run.check(GOOD).violations


def direct(n: int) -> list[Record]:
    return [
        Attempt(NOW, f"u0-{n}", "user:u1", "k"),
        Stored(NOW, f"u0-{n}", "user:u1", "user:u0", at(n), is_duplicate=False, durability="fsynced"),
    ]


def test_a_direct_message_that_never_came_is_found_though_nobody_knows_its_number(run: Run) -> None:
    run.facts = {}
    sent: list[Record] = [opened(), *direct(1)]
    assert "lost" in run.check([opened()], sent).violations


def test_a_direct_message_may_be_one_of_the_numbers_in_a_gap(run: Run) -> None:
    run.facts = {}
    run.faults = [Fault("power cut", NOW - 1, frozenset({"lost"}))]
    told = Gap(NOW, "user:u1", at(0), at(1), 1, ("lost",))
    assert run.check([opened(), told], [opened(), *direct(1)]).is_clean


def test_what_was_acknowledged_as_the_store_was_emptied_is_told_by_the_new_epoch(run: Run) -> None:
    run.kept.settled["e1"] = NOW - 1
    run.kept.settled["e2"] = NOW + 1
    run.facts = {}
    assert run.check([opened(), came(1), Cut(NOW, 1006, ""), opened(epoch="e2")]).is_clean


def test_what_had_time_to_come_before_the_store_was_emptied_is_asked_for(run: Run) -> None:
    run.kept.settled["e2"] = NOW + 1
    run.facts = {}
    assert "lost" in run.check([opened(), came(1), Cut(NOW, 1006, ""), opened(epoch="e2")]).violations


def came_and_went(change: Callable[[str, bool], Record]) -> list[Record]:
    return [change(at(1), True), change(at(2), False)]


def test_nothing_of_an_open_group_may_come_from_outside_the_memberships(run: Run) -> None:
    run.facts = {}
    member = came_and_went(lambda entry, is_join: Answered(NOW, "group:c0", entry, is_join))
    inside = Came(NOW, "group:c0", at(2), "left", "u1", "")
    outside = Came(NOW, "group:c0", at(3), "message", "u0", "u0-1")
    assert run.check([opened(), came(1), came(2), came(3), member[0], inside, member[1]]).is_clean
    assert "not theirs" in run.check([outside]).violations
