"""Every order of a few steps: nothing is lost, doubled or reordered.

One stream, one mailbox, two connections, and answers that take their time. The model does what the shell
(service/node) does; position, places and what is pushed are the real Track's. After every step each connection must
have a prefix of the stream: nothing lost, nothing twice, nothing out of order. From every state that can be reached,
once everything on its way has arrived, every connection must have everything and be live.

Next release: an action more is a method and a line in `actions`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from service.core import delivery
from service.core.delivery import Cursor, Event, Place, Step, Track
from service.core.names import ZERO, EntryId


def at(n: int) -> EntryId:
    """The id of entry `n`; of 0, the id before the first."""
    return EntryId(1000 + n if n else 0, n)


class Limits(NamedTuple):
    """How much of each action a history may have."""

    steps: int = 16
    entries: int = 4
    page: int = 2  # entries
    mailboxes: int = 1  # from the second on: doubt, and everything is attached to a new one
    repeats: int = 0  # attaches of a mailbox that is attached
    losses: int = 0  # entries that the mailbox loses in silence
    stalls: int = 0
    late: int = 0  # connections that begin to follow only in mid-history
    whole: bool = True  # False: entry 2 goes to the mailbox without its body


class PageRead(NamedTuple):
    """A page on its way back to a connection."""

    after: int
    upto: int
    head: int


class World:
    """A stream in Redis, and one node with its connections."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.head = 0
        self.mailbox: list[int] = []
        self.attaching: int | None = None  # the head in the answer of an attach that is on its way
        self.mailboxes = self.repeated = self.lost = self.stalled = self.late = 0
        self.track = Track[str]("all")
        self.received: dict[str, list[int]] = {}
        self.cursors: dict[str, Cursor[str]] = {}
        self.reads: dict[str, PageRead] = {}
        for link in "ab"[: 2 - limits.late]:
            self.follow(link)

    # -- what may happen next

    def actions(self) -> Iterator[tuple[str, Callable[[], None]]]:
        limits = self.limits
        if self.head < limits.entries:
            yield "publish", self.publish
        if self.attaching is None and self.mailboxes < limits.mailboxes:
            yield "new mailbox", self.new_mailbox
        if self.attaching is None and self.mailboxes and self.repeated < limits.repeats:
            yield "attach again", self.attach_again
        if self.attaching is not None:
            yield "attached", self.attach_answered
        if self.mailbox:
            yield "reader", self.read_mailbox
        if self.mailbox and self.lost < limits.losses:
            yield "lose", self.lose
        for link, cursor in self.cursors.items():
            if link in self.reads:
                yield f"page answered {link}", lambda link=link: self.page_answered(link)  # type: ignore[misc]
            elif cursor.place is Place.BEHIND and self.track.position is not None:
                yield f"page {link}", lambda link=link: self.ask_page(link)  # type: ignore[misc]
            elif cursor.place is not Place.BEHIND and self.stalled < limits.stalls:
                yield f"stall {link}", lambda link=link: self.stall(link)  # type: ignore[misc]
        if self.late < limits.late:
            yield "follow", self.follow_late

    def publish(self) -> None:
        self.head += 1
        if self.mailboxes:
            self.mailbox.append(self.head)

    def new_mailbox(self) -> None:
        """The node reads no other any more; the function puts this one on the register."""
        self.mailboxes += 1
        self.mailbox = []
        self.attaching = self.head

    def attach_again(self) -> None:
        self.repeated += 1
        self.attaching = self.head

    def attach_answered(self) -> None:
        assert self.attaching is not None
        head, self.attaching = at(self.attaching), None
        self.track.attached(head)
        for cursor in list(self.track.behind.values()):  # who has it all needs no page
            if cursor.passed == head:
                self.track.page(cursor, head, head)

    def read_mailbox(self) -> None:
        n = self.mailbox.pop(0)
        step = self.track.arrived(at(n), is_whole=self.limits.whole or n != 2)
        if step is Step.PUSH:
            for link in self.track.live:
                self.received[link].append(n)
            self.track.settle()
        elif step is Step.HOLE:
            self.track.skip_to(at(n))

    def lose(self) -> None:
        self.lost += 1
        self.mailbox.pop(0)

    def ask_page(self, link: str) -> None:
        after = self.track.passed(self.cursors[link]).n
        self.reads[link] = PageRead(after, min(self.head, after + self.limits.page), self.head)

    def page_answered(self, link: str) -> None:
        page, cursor = self.reads.pop(link), self.cursors[link]
        if cursor.place is not Place.BEHIND or cursor.passed.n != page.after:
            return  # it went on by another way meanwhile
        self.received[link] += range(page.after + 1, page.upto + 1)
        self.track.page(cursor, at(page.upto), at(page.head))

    def stall(self, link: str) -> None:
        self.stalled += 1
        self.track.fall_behind(link)

    def follow(self, link: str) -> None:
        self.received[link] = []
        self.cursors[link] = self.track.follow(link, ZERO)

    def follow_late(self) -> None:
        self.late += 1
        self.follow("ab"[len(self.cursors)])

    # -- what must be so

    def check(self) -> None:
        for link, received in self.received.items():
            assert received == list(range(1, len(received) + 1)), f"{link} received {received} of {self.head}"
            assert self.track.passed(self.cursors[link]).n == len(received), f"{link} may acknowledge what it has not"

    def settle(self) -> None:
        """Everything that is on its way arrives; only what the mailbox lost may have to wait for the audit."""
        if not self.mailboxes:
            self.new_mailbox()
        for _ in range(50):
            todo = [act for name, act in self.actions() if name.split()[0] in ("attached", "reader", "page", "follow")]
            if todo:
                todo[0]()
            elif self.lost and self.track.position != at(self.head):
                self.track.verify(at(self.head))
            else:
                break
            self.check()
        assert self.track.position == at(self.head)
        for link, received in self.received.items():
            assert received == list(range(1, self.head + 1)), f"{link} received {received} of {self.head}"
            assert self.cursors[link].place is Place.LIVE, f"{link} is {self.cursors[link].place}"

    def key(self) -> tuple[object, ...]:
        """Two worlds with the same key have the same future."""
        return (
            (self.head, tuple(self.mailbox), self.attaching, self.mailboxes, self.repeated, self.lost, self.stalled),
            (self.track.position, self.track._seen),
            tuple((c.place, self.track.passed(c), self.reads.get(link)) for link, c in self.cursors.items()),
        )


def replay(limits: Limits, history: tuple[str, ...]) -> World:
    world = World(limits)
    for name in history:
        dict(world.actions())[name]()
    return world


def explore(limits: Limits) -> int:
    """Tries every order of steps, going on once from each state that can be reached; returns how many states those are.

    At an AssertionError or a KeyError the history that led there is noted on it.
    """
    seen = {World(limits).key()}
    frontier: list[tuple[str, ...]] = [()]
    for _ in range(limits.steps):
        reached: list[tuple[str, ...]] = []
        for history in frontier:
            for name, _act in list(replay(limits, history).actions()):
                longer = (*history, name)
                try:
                    world = replay(limits, longer)
                    world.check()
                    key = world.key()
                    if key in seen:
                        continue
                    seen.add(key)
                    reached.append(longer)
                    world.settle()
                except (AssertionError, KeyError) as error:
                    error.add_note("after: " + ", ".join(longer))
                    raise
        frontier = reached
    return len(seen)


MODELS = {
    "answers delayed": Limits(),
    "a page an entry": Limits(page=1),
    "an attach again": Limits(repeats=1, entries=3),
    "a second mailbox": Limits(mailboxes=2, stalls=1, entries=2),
    "the mailbox loses an entry": Limits(losses=1),
    "a socket stalls": Limits(stalls=2, entries=3),
    "somebody comes later": Limits(late=1),
    "a large body": Limits(whole=False),
    "all at once": Limits(mailboxes=2, repeats=1, losses=1, stalls=1, late=1, entries=2, steps=8),
}


@pytest.mark.parametrize("limits", MODELS.values(), ids=MODELS)
def test_in_every_order_of_steps_nothing_is_lost_doubled_or_reordered(limits: Limits) -> None:
    states = explore(limits)
    assert states > 800, "the model has become too small to show anything"


# The model must find the faults that it is made for: each of these takes one rule away.


def no_rule_for_pages_below(track: Track[str], cursor: Cursor[str], upto: EntryId, head: EntryId) -> bool:
    cursor.passed = upto
    position = track.position
    if upto < head or position is None:
        track._move(cursor, Event.PAGE_BELOW)
    else:
        track._move(cursor, Event.PAGE_ABOVE if head > position else Event.PAGE_AT)
    return cursor.place is not Place.BEHIND


def no_place_ahead(track: Track[str], cursor: Cursor[str], upto: EntryId, head: EntryId) -> bool:
    cursor.passed = upto
    position = track.position
    is_behind = upto < head or position is None or head < position
    track._move(cursor, Event.PAGE_BELOW if is_behind else Event.PAGE_AT)
    return cursor.place is not Place.BEHIND


def attached_forgets_what_came(track: Track[str], head: EntryId) -> list[Cursor[str]]:
    if track.position is None:
        track.position = head
        return []
    return [] if head == track.position else track.skip_to(max(head, track.position))


def attached_again_moves_nobody(track: Track[str], head: EntryId) -> list[Cursor[str]]:
    track.position = max(head, track.position or head, track._seen or head)
    return []


def holes_are_overlooked(track: Track[str], entry: EntryId, *, is_whole: bool = True) -> Step:
    assert is_whole
    if track.position is None:
        track._seen = entry
        return Step.HAD
    if entry > track.position:
        track.position = entry
        return Step.PUSH
    return Step.HAD


def nothing_is_dropped(track: Track[str], entry: EntryId, *, is_whole: bool = True) -> Step:
    assert is_whole
    track.position = entry
    return Step.PUSH


def falling_forgets_where(track: Track[str], link: str | None = None) -> list[Cursor[str]]:
    fallen = (
        [*track.live.values(), *track.ahead.values()] if link is None else [track.live.get(link) or track.ahead[link]]
    )
    for cursor in fallen:
        track._move(cursor, Event.FALL_BEHIND)  # `passed` of a live cursor is the track's to know
    return fallen


def audit_finds_nothing(_track: Track[str], _head: EntryId) -> list[Cursor[str]]:
    return []


@pytest.mark.parametrize(
    ("method", "fault", "model"),
    [
        ("page", no_rule_for_pages_below, "answers delayed"),
        ("page", no_place_ahead, "answers delayed"),
        ("attached", attached_forgets_what_came, "answers delayed"),
        ("attached", attached_again_moves_nobody, "a second mailbox"),
        ("arrived", holes_are_overlooked, "the mailbox loses an entry"),
        ("arrived", nothing_is_dropped, "an attach again"),
        ("fall_behind", falling_forgets_where, "a socket stalls"),
        ("verify", audit_finds_nothing, "the mailbox loses an entry"),
    ],
    ids=lambda part: part.__name__ if callable(part) else "",
)
def test_the_model_finds_a_rule_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, method: str, fault: Callable[..., object], model: str
) -> None:
    monkeypatch.setattr(delivery.Track, method, fault)
    with pytest.raises((AssertionError, KeyError)):
        explore(MODELS[model])


def test_the_model_finds_a_page_that_is_given_to_a_cursor_that_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def page_answered(world: World, link: str) -> None:
        page, cursor = world.reads.pop(link), world.cursors[link]
        world.received[link] += range(page.after + 1, page.upto + 1)
        world.track.page(cursor, at(page.upto), at(page.head))

    monkeypatch.setattr(World, "page_answered", page_answered)
    with pytest.raises((AssertionError, KeyError)):
        explore(MODELS["a second mailbox"])
