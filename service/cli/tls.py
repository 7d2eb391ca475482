"""TLS on the command line: the options of those who serve, and how children get what was chosen."""

import argparse

from service.config import PREFIX, Settings

# Options that stand for a setting of the same name, and win over it.
OPTIONS = ("ssl_certfile", "ssl_keyfile", "ca_file")


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Add `--ssl-certfile` and `--ssl-keyfile`."""
    parser.add_argument("--ssl-certfile", metavar="PEM", help="speak TLS with this certificate (WAYPOST_SSL_CERTFILE)")
    parser.add_argument("--ssl-keyfile", metavar="PEM", help="its private key (WAYPOST_SSL_KEYFILE)")


def add_calling(parser: argparse.ArgumentParser) -> None:
    """Add `--ca-file`."""
    parser.add_argument(
        "--ca-file", metavar="PEM", help="authorities to trust instead of the machine's (default: WAYPOST_CA_FILE)"
    )


def given(args: argparse.Namespace) -> dict[str, str]:
    """The options that were given, as variables of the environment."""
    return {PREFIX + name.upper(): getattr(args, name) for name in OPTIONS if getattr(args, name, None)}


def variables(settings: Settings) -> dict[str, str]:
    """What a child that serves needs beside our own environment."""
    return {
        "WAYPOST_SSL_CERTFILE": settings.ssl_certfile,
        "WAYPOST_SSL_KEYFILE": settings.ssl_keyfile,
    }
