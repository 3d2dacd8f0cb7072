"""The files below a folder, with a rule for links to folders.

Paths are text here: ``Path`` takes several times as long for tens of thousands of files.
"""

# ruff: noqa: PTH100, PTH110, PTH118

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from d2tune.annotations.io.output_record import is_drawing_name


class Walk:
    """Every file under a folder, relative to it with forward slashes, in a fixed order.

    Hidden files and folders, pipes, devices and the folder ``skip`` are skipped. A link to a folder is followed where
    its target lies below one of ``limits`` or ``follow_links`` is set; its files come after all others. No folder is
    entered twice, so links that form a circle end. Links to files are listed, and where they lead is left to the
    reader.

    Args:
        root: The folder.
        skip: A folder that is not entered.
        limits: Folders whose content may be reached through links; none takes ``root``.
        follow_links: Whether links to any other folder are followed too.

    Attributes:
        has_links: Whether a link to a folder was seen so far.
        refused: Links to folders that were not followed so far, relative to the root, with their targets.
    """

    def __init__(
        self, root: Path, *, skip: Path | None = None, limits: Sequence[Path] = (), follow_links: bool = False
    ) -> None:
        self._root = os.path.abspath(root)
        self._skipped = None if skip is None else os.path.abspath(skip)
        self._limits = [os.path.realpath(limit) for limit in limits or (root,)]
        self._follows = follow_links
        self.has_links = False
        self.refused: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[str]:
        self.has_links, self.refused = False, []
        links: list[tuple[str, str]] = []
        entered: set[str] = set()
        real_root = os.path.realpath(self._root)
        yield from self._files(self._root, real_root, "", entered, links)
        while links:
            waiting, links = sorted(links), []
            for below, path in waiting:
                target = os.path.realpath(path)
                if is_below(real_root, target):
                    continue  # the link leads back to the folder or to one that holds it
                if self._follows or any(is_below(target, limit) for limit in self._limits):
                    yield from self._files(path, target, f"{below}/", entered, links)
                else:
                    self.refused.append((below, target))

    def _files(
        self, folder: str, real: str, below: str, entered: set[str], links: list[tuple[str, str]]
    ) -> Iterator[str]:
        """The files under one folder; links to folders are added to ``links``."""
        left = [(folder, real, below)]
        while left:
            folder, real, below = left.pop()
            if real in entered:
                continue
            entered.add(real)
            folders = []
            for entry in _shown(folder):
                if _holds(entry.is_dir):
                    if entry.is_symlink():
                        self.has_links = True
                        links.append((below + entry.name, entry.path))
                    elif entry.path != self._skipped:
                        folders.append((entry.path, os.path.join(real, entry.name), f"{below}{entry.name}/"))
                elif _holds(entry.is_file) or not os.path.exists(entry.path):
                    # entries that exist and are not files are pipes, sockets or devices, on which reading would wait
                    yield below + entry.name
            left += reversed(folders)


def walk_files(root: Path, *, skip: Path | None = None) -> Iterator[str]:
    """The files of a `Walk` that follows only links within the folder."""
    return iter(Walk(root, skip=skip))


def is_below(path: str, folder: str) -> bool:
    """Whether a normal absolute path is a folder or lies in it."""
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def _shown(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder that are shown, see `_is_shown`, by name; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if _is_shown(entry.name)), key=lambda entry: entry.name)
    except OSError:
        return []


def _is_shown(name: str) -> bool:
    """False for hidden names, the attributes of files in archives of macOS, and drawn predictions."""
    return not (name.startswith(".") or name == "__MACOSX" or is_drawing_name(name))


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:
        return False
