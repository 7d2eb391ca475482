"""`waypost completion bash|zsh|tcsh`: what makes a shell complete `waypost`."""

import argparse

from service.config import Settings

SHELLS = ("bash", "zsh", "tcsh")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `completion`."""
    parser = subparsers.add_parser(
        "completion",
        help="print what makes a shell complete this command",
        description="Print a script that makes a shell complete `waypost`: "
        'eval "$(waypost completion bash)", or into a file of the shell\'s.',
    )
    parser.add_argument("shell", choices=SHELLS, help="for which shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the script; the parser of the whole command comes with `args`."""
    import shtab  # noqa: PLC0415 - see service/cli

    del settings
    print(shtab.complete(args.parser, args.shell))
    return 0
