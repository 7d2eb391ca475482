"""A world of a model: one real node driven by hand, the store it works on, phones, and the steps that may come next.

A step is a sentence of two words or more, so that a history can be read, and done again: `others write all`. Steps are
of two kinds: *work* is what comes by itself when one waits (an answer arrives, the reader reads on, a socket drains),
*events* are what a model allows a number of times. Where no work is left, every promise must hold.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from service.config import Limits, Settings
from service.core.names import EntryId
from service.errors import Unavailable
from service.node import Node
from service.store import Outgoing, TrimCause
from tests.unit.node.by_hand import Loop
from tests.unit.node.door import Call, Door
from tests.unit.node.phone import Phone
from tests.unit.node.stored import Stored

NEVER_S = 1_000_000.0
SECOND = 1.0  # every period of a model, so that all that is timed happens at whole seconds
GROUP = "g"
BODIES = {"": b"1", "large": b'"large"'}


class Model(NamedTuple):
    """What a world begins with, and how much of each event its histories may have."""

    events: Mapping[str, int]  # steps that may happen, and how often at most; see the methods of `World`
    phones: str = "a b"  # their names; those with the same first letter are one user's
    there: str = "a b"  # those that have come and caught up when it begins
    follows: tuple[str, ...] = ("all",)  # what phones follow, of their user's streams
    members: str = ""  # users who are in the group when it begins
    before: tuple[str, ...] = ()  # streams that others have written to before anybody came, an entry each time
    slow: frozenset[str] = frozenset({"attach", "page"})  # calls that are steps; the others are answered at once
    hasty: frozenset[str] = frozenset()  # of those the ones that the store carries out as soon as they are asked
    page: int = 2  # entries
    tail: int = 64  # entries
    lingers: bool = False  # streams are detached from a second after the last connection
    audits: bool = False  # every second


class World:
    """See the module. `check` and `check_at_rest` raise AssertionError."""

    def __init__(self, model: Model, loop: Loop) -> None:
        self.model = model
        self.loop = loop
        self.stored = Stored()
        self.door = Door(self.stored)
        self.spent: Counter[str] = Counter()
        self.errors: list[str] = []
        self.saved: Stored | None = None
        self.needs_time = False  # something was lost that only a beat, a lease or an audit can find
        settings = Settings(
            node="n",
            beat_s=SECOND,
            commit_s=SECOND,
            detach_linger_s=SECOND if model.lingers else NEVER_S,
            audit_s=SECOND if model.audits else NEVER_S,
            limits=Limits(page_entries=model.page, tail_entries=model.tail),
        )
        self.node = Node(self.door, settings)
        self.node.log.error = self._log_error  # type: ignore[method-assign]
        self.phones = {
            name: Phone(self.node, self.stored, name[0], name, model.follows) for name in model.phones.split()
        }
        for task in (self.node.fence, self.node.reader, self.node.attachments, self.node.sends, self.node.commits):
            loop.create_task(task.run())
        loop.run()
        for user in model.members:
            self.stored.join(user, GROUP, "", None)
        for stream in model.before:
            self.others_write(stream)
        for name in model.there.split():
            self.do(f"{name} comes")
        self.wait()
        self.check_at_rest()
        self.spent.clear()
        self.door.slow = model.slow

    def _log_error(self, event: str, *, traceback: BaseException | None = None, **fields: Any) -> None:  # noqa: ANN401
        self.errors.append(f"{event}: {traceback!r} {fields}")

    # -- steps ---------------------------------------------------------------------------------------------------------

    def do(self, step: str) -> None:
        """Takes one step, and lets the node go on from it as far as it can."""
        subject, verb, *places = step.split()
        self.spent[self._event(step)] += 1
        if subject in self.phones:
            getattr(self, f"phone_{verb}")(self.phones[subject], *places)
        else:
            getattr(self, f"{subject}_{verb}")(*places)
        self.loop.run()
        for phone in self.phones.values():
            phone.take()
        for call in self.door.calls:
            if call.kind in self.model.hasty and not call.is_carried_out:
                call.carry_out()

    def work(self) -> Iterator[str]:
        """What comes by itself."""
        for call in self.door.calls:
            yield f"call {'returns' if call.is_carried_out else 'arrives'} {call.kind} {call.number}"
        if self._unread():
            yield "reader reads"
        for name, phone in self.phones.items():
            if phone.connection is not None and phone.connection.is_paused:
                yield f"{name} drains"
        if any(callback == "_set_result_unless_cancelled" for _, callback in self.loop.timers()):
            yield "clock ticks"  # somebody sleeps, to try again

    def events(self) -> Iterator[str]:
        """What the model allows to happen now."""
        for event, most in self.model.events.items():
            subject, verb, *places = event.split()
            if self.spent[event] == most:
                continue
            if subject == "call":
                yield from (f"{event} {call.number}" for call in self.door.calls if call.kind == places[0])
            elif self._is_possible(subject, verb, places):
                yield event
        yield from (f"call arrives late {call.number}" for call in self.door.late)

    def _is_possible(self, subject: str, verb: str, places: list[str]) -> bool:
        if subject in self.phones:
            connection = self.phones[subject].connection
            if verb in ("comes", "returns"):
                return connection is None
            return connection is not None and (verb != "stalls" or not connection.is_paused)
        match subject, verb:
            case "mailbox", "skips":
                return len(self._unread()) > 1
            case "mailbox", "dies":
                return self.node.reader.mailbox in self.stored.mailboxes
            case "others", "join" | "leave":
                return self.stored.is_member(places[0], GROUP) == (verb == "leave")
            case "others", "redact" | "trim":
                return self._id(*places) is not None
        return True

    def _event(self, step: str) -> str:
        """The step as the model names it: calls by their kind."""
        return step.rpartition(" ")[0] if step.startswith("call ") else step

    def wait(self) -> None:
        """Everything that is on its way arrives."""
        for _ in range(500):
            step = next(self.work(), None)
            if step is None:
                return
            self.do(step)
        raise AssertionError(f"it never comes to rest: {list(self.work())}")

    # Others: users and nodes that are not ours.

    def others_write(self, stream: str, size: str = "") -> None:
        kinds: dict[str, Literal["direct", "group", "all"]] = {"user": "direct", "group": "group", "all": "all"}
        kind = kinds[stream.partition(":")[0]]
        self.stored.publish([Outgoing(kind, "z", stream, "", BODIES[size], "", None, None)], "")

    def others_join(self, user: str) -> None:
        self.stored.join(user, GROUP, "", None)

    def others_leave(self, user: str) -> None:
        self.stored.leave(user, GROUP, "", None)

    def others_redact(self, stream: str, n: str) -> None:
        entry = self._id(stream, n)
        assert entry is not None
        self.stored.redact(stream, entry, "z")

    def others_trim(self, stream: str, n: str) -> None:
        """Up to and including number `n`."""
        entry = self._id(stream, n)
        assert entry is not None
        self.stored.trim(stream, entry, TrimCause("default", "max_entries"))

    def _id(self, stream: str, n: str) -> EntryId | None:
        """The entry of that number, None when it is not there."""
        return next((entry for entry in self.stored.stream(stream).entries if entry.n == int(n)), None)

    # Phones.

    def phone_comes(self, phone: Phone) -> None:
        phone.come(remembers=False)

    def phone_returns(self, phone: Phone) -> None:
        phone.come(remembers=True)

    def phone_goes(self, phone: Phone) -> None:
        phone.go()

    def phone_stalls(self, phone: Phone) -> None:
        assert phone.connection is not None
        phone.connection.paused()

    def phone_drains(self, phone: Phone) -> None:
        assert phone.connection is not None
        phone.connection.drained()

    def phone_sends(self, phone: Phone, stream: str, count: str = "1") -> None:
        phone.send(stream, int(count))

    def phone_joins(self, phone: Phone) -> None:
        phone.join(GROUP)

    def phone_leaves(self, phone: Phone) -> None:
        phone.leave(GROUP)

    def phone_acknowledges(self, phone: Phone) -> None:
        phone.acknowledge()

    # Calls of the node to the store.

    def call_arrives(self, kind: str, number: str) -> None:
        """At the store. A late one: the node has given it up long ago."""
        call = self._call(number)
        call.carry_out()
        if kind == "late":
            self.door.late.remove(call)

    def call_returns(self, kind: str, number: str) -> None:
        self._call(number).answered()

    def call_breaks(self, kind: str, number: str) -> None:
        """Its connection: the node hears nothing, whether or not it had arrived."""
        self._call(number).failed()
        self.needs_time = True

    def call_lingers(self, kind: str, number: str) -> None:
        """On its way: the node gives it up, and it arrives later, or never."""
        call = self._call(number)
        self.door.late.append(call)
        call.failed()
        self.needs_time = True

    def _call(self, number: str) -> Call:
        return next(call for call in (*self.door.calls, *self.door.late) if call.number == int(number))

    # The mailbox, the clock.

    def reader_reads(self) -> None:
        assert self.door.reading is not None
        *_, answer = self.door.reading
        number, what = self._unread()[0]
        answer.set_result([(number, what)])

    def _unread(self) -> list[tuple[int, Any]]:
        if self.door.reading is None or self.door.reading[2].done():
            return []
        mailbox, after, _ = self.door.reading
        box = self.stored.mailboxes.get(mailbox)
        return [] if box is None else [(number, what) for number, what in box.entries.items() if number > after]

    def clock_ticks(self) -> None:
        self.loop.pass_time(SECOND)
        if self.door.reading is not None and not self._unread() and self.loop.now >= self.door.beat_due:
            self.door.reading[2].set_result([])

    # Faults.

    def register_forgets(self, stream: str) -> None:
        """The node's mailbox, without a word."""
        self.stored.stream(stream).register.clear()
        self.needs_time = True

    def mailbox_skips(self) -> None:
        """It is capped: the oldest entry that was not read is gone."""
        del self.stored.mailboxes[self.node.reader.mailbox].entries[self._unread()[0][0]]

    def mailbox_dies(self) -> None:
        """Its lease has run out."""
        del self.stored.mailboxes[self.node.reader.mailbox]
        self.needs_time = True

    def reader_doubts(self) -> None:
        """At its next turn."""
        self.node.reader.doubt("a test", "call")

    def server_saves(self) -> None:
        """What it will come back with: a replica that lags, a file that was not written to its end."""
        self.saved = self.stored.copy()

    def server_restarts(self) -> None:
        """Or another is promoted: every connection breaks."""
        self.stored.restart(self.saved or self.stored)
        for call in self.door.calls:
            call.failed()
        if self.door.reading is not None and not self.door.reading[2].done():
            self.door.reading[2].set_exception(Unavailable("connection lost"))

    # -- what must be so -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """After every step."""
        assert not self.errors, self.errors
        assert not self.loop.problems, self.loop.problems
        for phone in self.phones.values():
            assert not phone.is_cut, f"{phone.name} was cut off"

    def check_at_rest(self) -> None:
        """When nothing is on its way."""
        self.check()
        for phone in self.phones.values():
            phone.check_has_everything()

    def rest(self) -> None:
        """Time passes: long enough for a beat, a lease, an audit, and what they find."""
        for _ in range(6):
            self.do("clock ticks")
            self.wait()
            self.check()
