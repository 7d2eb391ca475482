"""Where a world of a model stands, as a value: two worlds with the same one have the same future.

What grows without meaning anything by itself (numbers of beats and of mailbox entries, tokens, the clock) is told
relative to what it is compared with.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from service.core.entries import Page
from service.core.session import Session
from service.node.connection import Connection
from service.store import Attached, Beat
from tests.unit.node.phone import Phone
from tests.unit.node.stored import Stored
from tests.unit.node.world import World

Key = tuple[Hashable, ...]


def standing(world: World) -> Key:
    """See the module."""
    return (
        tuple(world.spent[event] for event in world.model.events),
        _stored(world, world.stored),
        None if world.saved is None else _stored(world, world.saved),
        tuple((call.name, call.is_carried_out, _answer(call.result)) for call in world.door.calls),
        tuple(call.name for call in world.door.late),
        _node(world),
        tuple(_phone(world, phone) for phone in world.phones.values()),
        tuple(world.loop.timers()),
    )


def _items(mapping: Mapping[Any, Any]) -> Key:
    return tuple(sorted(mapping.items()))


def _ranks(tokens: Iterable[int]) -> dict[int, int]:
    return {token: rank for rank, token in enumerate(sorted(set(tokens)))}


def _stored(world: World, stored: Stored) -> Key:
    next_beat = world.node.reader.next_beat
    in_registers = [token for stream in stored.streams.values() for token in stream.register.values()]
    ranks = _ranks([*in_registers, *(token for call in world.door.late for token in call.tokens)])
    return (
        stored.clock,
        stored.fence == stored.run,
        tuple(
            (
                name,
                stream.head,
                stream.floor,
                stream.lost,
                tuple(stream.entries),
                tuple((mailbox, ranks[token]) for mailbox, token in stream.register.items()),
                tuple(stream.redactions),
                tuple((line.after, line.to, line.kind) for line in stream.ledger),
            )
            for name, stream in stored.streams.items()
        ),
        tuple((group, user, members[user]) for group, members in stored.groups.items() for user in sorted(members)),
        tuple((device, _items(offsets)) for device, offsets in stored.offsets.items()),
        tuple(
            (
                name,
                tuple(
                    (
                        number - box.last,
                        what.number - next_beat
                        if isinstance(what, Beat)
                        else tuple((arrival.stream, arrival.entry.id) for arrival in what),
                    )
                    for number, what in box.entries.items()
                ),
            )
            for name, box in stored.mailboxes.items()
        ),
    )


def _answer(result: object) -> Hashable:
    """What an answer that is on its way says."""
    if isinstance(result, Page):
        entries = tuple(entry.id for entry in result.entries)
        stretches = None if result.stretches is None else _items(result.stretches)
        return result.head, result.floor, result.before, entries, result.is_last, len(result.removals), stretches
    if isinstance(result, dict):  # of an attach
        return tuple((stream, at.head) for stream, at in result.items() if isinstance(at, Attached))
    return str(result)


def _node(world: World) -> Key:
    node, door, now = world.node, world.door, world.loop.now
    attachments, reader, fence, sends, pages = node.attachments, node.reader, node.fence, node.sends, node.pages
    box = world.stored.mailboxes.get(reader.mailbox)
    last = 0 if box is None else box.last
    return (
        tuple((stream, track.position, track._seen, track.shown) for stream, track in node.delivery.tracks.items()),
        (attachments._mailbox, *attachments._registered),
        tuple(attachments._wanted),
        tuple((stream, round(at - now, 3)) for stream, at in attachments._idle.items()),
        tuple(attachments._stray),
        tuple(attachments._to_audit),
        tuple((due - reader.next_beat, _items(heads)) for due, heads in attachments._unverified.items()),
        (reader.mailbox, reader.is_sound, reader._doubt),
        None if door.reading is None else (door.reading[0], door.reading[1] - last, round(door.beat_due - now, 3)),
        tuple(round(now - at, 3) for at in door.beats.values()),
        (fence.is_open, fence._tripped.is_set(), fence._told == fence.server_run),
        tuple(
            (waiting.asker.number, waiting.number) for waiting in sends._queue if isinstance(waiting.asker, Connection)
        ),
        tuple(_items(answered) for answered in sends._answered),
        (tuple(pages._waiting), pages._in_flight),
        tuple((name, tuple(item.arrival.entry.id for item in tail)) for name, tail in node.tails._tails.items()),
        tuple((device, _items(offsets)) for device, offsets in node.commits._offsets.items()),
        tuple(node.memberships._questions.items()),
    )


def _phone(world: World, phone: Phone) -> Key:
    counted = (
        _items(phone.at),
        _items(phone._pushed),
        tuple((stream, tuple(sorted(early))) for stream, early in phone._counted_early.items()),
        phone.is_told_live,
        len(phone.asked),
        tuple(sorted(phone.answers)),
    )
    connection = phone.connection
    if connection is None:
        return counted
    tracks = world.node.delivery.tracks
    return (
        *counted,
        connection.number,
        connection.is_paused,
        connection.is_reading,
        tuple(connection._behind),
        connection._catching_up is not None,
        tuple(
            (stream, cursor.place.name, tracks[stream].passed(cursor), cursor.must_read)
            for stream, cursor in connection.cursors.items()
        ),
        _session(connection.session),
    )


def _session(session: Session) -> Key:
    return (
        session.life.name,
        _items(session.streams),
        _items(session.ended),
        tuple(
            (number, pending.stream, pending.answer is None or pending.answer.id, pending.is_held)
            for number, pending in session._asked.pending.items()
        ),
        tuple(session._asked.waiting),
        session._asked.changing,
        session._asked.unstored,
        tuple(sorted(session._catching_up)),
        session._was_live,
        tuple(sorted(session._fallen)),
    )
