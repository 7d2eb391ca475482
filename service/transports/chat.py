"""`/chat/…`: the protocol of the pub/sub cluster, for clients that exist. Texts are to the letter of that protocol.

What Waypost adds: whoever was away gets the missed texts, in order. The protocol has no acknowledgement, so after
texts a WebSocket ping is sent, and its pong, which every client library sends by itself, acknowledges what was written
before it (device `chat`). At worst a text comes twice after a cut, never not at all. A gap has no text in this
protocol.
"""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.websockets import WebSocket

from service.auth import Principal, check_origin, credentials_of
from service.core import frames
from service.core.entries import Entry
from service.core.frames import ClientFrame, Malformed, ServerFrame
from service.core.names import ALL, EntryId, check_name, group_of, group_stream, user_stream
from service.core.paging import Gap
from service.errors import WaypostError
from service.node.connection import EncodeEntry
from service.transports.conversation import Conversation, refuse
from service.transports.ready_frames import protocol_of, text_frame

DEVICE = "chat"
QUIET_S = 1.0  # until what passed without a text (the own messages) is acknowledged too


class _Direct(msgspec.Struct):
    """`{"Id":"bob","Msg":"hi"}`."""

    id: str = msgspec.field(name="Id")
    text: str = msgspec.field(name="Msg")


class _Call(msgspec.Struct):
    """A frame of `/chat/channel`; what `MsgBody` is depends on the method, and without one it is no JSON.

    `{}` must not come to everybody as an empty text: only a method that is given, and is none of ours, counts as All.
    """

    method: str = msgspec.field(name="Method")
    group: str = msgspec.field(name="Group", default="")
    body: msgspec.Raw = msgspec.field(name="MsgBody", default_factory=msgspec.Raw)


def joined_text(user: str, group: str) -> str:
    """What a joiner is told; the two blanks are the protocol's."""
    return f"user 【{user}】 add  to group 【{group}】"


def entry_text(stream: str, entry: Entry) -> bytes:
    """An entry as a text frame, b"" for what this protocol does not tell."""
    group = group_of(stream)
    if entry.type == "message" and entry.body is not None:
        said = _plain(entry.body)
        if stream == ALL:
            return text_frame(f"user 【{entry.sender}】 send all:{said}".encode())
        if group is None:
            return text_frame(f"user {entry.sender} send:{said}".encode())
        return text_frame(f"group 【{group}】 user 【{entry.sender}】 send:{said}".encode())
    if entry.type == "joined" and group is not None:
        said = joined_text(entry.sender, group)
        return text_frame(f"group 【{group}】 user 【{entry.sender}】 send:{said}".encode())
    return b""


def _plain(body: bytes) -> str:
    """A body that is a JSON string as its text; any other as the JSON that it is."""
    try:
        return msgspec.json.decode(body, type=str)
    except msgspec.DecodeError:
        return body.decode()


class ChatCodec:
    """Answers and entries as texts. Remembers which group a `ref` was about, for the texts that name it."""

    transport = "chat"
    entry: EncodeEntry = staticmethod(entry_text)

    def __init__(self, user: str) -> None:
        self._user = user
        self._groups: dict[int, str] = {}
        self._refs = 0

    def ref(self, group: str = "") -> int:
        """A new `ref` for a send or join that is about `group`."""
        self._refs += 1
        self._groups[self._refs] = group
        return self._refs

    def frame(self, frame: ServerFrame) -> bytes:
        """A frame of the session as a text, b"" when the protocol has none for it."""
        ref = getattr(frame, "ref", None)
        group = self._groups.pop(ref, "") if isinstance(ref, int) else ""
        if isinstance(frame, frames.Joined):
            return text_frame(joined_text(self._user, group).encode())
        if not isinstance(frame, frames.Error):
            return b""
        if group and frame.code == "no_group":
            return text_frame(f"group【{group}】 not exists".encode())
        if group and frame.code == "not_member":
            return text_frame(f"user 【{self._user}】 not in 【{group}】".encode())
        return text_frame(f"error: {frame.message}".encode())

    def gap(self, stream: str, gap: Gap) -> bytes:
        """This protocol has no text for what is gone."""
        return b""


class ChatConversation(Conversation):
    """One client of the old protocol. `parse` turns a message of its path into frames."""

    def __init__(
        self, websocket: WebSocket, user: str, parse: Callable[["ChatConversation", bytes], ClientFrame]
    ) -> None:
        super().__init__(protocol_of(websocket.scope), websocket.app.state.settings)
        self.codec = ChatCodec(user)
        self._parse = parse
        self._quiet: asyncio.TimerHandle | None = None  # when to ask although nothing was written
        self._is_to_ping = False  # a ping goes out when this loop turn has written its texts
        self._has_more = False  # texts were written after the ping that is on its way
        self._pings = 0
        self._passed: dict[str, EntryId] | None = None  # what had passed when the ping on its way was sent

    def decode(self, data: bytes) -> list[ClientFrame | Malformed]:
        """The frame that a message stands for; what cannot be understood is answered, and changes nothing."""
        try:
            return [self._parse(self, data)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.write(text_frame(b"error: not understood"))
        except WaypostError as problem:
            self.write(text_frame(f"error: {problem.detail}".encode()))
        return []

    def say_hello(self, *more: ClientFrame) -> None:
        """Begins the session, as the protocol's clients never heard of `hello`."""
        assert self.connection is not None
        self.connection.receive([frames.Hello(device=self.connection.principal.device or DEVICE), *more])

    # -- the socket, as the connection sees it: texts are followed by a ping -----------------------------------------

    def write(self, data: bytes) -> None:
        """Writes texts, and asks for a pong that acknowledges them; for what has no text (own messages), in a while."""
        if data:
            self.protocol.write(data)
        if self._passed is not None:
            self._has_more = True
        elif data and not self._is_to_ping:
            self._is_to_ping = True
            asyncio.get_running_loop().call_soon(self._ask)
        elif not data and not self._is_to_ping and self._quiet is None:
            self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._ask)

    @property
    def buffered_bytes(self) -> int:
        """See `ReadyFrames`."""
        return self.protocol.buffered_bytes

    def pause_reading(self) -> None:
        """See `ReadyFrames`."""
        self.protocol.pause_reading()

    def resume_reading(self) -> None:
        """See `ReadyFrames`."""
        self.protocol.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """See `ReadyFrames`."""
        self.protocol.close(code, reason)

    def _ask(self) -> None:
        self._is_to_ping = False
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if self._passed is not None:  # one ping at a time: its pong asks again
            self._has_more = True
            return
        connection = self.connection
        if connection is None or connection.is_closed:
            return
        if connection.is_keeping:  # what passed is not all written: a pong would acknowledge what never arrived
            self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._ask)
            return
        passed = {stream: connection.passed(stream) for stream in connection.cursors}
        self._passed = {stream: offset for stream, offset in passed.items() if offset is not None}
        self._pings += 1
        self.protocol.ping(str(self._pings).encode())

    def ponged(self, payload: bytes) -> None:
        """The pong says that everything written before its ping has arrived."""
        super().ponged(payload)
        if self._passed is None or payload != str(self._pings).encode():
            return
        passed, self._passed = self._passed, None
        if self.connection is not None and not self.connection.is_closed:
            followed = {stream: str(offset) for stream, offset in passed.items() if stream in self.connection.cursors}
            self.connection.receive([frames.Ack(followed)])
        if self._has_more:
            self._has_more = False
            self._ask()


# -- the four paths ----------------------------------------------------------------------------------------------------


def _call(conversation: ChatConversation, data: bytes) -> ClientFrame:
    """`{"Method": …}`: any method but One, UserGroup and Group counts as All."""
    call = msgspec.json.decode(data, type=_Call)
    if call.method == "One":
        return _send_direct(conversation, msgspec.json.decode(call.body, type=_Direct))
    if call.method == "UserGroup":
        return frames.Join(check_name(call.group), ref=conversation.codec.ref(call.group))
    text = msgspec.json.encode(msgspec.json.decode(call.body, type=str))
    if call.method == "Group":
        return _send(conversation, group_stream(check_name(call.group)), text, call.group)
    return _send(conversation, ALL, text)


def _direct(conversation: ChatConversation, data: bytes) -> ClientFrame:
    return _send_direct(conversation, msgspec.json.decode(data, type=_Direct))


def _send_direct(conversation: ChatConversation, direct: _Direct) -> ClientFrame:
    return _send(conversation, user_stream(check_name(direct.id)), msgspec.json.encode(direct.text))


def _send(conversation: ChatConversation, to: str, body: bytes, group: str = "") -> ClientFrame:
    return frames.Send(to, msgspec.Raw(body), ref=conversation.codec.ref(group))


async def channel(websocket: WebSocket) -> None:
    """`/chat/channel/<user>`: everything."""
    await _serve(websocket, _call, wants=lambda _stream: True)


async def direct(websocket: WebSocket) -> None:
    """`/chat/user/<user>`: direct messages; takes `{"Id":…,"Msg":…}`."""
    inbox = user_stream(websocket.path_params["user"])
    await _serve(websocket, _direct, wants=lambda stream: stream == inbox)


async def group(websocket: WebSocket) -> None:
    """`/chat/group/<group>/<user>`: joins the group; takes bare text for it, and gets what is said there."""
    name = websocket.path_params["group"]
    stream = group_stream(name)

    def parse(conversation: ChatConversation, data: bytes) -> ClientFrame:
        return _send(conversation, stream, msgspec.json.encode(data.decode()), name)

    await _serve(websocket, parse, wants=lambda other: other == stream, joins=name)


async def everybody(websocket: WebSocket) -> None:
    """`/chat/all/<user>`: takes bare text for everybody, and gets what is said to everybody."""

    def parse(conversation: ChatConversation, data: bytes) -> ClientFrame:
        return _send(conversation, ALL, msgspec.json.encode(data.decode()))

    await _serve(websocket, parse, wants=lambda stream: stream == ALL)


async def _serve(
    websocket: WebSocket,
    parse: Callable[[ChatConversation, bytes], ClientFrame],
    *,
    wants: Callable[[str], bool],
    joins: str | None = None,
) -> None:
    """One client, from the upgrade to the end of its connection."""
    node = websocket.app.state.node
    await websocket.accept()
    user: str = websocket.path_params["user"]
    conversation = ChatConversation(websocket, user, parse)
    try:
        check_origin(websocket, conversation.settings)
        principal: Principal = await node.sign_ins.door.for_chat(user, credentials_of(websocket))
        if joins is not None:
            check_name(joins)
        connection = node.connect(conversation, conversation.codec, principal, wants=wants, hears_itself=False)
    except WaypostError as problem:
        await refuse(websocket, text_frame(f"error: {problem.detail}".encode()), problem)
        return
    await conversation.hold(connection, begin=lambda: conversation.say_hello(*_joins(conversation, joins)))


def _joins(conversation: ChatConversation, name: str | None) -> list[ClientFrame]:
    return [] if name is None else [frames.Join(name, ref=conversation.codec.ref(name))]
