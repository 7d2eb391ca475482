"""`waypost listen` and `waypost send`: a user on the command line, over the wire like any other client."""

import argparse
import asyncio
import io
import os
import signal
import sys
import threading
import unicodedata
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from service.cli import tls
from service.config import Settings
from service.core.frames import Cause, Gap, Joined, Left, Live, Message, Redacted
from service.core.names import parse_stream
from service.errors import WaypostError

if TYPE_CHECKING:
    from service.client import Client, Event

# Every `hello` registers a device, and nobody waits at one that only sends: all `send`s of a user share this one.
SENDING_DEVICE = "cli-send"

STDIN = "-"
CHUNK_BYTES = 65_536  # of standard input at a time

# Control characters and line breaks: a body could move the cursor, or pass for several lines.
_INVISIBLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `listen` and `send`."""
    who = argparse.ArgumentParser(add_help=False)
    who.add_argument("--user", metavar="ID", help="who you are; enough for a server in dev mode")
    who.add_argument("--token", metavar="JWT", help="a token that says who you are (default: WAYPOST_TOKEN)")
    who.add_argument("--url", help="a node, or what stands before it (default: WAYPOST_URL)")
    tls.add_calling(who)

    listen = subparsers.add_parser(
        "listen",
        parents=[who],
        help="print what comes for a user, and acknowledge it",
        description="Print what comes for a user, a line a message, and acknowledge what was printed. Reconnects for "
        "ever; stop it with Ctrl-C. The next `listen` of the same device goes on where this one stopped.",
    )
    listen.add_argument("--device", default="default", metavar="NAME", help="whose progress it is (default: default)")
    listen.add_argument("--join", action="append", default=[], metavar="GROUP", help="become a member of this group")
    listen.add_argument("--json", action="store_true", help="print entries, gaps and `live` as frames, a line each")
    listen.add_argument("--no-ack", action="store_true", help="acknowledge nothing: the next one gets it all again")
    listen.add_argument("--count", type=_count, metavar="N", help="end after N messages")
    listen.add_argument("--quiet", action="store_true", help="say nothing on standard error but what went wrong")
    listen.set_defaults(run=run_listen)

    send = subparsers.add_parser(
        "send",
        parents=[who],
        help="send a message, and wait until it is stored",
        description="Send a message, trying again until it is stored; then print `sent <stream> <id> <durability>`. "
        f"Signs in as the device `{SENDING_DEVICE}`, which all `send`s of a user share.",
    )
    send.add_argument("to", help="user:<id>, group:<id> or all")
    send.add_argument("body", help="the text; `-`: each line of standard input, up to the first that is not stored")
    send.add_argument("--key", help="a repeat with the same key is stored once; line n of `-` gets the key KEY-n")
    send.add_argument("--json-body", action="store_true", help="the body is JSON, not text")
    send.add_argument("--timeout", type=_seconds, default=30.0, metavar="S", help="for each message (default: 30)")
    send.set_defaults(run=run_send)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a number from 1 on: {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return seconds


def _say(text: str) -> None:
    print(f"waypost: {_visible(text)}", file=sys.stderr, flush=True)


def _client(args: argparse.Namespace, settings: Settings, device: str, *, listens: bool, acks: bool) -> "Client":
    """The client that the arguments ask for. Raises `ValueError` with a sentence for the user."""
    from service.client import Client  # noqa: PLC0415 - see service/cli

    # A terminal that cannot show a letter shows its number: that is no reason to stop.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    token = args.token or settings.token or None
    if not args.user and not token:
        raise ValueError("who are you? Give --user (the server is in dev mode) or --token (`waypost token` makes one)")
    url = args.url or settings.url
    return Client(
        url,
        user=args.user,
        token=token,
        device=device,
        listens=listens,
        acknowledges=acks,
        ca_file=settings.ca_file or None,
    )


# -- listen ------------------------------------------------------------------------------------------------------------


def run_listen(args: argparse.Namespace, settings: Settings) -> int:
    """Print until Ctrl-C, SIGTERM or `--count`: all three end it with 0. 1: the server will not have us."""
    from service.client import GaveUp, Refused  # noqa: PLC0415 - see service/cli

    try:
        client = _client(args, settings, args.device, listens=True, acks=not args.no_ack)
        return asyncio.run(_listen(client, args))
    except (ValueError, GaveUp, Refused) as error:
        _say(str(error))
        return 1


async def _listen(client: "Client", args: argparse.Namespace) -> int:
    """Prints and joins at the same time: what comes is not held up by a group that cannot be joined just now."""
    myself = asyncio.current_task()
    assert myself is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, myself.cancel)  # Ctrl-C does so by itself
    try:
        async with client:
            printing = asyncio.create_task(_print_all(client, args))
            joining = asyncio.create_task(_join_all(client, args.join))
            try:
                await asyncio.wait({printing, joining}, return_when=asyncio.FIRST_COMPLETED)
                if not printing.done():
                    joining.result()  # raises what went wrong
                await printing
            finally:
                for task in (printing, joining):
                    task.cancel()
                await asyncio.gather(printing, joining, return_exceptions=True)
    except asyncio.CancelledError:
        pass  # everything that was printed is acknowledged
    return 0


async def _join_all(client: "Client", groups: list[str]) -> None:
    from service.client import Refused  # noqa: PLC0415 - see service/cli

    for group in groups:
        try:
            await client.join(group)
        except Refused as refusal:
            raise Refused(refusal.code, f"cannot join {group}: {refusal.detail}") from refusal


async def _print_all(client: "Client", args: argparse.Namespace) -> None:
    left = args.count
    async for event in client:
        line = _frame_line(event) if args.json else _text_line(event)
        if line is not None:
            print(line, flush=True)
        elif not args.quiet and (notice := _notice(event)):
            _say(notice)
        client.took()
        if left is not None and isinstance(event, Message):
            left -= 1
            if not left:
                return


def _frame_line(event: "Event") -> str | None:
    """A frame as JSON; None for what did not come as one."""
    from service.client import Connected, Disconnected, encode_event  # noqa: PLC0415 - see service/cli

    return None if isinstance(event, Connected | Disconnected) else encode_event(event).decode()


def _text_line(event: "Event") -> str | None:
    """A message or a gap, for people; None for anything else."""
    if isinstance(event, Message):
        return _visible(f"{event.stream} {event.id} {event.from_}: {_text_of(event)}")
    if isinstance(event, Gap):
        return _visible(_text_of_gap(event))
    return None


def _text_of(message: Message) -> str:
    """A body that is a string as text, any other as its JSON."""
    if message.body is msgspec.UNSET:
        return "(redacted)" if message.redacted else ""
    raw = bytes(message.body)
    if raw.startswith(b'"'):
        try:
            return msgspec.json.decode(raw, type=str)
        except msgspec.DecodeError:
            pass  # half of a surrogate pair, say
    return raw.decode(errors="backslashreplace")


def _text_of_gap(gap: Gap) -> str:
    if gap.missed is None:
        return f"-- nobody knows what was missed ({_reason(gap.cause, 'the store has another history')}) --"
    what = "1 message was" if gap.missed == 1 else f"{gap.missed} messages were"
    done = "lost" if gap.cause.kind == "lost" else "removed"
    return f"-- {what} {done} ({'; '.join(_reason(cause) for cause in gap.causes or (gap.cause,))}) --"


def _reason(cause: Cause, kind: str = "") -> str:
    """`trimmed by group:* max_age 14d`, or as much of it as is known."""
    by = " ".join(filter(None, (cause.policy, cause.limit)))
    return f"{kind or cause.kind} by {by}" if by else kind or cause.kind


def _notice(event: "Event") -> str:
    """What is not a message, but good to know; "" for nothing."""
    from service.client import Connected, Disconnected, Unknown  # noqa: PLC0415 - see service/cli

    if isinstance(event, Connected):
        return f"connected to {event.node} as {event.user}, device {event.device}"
    if isinstance(event, Disconnected):
        return f"{event.reason}; trying again"
    if isinstance(event, Live):
        return "up to date" if event.stream is None else ""
    if isinstance(event, Joined | Left):
        done = "joined" if isinstance(event, Joined) else "left"
        # In the own inbox the same is told again, as a hint for other devices.
        return f"{event.user} {done} {event.group}" if event.stream == f"group:{event.group}" else ""
    if isinstance(event, Redacted):
        return f"{event.by} removed the text of {event.stream} {event.target}"
    if isinstance(event, Unknown):
        return f"{event.stream} {event.id} is of type {event.type}, and this release cannot read it"
    return ""


def _visible(text: str) -> str:
    """`text` on one line, with control characters spelt out."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _INVISIBLE else char for char in text
    )


# -- send --------------------------------------------------------------------------------------------------------------


def run_send(args: argparse.Namespace, settings: Settings) -> int:
    """Send, and print where it is stored. 1: one was refused, or not stored in time; nothing after it was sent."""
    from service.client import GaveUp, Refused  # noqa: PLC0415 - see service/cli

    try:
        parse_stream(args.to)
        client = _client(args, settings, SENDING_DEVICE, listens=False, acks=True)
        asyncio.run(_send(client, args))
    except (ValueError, WaypostError, GaveUp, Refused, _NotStored) as error:
        _say(str(error))
        return 1
    return 0


class _NotStored(Exception):
    """One message was not stored; the text says which, and why."""


async def _send(client: "Client", args: argparse.Namespace) -> None:
    from service.client import GaveUp, Refused  # noqa: PLC0415 - see service/cli

    key = args.key or uuid.uuid4().hex
    async with client:
        if args.body != STDIN:
            await _send_one(client, args, args.body.encode(errors="surrogateescape"), key)
            return
        number = 0
        async for line in _lines_of(sys.stdin.fileno()):
            number += 1
            if args.json_body and not line.strip():
                continue
            try:
                await _send_one(client, args, line.removesuffix(b"\r"), f"{key}-{number}")
            except (ValueError, GaveUp, Refused, _NotStored) as error:
                raise _NotStored(f"line {number}: {error}") from error


async def _send_one(client: "Client", args: argparse.Namespace, given: bytes, key: str) -> None:
    """Sends one body and prints where it is. Raises `ValueError` for a body that is none, and what `send` raises."""
    body: str | msgspec.Raw
    if args.json_body:
        try:
            msgspec.json.decode(given)
        except msgspec.DecodeError as error:
            raise ValueError(f"the body is not JSON: {error}") from error
        body = msgspec.Raw(given)
    else:
        try:
            body = given.decode()
        except UnicodeDecodeError as error:
            raise ValueError("the body is not UTF-8") from error
    try:
        async with asyncio.timeout(args.timeout):
            sent = await client.send(args.to, body, key)
    except TimeoutError as error:
        why = client.trouble or "no answer"
        raise _NotStored(
            f"not known to be stored after {args.timeout:g} s: {why} (sent again with --key {key} it is stored once)"
        ) from error
    print(f"sent {sent.stream} {sent.id} {sent.durability}{' (duplicate)' if sent.duplicate else ''}", flush=True)


async def _lines_of(file: int) -> AsyncIterator[bytes]:
    """The lines of a file, each as soon as it is there."""
    rest: list[bytes] = []
    while chunk := await _read(file):
        first, *more = chunk.split(b"\n")
        rest.append(first)
        for line in more:
            yield b"".join(rest)
            rest = [line]
    if last := b"".join(rest):
        yield last


async def _read(file: int) -> bytes:
    """What the file has to give, b"" at its end.

    In a thread that nobody waits for: standard input may be a terminal, and Ctrl-C must not wait for another line.
    """
    loop = asyncio.get_running_loop()
    chunk: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        try:
            data = os.read(file, CHUNK_BYTES)
        except OSError:
            data = b""
        try:
            loop.call_soon_threadsafe(lambda: None if chunk.done() else chunk.set_result(data))
        except RuntimeError:
            pass  # the loop is gone, and whoever waited with it

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return await chunk
