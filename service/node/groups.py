"""Groups, for whoever asks without a connection: settings, members, and the end of a group.

What a connection asks about memberships is in `memberships.py`; what is changed here reaches connections as what is
changed on another node does, through the mailbox.
"""

import asyncio
import secrets
from typing import TYPE_CHECKING

from service.core.names import ZERO, EntryId, group_stream
from service.errors import WaypostError
from service.node.calls import Calls
from service.store import GroupState, Member, Role, Store, TrimCause

if TYPE_CHECKING:
    from service.node.node import Node

MEMBERS_AT_ONCE = 100  # who are removed between two looks for more


class Groups:
    """What a node does about groups over HTTP.

    In all of it `by` is the user who asks; "" stands for a server key, which may do everything. Raises what the store's
    methods of these names raise, as a client is told it.
    """

    def __init__(self, node: "Node", store: Store, calls: Calls) -> None:
        self._node = node
        self._store = store
        self._calls = calls

    async def look(self, group: str, by: str) -> GroupState:
        """How a group stands. Raises `not_member`; to a server key `no_group`."""
        async with self._calls.one():
            return await self._store.group(group, by or None)

    async def members(self, group: str, by: str, cursor: str, count: int) -> tuple[list[Member], str]:
        """Some members, and the cursor of the next ones, "" at the end. Raises what `look` does."""
        await self.look(group, by)
        async with self._calls.one():
            return await self._store.members(group, cursor, count)

    async def member(self, group: str, user: str, by: str) -> Member:
        """One member. Raises what `look` does, and `not_found`."""
        own = await self.look(group, by)
        if user != by:
            try:
                own = await self.look(group, user)
            except WaypostError as problem:
                if problem.code == "not_member":
                    raise _absent() from problem
                raise
        return _member(user, own)

    async def configure(
        self, group: str, by: str, *, is_open: bool | None, announce: int | None
    ) -> tuple[GroupState, bool]:
        """Changes settings, or makes the group; then a user who made it is its owner and a member. Tells which.

        When it fails in between, the group is the user's, who repeats it. Raises `not_member`, `not_allowed`,
        `group_closed`, `too_many_streams`.
        """
        async with self._calls.one():
            state, is_new = await self._store.configure_group(
                group, is_open=is_open, announce=announce, by=by, by_key=not by
            )
        if by and state.since is None:
            await self._join(group, by, may_enter=True)
            state = await self.look(group, by)
        return state, is_new

    async def put_in(
        self, group: str, user: str, by: str, *, role: Role | None, may_enter: bool
    ) -> tuple[Member, bool]:
        """Makes a user a member, or gives a member this role; tells whether the member is new.

        An owner puts in anybody. Whoever puts themselves in joins, for which a closed group needs `may_enter`. Raises
        `not_member`, `not_allowed`, `group_closed`, `group_full`, `too_many_streams`.
        """
        joins = user == by and role != "owner"
        if joins:
            is_new = await self._join(group, user, may_enter=may_enter)
        else:
            is_new = await self._join(group, user, by=by, by_key=not by, role=role)
        found = await self.member(group, user, by)
        if joins and role == "member" and found.role == "owner" and not is_new:  # an owner who steps back
            await self._join(group, user, by=by, role=role)
            found = await self.member(group, user, by)
        return found, is_new

    async def _join(
        self,
        group: str,
        user: str,
        *,
        by: str = "",
        by_key: bool = False,
        may_enter: bool = False,
        role: Role | None = None,
    ) -> bool:
        async with self._calls.one():
            membership = await self._store.join(user, group, by=by, by_key=by_key, may_enter=may_enter, role=role)
        self._node.sends.note(group_stream(group), membership.id)
        return membership.is_new

    async def take_out(self, group: str, user: str, by: str) -> None:
        """Ends a membership, the own one or, for an owner, another's. Raises `not_member`, `not_allowed`,
        `not_found`.
        """
        try:
            async with self._calls.one():
                left = await self._store.leave(user, group, by="" if user == by else by, by_key=not by)
        except WaypostError as problem:
            if problem.code == "not_found":
                raise _absent() from problem
            raise
        self._node.sends.note(group_stream(group), left.id)

    async def delete(self, group: str, by: str) -> None:
        """Ends a group: nobody sends to it or joins it any more, its entries go, and all its members are removed.

        Whoever asks is removed last, so that it may be repeated when it was cut short. Raises `not_member`,
        `not_allowed`; to a server key `no_group`.
        """
        stream = group_stream(group)
        head = await self._head(stream)
        async with self._calls.one():
            await self._store.delete_group(group, by=by, by_key=not by)
        # What goes is what was there before: an empty group may have been made anew by now, and its messages stay.
        # Devices that lack some of it get a gap as wide as that, for their memberships end where the gap does.
        await self._trim(stream, head)
        while await self._remove_members(group, but=by):
            pass
        if by and await self._is_gone(group):
            await self._remove(group, by)
        self._node.log.info("group_deleted", stream=stream)

    async def _head(self, stream: str) -> EntryId:
        """The head of a group's stream, whoever asks; 0-0 where there is no such group."""
        try:
            async with self._calls.one():
                return (await self._store.stream_facts(stream)).head
        except WaypostError as problem:
            if problem.code != "no_group":
                raise
            return ZERO

    async def _is_gone(self, group: str) -> bool:
        """Whether the group is deleted, and has not been made anew."""
        try:
            await self.look(group, "")
        except WaypostError as problem:
            if problem.code != "no_group":
                raise
            return True
        return False

    async def _trim(self, stream: str, upto: EntryId) -> None:
        cause = TrimCause(policy="deleted", run=secrets.token_hex(8))  # its steps share a line of the ledger
        has_more = True
        while has_more:
            async with self._calls.one():
                has_more = (await self._store.trim(stream, upto, cause)).more

    async def _remove_members(self, group: str, *, but: str) -> int:
        """Removes everybody whom one walk through the members finds. Returns how many those were."""
        removed, cursor, is_over = 0, "", False
        while not is_over:
            async with self._calls.one():
                members, cursor = await self._store.members(group, cursor, MEMBERS_AT_ONCE)
            if not await self._is_gone(group):
                break  # it was made anew, which it cannot be before all its members are gone: these are others
            removing = (self._remove(group, member.user) for member in members if member.user != but)
            for gone in await asyncio.gather(*removing, return_exceptions=True):
                if isinstance(gone, BaseException):
                    raise gone
                removed += gone
            is_over = not cursor
        return removed

    async def _remove(self, group: str, user: str) -> bool:
        """Removes a member; False when somebody else has done so."""
        try:
            await self.take_out(group, user, "")
        except WaypostError as problem:
            if problem.code != "not_found":
                raise
            return False
        return True


def _member(user: str, state: GroupState) -> Member:
    assert state.role is not None, "a role is told of members"
    assert state.since is not None
    return Member(user, state.role, state.since)


def _absent() -> WaypostError:
    return WaypostError("not_found", "not a member of this group")
