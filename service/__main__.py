"""`waypost`, also as `python -m service`: reads the command line and the settings, hands over, decides nothing."""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from service import config
from service.cli import (
    client,
    completion,
    doctor,
    key,
    look,
    migrate,
    retention,
    serve,
    streams,
    tls,
    token,
    up,
    worker,
)

# In the order of `waypost --help`.
COMMANDS = (up, serve, worker, token, key, client, streams, look, retention, migrate, doctor, completion)

EXIT_USAGE = 2  # as argparse has it
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_PIPE = 141  # 128 + SIGPIPE: `waypost … | head`


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the command line and return its exit code: 2 when it or the settings cannot be used."""
    args = _parser().parse_args(argv)
    try:
        settings = config.load(
            {**os.environ, **tls.given(args)},
            dev_default=getattr(args, "dev_default", False),
            is_serving=getattr(args, "is_serving", False),
        )
    except config.SettingsError as error:
        for line in error.lines:
            print(f"waypost: {line}", file=sys.stderr)
        return EXIT_USAGE
    try:
        code: int = args.run(args, settings)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on. What is still in the buffer must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="waypost",
        description="Durable messaging on Redis Streams: send, go away, come back to exactly what was missed.",
        epilog="Settings are WAYPOST_* variables or a TOML file: docs/configuration.md.",
    )
    parser.add_argument("--version", action="version", version=f"waypost {_version()}")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    parser.set_defaults(parser=parser)  # for `completion`, which tells a shell of all commands
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("waypost")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
