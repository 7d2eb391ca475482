"""How the command line prints: tables, times with their age, sizes, counts, and JSON for scripts.

A table on a terminal is drawn by `rich`, which folds what does not fit. Into a pipe or a file goes plain text: columns
two blanks apart, each cell whole, however long it is.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from service.core.retention import duration_text

STYLES = {
    "ok": "green",
    "done": "green",
    "alive": "green",
    "running": "green",
    "warn": "yellow",
    "silent": "red",
    "left": "yellow",
    "bad": "red",
    "failed": "red",
}


def show(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; `numbers` are the columns that are flush right on a terminal. An empty `head` is left out."""
    if rows and sys.stdout.isatty():
        _draw(head, rows, numbers)
    else:
        lines = plain(head, rows)
        print("\n".join(lines), end="\n" if lines else "")


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table as text."""
    all_rows = [head, *rows] if head else list(rows)
    if not all_rows:
        return []
    widths = [max(len(row[column]) for row in all_rows) for column in range(len(all_rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in all_rows]


def _draw(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only people at a terminal wait for it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, show_header=bool(head), header_style="bold", pad_edge=False)
    for name in head or [""] * len(rows[0]):
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        # A cell is never read as markup: names are whatever somebody chose.
        table.add_row(*(Text(cell, style=STYLES.get(cell.strip(), "")) for cell in row))
    Console(width=shutil.get_terminal_size().columns, highlight=False).print(table)


def as_json(made: object) -> str:
    """For scripts: the shape that HTTP answers too, spread over lines."""
    return msgspec.json.format(msgspec.json.encode(made)).decode()


def facts(pairs: Mapping[str, str]) -> None:
    """Print names and what they stand for, a line each."""
    show((), [(f"{name}:", value) for name, value in pairs.items()])


# -- words -------------------------------------------------------------------------------------------------------------


def time(ms: int) -> str:
    """Redis time in ms, to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def since(text: str | None, seconds: float | None, otherwise: str = "-") -> str:
    """A time as the Structs spell it, and how long ago that was."""
    return otherwise if text is None else f"{second(text)} ({age(seconds, '?')} ago)"


def until(text: str | None, seconds: float | None, otherwise: str = "-") -> str:
    """A time that is to come, and how far off it is."""
    if text is None:
        return otherwise
    return f"{second(text)} (in {age(seconds, '?')})" if seconds else f"{second(text)} (now)"


def second(text: str) -> str:
    """A time without its thousandths."""
    return text[:19] + "Z"


def age(seconds: float | None, otherwise: str) -> str:
    """An age in its two largest units, so that 89,000 s reads as a day and not as 89000s."""
    if seconds is None:
        return otherwise
    whole = int(seconds)
    for unit_s in (86_400, 3600, 60):
        if whole >= 10 * unit_s:
            return duration_text(whole - whole % unit_s)
        if whole >= unit_s:
            rest = whole % unit_s
            smaller = {86_400: 3600, 3600: 60, 60: 1}[unit_s]
            rest -= rest % smaller
            return duration_text(whole - whole % unit_s) + (duration_text(rest) if rest else "")
    return f"{whole}s"


def size(size: int) -> str:
    """Bytes in the largest unit that fits."""
    for unit, unit_bytes in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= unit_bytes:
            return f"{size / unit_bytes:.1f} {unit}"
    return f"{size} B"


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"
