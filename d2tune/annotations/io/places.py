"""Files below a folder: the images that annotation files name, looked up inside the data root.

Paths are text here: ``Path`` takes several times as long for tens of thousands of files.
"""

# ruff: noqa: PTH100, PTH110, PTH113, PTH114, PTH118, PTH119

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Place:
    """The location of an image.

    Attributes:
        path: The file, absolute; None where there is none or it must not be used.
        file_name: Path relative to the data root, with forward slashes.
        problem: The reason with the path tried where ``path`` is None.
        hint: What to do.
    """

    path: Path | None
    file_name: str
    problem: str | None = None
    hint: str | None = None


class ImageFinder:
    """Looks up the images that annotation files name, and refuses those outside the data root.

    Args:
        root: The folder that ``file_name`` is relative to.
        allow_outside: Whether images outside the root are allowed.
    """

    def __init__(self, root: Path, *, allow_outside: bool) -> None:
        self.root = os.path.abspath(root)
        self._real_root = os.path.realpath(self.root)
        self._allow_outside = allow_outside
        self._real_folders: dict[str, str] = {}
        self._absolute_folders: dict[Path, str] = {}

    def find(self, text: object, *, folders: tuple[Path, ...]) -> Place:
        """Look up the image named ``text`` relative to each of ``folders``.

        Windows backslashes and ``..`` are resolved.
        """
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            return Place(None, "", f"the file does not name an image, found {text!r:.60}")
        name = text.replace("\\", "/")
        tried = [os.path.normpath(os.path.join(self._absolute(folder), name)) for folder in folders]
        if re.match(r"[A-Za-z]:/", name):
            tried = [os.path.normpath(name)]
        outside = None
        for path in dict.fromkeys(tried):
            if not is_file(path):
                continue
            file_name = self.file_name(path)
            if file_name is None and not self._allow_outside:
                outside = outside or path
                continue
            return Place(Path(path), file_name or _posix(os.path.relpath(path, self.root)))
        return self._missing(name, tried[0], outside, folders[0])

    def file_name(self, path: str) -> str | None:
        """``path`` relative to the root with forward slashes, or None where it resolves to outside of it."""
        folder, base = os.path.split(path)
        real_folder = self._real_folders.get(folder)
        if real_folder is None:
            real_folder = self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(real_folder, base)
        if not _is_below(real, self._real_root):
            return None
        if _is_below(path, self.root):
            return _posix(_relative(path, self.root))
        return _posix(_relative(real, self._real_root))

    def _absolute(self, folder: Path) -> str:
        known = self._absolute_folders.get(folder)
        if known is None:
            known = self._absolute_folders[folder] = os.path.abspath(folder)
        return known

    def _missing(self, name: str, tried: str, outside: str | None, folder: Path) -> Place:
        base = PurePosixPath(name).name or "image"
        file_name = self._inside(tried) or self._inside(os.path.join(os.path.abspath(folder), base)) or base
        hint = None
        if is_file(os.path.join(folder, base)):
            hint = f"the folder of the annotation file has an image {base}"
        if outside is not None:
            message = f"the image {outside} lies outside the data root {self.root}"
            return Place(
                None, file_name, message, hint or "set its folder with --image-root, or allow it with --allow-outside"
            )
        return Place(None, file_name, f"the image {tried} does not exist", hint)

    def _inside(self, path: str) -> str | None:
        """``path`` relative to the root, by its text alone; None where it is outside."""
        if not _is_below(path, self.root) or ":" in os.path.basename(path):
            return None
        return _posix(os.path.relpath(path, self.root))


def is_file(path: str) -> bool:
    """Whether a path is a regular file; False also for names that no file can have."""
    try:
        return os.path.isfile(path)
    except ValueError:
        return False


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def _relative(path: str, folder: str) -> str:
    """A normal path below a folder, relative to it."""
    return path[len(folder) :].lstrip(os.sep) or "."


def _posix(path: str) -> str:
    return path.replace(os.sep, "/") if os.sep != "/" else path


def walk_files(root: Path, *, skip: Path | None = None) -> Iterator[str]:
    """Every file under a folder, relative to it with forward slashes, in a fixed order.

    Hidden files and folders, pipes, devices and the folder ``skip`` are skipped. Links to folders are not followed.
    """
    skipped = None if skip is None else os.path.abspath(skip)
    left = [(os.path.abspath(root), "")]
    while left:
        folder, below = left.pop()
        folders = []
        for entry in _shown(folder):
            if _holds(entry.is_dir):
                if not entry.is_symlink() and entry.path != skipped:
                    folders.append((entry.path, f"{below}{entry.name}/"))
            elif _holds(entry.is_file) or not os.path.exists(entry.path):
                # entries that exist and are not files are pipes, sockets or devices, on which reading would wait
                yield below + entry.name
        left += reversed(folders)


def _shown(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, by name; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        return []


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:
        return False
