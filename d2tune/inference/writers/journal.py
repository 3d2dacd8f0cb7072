"""The journal of a prediction: what is finished, so that an interrupted command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from d2tune.annotations.io.output_record import PREDICTIONS, write_own
from d2tune.errors import DataError
from d2tune.files import try_lock

PREFIX = ".d2tune-predict"
"""Beginning of the names of journals in output folders."""


def journal_path(target: Path, *, is_file: bool, suffix: str = "") -> Path:
    """The journal of an output folder, or of an output file.

    Args:
        target: The folder or the file.
        is_file: Whether it is a file.
        suffix: Distinguishes several calls that write into one folder.
    """
    name = f"{PREFIX}-{target.name}.jsonl" if is_file else f"{PREFIX}{suffix}.jsonl"
    return target.with_name(name) if is_file else target / name


def fingerprint(arguments: Mapping[str, Any]) -> str:
    """A hash of everything that decides what is written."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode("ascii")).hexdigest()


class Journal:
    """A file with a line for each finished image; to be used as a context manager, which closes it.

    A journal of other arguments is replaced. Lines are written at once; a last line that is not whole is removed. One
    process at a time has the file, where the system and the file system know locks.

    Args:
        path: The file, which is made with the first entry.
        key: See `fingerprint`.

    Attributes:
        continues: Whether an interrupted call with the same arguments has left it.
        kept: Indices of images of which that call has left a file as it was; to be set before the first entry.

    Raises:
        DataError: Another process has the file; also of `entry` and `add`.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self.continues = False
        self.kept: frozenset[int] = frozenset()
        self._offsets: dict[int, int] = {}
        self._stream: IO[bytes] | None = None
        if path.is_file():
            stream = self._open()
            stream.seek(0)
            self._read(stream)

    @property
    def done(self) -> set[int]:
        """Indices of the finished images."""
        return set(self._offsets)

    def _read(self, stream: IO[bytes]) -> None:
        """Read the places of the entries, if the file is of these arguments."""
        first = _json(stream.readline())
        if not isinstance(first, dict) or first.get("key") != self._key:
            stream.truncate(0)
            return
        self.continues, self.kept = True, frozenset(first.get("kept", ()))
        while True:
            offset = stream.tell()
            line = stream.readline()
            row = _json(line)
            if not line.endswith(b"\n") or not isinstance(row, list) or len(row) != 2:
                break
            self._offsets[row[0]] = offset
        stream.truncate(offset)

    def entry(self, index: int) -> Any:
        """The entry of a finished image."""
        stream = self._opened()
        stream.seek(self._offsets[index])
        return json.loads(stream.readline())[1]

    def add(self, index: int, entry: Any) -> None:
        """Add the entry of an image that is finished now."""
        stream = self._opened()
        offset = stream.seek(0, os.SEEK_END)
        self._write(stream, [index, entry])
        self._offsets[index] = offset

    def copy_to(self, path: Path) -> None:
        """Copy the file, with an entry for each finished image."""
        self._opened().flush()
        with self._path.open("rb") as content, write_own(path, PREDICTIONS) as stream:
            shutil.copyfileobj(content, stream)

    def _opened(self) -> IO[bytes]:
        stream = self._open()
        if not stream.seek(0, os.SEEK_END):
            self._write(stream, {"key": self._key, "kept": sorted(self.kept)})
        return stream

    def _open(self) -> IO[bytes]:
        if self._stream is None:
            stream = self._path.open("a+b")
            try:
                _lock(stream, self._path)
            except DataError:
                stream.close()
                raise
            self._stream = stream
        return self._stream

    def _write(self, stream: IO[bytes], row: Any) -> None:
        stream.write(json.dumps(row).encode("ascii") + b"\n")
        stream.flush()

    def remove(self) -> None:
        """Remove the file, at the end of the prediction."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def _lock(stream: IO[bytes], path: Path) -> None:
    """Lock an open file until it is closed, or its process ends."""
    if try_lock(stream.fileno()) is False:
        hint = "Wait until it ends, or write to another folder with --out."
        raise DataError("another process is predicting into this folder", file=path.parent, hint=hint)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
