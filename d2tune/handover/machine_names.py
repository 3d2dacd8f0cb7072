"""What names the machine on which a handover is made, and whether a file has it."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from d2tune.errors import DataError

_GENERIC = {"localhost", "localdomain", "docker", "host", "computer", "machine", "server"}
_LEAST_NAME = 4
"""Shortest host name that is looked for; shorter ones occur in any file."""

_LEAST_DEPTH = 3
"""Paths of fewer parts, such as ``/work``, are those of many machines."""


def patterns(*paths: Path) -> dict[str, re.Pattern[bytes]]:
    """What is looked for, by what it is.

    Args:
        paths: Paths that the handover is made of, beside the home folder, the working folder and that of Python.
    """
    wanted = {}
    home = str(Path.home())
    if len(home) > 1:
        wanted[f"the home folder {home}"] = re.compile(re.escape(home.encode()) + rb"(?![\w.-])")
    for path in (Path.cwd(), Path(sys.prefix), *paths):
        if len(path.absolute().parts) >= _LEAST_DEPTH:
            wanted[f"the path {path.absolute()}"] = re.compile(re.escape(str(path.absolute()).encode()))
    host = platform.node().partition(".")[0]
    if len(host) >= _LEAST_NAME and host.lower() not in _GENERIC:
        wanted[f"the host name {host}"] = re.compile(rb"(?<![\w-])" + re.escape(host.encode()) + rb"(?![\w-])")
    return wanted


def check(folder: Path, wanted: dict[str, re.Pattern[bytes]], *, skip: Iterable[str] = ()) -> None:
    """Check that no file of a folder, and no name of a file, has what names the machine.

    Args:
        folder: The folder.
        wanted: See `patterns`.
        skip: Suffixes of binary files, of which only the names are looked at.

    Raises:
        DataError: A file has it.
    """
    skipped = tuple(skip)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        content = path.read_bytes() if path.is_file() and not name.endswith(skipped) else b""
        for what, pattern in wanted.items():
            if pattern.search(content) or pattern.search(name.encode(errors="surrogateescape")):
                hint = "Remove it from the file that was given, and make the handover again."
                raise DataError("the file names this machine", file=name, found=what, hint=hint)
