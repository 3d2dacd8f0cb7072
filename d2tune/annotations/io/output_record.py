"""The record of a folder: which files in it d2tune wrote, of what kind, and with what content.

It is a hidden file of JSON lines, so that an interrupted command loses at most its last line. A line is written before
the file that it is about, with the hash of its content; a file without a line, or with another content, is a person's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from d2tune.annotations.io.suffixes import is_image_name
from d2tune.files import atomic_write, sha256_file

NAME = ".d2tune-outputs.jsonl"
"""Name of the record in each folder."""

ANNOTATIONS = "annotations"
PHOTO = "photo"
"""A copy of an image that belongs to annotations."""
PREDICTIONS = "predictions"
DRAWING = "drawing"
EVALUATION = "evaluation"
COMPARISON = "comparison"
SPLIT = "split"
PROJECT = "project"

Entries = dict[str, list[tuple[str, str | None]]]
"""Kind and SHA-256 of each write by file name; None where the content was not known before."""


def is_drawing_name(name: str) -> bool:
    """Whether a name is that of an image on which predictions are drawn: ``a.jpg.predicted.jpg``."""
    return name.endswith(".predicted.jpg") and is_image_name(name.removesuffix(".predicted.jpg"))


def read_record(folder: str | Path) -> Entries:
    """The record of a folder; empty where there is none. Damaged lines are ignored."""
    entries: Entries = {}
    try:
        content = (Path(folder) / NAME).read_bytes()
    except OSError:
        return entries
    for line in content.splitlines():
        try:
            row = json.loads(line)
            entries.setdefault(row["path"], []).append((str(row["kind"]), row["sha256"]))
        except (ValueError, KeyError, TypeError):
            continue
    return entries


def add_to_record(path: Path, kind: str, sha256: str | None) -> None:
    """Add a line about a file to the record of its folder, which must exist."""
    line = json.dumps({"path": path.name, "kind": kind, "sha256": sha256}) + "\n"
    with (path.parent / NAME).open("ab") as stream:
        stream.write(line.encode("ascii"))


class OwnFiles:
    """Distinguishes files that d2tune wrote from those of a person."""

    def __init__(self) -> None:
        self._records: dict[Path, Entries] = {}

    def kinds(self, path: Path) -> set[str]:
        """The kinds under which a file was written."""
        return {kind for kind, _ in self._entries(path)}

    def is_unchanged(self, path: Path, kind: str) -> bool:
        """Whether a file was written as this kind, as the last one, and has the content that was written."""
        entries = self._entries(path)
        if not entries or entries[-1][0] != kind or path.is_symlink() or not path.is_file():
            return False
        if entries[-1][1] is None:
            return True
        return sha256_file(path) in {sha256 for one, sha256 in entries if one == kind}

    def last_sha256(self, path: Path) -> str | None:
        """The hash that a file had when it was written last; None where it is not recorded."""
        entries = self._entries(path)
        return entries[-1][1] if entries else None

    def _entries(self, path: Path) -> list[tuple[str, str | None]]:
        if path.parent not in self._records:
            self._records[path.parent] = read_record(path.parent)
        return self._records[path.parent].get(path.name, [])


@contextlib.contextmanager
def write_own(path: str | Path, kind: str) -> Iterator[IO[bytes]]:
    """`files.atomic_write` of a file that gets a line in the record of its folder."""
    target = Path(path)
    with atomic_write(target) as stream:
        hashing = _Hashing(stream)
        yield hashing  # type: ignore[misc]
        stream.flush()
        add_to_record(target, kind, hashing.digest.hexdigest())


class _Hashing:
    """A stream that hashes what is written to it.

    Args:
        stream: The file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, content: Any) -> int:
        """Write bytes."""
        self.digest.update(content)
        return self._stream.write(content)

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Write chunks of bytes in order."""
        for chunk in chunks:
            self.write(chunk)


def claim(paths: Iterable[Path], kind: str) -> None:
    """Add lines about files that are written next by a library, whose content is not known before."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        add_to_record(path, kind, None)


def settle(paths: Iterable[Path], kind: str) -> None:
    """Add lines with the content of files that were claimed and are written now."""
    for path in paths:
        if os.path.isfile(path):  # noqa: PTH113
            add_to_record(path, kind, sha256_file(path))
