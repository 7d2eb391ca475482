"""What one connection may see, frame by frame: rising, no unannounced hole, nothing twice, nothing of others."""

from typing import NamedTuple

from service.core.names import EntryId, parse_id, user_stream
from tests.integration.stories.model import Entry, Model, Stream
from tests.service import ENTRY_TYPES, Frame


class Written(NamedTuple):
    """A frame as it was written.

    `is_in_place`: it is the answer to a send or a leave, written where its own entry would have been pushed.
    `should_be`: it is such an answer on a stream that was live all the time.
    """

    frame: Frame
    is_in_place: bool
    should_be: bool


class Asked(NamedTuple):
    """A question about the past, and what was so when it was asked."""

    stream: str
    anchor: str
    limit: int
    gone: frozenset[int]
    redacted: frozenset[int]
    member_since: int | None


class Watch:
    """How far one connection of a device of `user` has come, each frame held against the model.

    `stored` are the offsets that the store has for the device, kept up to date by `World.look`; `brought` are those of
    its `hello`.
    """

    def __init__(self, model: Model, user: str, stored: dict[str, EntryId], brought: dict[str, EntryId]) -> None:
        self._model = model
        self.user = user
        self._stored = stored
        self._stored_before = dict(stored)
        self._brought = brought
        # Per stream what has come, by ids: an offset, then entries and ends of gaps. It may all be acknowledged. An
        # answer that overtakes the entries before it is none of it: its entry is still to come.
        self.passed: dict[str, list[EntryId]] = {}
        self.heads: dict[str, EntryId] = {}  # of `welcome`
        self.is_welcome = False
        self.is_live = False
        self._redacted_before = {(name, n) for name, stream in model.streams.items() for n in stream.redacted}

    def take(self, written: Written) -> None:
        """Checks a frame."""
        frame = written.frame
        kind = frame["type"]
        if kind == "welcome":
            self._welcome(frame)
        elif kind == "live":
            self._live(frame)
        elif kind == "gap":
            self._gap(frame)
        elif kind in (*ENTRY_TYPES, "sent"):
            assert self.is_welcome, f"{frame} before welcome"
            if kind != "sent":
                self._check_content(frame)
            if kind == "joined" and "ref" in frame:
                self._joined(frame["stream"], parse_id(frame["id"]))
            elif written.is_in_place or "ref" not in frame:
                self._entry(frame["stream"], parse_id(frame["id"]))
            elif written.should_be:
                is_late = parse_id(frame["id"]).n > self.at(frame["stream"])
                assert not is_late, f"{frame} does not stand in its place, after {self.at(frame['stream'])}"

    def at(self, stream: str) -> int:
        """The number up to which a stream has come, or from which it is to come."""
        if stream in self.passed:
            return self.passed[stream][-1].n
        if stream in self._stored:
            return self._stored[stream].n
        # A group that the device knew nothing of: from where its user joined.
        joined = self.known(stream).member_since(self.user)
        return self.known(stream).head.n if joined is None else joined

    def missing(self, stream: str, below: int) -> list[int]:
        """The numbers that are owed and did not come, below one that did."""
        return self.known(stream).owed(self.user, self.at(stream), below)

    # -- where it begins -----------------------------------------------------------------------------------------------

    def _welcome(self, frame: Frame) -> None:
        assert not self.is_welcome, "welcome came twice"
        self.is_welcome = True
        assert {user_stream(self.user), "all"} <= frame["streams"].keys()
        for stream, state in frame["streams"].items():
            known = self.known(stream)
            offset, head, floor = (parse_id(state[name]) for name in ("offset", "head", "floor"))
            assert head.n <= known.head.n, f"{stream}: {state} is beyond {known.head}"
            assert floor <= known.floor, f"{stream}: {state} is above the floor {known.floor}"
            assert state["missed"] == max(0, head.n - offset.n)
            if stream.startswith("group:"):
                stretches = known.stretches.get(self.user)
                assert stretches, f"{stream} never was {self.user}'s"
                assert offset.n >= stretches[0][0], f"{stream}: begins at {offset}, before {self.user} had joined"
            self._check_start(stream, offset)
            self.passed[stream], self.heads[stream] = [offset], head

    def _check_start(self, stream: str, offset: EntryId) -> None:
        """A connection goes on from what it brought, else from what the store had for its device."""
        brought = self._brought.get(stream)
        if brought is not None:
            assert offset == brought, f"{stream}: begins at {offset}, and {brought} was brought"
            return
        before = self._stored_before.get(stream)
        assert before is None or offset >= before, f"{stream}: begins at {offset}, and {before} was acknowledged"
        assert offset <= self._stored[stream], f"{stream}: begins at {offset}, and the store has {self._stored[stream]}"

    def _live(self, frame: Frame) -> None:
        if "stream" in frame:
            assert self.is_live, f"{frame} before live"
            return
        assert not self.is_live, "live came twice"
        self.is_live = True
        for name, head in self.heads.items():
            missing = self.missing(name, head.n + 1)
            assert not missing, f"live, but {missing} of {name} did not come"

    def known(self, stream: str) -> Stream:
        known = self._model.streams.get(stream)
        assert known is not None, f"there is no stream {stream}"
        assert not stream.startswith("user:") or stream == user_stream(self.user), f"{stream} is not {self.user}'s"
        return known

    # -- entries -------------------------------------------------------------------------------------------------------

    def _check_content(self, frame: Frame) -> None:
        stream, entry_id = frame["stream"], parse_id(frame["id"])
        known = self.known(stream)
        entry = known.at(entry_id.n)
        seen = Entry(
            id=entry_id,
            type=frame["type"],
            user=str(frame.get("from") or frame.get("user") or frame.get("by")),
            to=str(frame.get("to") or (f"group:{frame['group']}" if "group" in frame else stream)),
            mid=str(frame.get("mid", "")),
            body=str(frame.get("body", "")),
            target=str(frame.get("target", "")),
        )
        if frame.get("redacted"):
            assert entry_id.n in known.redacted, f"{frame} was never redacted"
            assert "body" not in frame, f"{frame} has a body"
            entry = entry._replace(body="")
        assert seen == entry, f"{frame} is not what the store has: {entry}"
        is_late = (stream, entry_id.n) in self._redacted_before and "body" in frame
        assert not is_late, f"{frame} was redacted before this connection began"

    def _entry(self, stream: str, entry: EntryId) -> None:
        known, at = self.known(stream), self.at(stream)
        assert entry == known.at(entry.n).id, f"{stream}: there is no {entry}"
        is_own = known.is_owed(self.user, entry.n) or known.begins(self.user, entry.n)
        assert is_own, f"{stream}: {entry} is not {self.user}'s: {known.stretches.get(self.user)}"
        is_first = stream not in self.passed and known.begins(self.user, entry.n)
        assert entry.n > at or is_first, f"{stream}: {entry} came after {at}"
        missing = self.missing(stream, entry.n)
        assert not missing, f"{stream}: {entry} came after {at}, without {missing}"
        self.passed.setdefault(stream, []).append(entry)

    def _joined(self, stream: str, entry: EntryId) -> None:
        """The answer to a joining stands for the own `joined`: numbers count from it. Joining twice tells the first."""
        if stream not in self.passed:
            self.passed[stream] = [entry]
        elif entry.n > self.at(stream):
            self._entry(stream, entry)

    # -- the past ------------------------------------------------------------------------------------------------------

    def check_past(self, asked: "Asked", frame: Frame) -> None:
        """An answer about the past: of every number within its bounds it says what became of it, and moves nothing."""
        known = self.known(asked.stream)
        if frame["type"] == "error":
            is_still_in = asked.member_since is not None and known.member_since(self.user) == asked.member_since
            may_be = (
                {"unavailable"} if not known.name.startswith("group:") or is_still_in else {"unavailable", "not_member"}
            )
            assert frame["code"] in may_be, f"{asked}: {frame}"
            return
        assert len(frame["messages"]) <= asked.limit, f"{asked}: {len(frame['messages'])} came"
        told = {}
        for message in frame["messages"]:
            self._check_content(message)
            n = parse_id(message["id"]).n
            assert n not in asked.gone, f"{asked}: {n} had gone"
            assert n not in asked.redacted or "body" not in message, f"{asked}: {n} was redacted"
            told[n] = "entry"
        assert list(told) == sorted(told), f"{asked}: not oldest first"
        for gap in frame["gaps"]:
            for n in range(parse_id(gap["after"]).n + 1, parse_id(gap["to"]).n + 1):
                assert known.is_gone(n), f"{asked}: {n} is there, and told as gone"
                assert n not in told, f"{asked}: {n} is told twice"
                told[n] = "gap"
        # Of a joining that has gone nobody knows any more whether it was an entry of its own.
        theirs = [
            n
            for n in range(1, parse_id(frame["head"]).n + 1)
            if known.is_owed(self.user, n) or n in told or (known.begins(self.user, n) and not known.is_gone(n))
        ]
        assert all(known.is_owed(self.user, n) or known.begins(self.user, n) for n in told), f"{asked}: {told}"
        bounds = [parse_id(frame[name]).n for name in ("first", "last") if name in frame]
        within = [n for n in theirs if bounds and bounds[0] <= n <= bounds[1]]
        assert sorted(told) == within, f"{asked}: {sorted(told)} of {within} in {frame}"
        below = [n for n in theirs if bounds and n < bounds[0]]
        above = [n for n in theirs if bounds and n > bounds[1]]
        assert not (frame["found_oldest"] and below), f"{asked}: {below} are left out"
        assert not (frame["found_newest"] and above), f"{asked}: {above} are left out"

    # -- gaps ----------------------------------------------------------------------------------------------------------

    def _gap(self, frame: Frame) -> None:
        stream = frame["stream"]
        known = self.known(stream)
        after, to, at = parse_id(frame["after"]), parse_id(frame["to"]), self.at(stream)
        told = range(after.n + 1, to.n + 1)
        assert frame["missed"] == len(told) > 0, f"{frame}: a gap of nothing"
        assert after.n >= at, f"{frame} begins before {at}"
        missing = self.missing(stream, after.n + 1)
        assert not missing, f"{frame} came after {at}, without {missing}"
        still_there = [n for n in told if not known.is_gone(n)]
        assert not still_there, f"{frame}: {still_there} are not gone"
        others = [n for n in told if not known.is_owed(self.user, n) and not known.begins(self.user, n)]
        assert not others, f"{frame}: {others} never were {self.user}'s"
        if "next" in frame:
            following = parse_id(frame["next"])
            assert following.n > to.n, f"{frame}: next is not above it"
            assert known.at(following.n).id == following, f"{frame}: there is no such next"
        causes = frame.get("causes") or [frame["cause"]]
        assert causes[-1] == frame["cause"], f"{frame}: the newest cause is not the last"
        for cause in causes:
            if cause["kind"] == "lost":
                assert known.lost & set(told), f"{frame}: nothing of it was lost"
            else:
                self._check_trimmed(frame, known, cause)
        self.passed.setdefault(stream, []).append(to)

    def _check_trimmed(self, frame: Frame, known: Stream, cause: Frame) -> None:
        """Who trimmed is quoted, and the end is an id that there was (of what is lost nobody may know the time)."""
        after, to = parse_id(frame["after"]), parse_id(frame["to"])
        assert cause["kind"] == "trimmed", f"{frame}: no such thing has happened"
        said = {(made.policy, made.limit) for made in known.causes if made.upto.n > after.n}
        assert (cause.get("policy", ""), cause.get("limit", "")) in said, f"{frame}: nobody trimmed like this"
        assert known.at(to.n).id == to, f"{frame}: there was no such id"
