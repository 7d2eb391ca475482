"""A proxy between nodes and their store, for tests to order about: it loses answers, holds calls, and cuts.

It lives in a thread with an event loop of its own, so a test may block or await while nodes talk through it; every knob
may be turned from anywhere, at any time, and has taken effect when it returns.

    with Proxy(server.url) as proxy:
        node = NodeProcess(proxy.url, "a").start()
        lost = proxy.lose_answers("publish_v4")           # carried out, but the node never learns of it
        held = proxy.hold_answers("page_v1", times=2)     # the next two pages wait …
        held.release()                                    # … until now
        proxy.hold_calls("detach_v1", until="attach_v1")  # is carried out after an attach that was sent later
        proxy.point_to(promoted.url)                      # what a failover does to the address of the store

Calls are told apart by a word that is in them: the name of a function or command, a stream, a body. What a client sends
before it has all its answers (a pipeline) is one call here, with one answer.
"""

import asyncio
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import hiredis

Direction = Literal["calls", "answers"]
T = TypeVar("T")

_CHUNK = 1 << 16
_INCOMPLETE = object()


class _Deed(Enum):
    """What is done with a call."""

    HOLD_CALL = "the server gets it later"
    LOSE_CALL = "the server never gets it, and the connection is cut"
    HOLD_ANSWER = "the client gets its answer later"
    CUT_ANSWER = "carried out; the connection is cut instead of the answer"
    SWALLOW_ANSWER = "carried out; the answer never comes"


class Rule:
    """What happens to the next `left` calls with `word` in them. `hits` counts those that it happened to, and
    `carried_out` those among them that were held up, and that the server has answered by now.
    """

    def __init__(self, proxy: "Proxy", deed: _Deed, word: str, times: int, until: str, *, cut: bool) -> None:
        self.deed = deed
        self.word = word.encode()
        self.until = until.encode()
        self.cut = cut
        self.left = times
        self.hits = 0
        self.carried_out = 0
        self.released = asyncio.Event()
        self._proxy = proxy

    @property
    def is_over(self) -> bool:
        """Whether the rule can do nothing any more."""
        is_holding = self.deed in (_Deed.HOLD_CALL, _Deed.HOLD_ANSWER) and not self.released.is_set()
        return not (self.left or is_holding)

    def release(self) -> None:
        """Lets go what is held; no further call falls under the rule. Harmless twice."""

        def let_go() -> None:
            self.left = 0
            self.released.set()

        self._proxy._do(let_go)


class Proxy:
    """In front of the store at `url`; nodes are given `proxy.url`, a Unix socket, or a port with `over_tcp`."""

    def __init__(self, url: str, *, over_tcp: bool = False) -> None:
        self.delay_s = 0.0  # every answer comes this much later
        self._target = url
        self._is_severed = False
        self._holes: frozenset[Direction] = frozenset()
        self._rules: list[Rule] = []
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="wp-proxy-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server, self.url = self._run(self._listen(over_tcp=over_tcp))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the proxy with all its connections."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.cleanup()

    # -- what happens to calls ----------------------------------------------------------------------------------------

    def lose_answers(self, word: str, times: int = 1, *, silently: bool = False) -> Rule:
        """The next calls with `word` are carried out, and the connection is cut where the answer would come.

        `silently`: it stays, and nothing comes, so that the client waits for its time-out.
        """
        return self._rule(_Deed.SWALLOW_ANSWER if silently else _Deed.CUT_ANSWER, word, times)

    def lose_calls(self, word: str, times: int = 1) -> Rule:
        """The next calls with `word` never reach the server: the connection is cut, which looks the same."""
        return self._rule(_Deed.LOSE_CALL, word, times)

    def hold_answers(self, word: str, times: int = 1, *, until: str = "") -> Rule:
        """The answers to the next calls with `word` wait for `release`, or until one with `until` has been answered."""
        return self._rule(_Deed.HOLD_ANSWER, word, times, until=until)

    def hold_calls(self, word: str, times: int = 1, *, until: str = "", cut: bool = False) -> Rule:
        """The next calls with `word` reach the server after `release`, or after one with `until` has been answered.

        A held call is carried out even if its client has given up meanwhile; with `cut` it has to, for its connection
        is cut at once. With `until` two calls are swapped.
        """
        return self._rule(_Deed.HOLD_CALL, word, times, until=until, cut=cut)

    # -- what happens to connections ----------------------------------------------------------------------------------

    def cut(self, word: str = "") -> int:
        """Cuts every connection, or those on which a call named `word` has gone; returns how many."""
        return self._do(lambda: self._cut(word))

    def sever(self) -> None:
        """The store is out of reach: every connection is cut and no new one made, until `mend`."""

        def sever() -> None:
            self._is_severed = True
            self._cut()

        self._do(sever)

    def mend(self) -> None:
        """The store is in reach again."""
        self._do(lambda: setattr(self, "_is_severed", False))

    def point_to(self, url: str, *, keep: str = "") -> None:
        """Another server is at the store's address. Connections are cut, but for those on which a call named `keep`
        has gone: they stay with the old server.
        """

        def point() -> None:
            self._target = url
            for line in list(self._lines):
                if not (keep and keep in line.names):
                    line.abort()

        self._do(point)

    def black_hole(self, *directions: Direction) -> None:
        """Bytes in these directions vanish, without an error for anybody; all go again when called without any.

        A connection that lost bytes is cut then: no client could make sense of the rest.
        """

        def open_holes() -> None:
            self._holes = frozenset(directions)
            if not directions:
                for line in [line for line in self._lines if line.is_torn]:
                    line.abort()

        self._do(open_holes)

    # -- inside: all of it in the thread ------------------------------------------------------------------------------

    def _do(self, deed: Callable[[], T]) -> T:
        async def work() -> T:
            return deed()

        return self._run(work())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(10)

    def _rule(self, deed: _Deed, word: str, times: int, *, until: str = "", cut: bool = False) -> Rule:
        def add() -> Rule:
            rule = Rule(self, deed, word, times, until, cut=cut)
            self._rules = [old for old in self._rules if not old.is_over] + [rule]
            return rule

        return self._do(add)

    def _cut(self, name: str = "") -> int:
        cut = [line for line in self._lines if not name or name in line.names]
        for line in cut:
            line.abort()
        return len(cut)

    async def _listen(self, *, over_tcp: bool) -> tuple[asyncio.Server, str]:
        if over_tcp:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            return server, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        path = Path(self._folder.name, "p.sock")
        return await asyncio.start_unix_server(self._accept, path), f"unix://{path}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_severed:
            writer.transport.abort()
            return
        where = urlsplit(self._target)
        try:
            if where.scheme == "unix":
                server = await asyncio.open_unix_connection(where.path)
            else:
                server = await asyncio.open_connection(where.hostname, where.port or 6379)
        except OSError:
            writer.transport.abort()
            return
        _without_delay(writer, server[1])
        line = _Line(self, (reader, writer), server)
        self._lines.add(line)
        try:
            await line.carry()
        finally:
            self._lines.discard(line)
            line.abort()

    async def _end(self) -> None:
        self._server.close()
        self._is_severed = True
        self._cut()
        for rule in self._rules:
            rule.released.set()
        await asyncio.gather(*self._tasks)

    def rule_for(self, call: bytes) -> Rule | None:
        """The rule that this call falls under, and one use of it less."""
        for rule in self._rules:
            if rule.left and rule.word in call:
                rule.left -= 1
                rule.hits += 1
                return rule
        return None

    def answered(self, call: bytes) -> None:
        """A call's answer is on its way: what waited for that goes on."""
        for rule in self._rules:
            if rule.until and rule.until in call and rule.hits:
                rule.released.set()

    def swallows(self, direction: Direction) -> bool:
        """Whether bytes in this direction vanish now."""
        return direction in self._holes


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Line:
    """One connection of a client, and the one to the server that was made for it."""

    def __init__(self, proxy: Proxy, client: Streams, server: Streams) -> None:
        self._proxy = proxy
        self._client, self._to_client = client
        self._server, self._to_server = server
        self._rule: Rule | None = None  # of the call that is under way
        self._held: Rule | None = None  # the same, of one that was held up
        self._call = b""
        self._owed = 0  # replies that the server has still to give
        self._all_answered = asyncio.Event()
        self._all_answered.set()
        self.names: set[str] = set()  # of the functions and commands that have gone here
        self.is_torn = False

    async def carry(self) -> None:
        """Carries calls and answers until both sides are done with each other."""
        calls, answers = asyncio.create_task(self._carry_calls()), asyncio.create_task(self._carry_answers())
        try:
            await asyncio.wait((calls, answers), return_when=asyncio.FIRST_COMPLETED)
        finally:
            calls.cancel()
            answers.cancel()
            await asyncio.gather(calls, answers, return_exceptions=True)

    def abort(self) -> None:
        """Ends both connections without a goodbye."""
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    async def _carry_calls(self) -> None:
        parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        call, count = b"", 0
        try:
            while data := await self._client.read(_CHUNK):
                call += data
                parser.feed(data)
                while (request := parser.gets(False)) is not _INCOMPLETE:
                    self.names.add(_name(request))
                    count += 1
                if not parser.has_data():
                    await self._pass_on(call, count)
                    call, count = b"", 0
        except ConnectionError:
            pass
        # What a client sends before it goes is carried out all the same.
        await self._all_answered.wait()

    async def _pass_on(self, call: bytes, count: int) -> None:
        if self._proxy.swallows("calls"):
            self.is_torn = True
            return
        rule = self._proxy.rule_for(call)
        if rule is not None and rule.deed is _Deed.LOSE_CALL:
            self.abort()
            return
        if rule is not None and rule.deed is _Deed.HOLD_CALL:
            if rule.cut:
                self._to_client.transport.abort()
            await rule.released.wait()
            self._held, rule = rule, None
        self._rule = rule or self._rule
        self._call += call
        self._owed += count
        self._all_answered.clear()
        self._to_server.write(call)
        await self._to_server.drain()

    async def _carry_answers(self) -> None:
        parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        kept = b""
        while data := await self._server.read(_CHUNK):
            parser.feed(data)
            while parser.gets(False) is not _INCOMPLETE:
                self._owed -= 1
            kept += data
            if self._owed and self._rule is not None:
                continue
            if not self._owed:
                call, self._call = self._call, b""
                if self._held is not None:
                    self._held.carried_out += 1
                    self._held = None
                await self._obey()
                self._proxy.answered(call)
            await self._give(kept)
            kept = b""
            if not self._owed:
                self._all_answered.set()

    async def _obey(self) -> None:
        """Does what the rule says about the answer that is there now."""
        rule, self._rule = self._rule, None
        if self._proxy.delay_s:
            await asyncio.sleep(self._proxy.delay_s)
        if rule is None:
            return
        if rule.deed is _Deed.HOLD_ANSWER:
            await rule.released.wait()
        elif rule.deed is _Deed.CUT_ANSWER:
            self._to_client.transport.abort()
        else:
            self.is_torn = True

    async def _give(self, answer: bytes) -> None:
        if self.is_torn or self._proxy.swallows("answers"):
            self.is_torn = True
            return
        try:
            self._to_client.write(answer)
            await self._to_client.drain()
        except ConnectionError:
            pass  # the client is gone; what it asked for is carried out all the same


def _name(request: list[bytes]) -> str:
    """The name of the function that is called, else of the command."""
    is_function = request[0] in (b"FCALL", b"FCALL_RO")
    return request[1 if is_function else 0].decode(errors="replace")


def _without_delay(*writers: asyncio.StreamWriter) -> None:
    """Small calls are not to wait for company."""
    for writer in writers:
        raw = writer.get_extra_info("socket")
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
