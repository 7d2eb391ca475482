"""What a story is about: a server, two nodes in this process, devices, and the model that holds them to account.

After each act of a story the world must `go_on`: things come to rest, and what has come of them is held against the
model. `heal` ends all that is wrong; then everybody must have everything.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from migrations import __main__ as migrations
from service.core.names import EntryId, group_stream, parse_id, user_stream
from service.errors import Uncertain, WaypostError
from service.log import ROOT
from service.store import Store, StoreOptions
from service.store.connection import Command, Link
from tests.integration.store.kit import Server, head_of, key_of, leaks, numbers_in, to_all, to_group
from tests.integration.store.kit import direct as to_user
from tests.integration.stories.cast import Device, Host, Phone, offset_of, small
from tests.integration.stories.model import Attempt, Entry, Model, Send

USERS = ("alice", "bob", "carol")
DEVICES = (("alice", "phone"), ("bob", "phone"), ("alice", "laptop"), ("bob", "laptop"), ("carol", "phone"))
GROUPS = ("g", "h")
STREAMS = (*map(group_stream, GROUPS), *map(user_stream, USERS), "all")
HOSTS = ("a", "b")

Result = TypeVar("Result")

QUIET_S = 0.3  # how long a step waits for things to come to rest; afterwards the story goes on anyway
HEALED_S = 20.0  # until everybody has everything once nothing is wrong any more: far more than ten times what it takes


class World:
    """Made once for a story. What `begin` starts is ended by `end`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = server.admin
        self.model = Model(list(STREAMS))
        self.devices = [Device(user, name) for user, name in DEVICES]
        self.phones: list[Phone] = []
        self.hosts: list[Host] = []
        self.late: list[Sequence[Command]] = []  # calls that were given up, to be carried out yet
        self.story: list[str] = []
        self.is_up = True  # the server
        self._operators: Store | None = None  # a store without faults
        self._link = Link(server.url, StoreOptions())
        self._errors = _Errors()

    @property
    def operators(self) -> Store:
        """The store as operators and scheduled jobs have it: nothing comes in between."""
        assert self._operators is not None
        return self._operators

    # -- the story -----------------------------------------------------------------------------------------------------

    async def begin(self, *, beat_s: float, mailbox_cap: int, tail_entries: int) -> None:
        """An empty store and two nodes."""
        logging.getLogger(ROOT).addHandler(self._errors)
        self.admin.flushall()
        await migrations.up(self.server.url)
        self._operators = await Store.connect(self.server.url, options=StoreOptions())
        await self._operators.check_server()
        for name in HOSTS:
            settings = small(name, beat_s=beat_s, mailbox_cap=mailbox_cap, tail_entries=tail_entries)
            self.hosts.append(Host(self.server.url, self.admin, settings, self.late))
            await self.hosts[-1].start()
        await self.until(self._are_nodes_ready, "both nodes are ready")

    async def end(self) -> None:
        """Ends the nodes; whoever was connected is cut off."""
        for host in self.hosts:
            host.faults.disarm()
            await host.end()
        if self._operators is not None:
            await self._operators.close()
        await self._link.close()
        logging.getLogger(ROOT).removeHandler(self._errors)

    async def until(self, condition: Callable[[], object], what: str, seconds: float = HEALED_S) -> None:
        """Waits for a condition that must come true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            await asyncio.sleep(0.001)

    async def go_on(self, *, is_hasty: bool) -> None:
        """What was done has its consequences: all of them, or (`is_hasty`) those of one turn of the loop."""
        await asyncio.sleep(0)
        if not is_hasty and self.is_up:
            deadline = time.monotonic() + QUIET_S
            while time.monotonic() < deadline and not all(host.is_quiet for host in self.hosts):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        self.look()

    # -- who takes part ------------------------------------------------------------------------------------------------

    def phones_of(self, device: int) -> list[Phone]:
        """The open connections of a device, oldest first."""
        return [phone for phone in self.phones if phone.is_open and phone.device is self.devices[device]]

    def devices_of(self, stream: str) -> list[Device]:
        """Whose progress an inbox is held for: the devices of its user that the store knows."""
        return [device for device in self.devices if user_stream(device.user) == stream and device.stored]

    async def kill_host(self, host: Host) -> None:
        """Its process ends, and with it the connections."""
        await host.end()
        for phone in self.phones:
            if phone.host is host and phone.is_open:
                phone.is_open = False

    def kill_server(self) -> None:
        """As a power cut would."""
        self.server.kill()
        self.is_up = False

    async def start_server(self) -> None:
        """A server that was killed starts again, from its files."""
        await asyncio.to_thread(self.server.start)
        self.is_up = True

    async def pass_time(self, beats: int) -> None:
        """As long as so many beats take; nothing else may have to happen meanwhile."""
        await asyncio.sleep(beats * max(host.beat_s for host in self.hosts))

    async def carry_out_late_calls(self) -> None:
        """What was given up is carried out after all, in the order it was asked."""
        while self.late:
            try:
                await self._link.pipeline(self.late.pop(0), is_write=True)
            except WaypostError:
                pass  # the server is away: then never

    async def operate(self, call: Callable[[Store], Awaitable[Result]]) -> Result | None:
        """What an operator asks of the store, asked again when the connection was cut; None when the store refuses."""
        while True:
            try:
                return await call(self.operators)
            except Uncertain:
                continue
            except WaypostError as problem:
                if problem.code not in ("unavailable", "not_found"):
                    raise
                return None  # it is not reconciled yet, or has lost what it was asked for

    def _are_nodes_ready(self) -> bool:
        for host in self.hosts:
            host.check()
        return all(host.node is not None and not host.node.not_ready() for host in self.hosts)

    # -- what is in the store ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Takes over what the store has by now, and holds everything that came to the connections against it."""
        for host in self.hosts:
            host.check()
        assert not self._errors.records, f"a node logged an error: {self._errors.records}"
        if not self.is_up:
            return
        asked = self.admin.pipeline(transaction=True)
        for device in self.devices:
            asked.hgetall(key_of("o", user_stream(device.user), str(device)))
        for name, stream in self.model.streams.items():
            asked.xrange(key_of("s", name), f"({stream.head}" if stream.entries else "-")
        answers = asked.execute()
        for name, entries in zip(STREAMS, answers[len(self.devices) :], strict=True):
            for raw, fields in entries:
                self.model.learn(name, read_entry(name, raw, fields))
        for device, offsets in zip(self.devices, answers[: len(self.devices)], strict=True):
            self._look_at_offsets(device, {stream.decode(): offset_of(raw) for stream, raw in offsets.items()})
        for phone in self.phones:
            phone.take_frames()
        self.model.check_answers()

    def _look_at_offsets(self, device: Device, offsets: dict[str, EntryId]) -> None:
        """Stored offsets only rise, and are what the device said, or where a device begins."""
        for stream, offset in offsets.items():
            before = device.stored.get(stream)
            if offset not in (before, *device.said.get(stream, ())):
                self._check_start(device, stream, offset)
            # The offset of a group that was left is forgotten once the device has it all. An acknowledgement that is
            # carried out later than that brings it back, and the end of the membership comes once more.
            may_fall = stream in device.forgotten and offset in device.said.get(stream, ())
            is_forward = before is None or offset >= max(before, device.confirmed.get(stream, before))
            assert is_forward or may_fall, f"{device}: the offset of {stream} went back to {offset}"
            device.stored[stream] = offset
        for stream in device.stored.keys() - offsets.keys():
            self._check_skipped(device, stream, self.model.streams[stream].head)
            device.stored[stream] = device.has(stream)
            device.forgotten.add(stream)

    def _check_start(self, device: Device, stream: str, offset: EntryId) -> None:
        """A device may begin at the floor of the inbox, where its user joined a group, now in `all`."""
        known = self.model.streams[stream]
        if stream.startswith("group:"):
            assert known.begins(device.user, offset.n), f"{device}: nobody acknowledged {offset} of {stream}"
            self._check_skipped(device, stream, offset)
        else:
            is_first = stream not in device.stored and (stream == "all" or offset <= known.floor)
            assert is_first, f"{device}: nobody acknowledged {offset} of {stream}"

    def _check_skipped(self, device: Device, stream: str, upto: EntryId) -> None:
        """An offset may be forgotten, or moved on, when nothing is owed above what the device has said to have."""
        if stream in device.stored:
            skipped = self.model.streams[stream].owed(device.user, device.has(stream).n, upto.n + 1)
            assert not skipped, f"{device}: {skipped} of {stream} will never come"

    # -- the end of all faults -----------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Nothing is wrong any more: everybody who is connected comes to have everything, and to be live."""
        for host in self.hosts:
            host.faults.disarm()
        if not self.is_up:
            await self.start_server()
        for host in self.hosts:
            if host.node is None:
                await host.start()
        for phone in self.phones:
            if phone.is_open and phone.connection.is_paused:
                phone.connection.drained()
        await self.until(self._are_nodes_ready, "the nodes are ready again")
        await self.carry_out_late_calls()
        await self.go_on(is_hasty=False)
        await self._send_marks()
        self.look()
        await self._until_all_is_there()
        self._check_store()

    async def come_back(self) -> None:
        """Every device comes back, and gets what it had not acknowledged."""
        for phone in self.phones:
            if phone.is_open:
                phone.cut()
        await self.go_on(is_hasty=False)
        for n, device in enumerate(self.devices):
            self.phones.append(Phone(self.hosts[n % len(self.hosts)], device, self.model, {}))
        await self._until_all_is_there()
        for phone in self.phones:
            if phone.is_open:
                listed = {stream for stream in phone.device.stored if phone.watch.missing(stream, self._end(stream))}
                assert not listed, f"{phone.label}: {listed} did not come to their end"

    async def _send_marks(self) -> None:
        """A message to every stream, for those who are live."""
        for name in STREAMS:
            kind, _, rest = name.partition(":")
            members = [user for user in USERS if self.model.streams[name].member_since(user)]
            if kind == "group" and not members:
                continue
            sender = rest if kind == "user" else members[0] if members else USERS[0]
            send = Send(f"mark {len(self.model.sends)}", sender, name, None, [Attempt()])
            self.model.sends[send.body] = send
            body = msgspec.json.encode(send.body)
            message = to_user(sender, rest, body) if kind == "user" else to_group(sender, rest, body)
            [outcome] = await self.operators.publish([to_all(sender, body) if kind == "all" else message], "")
            assert outcome.code is None, f"a mark to {name}: {outcome.code}"

    async def _until_all_is_there(self) -> None:
        deadline = time.monotonic() + HEALED_S
        while lacking := self._lacking():
            assert time.monotonic() < deadline, f"not within {HEALED_S} s: {lacking}"
            await asyncio.sleep(0.005)
            self.look()

    def _lacking(self) -> list[str]:
        """What those who are connected still lack."""
        found = []
        for phone in self.phones:
            if not phone.is_open:
                continue
            if not phone.watch.is_live:
                found.append(f"{phone.label} is not live")
                continue
            if phone.waits_for:
                found.append(f"{phone.label} has no answer to {phone.waits_for}")
            user = phone.device.user
            for name, stream in self.model.streams.items():
                if name in ("all", user_stream(user)) or stream.member_since(user):
                    missing = phone.watch.missing(name, self._end(name))
                    found += [f"{phone.label} lacks {missing} of {name}"] if missing else []
        return found

    def _end(self, stream: str) -> int:
        return self.model.streams[stream].head.n + 1

    def _check_store(self) -> None:
        """The numbers in the store are those that the model has, and nothing else is left behind."""
        for name, stream in self.model.streams.items():
            assert numbers_in(self.admin, name) == stream.there(), f"{name} is not what it must be"
            assert head_of(self.admin, name) == stream.head, f"{name} ends at {stream.head}"
        for send in self.model.sends.values():
            assert set(send.placed) in (set(), send.streams), f"only {send.placed} of {send}"
        assert leaks(self.admin) == []


class _Errors(logging.Handler):
    """Keeps what nodes log as errors: each is a fault of the service, whatever happens around it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(logging.Formatter().format(record))


def read_entry(stream: str, raw: bytes, fields: dict[bytes, bytes]) -> Entry:
    """An entry as the store has it."""
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return Entry(
        id=parse_id(raw.decode()),
        type=text["t"],
        user=text.get("f", ""),
        to=text.get("o", stream),
        mid=text.get("i", ""),
        body=msgspec.json.decode(text["b"]) if "b" in text else "",
        target=text.get("x", ""),
    )
