"""Where this machine has a proxy to test with."""

import shutil


def nginx() -> str | None:
    """The program, None where it is not on this machine. Debian keeps it where only root looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
