"""Position, live and behind: each rule by itself, and then every order of a few steps."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from service.core import delivery
from service.core.delivery import TRANSITIONS, Cursor, Delivery, Event, Place, Step, Track
from service.core.names import ZERO, EntryId


def at(n: int, ms: int | None = None) -> EntryId:
    """The id of entry `n` in a history without surprises; of 0, the id before the first."""
    return EntryId((1000 + n if n else 0) if ms is None else ms, n)


def attached_track(head: EntryId = ZERO) -> Track[str]:
    """A track whose attach was answered with `head`."""
    track = Track[str]("all")
    track.attached(head)
    return track


def live_track(position: EntryId) -> tuple[Track[str], Cursor[str]]:
    """A track at `position` with one live cursor."""
    track = attached_track(position)
    cursor = track.follow("a", position)
    assert track.page(cursor, position, position)
    return track, cursor


def ahead_track(position: EntryId, reached: EntryId) -> tuple[Track[str], Cursor[str]]:
    """A track at `position` with one cursor whose page reached beyond it."""
    track = attached_track(position)
    cursor = track.follow("a", position)
    assert track.page(cursor, reached, reached)
    return track, cursor


def where(track: Track[str]) -> dict[str, Place]:
    """Where each link's cursor is kept; each must be in one place and know it."""
    kept = [
        *((Place.LIVE, cursor) for cursor in track.live.values()),
        *((Place.AHEAD, cursor) for cursor in track.ahead.values()),
        *((Place.BEHIND, cursor) for cursor in track.behind.values()),
    ]
    assert all(cursor.place is place for place, cursor in kept)
    places = {cursor.link: place for place, cursor in kept}
    assert len(places) == len(kept)
    return places


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", TRANSITIONS, ids=lambda pair: f"{pair[0].name} {pair[1].name}")
def test_what_is_in_the_table_happens(pair: tuple[Place, Event]) -> None:
    track, cursor = track_with_cursor_in(pair[0])
    track._move(cursor, pair[1])
    assert where(track) == {"a": TRANSITIONS[pair]}


@pytest.mark.parametrize(
    ("place", "event"),
    [pair for pair in itertools.product(Place, Event) if pair not in TRANSITIONS],
    ids=lambda part: part.name,
)
def test_what_is_not_in_the_table_is_an_error(place: Place, event: Event) -> None:
    track, cursor = track_with_cursor_in(place)
    with pytest.raises(KeyError):
        track._move(cursor, event)
    assert where(track) == {"a": place}


def track_with_cursor_in(place: Place) -> tuple[Track[str], Cursor[str]]:
    if place is Place.LIVE:
        return live_track(at(3))
    if place is Place.AHEAD:
        return ahead_track(at(3), at(5))
    track = attached_track(at(3))
    return track, track.follow("a", at(1))


def test_a_page_for_a_cursor_that_is_not_behind_is_an_error() -> None:
    for place in (Place.LIVE, Place.AHEAD):
        track, cursor = track_with_cursor_in(place)
        with pytest.raises(KeyError):
            track.page(cursor, at(5), at(5))


# -- a page ------------------------------------------------------------------------------------------------------------


def test_who_begins_to_follow_is_behind() -> None:
    track = attached_track(at(3))
    cursor = track.follow("a", at(1))
    assert where(track) == {"a": Place.BEHIND}
    assert track.passed(cursor) == at(1)


def test_a_page_whose_head_is_the_position_makes_live() -> None:
    track = attached_track(at(3))
    cursor = track.follow("a", at(1))
    assert track.page(cursor, at(3), at(3)) is True
    assert where(track) == {"a": Place.LIVE}
    assert track.passed(cursor) == at(3)


def test_a_page_whose_head_is_below_the_position_makes_nobody_live() -> None:
    track = attached_track(at(3))
    cursor = track.follow("a", at(1))
    assert track.arrived(at(4)) is Step.PUSH  # while the page, read before, is on its way
    assert track.page(cursor, at(3), at(3)) is False
    assert where(track) == {"a": Place.BEHIND}
    assert track.passed(cursor) == at(3), "it reads on from here"


def test_a_page_whose_head_is_above_the_position_leaves_the_cursor_ahead() -> None:
    track, cursor = ahead_track(at(3), at(5))
    assert where(track) == {"a": Place.AHEAD}
    assert track.passed(cursor) == at(5)


def test_a_page_that_does_not_reach_the_head_is_read_on_from() -> None:
    track = attached_track(at(9))
    cursor = track.follow("a", at(1))
    assert track.page(cursor, at(3), at(9)) is False
    assert where(track) == {"a": Place.BEHIND}
    assert track.passed(cursor) == at(3)


def test_a_page_before_the_attach_is_answered_makes_nobody_live() -> None:
    track = Track[str]("all")
    cursor = track.follow("a", at(1))
    assert track.page(cursor, at(3), at(3)) is False
    assert where(track) == {"a": Place.BEHIND}


def test_a_head_of_the_same_number_from_another_time_is_not_the_position() -> None:
    track = attached_track(at(3))
    older, newer = track.follow("a", ZERO), track.follow("b", ZERO)
    assert track.page(older, at(3, ms=500), at(3, ms=500)) is False
    assert track.page(newer, at(3, ms=5000), at(3, ms=5000)) is True
    assert where(track) == {"a": Place.BEHIND, "b": Place.AHEAD}


# -- ahead -------------------------------------------------------------------------------------------------------------


def test_a_cursor_ahead_gets_nothing_until_the_reader_is_where_it_is() -> None:
    track, cursor = ahead_track(at(3), at(5))
    assert track.arrived(at(4)) is Step.PUSH
    assert not track.live
    assert track.settle() == []
    assert track.arrived(at(5)) is Step.PUSH
    assert not track.live, "the entry that it has is not pushed to it"
    assert track.settle() == [cursor]
    assert where(track) == {"a": Place.LIVE}
    assert track.arrived(at(6)) is Step.PUSH
    assert list(track.live) == ["a"]


def test_while_one_is_ahead_the_others_are_pushed_to() -> None:
    track, _ = live_track(at(3))
    ahead = track.follow("b", at(1))
    track.page(ahead, at(4), at(4))
    assert track.arrived(at(4)) is Step.PUSH
    assert list(track.live) == ["a"]
    track.settle()
    assert where(track) == {"a": Place.LIVE, "b": Place.LIVE}


def test_a_cursor_ahead_that_falls_behind_keeps_what_it_has() -> None:
    track, cursor = ahead_track(at(3), at(5))
    assert track.fall_behind("a") == [cursor]
    assert track.passed(cursor) == at(5)


@pytest.mark.parametrize(
    "entry",
    [at(4, ms=9000), at(4, ms=1006)],
    ids=["much later", "above what the cursor has"],
)
def test_numbers_given_out_again_are_not_taken_for_what_a_cursor_ahead_has(entry: EntryId) -> None:
    """The page reached 5, the server lost 4 and 5, and gives them out once more: the cursor has neither of the new."""
    track, cursor = ahead_track(at(3), at(5))
    assert track.attached(at(3)) == []  # the new server knows nothing above the position
    assert track.arrived(entry) is Step.HOLE
    assert track.skip_to(entry) == [cursor]
    assert track.passed(cursor) == at(5), "a page from here shows that it is of another history"


def test_the_last_number_given_out_again_is_not_taken_for_what_a_cursor_ahead_has() -> None:
    track, _ = ahead_track(at(4), at(5))
    assert track.arrived(at(5, ms=at(4).ms)) is Step.HOLE


# -- what the mailbox brings -------------------------------------------------------------------------------------------


def test_the_next_entry_is_pushed_and_moves_the_position() -> None:
    track, cursor = live_track(at(3))
    assert track.arrived(at(4)) is Step.PUSH
    assert track.position == at(4)
    assert track.passed(cursor) == at(4)


def test_the_next_entry_may_be_of_the_same_millisecond() -> None:
    track, _ = live_track(at(3))
    assert track.arrived(at(4, ms=at(3).ms)) is Step.PUSH


@pytest.mark.parametrize("entry", [at(3), at(2), at(3, ms=5)], ids=["the position", "below", "older"])
def test_what_was_dispatched_before_is_dropped(entry: EntryId) -> None:
    track, _ = live_track(at(3))
    assert track.arrived(entry) is Step.HAD
    assert track.position == at(3)
    assert where(track) == {"a": Place.LIVE}


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(at(5), id="a hole"),
        pytest.param(at(3, ms=2000), id="the same number again, later"),
        pytest.param(at(2, ms=2000), id="a lower number, later"),
        pytest.param(at(4, ms=999), id="the next number, earlier"),
        pytest.param(at(6, ms=999), id="a hole, earlier"),
    ],
)
def test_anything_else_puts_everybody_behind_at_what_they_have(entry: EntryId) -> None:
    track, cursor = live_track(at(3))
    ahead = track.follow("b", ZERO)
    track.page(ahead, at(9), at(9))
    assert track.arrived(entry) is Step.HOLE
    assert track.position == at(3), "the entry has not been pushed to anybody"
    assert track.skip_to(entry) == [cursor, ahead]
    assert where(track) == {"a": Place.BEHIND, "b": Place.BEHIND}
    assert (track.passed(cursor), track.passed(ahead)) == (at(3), at(9))
    assert track.position == entry


def test_an_entry_that_is_not_whole_is_read_from_the_stream() -> None:
    track, cursor = live_track(at(3))
    assert track.arrived(at(4), is_whole=False) is Step.HOLE
    assert track.skip_to(at(4)) == [cursor]
    assert track.page(cursor, at(4), at(4)) is True
    assert where(track) == {"a": Place.LIVE}


def test_an_entry_that_is_not_whole_and_was_had_is_dropped() -> None:
    track, _ = live_track(at(3))
    assert track.arrived(at(3), is_whole=False) is Step.HAD


# -- attaching ---------------------------------------------------------------------------------------------------------


def test_the_position_begins_at_the_head_that_the_attach_answers() -> None:
    track = Track[str]("all")
    assert track.position is None
    assert track.attached(at(3)) == []
    assert track.position == at(3)


@pytest.mark.parametrize(
    ("seen", "head", "position"),
    [
        ([at(4), at(5)], at(3), at(5)),
        ([at(4)], at(4), at(4)),
        ([at(2)], at(4), at(4)),
        ([at(5), at(2)], at(3), at(5)),
    ],
    ids=["above the head", "up to the head", "below the head", "in any order"],
)
def test_entries_may_come_before_the_attach_is_answered(
    seen: list[EntryId], head: EntryId, position: EntryId
) -> None:
    track = Track[str]("all")
    cursor = track.follow("a", at(2))
    for entry in seen:
        assert track.arrived(entry) is Step.HAD
    assert track.attached(head) == []
    assert track.position == position
    # What was dispatched to nobody, a page has to bring: one read before it is not enough.
    assert track.page(cursor, at(2), at(2)) is False
    assert track.page(cursor, position, position) is True


def test_attached_again_at_the_position_nobody_moves() -> None:
    track, _ = live_track(at(3))
    assert track.attached(at(3)) == []
    assert where(track) == {"a": Place.LIVE}


def test_attached_again_with_a_higher_head_everybody_reads_pages() -> None:
    track, cursor = live_track(at(3))
    assert track.attached(at(5)) == [cursor]
    assert track.position == at(5)
    assert track.passed(cursor) == at(3)
    assert track.arrived(at(4)) is Step.HAD, "pages bring it"
    assert track.arrived(at(6)) is Step.PUSH


def test_attached_again_with_a_lower_head_everybody_reads_pages_and_the_position_stays() -> None:
    track, cursor = live_track(at(5))
    assert track.attached(at(3)) == [cursor]
    assert track.position == at(5)
    assert track.passed(cursor) == at(5)


# -- the audit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [at(3), at(2), ZERO], ids=["at the position", "below", "empty"])
def test_an_audit_that_finds_nothing_missing_moves_nobody(head: EntryId) -> None:
    track, _ = live_track(at(3))
    assert track.verify(head) == []
    assert where(track) == {"a": Place.LIVE}


def test_an_audit_that_finds_entries_missing_puts_everybody_behind() -> None:
    track, cursor = live_track(at(3))
    assert track.verify(at(5)) == [cursor]
    assert track.position == at(5)
    assert track.passed(cursor) == at(3)


def test_an_audit_before_the_attach_is_answered_means_nothing() -> None:
    track = Track[str]("all")
    assert track.verify(at(5)) == []
    assert track.position is None


# -- links -------------------------------------------------------------------------------------------------------------


def test_a_stalled_link_falls_behind_alone_and_comes_back() -> None:
    track, slow = live_track(at(3))
    quick = track.follow("b", at(3))
    track.page(quick, at(3), at(3))
    assert track.fall_behind("a") == [slow]
    assert where(track) == {"a": Place.BEHIND, "b": Place.LIVE}
    assert track.arrived(at(4)) is Step.PUSH
    assert list(track.live) == ["b"]
    assert (track.passed(slow), track.passed(quick)) == (at(3), at(4))
    assert track.page(slow, at(4), at(4)) is True
    assert where(track) == {"a": Place.LIVE, "b": Place.LIVE}


def test_who_is_behind_or_unknown_does_not_fall_again() -> None:
    track = attached_track(at(3))
    track.follow("a", at(1))
    assert track.fall_behind("a") == []
    assert track.fall_behind("nobody") == []
    assert track.fall_behind() == []


@pytest.mark.parametrize("place", Place)
def test_who_no_longer_follows_is_nowhere(place: Place) -> None:
    track, cursor = track_with_cursor_in(place)
    assert track
    assert list(track.cursors()) == [cursor]
    assert track.unfollow("a") is cursor
    assert track.unfollow("a") is None
    assert where(track) == {}
    assert not track
    assert list(track.cursors()) == []


def test_a_stream_is_tracked_once_and_forgotten_whole() -> None:
    node = Delivery[str]()
    track = node.track("all")
    assert node.track("all") is track
    assert node.positions() == {}
    track.attached(at(3))
    assert node.positions() == {"all": at(3)}
    node.forget("all")
    node.forget("all")
    assert node.positions() == {}
    assert node.track("all").position is None


# -- every order of a few steps ----------------------------------------------------------------------------------------
#
# One stream, one mailbox, two connections, and answers that take their time. The model does what the shell
# (service/node) does; position, places and what is pushed are the real Track's. After every step each connection must
# have a prefix of the stream: nothing lost, nothing twice, nothing out of order. From every state that can be reached,
# once everything on its way has arrived, every connection must have everything and be live.
#
# Next release: an action more is a method and a line in `actions`.


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
    "an attach again": Limits(repeats=1),
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
    print(states)
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
    fallen = [*track.live.values(), *track.ahead.values()] if link is None else [track.live.get(link) or track.ahead[link]]
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
