"""A client's conversation with the service, without I/O: what it says, what it makes of the answers, what it repeats.

The shell (`client.py`) feeds what happens (`begin`, `receive`, `lost`, what the program `submit`s and has `took`), asks
with `flush` for what is to be written, and looks at `ending` and `gave_up` for whether to go on. Time is an argument,
in seconds of a clock that never goes back; nothing here waits.

    down ─ begin → greeting ─ welcome → listing ─ last `streams` → open
      ▲                │  └──────── welcome without `more` ────────▲ │
      └────────────────┴─────────────────── lost ────────────────────┘
"""

from collections.abc import Callable, Mapping
from enum import Enum

from service.client import closing
from service.client.backoff import Backoff
from service.client.events import Closed, Connected, Disconnected, Event, GaveUp
from service.client.inbox import Hole, Inbox
from service.client.outbox import Bounds, Operation, Outbox
from service.client.wire import Frame, WireError, decode, encode
from service.core import frames
from service.core.names import EntryId, parse_id
from service.errors import ERRORS, WaypostError

ACK_EVERY_S = 0.5  # acknowledgements of half a second go together; the server stores them within a second
GREETING_S = 10.0  # for the `welcome`: a server that is silent for so long is as good as none
STABLE_S = 2.0  # a connection that lasted this long was a good one: back-off begins anew
OFFSETS_BYTES = 32_768  # of one `hello` or `offsets` frame, well below what a server takes


class Life(Enum):
    """Where the connection is in its life."""

    DOWN = "there is none"
    GREETING = "hello was said"
    LISTING = "welcome came, and more streams follow"
    OPEN = "open"


class State:
    """One client, over all its connections. `jitter` gives numbers from 0 up to 1, evenly.

    `is_listening`: the program wants the events; else they count as taken when they come. `offsets` and `epoch` are
    what `offsets` gave at the end of an earlier run, for a program that keeps them itself. Raises `WaypostError` for
    offsets that are none.
    """

    def __init__(
        self,
        *,
        device: str,
        jitter: Callable[[], float],
        is_listening: bool = True,
        acknowledges: bool = True,
        offsets: Mapping[str, str] | None = None,
        epoch: str | None = None,
    ) -> None:
        self.life = Life.DOWN
        self.user = ""
        self.is_live = False  # everything that was missed has come
        self.trouble = "not connected yet"  # why there is no connection, "" while there is one
        self.ending = ""  # when set, this connection is to be closed, and why
        self.gave_up: GaveUp | None = None
        self.outbox = Outbox(jitter)
        self._device = device
        self._acknowledges = acknowledges
        self._given = {stream: parse_id(offset) for stream, offset in (offsets or {}).items()}
        self._given_epoch = epoch
        self._inbox = Inbox(self._given, epoch, is_listening=is_listening)
        self._positions = self._inbox.positions
        self._backoff = Backoff(jitter)
        self._bounds = Bounds()
        self._welcome: frames.Welcome | None = None
        self._starts: dict[str, EntryId] = {}
        self._error: frames.Error | None = None  # the last one that was not the answer to an operation
        self._was_told_down = False
        self._opened_at: float | None = None
        self._ping_s = 0.0
        self._ping_at = 0.0
        self._ack_at: float | None = None
        self._numbers = 0
        self._confirming: set[frames.Ref] | None = None  # on leaving: acknowledgements that are not confirmed yet
        self._lines: list[bytes] = []

    # -- one connection after the other --------------------------------------------------------------------------------

    def begin(self) -> list[bytes]:
        """A connection stands. Returns the messages that begin the conversation."""
        self.life = Life.GREETING
        self._starts = {}
        # Bringing offsets acknowledges them, so who does not acknowledge brings what the program gave, and no more.
        epoch, offsets = self._positions.brought() if self._acknowledges else (self._given_epoch, self._given)
        parts: list[dict[str, str]] = [{}]
        size = 0
        for stream, offset in offsets.items():
            size += len(stream.encode()) + len(str(offset)) + 6
            if size > OFFSETS_BYTES:
                parts.append({})
                size = 0
            parts[-1][stream] = str(offset)
        hello = frames.Hello(self._device, parts[0], epoch=epoch if offsets else None, more=len(parts) > 1)
        return [
            encode(hello),
            *(encode(frames.Offsets(part, more=part is not parts[-1])) for part in parts[1:]),
        ]

    def lost(self, now: float, code: int | None, reason: str = "", *, is_final: bool = False) -> float:
        """The connection is gone, or could not be made. Returns the pause in seconds before the next try.

        `code` is the WebSocket close code, None where none came, `reason` what is known besides; `is_final`: trying
        again is of no use. Look at `gave_up` afterwards.
        """
        error = self._error
        trouble = self.ending
        if not trouble:
            trouble = f"{error.code}: {error.message}" if error is not None else closing.explain(code, reason)
        if self.gave_up is None and (is_final or (closing.is_final(code) and not self.ending)):
            self.gave_up = GaveUp(trouble, code)
        if self._opened_at is not None and now - self._opened_at >= STABLE_S:
            self._backoff.reset()
        self.life, self.is_live = Life.DOWN, False
        self.trouble, self.ending = trouble, ""
        self._error, self._opened_at = None, None
        self._lines, self._ack_at = [], None
        self.outbox.lost()
        if self.gave_up is not None:
            self.outbox.end(self.gave_up)
        elif not self._was_told_down:
            self._was_told_down = True
            self._inbox.put(Disconnected(trouble, code))
        return self._backoff.pause(error.retry_after if error is not None else None)

    @property
    def patience(self) -> float:
        """How long to wait for the next message, in seconds, before the connection counts as lost."""
        return 2 * self._ping_s if self.life is Life.OPEN else GREETING_S

    # -- what comes ----------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Takes one WebSocket message. Afterwards ask `flush`, `next_event`, `outbox.settled`, and look at `ending`."""
        try:
            for frame in decode(data):
                if not self.ending:
                    self._take(frame, now)
        except Hole as hole:
            self.ending = str(hole)
        except (WireError, WaypostError) as problem:
            self.ending = f"the server sent what is not the wire: {problem}"

    def _take(self, frame: Frame, now: float) -> None:
        if isinstance(frame, frames.Error):
            self._take_error(frame, now)
        elif isinstance(frame, frames.Pong | frames.History | frames.Authorised):
            pass  # that anything came is all there is to know; nothing here asks for more
        elif self.life is not Life.OPEN:
            self._take_welcome(frame, now)
        elif isinstance(frame, frames.Gap):
            self._inbox.put_gap(frame)
        elif isinstance(frame, frames.Acked):
            self._confirmed(frame.ref)
        elif isinstance(frame, frames.Live):
            self.is_live = self.is_live or frame.stream is None
            self._inbox.put(frame)
        elif isinstance(frame, frames.Welcome | frames.Streams):
            raise WireError("a welcome in mid-conversation")
        else:
            self._inbox.put_entry(frame, self.user)
            if isinstance(frame, frames.Message):
                if frame.from_ == self.user and self.outbox:
                    self.outbox.saw(frame)
            elif isinstance(frame, frames.Sent | frames.Joined | frames.Left):
                self.outbox.answered(frame)

    def _take_welcome(self, frame: Frame, now: float) -> None:
        """`welcome`, and what follows it until all streams are named."""
        if self.life is Life.GREETING and isinstance(frame, frames.Welcome):
            self._welcome = frame
        elif self.life is not Life.LISTING or not isinstance(frame, frames.Streams):
            raise WireError("it did not begin with a welcome")
        self._starts.update({stream: parse_id(state.offset) for stream, state in frame.streams.items()})
        if frame.more:
            self.life = Life.LISTING
            return
        assert self._welcome is not None
        self._open(self._welcome, now)

    def _open(self, welcome: frames.Welcome, now: float) -> None:
        self.life = Life.OPEN
        self.user, self.trouble, self._opened_at = welcome.user, "", now
        self._ping_s, self._ping_at = welcome.ping, now + welcome.ping
        usual = Bounds()
        self._bounds = Bounds(
            int(welcome.limits.get("unanswered_sends", usual.operations)),
            int(welcome.limits.get("frame_bytes", usual.frame_bytes)),
        )
        self._positions.opened(welcome.epoch, self._starts.items())
        self._was_told_down = False
        self._inbox.put(Connected(welcome.user, welcome.device, welcome.node, welcome.epoch))

    def _take_error(self, error: frames.Error, now: float) -> None:
        if error.ref is not None:
            self._confirmed(error.ref)
            self.outbox.refused(error, now)
        elif self.life is not Life.OPEN:
            self._error = error
            if not error.retry:
                row = ERRORS.get(error.code)
                self.ending = f"{error.code}: {error.message}"
                self.gave_up = GaveUp(self.ending, row.close if row is not None else None)
        elif error.code in ERRORS and ERRORS[error.code].close is not None:
            self._error = error  # says why the connection is about to be closed
        # else an acknowledgement, for a stream that we have just left, or to be stored later: nothing to be done

    # -- what the program gets -----------------------------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """The next event for the program, None when there is none now. Call `took` once the program is done with it."""
        return self._inbox.next_event()

    def took(self) -> None:
        """The program is done with the event that `next_event` gave last. May be called twice."""
        self._inbox.took()

    @property
    def may_read(self) -> bool:
        """Whether to read on: not while the program is behind, unless it waits for an answer itself."""
        return not self._inbox.is_full or bool(self.outbox) or self._confirming is not None

    @property
    def offsets(self) -> tuple[str | None, dict[str, str]]:
        """Epoch and offsets of what was taken: give them to the next client of this device."""
        epoch, offsets = self._positions.brought()
        return epoch, {stream: str(offset) for stream, offset in offsets.items()}

    # -- what goes out -------------------------------------------------------------------------------------------------

    def number(self) -> int:
        """A `ref` that was not used before."""
        self._numbers += 1
        return self._numbers

    def submit(self, frame: frames.Send | frames.Join | frames.Leave) -> Operation:
        """Puts an operation, with a `ref` from `number`, behind the others."""
        assert isinstance(frame.ref, int)
        operation = Operation(frame.ref, frame)
        self.outbox.add(operation)
        return operation

    def flush(self, now: float) -> list[bytes]:
        """The messages to write now."""
        if self.life is not Life.OPEN or self.ending:
            return []
        batch = self.outbox.batch(now, self._bounds, is_live=self.is_live)
        if self._acknowledges and self._positions.has_news:
            if self._ack_at is None:
                self._ack_at = now + ACK_EVERY_S
            elif now >= self._ack_at:
                self._ack_at = None
                # One frame a stream: when one is refused (we have just left the group), the others are taken.
                for stream, offset in self._positions.to_acknowledge().items():
                    self._lines.append(encode(frames.Ack({stream: str(offset)})))
        if now >= self._ping_at:
            self._ping_at = now + self._ping_s
            self._lines.append(encode(frames.Ping()))
        return [*([batch] if batch else []), *self._pack()]

    def due(self, now: float) -> float | None:
        """When to call `flush` again though nothing happens until then, None for not at all."""
        if self.life is not Life.OPEN or self.ending:
            return None
        moments = (self._ping_at, self._ack_at, self.outbox.due(now))
        return min(moment for moment in moments if moment is not None)

    def leave(self) -> None:
        """The program goes: acknowledges everything it took. Go on with `flush` and `receive` until `has_left`."""
        self._inbox.close()
        self.outbox.end(Closed("the client was closed before this was answered"))
        if self._confirming is None:
            self._confirming = set()
            if self.life is Life.OPEN and self._acknowledges:
                for stream, offset in self._positions.to_confirm().items():
                    self._confirming.add(self.number())
                    self._lines.append(encode(frames.Ack({stream: str(offset)}, self._numbers)))

    @property
    def has_left(self) -> bool:
        """Whether all acknowledgements are confirmed, or cannot be any more."""
        return not self._confirming or self.life is not Life.OPEN

    def _confirmed(self, ref: frames.Ref) -> None:
        if self._confirming is not None:
            self._confirming.discard(ref)

    def _pack(self) -> list[bytes]:
        """The lines to say, in as few messages as they fit into."""
        packed: list[bytes] = []
        size = self._bounds.frame_bytes
        for line in self._lines:
            size += len(line) + 1
            if size > self._bounds.frame_bytes:
                packed.append(line)
                size = len(line)
            else:
                packed[-1] += b"\n" + line
        self._lines = []
        return packed
