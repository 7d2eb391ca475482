"""What may happen in a story, and the telling of one.

A story is drawn as a whole before it is told: what is drawn must not depend on how fast a server answered. So every
act can always come next, and does nothing where there is nothing to do. An act is followed by all its consequences,
or, when it is hasty, by those of one turn of the loop.
"""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from service.config import Retention
from service.core.names import ZERO, EntryId, group_stream, user_stream
from service.core.retention import Policy
from service.errors import Uncertain
from service.store import Store, TrimCause
from service.trimming import StreamPlan, StreamTrimmed, plan_stream, trim_stream
from tests.integration.store.kit import Server, key_of
from tests.integration.stories.cast import Host, Phone
from tests.integration.stories.faults import Fate
from tests.integration.stories.model import Attempt, Cause, Send
from tests.integration.stories.world import DEVICES, GROUPS, HOSTS, STREAMS, World

ACTS_MIN, ACTS_MAX = 20, 50  # of a story; acts that do nothing are not told, so a story may be as short as it needs

devices = st.integers(0, len(DEVICES) - 1)
hosts = st.integers(0, len(HOSTS) - 1)
streams = st.sampled_from(STREAMS)
few = st.integers(0, 3)
calls = st.sampled_from(
    ("publish", "page", "commit", "attach", "open", "join", "leave", "read", "lease", "detach", "mailbox", "reconcile")
)
answers = st.sampled_from(("page", "read", "publish", "attach", "open", "join", "leave", "commit"))


class Act(NamedTuple):
    """A method of `Story`, what it is given, and whether the next act comes at once."""

    name: str
    given: dict[str, Any]
    is_hasty: bool


class Opening(NamedTuple):
    """How the nodes are set up, and whether somebody says something all the time."""

    beat_s: float
    mailbox_cap: int
    tail_entries: int
    is_talkative: bool


_acts: list[st.SearchStrategy[Act]] = []
Body = Callable[..., Awaitable[None]]


def act(*, weight: int = 1, **drawn: st.SearchStrategy[Any]) -> Callable[[Body], Body]:
    """Something that may happen, `weight` times as often as most. Earlier ones are simpler: stories shrink to them."""

    def note(body: Body) -> Body:
        one = st.builds(Act, st.just(body.__name__), st.fixed_dictionaries(drawn), st.booleans())
        _acts.extend([one] * weight)
        return body

    return note


class Story:
    """One story, told by `play`."""

    def __init__(self, server: Server, opening: Opening) -> None:
        self.world = World(server)
        self._opening = opening
        self._topics = itertools.cycle(STREAMS)
        self._talkers = itertools.cycle(range(len(DEVICES)))

    async def play(self, acts: list[Act]) -> None:
        """Tells it to its end. Raises an AssertionError, with the story so far as a note, when something is wrong."""
        try:
            await self._begin()
            for one in acts:
                await getattr(self, one.name)(**one.given)
                self._chatter()
                await self.world.go_on(is_hasty=one.is_hasty)
            await self.heal()
            self.tell("every device comes back")
            await self.world.come_back()
        except Exception as error:
            error.add_note("the story:\n" + "\n".join(f"  {n}. {line}" for n, line in enumerate(self.world.story, 1)))
            raise
        finally:
            await self.world.end()

    async def _begin(self) -> None:
        beat_s, cap, tail, _ = self._opening
        await self.world.begin(beat_s=beat_s, mailbox_cap=cap, tail_entries=tail)
        self.tell(f"the nodes beat every {beat_s} s; mailboxes hold {cap} entries, tails {tail}")
        for who in (0, 1, 2):
            self._connect(who, self.world.hosts[who % len(HOSTS)])
            self._change(who, "g", is_join=True)
            await self.world.go_on(is_hasty=False)

    def tell(self, line: str) -> None:
        self.world.story.append(line)

    def _chatter(self) -> None:
        """In a talkative story something is said, and acknowledged, all the time."""
        if self._opening.is_talkative:
            who = next(self._talkers)
            self._say(who, next(self._topics), is_keyed=False)
            self._acknowledge(who, 0, is_answered=False)

    @act()
    async def rest(self) -> None:
        """Nothing happens."""

    # -- devices -------------------------------------------------------------------------------------------------------

    @act(weight=3, who=devices, where=hosts, how=st.sampled_from(("beside", "instead", "with its offsets")))
    async def connect(self, who: int, where: int, how: str) -> None:
        """A device connects, beside an earlier connection or after losing it, perhaps with its own offsets."""
        if how == "instead":
            self._cut(who)
        self._connect(who, self.world.hosts[where], brings=how == "with its offsets")

    def _connect(self, who: int, host: Host, *, brings: bool = False) -> None:
        device = self.world.devices[who]
        if host.node is not None:
            self.tell(f"{device} connects to node {host.name}{', with its offsets' if brings else ''}")
            self.world.phones.append(Phone(host, device, self.world.model, dict(device.kept) if brings else {}))

    @act(who=devices)
    async def cut(self, who: int) -> None:
        """A device loses its oldest connection."""
        self._cut(who)

    def _cut(self, who: int) -> None:
        for phone in self.world.phones_of(who)[:1]:
            self.tell(f"{phone.label} loses the network")
            phone.cut()

    @act(weight=3, who=devices, to=streams, is_keyed=st.booleans(), count=st.integers(1, 4))
    async def send(self, who: int, to: str, is_keyed: bool, count: int) -> None:
        """A few messages, one after the other without waiting."""
        for _ in range(count):
            self._say(who, to, is_keyed=is_keyed)

    @act(to=streams)
    async def talk(self, to: str) -> None:
        """Everybody sends a message at once."""
        for who in range(len(DEVICES)):
            self._say(who, to, is_keyed=False)

    @act(who=devices, which=few)
    async def repeat(self, who: int, which: int) -> None:
        """A device repeats one of the latest messages of its user that have a key."""
        for phone in self.world.phones_of(who)[-1:]:
            keyed = [s for s in self.world.model.sends.values() if s.key and s.sender == phone.device.user]
            for send in keyed[::-1][which : which + 1]:
                self.tell(f"{phone.label} repeats {send.body}")
                self._publish(phone, send)

    def _say(self, who: int, to: str, *, is_keyed: bool) -> None:
        for phone in self.world.phones_of(who)[-1:]:
            body = f"m{len(self.world.model.sends) + 1}"
            send = Send(body, phone.device.user, to, f"key of {body}" if is_keyed else None)
            self.world.model.sends[body] = send
            self.tell(f"{phone.label} sends {body} to {to}{' with a key' if is_keyed else ''}")
            self._publish(phone, send)

    def _publish(self, phone: Phone, send: Send) -> None:
        attempt = Attempt(self._member_since(send.to, send.sender))
        send.attempts.append(attempt)
        given = {} if send.key is None else {"key": send.key}
        phone.ask(attempt, type="send", to=send.to, body=send.body, **given)

    def _member_since(self, stream: str, user: str) -> int | None:
        return self.world.model.streams[stream].member_since(user)

    @act(weight=2, who=devices, group=st.sampled_from(GROUPS), is_join=st.booleans())
    async def join_or_leave(self, who: int, group: str, is_join: bool) -> None:
        self._change(who, group, is_join=is_join)

    def _change(self, who: int, group: str, *, is_join: bool) -> None:
        for phone in self.world.phones_of(who)[-1:]:
            user, stream = phone.device.user, group_stream(group)
            self.tell(f"{phone.label} {'joins' if is_join else 'leaves'} {group}")
            attempt = Attempt(self._member_since(stream, user))
            change = ("joined" if is_join else "left", user, stream)
            self.world.model.changes.setdefault(change, []).append(attempt)
            phone.ask(attempt, type="join" if is_join else "leave", group=group)

    @act(weight=2, who=devices, less=few, is_answered=st.booleans())
    async def acknowledge(self, who: int, less: int, is_answered: bool) -> None:
        """Everything that has come, or all but the last few entries of each stream."""
        self._acknowledge(who, less, is_answered=is_answered)

    def _acknowledge(self, who: int, less: int, *, is_answered: bool) -> None:
        for phone in self.world.phones_of(who)[-1:]:
            offsets = {stream: passed[max(0, len(passed) - 1 - less)] for stream, passed in phone.watch.passed.items()}
            told = ", ".join(f"{stream} {offset.n}" for stream, offset in offsets.items())
            self.tell(f"{phone.label} acknowledges {told}{'' if is_answered else ', without waiting'}")
            phone.acknowledge(offsets, is_answered=is_answered)

    @act(
        who=devices,
        stream=streams,
        place=st.tuples(st.sampled_from(("newest", "after", "before", "around")), st.integers(0, 30), st.booleans()),
        limit=st.integers(1, 7),
    )
    async def look_back(self, who: int, stream: str, place: tuple[str, int, bool], limit: int) -> None:
        """A device asks what was said in a stream: above, below or around one of its entries, or lately."""
        for phone in self.world.phones_of(who)[-1:]:
            if stream.startswith("user:") and stream != user_stream(phone.device.user):
                stream = user_stream(phone.device.user)
            entries = self.world.model.streams[stream].entries
            side, at, by_id = place
            n = min(at, len(entries))
            anchor: dict[str, object] = {} if side == "newest" else {side: str(entries[n - 1].id) if by_id and n else n}
            self.tell(f"{phone.label} asks for {limit} of {stream}{''.join(f', {k} {v}' for k, v in anchor.items())}")
            phone.look_back(stream, anchor, limit)

    @act(who=devices)
    async def claim_too_much(self, who: int) -> None:
        """What was never delivered cannot be acknowledged."""
        for phone in self.world.phones_of(who)[-1:]:
            if phone.watch.is_welcome:
                head = self.world.model.streams["all"].head
                self.tell(f"{phone.label} acknowledges what is not there yet")
                phone.claim("all", EntryId(head.ms + 100_000, head.n + 1))

    @act(who=devices)
    async def stall_or_drain(self, who: int) -> None:
        """A socket takes no more; the next time it does again."""
        for phone in self.world.phones_of(who)[-1:]:
            is_paused = phone.connection.is_paused
            self.tell(f"the socket of {phone.label} {'drains' if is_paused else 'is full'}")
            (phone.connection.drained if is_paused else phone.connection.paused)()

    # -- operators -----------------------------------------------------------------------------------------------------

    @act(stream=streams, keep=few)
    async def trim(self, stream: str, keep: int) -> None:
        """All but the newest few entries of a stream are removed."""
        known = self.world.model.streams[stream]
        upto = len(known.entries) - keep
        if self.world.is_up and upto > known.floor.n:
            cause = Cause(known.at(upto).id, f"policy{len(known.causes)}", f"max_entries={keep}")
            why = TrimCause(policy=cause.policy, limit=cause.limit)
            step = await self.world.operate(lambda store: store.trim(stream, cause.upto, why, limit=2))
            while step is not None and step.more:
                step = await self.world.operate(lambda store: store.trim(stream, cause.upto, why, limit=2))
            if step is not None:
                self.tell(f"{stream} is trimmed up to {upto}")
                self.world.model.trimmed(stream, cause)

    @act(stream=streams, keep=st.integers(3, 8), is_held=st.booleans())
    async def trim_by_policy(self, stream: str, keep: int, is_held: bool) -> None:
        """A policy is carried out, after a plan of it; in an inbox it may hold what a device has not acknowledged."""
        await self.world.go_on(is_hasty=False)
        known = self.world.model.streams[stream]
        is_held = is_held and stream.startswith("user:")
        match = stream if stream == "all" else f"{stream.partition(':')[0]}:*"
        policy = Policy(match=match, max_entries=keep, hold_unread_s=3600 if is_held else None)
        settings = Retention(policies=(policy,))
        stored = (
            await self.world.operate(lambda store: carry_out(store, stream, settings)) if self.world.is_up else None
        )
        if stored is None:
            return
        plan, done = stored
        there = known.there()
        over = there[: max(0, len(there) - keep)]
        # An acknowledgement may be stored since the last look: at least up to what is stored it may go, at most up to
        # what was said.
        devices = self.world.devices_of(stream) if is_held else []
        least = min((device.stored.get(stream, ZERO).n for device in devices), default=len(known.entries))
        most = min((device.has(stream).n for device in devices), default=len(known.entries))
        self.tell(
            f"{stream} is trimmed by a policy to {keep}, up to {done.floor.n}{', unread is held' if is_held else ''}"
        )
        left = [n for n in over if done.floor.n < n <= least]
        assert not left, f"{stream}: {done} left {left}"
        more = [n for n in there if known.floor.n < n <= done.floor.n and (n not in over or n > most)]
        assert not more, f"{stream}: {done} took {more}"
        assert plan is None or plan.entries == done.entries, f"{stream}: {done} was planned as {plan}"
        if done.floor > known.floor:
            self.world.model.trimmed(stream, Cause(done.floor, policy.match, f"max_entries={keep}"))

    @act(stream=streams, which=few, is_asked=st.booleans())
    async def lose_a_message(self, stream: str, which: int, is_asked: bool) -> None:
        """One of the newest messages of a stream is redacted, or (not `is_asked`) lost by the store."""
        known = self.world.model.streams[stream]
        there = [known.at(n) for n in known.there() if known.at(n).type == "message"]
        for entry in there[::-1][which : which + 1] if self.world.is_up else ():
            if is_asked:
                await self._redact(self.world.model.sends[entry.body])
            else:
                self.tell(f"the store loses {entry.body} in {stream}")
                self.world.admin.xdel(key_of("s", stream), str(entry.id))
                known.lost.add(entry.id.n)

    async def _redact(self, send: Send) -> None:
        self.world.model.redactions |= {(stream, str(entry)) for stream, entry in send.placed.items()}
        entry = send.placed[send.to]
        if await self.world.operate(lambda store: store.redact(send.to, entry, send.sender, only_sender=True)):
            self.tell(f"{send.body} is redacted")
            self.world.model.redacted(send)

    # -- between nodes and the store -----------------------------------------------------------------------------------

    @act(weight=2, where=hosts, kind=calls, fate=st.sampled_from(Fate))
    async def disturb_a_call(self, where: int, kind: str, fate: Fate) -> None:
        host = self.world.hosts[where]
        self.tell(f"the next {kind} of node {host.name} {fate.value}")
        host.faults.arm(kind, fate)

    @act(weight=2, where=hosts, kind=answers, is_single=st.booleans())
    async def hold_answers(self, where: int, kind: str, is_single: bool) -> None:
        """None of this kind comes any more; where that is so already, all come again, or (`is_single`) one does.

        Of `read`: the reader of the mailbox stands still.
        """
        host = self.world.hosts[where]
        if kind not in host.faults.held:
            self.tell(f"no answer to a {kind} of node {host.name} comes from now on")
            host.faults.hold(kind)
        elif is_single:
            self.tell(f"one answer to a {kind} of node {host.name} comes")
            host.faults.let_one_go(kind)
        else:
            self.tell(f"all answers to node {host.name} come again")
            host.faults.let_go()

    @act()
    async def carry_out_late_calls(self) -> None:
        if self.world.late:
            self.tell(f"the calls that were given up ({len(self.world.late)}) are carried out")
            await self.world.carry_out_late_calls()

    @act(where=hosts, what=st.sampled_from(("entries", "mailbox", *STREAMS)))
    async def lose_mail(self, where: int, what: str) -> None:
        """The mailbox of a node loses entries, or is deleted, or is taken off the register of a stream."""
        host = self.world.hosts[where]
        mailbox = "" if host.node is None else host.node.reader.mailbox
        if what == "entries":
            self.tell(f"the next two entries in the mailbox of node {host.name} are lost")
            host.faults.entries_to_lose = 2
        elif not mailbox or not self.world.is_up:
            pass
        elif what == "mailbox":
            self.tell(f"the mailbox of node {host.name} is deleted")
            self.world.admin.delete(mailbox)
        else:
            self.tell(f"{what} forgets that node {host.name} wants its entries")
            self.world.admin.hdel(key_of("h", what), mailbox)

    # -- processes and time --------------------------------------------------------------------------------------------

    @act(how=st.sampled_from(("cut off", "restarted", "killed")))
    async def end_the_server(self, how: str) -> None:
        """Its connections, or it itself; when it is not there, it starts again."""
        if not self.world.is_up:
            self.tell("the server starts again")
            await self.world.start_server()
            return
        self.tell(f"the server is {how}")
        if how == "cut off":
            self.world.admin.client_kill_filter(_type="normal", skipme=True)
        else:
            self.world.kill_server()
            if how == "restarted":
                await self.world.start_server()

    @act(where=hosts, is_drained=st.booleans())
    async def end_a_node(self, where: int, is_drained: bool) -> None:
        """It is killed, or shut down; when it is not there, it starts again."""
        host = self.world.hosts[where]
        if host.node is None:
            self.tell(f"node {host.name} starts again")
            await host.start()
            return
        if is_drained and not host.faults.held:
            self.tell(f"node {host.name} is shut down")
            await host.node.drain()
        else:
            self.tell(f"node {host.name} is killed")
        await self.world.kill_host(host)

    @act()
    async def wait(self) -> None:
        """Long enough for audits, for a stream nobody wants to be detached, for a beat that does not come."""
        self.tell("three beats pass")
        await self.world.pass_time(beats=3)

    @act()
    async def heal(self) -> None:
        self.tell("everything is mended")
        await self.world.heal()


async def carry_out(store: Store, stream: str, settings: Retention) -> tuple[StreamPlan | None, StreamTrimmed]:
    """What retention does to a stream, and the plan of it; no plan where the trimming had to be begun again."""
    now_ms = await store.now_ms()
    plan = await plan_stream(store, stream, settings, now_ms)
    try:
        return plan, await trim_stream(store, stream, settings, TrimCause(run="story"), now_ms)
    except Uncertain:
        return None, await trim_stream(store, stream, settings, TrimCause(run="story"), now_ms)


openings = st.builds(
    Opening,
    beat_s=st.sampled_from((0.1, 0.03)),
    mailbox_cap=st.sampled_from((10_000, 1)),
    tail_entries=st.sampled_from((64, 1)),
    is_talkative=st.booleans(),
)
plots = st.lists(st.one_of(_acts), min_size=ACTS_MIN, max_size=ACTS_MAX)
