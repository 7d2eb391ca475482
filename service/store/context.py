"""What every operation of the store needs: the connections, the limits, and what is known of the server."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from service.core.entries import Durability
from service.errors import Fenced, Reset, Unavailable, WaypostError
from service.store import functions
from service.store.clock import Clock
from service.store.connection import Command, Link, Reply, reply_error
from service.store.keys import Layout
from service.store.records import Late, MailboxGone, StoreOptions, Superseded

_encode = msgspec.msgpack.Encoder().encode


class Context:
    """Shared by the operations of one `Store`. `epoch` and `run` are "" and the layout unknown until read."""

    def __init__(self, link: Link, options: StoreOptions) -> None:
        self.link = link
        self.options = options
        self.epoch = ""
        self.run = ""
        self.durability: Durability = "memory"
        self.clock = Clock()
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout:
        """The keys of this store. Raises `Unavailable` while the store was never read."""
        if self._layout is None:
            raise Unavailable("the store was not reached yet")
        return self._layout

    def set_partitions(self, partitions: int) -> None:
        """Take over the number of partitions that the store was migrated with."""
        if self._layout is None or self._layout.partitions != partitions:
            self._layout = Layout(partitions)

    async def call(self, name: str, arg: Mapping[str, object], *, is_write: bool = True) -> list[Any]:
        """Call a function with one argument; returns what follows `ok`.

        Raises `Fenced`, `Reset`, `MailboxGone`, `Superseded`, `Late`, or the error code the function answered, beside
        the failures of the connection.
        """
        return answer(await self.link.call(*command(name, arg, is_write=is_write), is_write=is_write))

    async def read(self, commands: Sequence[Command]) -> list[Any]:
        """Several reading commands in one round trip; raises for the first that failed."""
        replies = await self.link.pipeline(commands, is_write=False)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply_error(reply, is_write=False) from reply
        return replies


def command(name: str, arg: Mapping[str, object], *, is_write: bool = True) -> Command:
    """The command that calls a function: no declared keys (one server), one msgpack argument."""
    return ("FCALL" if is_write else "FCALL_RO", functions.library(name), 0, _encode(arg))


def answer(reply: Reply, *, is_write: bool = True) -> list[Any]:
    """The details of a function's reply, or the exception that its status stands for."""
    if isinstance(reply, RedisError):
        raise reply_error(reply, is_write=is_write) from reply
    status = reply[0].decode()
    match status:
        case "ok":
            return list(reply[1:])
        case "fenced":
            raise Fenced(f"the store is at epoch {reply[1].decode()}, and may wait to be reconciled")
        case "reset":
            raise Reset("the store was emptied or never migrated: run `waypost migrate up`")
        case "gone":
            raise MailboxGone(reply[1].decode())
        case "late":
            raise Late(int(reply[1]))
        case "superseded":
            raise Superseded(reply[1].decode())
        case _:
            raise WaypostError(status)
