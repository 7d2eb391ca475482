"""The plain model: what each stream must hold, what is gone from it and why, who may see which number.

It learns what is in the store by looking past the service (`World.look`), and believes it only where somebody has asked
for it: every entry must be explained by a send, a join, a leave or a redaction, once.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from service.core.names import ZERO, EntryId, parse_id, user_stream
from tests.service import Frame

REFUSALS = ("unavailable", "not_member", "storage_full")  # answers that say: this was not stored


class Entry(NamedTuple):
    """What a client is to see of an entry. `body` is "" where there is none, `target` of a `redacted` entry alone."""

    id: EntryId
    type: str
    user: str  # who sent, joined, left, redacted
    to: str
    mid: str = ""
    body: str = ""
    target: str = ""


class Cause(NamedTuple):
    """A trimming that was asked for."""

    upto: EntryId
    policy: str
    limit: str


@dataclass
class Attempt:
    """A send or a change of membership as one connection said it.

    `answer`: None, or the frame that came. `member_since`: the number at which the user had joined the group it speaks
    of, None for others.
    """

    member_since: int | None = None
    answer: Frame | None = None

    @property
    def code(self) -> str:
        """Of the error that came, "" when none did."""
        return "" if self.answer is None else str(self.answer.get("code", ""))

    @property
    def is_refused(self) -> bool:
        """Whether it certainly had no effect."""
        return self.code in REFUSALS


@dataclass
class Send:
    """A message that somebody wants stored, however often they try; its body is nobody else's."""

    body: str
    sender: str
    to: str
    key: str | None
    attempts: list[Attempt] = field(default_factory=list)
    placed: dict[str, EntryId] = field(default_factory=dict)  # stream → where the store has it

    @property
    def own_stream(self) -> str:
        """Where the sender finds it."""
        return user_stream(self.sender) if self.to.startswith("user:") else self.to

    @property
    def streams(self) -> set[str]:
        """Everywhere it is to be."""
        return {self.to, self.own_stream}

    @property
    def may_be_stored(self) -> bool:
        return not all(attempt.is_refused for attempt in self.attempts)


class Stream:
    """One stream: its entries by number, from 1, and what is gone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []
        self.floor = ZERO
        self.redacted: set[int] = set()
        self.lost: set[int] = set()
        self.causes: list[Cause] = []
        self.stretches: dict[str, list[tuple[int, int | None]]] = {}  # of a group: user → (joined, left)

    @property
    def head(self) -> EntryId:
        return self.entries[-1].id if self.entries else ZERO

    def at(self, n: int) -> Entry:
        assert 1 <= n <= len(self.entries), f"{self.name} has no entry {n}; it ends at {self.head}"
        return self.entries[n - 1]

    def is_gone(self, n: int) -> bool:
        """Whether the number is to be told as part of a gap."""
        return n <= self.floor.n or n in self.lost

    def there(self) -> list[int]:
        """The numbers whose entries are still in the store."""
        return [n for n in range(1, len(self.entries) + 1) if not self.is_gone(n) and n not in self.redacted]

    def is_owed(self, user: str, n: int) -> bool:
        """Whether the number is one that the user is to be told of."""
        if not self.name.startswith("group:"):
            return True
        return any(joined < n <= (left or n) for joined, left in self.stretches.get(user, ()))

    def owed(self, user: str, above: int, below: int) -> list[int]:
        """The numbers between the two, exclusive, that the user is to be told of."""
        return [n for n in range(above + 1, below) if self.is_owed(user, n)]

    def member_since(self, user: str) -> int | None:
        """The number at which a user who is a member now has joined."""
        stretches = self.stretches.get(user)
        return stretches[-1][0] if stretches and stretches[-1][1] is None else None

    def begins(self, user: str, n: int) -> bool:
        """Whether the entry is the user's own joining."""
        return any(joined == n for joined, _ in self.stretches.get(user, ()))


class Model:
    """All streams, and everything that was asked for."""

    def __init__(self, streams: list[str]) -> None:
        self.streams = {name: Stream(name) for name in streams}
        self.sends: dict[str, Send] = {}
        self.changes: dict[tuple[str, str, str], list[Attempt]] = {}  # (joined or left, user, stream) → attempts
        self.redactions: set[tuple[str, str]] = set()  # (stream, id) that somebody wanted gone

    def learn(self, stream: str, entry: Entry) -> None:
        """The store has this entry, which is new. Fails unless it is the next one, and somebody wanted it."""
        known = self.streams[stream]
        assert entry.id.n == len(known.entries) + 1, f"{stream}: {entry.id} follows {known.head}"
        assert entry.id.ms >= known.head.ms, f"{stream}: the time of {entry.id} is before that of {known.head}"
        known.entries.append(entry)
        if entry.type == "message":
            self._place(stream, entry)
        elif entry.type in ("joined", "left") and stream == entry.to:
            self._change(known, entry)
        elif entry.type == "redacted":
            assert (stream, entry.target) in self.redactions, f"nobody redacted {entry.target} of {stream}"
        else:
            assert stream == user_stream(entry.user), f"{stream}: {entry} has nothing to do there"

    def _place(self, stream: str, entry: Entry) -> None:
        send = self.sends.get(entry.body)
        assert send is not None, f"{stream}: nobody sent {entry}"
        assert (entry.user, entry.to) == (send.sender, send.to), f"{stream}: {entry} was sent as {send}"
        assert send.key is None or entry.mid == send.key, f"{stream}: {entry} has another key than {send}"
        assert stream in send.streams, f"{stream}: {entry} was sent to {send.to}"
        assert stream not in send.placed, f"{stream}: {entry.body} is stored twice, at {send.placed[stream]} too"
        assert send.may_be_stored, f"{stream}: {entry} was refused each time"
        send.placed[stream] = entry.id

    def _change(self, group: Stream, entry: Entry) -> None:
        attempts = self.changes.get((entry.type, entry.user, group.name), [])
        wanted = [attempt for attempt in attempts if not attempt.is_refused]
        stretches = group.stretches.setdefault(entry.user, [])
        done = len(stretches) if entry.type == "joined" else sum(left is not None for _, left in stretches)
        assert len(wanted) > done, f"{group.name}: nobody asked for {entry}"
        is_join = entry.type == "joined"
        assert (group.member_since(entry.user) is None) == is_join, f"{group.name}: {entry} changes nothing"
        if is_join:
            stretches.append((entry.id.n, None))
        else:
            stretches[-1] = (stretches[-1][0], entry.id.n)

    def check_answers(self) -> None:
        """Every answer agrees with what the store has."""
        for send in self.sends.values():
            for attempt in send.attempts:
                if attempt.answer is not None:
                    self._check(attempt, send.to)
                    if attempt.answer["type"] == "sent":
                        self._check_sent(send, attempt.answer)
        for (kind, user, group), attempts in self.changes.items():
            for attempt in attempts:
                if attempt.answer is not None:
                    self._check(attempt, group)
                    assert attempt.code or attempt.answer["type"] == kind, f"{user}: {attempt}"

    def _check(self, attempt: Attempt, to: str) -> None:
        """A refusal has its reason."""
        assert attempt.code in ("", "uncertain", *REFUSALS), f"{attempt} to {to}"
        if attempt.code == "not_member" and attempt.member_since is not None:
            stretches = [stretch for members in self.streams[to].stretches.values() for stretch in members]
            assert (attempt.member_since, None) not in stretches, f"{attempt} to {to}: still a member"

    def _check_sent(self, send: Send, answer: Frame) -> None:
        found = {stream: send.placed.get(stream) for stream in send.streams}
        assert None not in found.values(), f"{answer} was answered, and the store has only {send.placed} of {send}"
        assert (answer["stream"], parse_id(answer["id"])) == (send.own_stream, found[send.own_stream]), (
            f"{answer}, {send}"
        )
        assert send.key in (None, answer["mid"]), f"{answer}, {send}"
        assert len(send.attempts) > 1 or not answer["duplicate"], f"{answer} of the only attempt: {send}"

    def trimmed(self, stream: str, cause: Cause) -> None:
        """Everything up to `cause.upto` is gone."""
        known = self.streams[stream]
        known.floor = max(known.floor, cause.upto)
        known.causes.append(cause)

    def redacted(self, send: Send) -> None:
        """The body of a message is gone, wherever the message still is."""
        for stream, entry in send.placed.items():
            if not self.streams[stream].is_gone(entry.n):
                self.streams[stream].redacted.add(entry.n)
