"""Arguments that several commands take: what each has to be, and what is said of one that is not."""

import argparse

from service.cli import store
from service.core.names import check_name, parse_id, parse_stream
from service.errors import WaypostError

LIMIT_MAX = 1000  # rows: more than anybody reads, and what one look at the store may cost


def on_the_store() -> argparse.ArgumentParser:
    """What commands that look at the store have in common, as a parent of their parsers: `--redis-url` and `--json`."""
    shared = argparse.ArgumentParser(add_help=False)
    store.add_argument(shared)
    shared.add_argument("--json", action="store_true", help="print JSON")
    return shared


# -- types, for argparse -----------------------------------------------------------------------------------------------


def stream(text: str) -> str:
    """The name of a stream."""
    try:
        parse_stream(text)
    except WaypostError as error:
        raise argparse.ArgumentTypeError(error.detail) from error
    return text


def name(text: str) -> str:
    """The name of a user or a device."""
    try:
        return check_name(text)
    except WaypostError as error:
        raise argparse.ArgumentTypeError(error.detail) from error


def entry(text: str) -> str:
    """An entry id."""
    try:
        return str(parse_id(text))
    except WaypostError as error:
        raise argparse.ArgumentTypeError(error.detail) from error


def limit(text: str) -> int:
    """How many rows."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= LIMIT_MAX):
        raise argparse.ArgumentTypeError(f"not a number from 1 to {LIMIT_MAX}: {text!r}")
    return int(text)


def count(text: str) -> int:
    """The same, and 0."""
    return 0 if text == "0" else limit(text)
