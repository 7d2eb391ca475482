"""The command line: `waypost <command>`, a file a group of commands.

A command module has

    add_parser(subparsers)        adds its parsers and sets their default `run`; `dev_default=True` where dev mode is
                                  on unless somebody says otherwise, `is_serving=True` where the certificate is used
    run(args, settings) -> int    does it; the exit code

What a command needs beyond the settings it imports in `run`: `waypost --help` need not wait for a database driver.
"""
