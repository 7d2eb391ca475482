"""A client over a WebSocket: the I/O around `state.py`, which decides everything.

    async with Client("http://127.0.0.1:8000", user="bob", device="phone") as client:
        async for event in client:
            ...

Three tasks take part: the program's own, one that connects and reads, and one that writes while a connection stands.
They share the `State`, never across an `await`, and wake each other with three events: `_news` (the program may have
something to take), `_room` (there may be room to read on), `_work` (there may be something to write).
"""

import asyncio
import random
import ssl
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from service.client import closing
from service.client.events import Closed, Event
from service.client.outbox import Answer
from service.client.state import State
from service.core import frames
from service.core.frames import Joined, Sent, one_line

OPEN_S = 10.0  # for the upgrade
LEAVE_S = 3.0  # for the last acknowledgements to be confirmed
HANG_UP_S = 1.0  # for the closing handshake: nothing depends on it
MESSAGE_BYTES_MAX = 16_777_216  # bounds the memory that a broken server costs; frames are far smaller

_SCHEMES = {"http": "ws", "ws": "ws", "https": "wss", "wss": "wss"}


def address(url: str, user: str | None = None) -> str:
    """Where to connect, for the URL of a node or of what stands before it. Raises `ValueError` for what is none."""
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname or (parts.port is not None and parts.port < 1):
        raise ValueError(f"not a URL of a server (http://host:port): {url!r}")
    query = f"?user={quote(user, safe='')}" if user else ""
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/v1/connect{query}"


class Client:
    """A client of one user's device, over as many connections as it takes.

    Use it with `async with`; inside, iterate over it, and `send`, `join`, `leave` from any task. It reconnects by
    itself for ever, unless the server says that this is of no use: then iteration and all calls raise `GaveUp`.

    `user` signs in to a server in dev mode, `token` to any other. `device` names this installation: its progress is
    kept by the server. Not `listens`: events are not wanted and count as taken, for a program that only sends. Not
    `acknowledges`: nothing is acknowledged, so that the next client of the device gets it all again. `offsets` and
    `epoch` are what `offsets` gave in an earlier run, for a program that keeps them itself. `ca_file` is a PEM file of
    the authorities to trust, instead of the machine's. Raises `ValueError` for a `url` that is none, and for a file
    that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        token: str | None = None,
        device: str = "default",
        listens: bool = True,
        acknowledges: bool = True,
        offsets: Mapping[str, str] | None = None,
        epoch: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self._url = url
        self._address = address(url, user)
        self._tls = _trusting(ca_file) if self._address.startswith("wss:") else None
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._state = State(
            device=device,
            jitter=random.random,
            is_listening=listens,
            acknowledges=acknowledges,
            offsets=offsets,
            epoch=epoch,
        )
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._futures: dict[int, asyncio.Future[Answer | None]] = {}
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._work = asyncio.Event()

    # -- the program's side --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        assert self._task is None, "a client is used once"
        self._task = asyncio.create_task(self._run(), name="waypost client")
        self._task.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leaves: what was taken is acknowledged and confirmed if the server can be reached; may be called twice.

        What is still to be sent raises `Closed` where it is waited for.
        """
        task = self._task
        if task is None or self._is_closed:
            return
        self._is_closed = True
        self._state.leave()
        self._pass_on()
        self._room.set()
        try:
            async with asyncio.timeout(LEAVE_S):
                while not self._state.has_left and not task.done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass  # what is not acknowledged comes again
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    @property
    def trouble(self) -> str:
        """Why there is no connection at this moment, "" while there is one."""
        return self._state.trouble

    @property
    def offsets(self) -> tuple[str | None, dict[str, str]]:
        """Epoch, and up to where each stream was taken. A program that keeps its own progress gives them back."""
        return self._state.offsets

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Asking for it says that the one before is done with, so that it may be acknowledged.

        Raises `GaveUp`. One task at a time may iterate.
        """
        self.took()
        while (event := self._state.next_event()) is None:
            self._work.set()  # what was let pass may be acknowledged
            if self._task is None or self._is_closed:
                raise StopAsyncIteration
            if self._task.done():
                self._raise_end(self._task)
            self._news.clear()
            await self._news.wait()
        self._room.set()
        return event

    def took(self) -> None:
        """The last event is done with. Needed only before leaving the loop: asking for the next event says it too."""
        self._state.took()
        self._work.set()

    async def send(self, to: str, body: Any, key: str | None = None) -> Sent:  # noqa: ANN401 - any JSON
        """Sends `body` (whatever has a JSON form; a `msgspec.Raw` is JSON text already); returns once it is stored.

        What goes wrong on the way is repeated with the same `key` (made here when none is given) until there is an
        answer, so a time-out is the caller's: `asyncio.timeout`. After one the message may be stored or not; sending it
        again with the same key stores it once. Calls take effect in the order they were made. Raises `Refused`,
        `GaveUp`, `Closed`, and `TypeError` or `ValueError` for a body without a JSON form.
        """
        raw = bytes(body) if isinstance(body, msgspec.Raw) else msgspec.json.encode(body)
        frame = frames.Send(to, msgspec.Raw(one_line(raw)), key or uuid.uuid4().hex, self._state.number())
        answer = await self._carry_out(frame)
        assert isinstance(answer, Sent)
        return answer

    async def join(self, group: str) -> Joined:
        """Becomes a member of `group`; repeated until there is an answer.

        Joining twice is harmless: the answer is the first one's. Raises what `send` raises.
        """
        answer = await self._carry_out(frames.Join(group, self._state.number()))
        assert isinstance(answer, Joined)
        return answer

    async def leave(self, group: str) -> None:
        """Stops being a member of `group`, repeated until there is an answer. Raises what `send` raises."""
        await self._carry_out(frames.Leave(group, self._state.number()))

    async def _carry_out(self, frame: frames.Send | frames.Join | frames.Leave) -> Answer | None:
        if self._task is None or self._is_closed:
            raise Closed("the client is not open")
        if self._task.done():
            self._raise_end(self._task)
        operation = self._state.submit(frame)
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._futures[operation.number] = future
        self._work.set()
        self._room.set()  # the answer has to be read
        try:
            return await future
        except asyncio.CancelledError:
            self._state.outbox.withdraw(operation)
            raise
        finally:
            del self._futures[operation.number]

    def _raise_end(self, task: asyncio.Task[None]) -> None:
        task.result()
        assert self._state.gave_up is not None
        raise self._state.gave_up

    # -- the connection's side -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """One connection after the other, until the state gives up."""
        while True:
            await self._until_room()
            pause = await self._connect()
            self._pass_on()
            if self._state.gave_up is not None:
                return
            await asyncio.sleep(pause)

    async def _connect(self) -> float:
        """One connection, from the upgrade to its end. Returns the pause before the next."""
        lost, now = self._state.lost, asyncio.get_running_loop().time
        try:
            connection = await connect_websocket(
                self._address,
                ssl=self._tls,
                subprotocols=[Subprotocol("waypost.v1")],
                additional_headers=self._headers,
                compression=None,
                proxy=None,
                open_timeout=OPEN_S,
                ping_interval=None,  # the state pings, in frames, whose answers it sees
                close_timeout=HANG_UP_S,
                max_size=MESSAGE_BYTES_MAX,
            )
        except InvalidStatus as refusal:
            status = refusal.response.status_code
            reason = f"{self._url} answers with HTTP status {status}"
            return lost(now(), None, reason, is_final=closing.is_final_status(status))
        except ssl.SSLCertVerificationError as error:
            return lost(now(), None, f"cannot trust {self._url}: {error.verify_message}", is_final=True)
        except (OSError, InvalidHandshake, EOFError) as error:  # TimeoutError is one of the first
            return lost(now(), None, f"cannot connect to {self._url}: {_plain(error)}")
        code, reason = await self._converse(connection)
        return lost(now(), code, reason)

    async def _converse(self, connection: ClientConnection) -> tuple[int | None, str]:
        """Reads until the connection ends. Returns how: close code and reason."""
        state, loop = self._state, asyncio.get_running_loop()
        greeting, patience = state.begin(), state.patience
        writer = asyncio.create_task(self._write(connection, greeting), name="waypost client's writer")
        writer.add_done_callback(lambda _: connection.transport.abort() if _failed(writer) else None)
        try:
            while not state.ending:
                await self._until_room()
                patience = state.patience
                async with asyncio.timeout(patience):
                    data = await connection.recv(decode=False)
                state.receive(data, loop.time())
                self._pass_on()
            return None, state.ending
        except TimeoutError:
            connection.transport.abort()
            return None, f"nothing was heard for {patience:g} s"
        except ConnectionClosed as closed:
            return connection.close_code, closed.rcvd.reason if closed.rcvd is not None else ""
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            await connection.close()
            if _failed(writer):
                writer.result()

    async def _write(self, connection: ClientConnection, greeting: list[bytes]) -> None:
        """Writes what there is to write, as fast as the socket takes it."""
        state, loop = self._state, asyncio.get_running_loop()
        try:
            for message in greeting:
                await connection.send(message, text=True)
            while True:
                self._work.clear()
                now = loop.time()
                written = state.flush(now)
                self._settle()
                for message in written:
                    await connection.send(message, text=True)
                try:
                    async with asyncio.timeout_at(state.due(now)):
                        await self._work.wait()
                except TimeoutError:
                    pass
        except ConnectionClosed:
            pass  # the reader sees it too

    async def _until_room(self) -> None:
        while not self._state.may_read:
            self._room.clear()
            await self._room.wait()

    def _pass_on(self) -> None:
        """Something has happened to the state: whoever waits looks at it."""
        self._settle()
        self._news.set()
        self._work.set()

    def _settle(self) -> None:
        for operation in self._state.outbox.settled():
            future = self._futures.get(operation.number)
            if future is None or future.done():
                continue
            if operation.problem is not None:
                future.set_exception(operation.problem)
            else:
                future.set_result(operation.answer)


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    """How to look at a server's certificate."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an SSLError is one
        reason = "no PEM file of certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"cannot read the authorities in {ca_file}: {reason}") from error


def _failed(task: asyncio.Task[None]) -> bool:
    """Whether a task ended with an error, which nothing it does should."""
    return not task.cancelled() and task.exception() is not None


def _plain(error: Exception) -> str:
    """An error of the network in one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error) or type(error).__name__
