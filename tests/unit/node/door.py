"""A node's door to the store of a model: every call is asked for, carried out and answered, each as a step of its own.

What a network, a server and their delays can do to a call is here: it is carried out now or later, its answer is on its
way while other things happen, the answer is lost, or the call itself.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.core.entries import Durability, Page
from service.core.names import EntryId
from service.errors import Unavailable, Uncertain, WaypostError
from service.store import (
    Attached,
    Beat,
    Commit,
    FenceState,
    Lease,
    MailboxReader,
    Membership,
    OpenedStream,
    Outcome,
    Outgoing,
    Registration,
    Role,
    Store,
)
from service.store.mailbox import Reading, Received
from tests.unit.node.stored import Stored

WRITES = frozenset({"attach", "commit", "detach", "join", "leave", "publish"})


class Call:
    """A call that was asked for. `name` says what it is, for people and for comparing worlds."""

    def __init__(
        self, number: int, kind: str, name: str, work: Callable[[], Any], wants: Sequence[Registration]
    ) -> None:
        self.tokens = [want.token for want in wants]
        self.number = number
        self.kind = kind
        self.name = name
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.is_carried_out = False
        self.result: Any = None
        self.problem: WaypostError | None = None
        self._work = work

    def carry_out(self) -> None:
        """It reaches the store."""
        self.is_carried_out = True
        try:
            self.result = self._work()
        except WaypostError as problem:
            self.problem = problem

    def answered(self) -> None:
        """The answer reaches the node."""
        if self.answer.done():  # whoever asked has gone
            return
        if self.problem is not None:
            self.answer.set_exception(self.problem)
        else:
            self.answer.set_result(self.result)

    def failed(self) -> None:
        """The node gives up: no answer in time, or the connection broke."""
        if not self.answer.done():
            may_be_stored = self.kind in WRITES
            self.answer.set_exception(Uncertain() if may_be_stored else Unavailable("no answer in time"))


class Door(Store):
    """The store as the node sees it. Calls of the kinds in `slow` wait for steps; the others are answered at once."""

    def __init__(self, stored: Stored, nodes: Sequence[str] = ()) -> None:
        self.stored = stored
        self.slow: frozenset[str] = frozenset()
        self.calls: list[Call] = []
        self.late: list[Call] = []  # given up by the node, and still on their way
        self.is_away = False  # the server does not answer
        self.reading: tuple[str, int, asyncio.Future[Received]] | None = None  # the reader's: mailbox, above, answer
        self.beat_due = 0.0
        self.beats: dict[int, float] = {}  # sent and not seen again → when
        self._nodes = list(nodes)
        self._asked = 0
        self._mailboxes = 0

    async def _call(self, kind: str, name: str, work: Callable[[], object], wants: Sequence[Registration] = ()) -> Any:  # noqa: ANN401 - what the call answers
        if self.is_away:
            raise Unavailable("cannot connect")
        if kind not in self.slow:
            return work()
        self._asked += 1
        call = Call(self._asked, kind, name, work, wants)
        self.calls.append(call)
        try:
            return await call.answer
        finally:
            if call in self.calls:
                self.calls.remove(call)

    # -- what a node asks ----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        return "e1"

    @property
    def run(self) -> str:
        return self.stored.run

    @property
    def durability(self) -> Durability:
        return "fsynced"

    def reckoned_ms(self) -> float | None:
        return None

    async def check_server(self) -> None:
        await self._call("check", "check", lambda: None)

    async def fence_state(self) -> FenceState:
        stored = self.stored
        is_open = stored.fence == stored.run
        return FenceState(stored.epoch, stored.fence, stored.run, is_open=is_open)

    async def reconnect(self) -> None: ...

    async def nodes(self) -> list[str]:
        return self._nodes

    async def reconcile(
        self, node: str, live: Sequence[str], heads: Mapping[str, EntryId], *, is_late: bool = False
    ) -> bool:
        def work() -> object:
            return self.stored.reconcile(node, live, heads)

        opened: bool = await self._call("reconcile", "reconcile", work)
        return opened

    async def publish(self, batch: Sequence[Outgoing], mailbox: str) -> list[Outcome]:
        name = f"publish {' '.join(message.to for message in batch)}"
        outcomes: list[Outcome] = await self._call("publish", name, lambda: self.stored.publish(batch, mailbox))
        return outcomes

    async def page(
        self, stream: str, after: EntryId, users: Sequence[str], *, max_entries: int, max_bytes: int
    ) -> Page:
        name = f"page of {stream} above {after} for {' '.join(users)} by {max_entries}"

        def work() -> object:
            return self.stored.page(stream, after, users, max_entries)

        page: Page = await self._call("page" if max_bytes > 1 else "membership", name, work)
        return page

    async def attach(self, mailbox: str, wants: Sequence[Registration]) -> dict[str, Attached]:
        name = f"attach {mailbox} to {' '.join(want.stream for want in wants)}"

        def work() -> object:
            return self.stored.attach(mailbox, wants)

        attached: dict[str, Attached] = await self._call("attach", name, work, wants)
        return attached

    async def detach(self, mailbox: str, wants: Sequence[Registration]) -> None:
        name = f"detach {mailbox} from {' '.join(want.stream for want in wants)}"
        await self._call("detach", name, lambda: self.stored.detach(mailbox, wants), wants)

    async def open_session(
        self, user: str, device: str, node: str, offsets: Mapping[str, EntryId], *, is_foreign: bool
    ) -> list[OpenedStream]:
        def work() -> object:
            return self.stored.open_session(user, device, offsets, is_foreign=is_foreign)

        opened: list[OpenedStream] = await self._call("open", f"open {user}/{device}", work)
        return opened

    async def commit(self, commits: Sequence[Commit]) -> None:
        name = f"commit {' '.join(f'{one.user}/{one.device}' for one in commits)}"
        await self._call("commit", name, lambda: self.stored.commit(commits))

    async def join(
        self,
        user: str,
        group: str,
        *,
        mailbox: str = "",
        origin: tuple[int, int] | None = None,
        by: str = "",
        by_key: bool = False,
        may_enter: bool = False,
        role: Role | None = None,
    ) -> Membership:
        def work() -> object:
            return self.stored.join(user, group, mailbox, origin)

        joined: Membership = await self._call("join", f"join {user} {group}", work)
        return joined

    async def leave(
        self,
        user: str,
        group: str,
        *,
        mailbox: str = "",
        origin: tuple[int, int] | None = None,
        by: str = "",
        by_key: bool = False,
    ) -> Membership:
        def work() -> object:
            return self.stored.leave(user, group, mailbox, origin)

        left: Membership = await self._call("leave", f"leave {user} {group}", work)
        return left

    async def last_notice(self) -> str:
        return "0-0"

    async def create_mailbox(self, node: str) -> str:
        self._mailboxes += 1
        name = f"m{self._mailboxes}"
        await self._call("mailbox", f"mailbox {name}", lambda: self.stored.create_mailbox(name))
        return name

    async def drop_mailbox(self, mailbox: str) -> None:
        await self._call("drop", f"drop {mailbox}", lambda: self.stored.mailboxes.pop(mailbox, None))

    def mailbox_reader(self) -> MailboxReader:
        return ReaderByHand(self)


class ReaderByHand(MailboxReader):
    """The reader's own connection: a read waits until the model lets it have an entry, or its time is over."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def read(self, mailbox: str, after: int, *, notices_after: str, block_ms: int, count: int) -> Reading:
        door = self._door
        if door.is_away:
            raise Unavailable("cannot connect")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Received] = loop.create_future()
        door.reading = mailbox, after, answer
        door.beat_due = loop.time() + block_ms / 1000
        try:
            received = await answer
        finally:
            door.reading = None
        for _, what in received:
            if isinstance(what, Beat):
                door.beats.pop(what.number, None)
        return Reading(received, [], notices_after)

    async def lease(self, mailbox: str, beat: int, read_upto: int, ttl_ms: int) -> Lease | None:
        def work() -> object:
            return self._door.stored.lease(mailbox, beat, read_upto)

        if read_upto == 0:  # a new mailbox
            self._door.beats.clear()
        self._door.beats[beat] = asyncio.get_running_loop().time()
        lease: Lease | None = await self._door._call("lease", f"lease {mailbox}", work)
        return lease

    async def close(self) -> None: ...
