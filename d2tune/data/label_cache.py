"""The cache of painted label maps: whether its files are as they were painted, and how large it may become."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from d2tune.errors import MachineError
from d2tune.files import sha256_file, write_bytes

logger = logging.getLogger(__name__)

LIMIT_VARIABLE = "D2TUNE_LABEL_CACHE_GB"
DEFAULT_LIMIT_GB = 20.0
IN_USE_S = 2 * 24 * 3600
"""Entries that were used within this time are never removed: a training may be reading them."""

_MANIFEST = "files.json"
_PAINTING, _REMOVED = ".painting-", ".removed-"


def scratch_folder(parent: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder to paint an entry of the cache in."""
    return tempfile.TemporaryDirectory(prefix=_PAINTING, dir=parent)


def write_manifest(folder: Path, paths: Sequence[Path]) -> None:
    """Note the size, the times and the hash of the files of an entry.

    Args:
        folder: The entry.
        paths: Its files.
    """
    rows = {_name(folder, path): [*_stated(path), sha256_file(path)] for path in paths}
    write_bytes(folder / _MANIFEST, orjson.dumps(rows))


def changed_files(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """The files of an entry that are missing or not as they were painted.

    Files whose size or times differ are hashed, so that copying the cache does no harm.

    Args:
        folder: The entry.
        paths: The files that it must have.
    """
    rows = _manifest(folder)
    changed, is_stale = [], False
    for path in paths:
        row = rows.get(_name(folder, path))
        try:
            stated = _stated(path)
        except OSError:
            changed.append(path)
            continue
        if row is None or row[0] != stated[0]:
            changed.append(path)
        elif row[:3] != stated:
            if sha256_file(path) == row[3]:
                rows[_name(folder, path)] = [*stated, row[3]]
                is_stale = True
            else:
                changed.append(path)
    if is_stale and not changed:
        write_bytes(folder / _MANIFEST, orjson.dumps(rows))
    return changed


def _manifest(folder: Path) -> dict[str, list[Any]]:
    try:
        rows = orjson.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(rows, dict):
        return {}
    return {name: row for name, row in rows.items() if isinstance(row, list) and len(row) == 4}


def _name(folder: Path, path: Path) -> str:
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")


def _stated(path: Path) -> list[int]:
    """Size, time of the last change of the content, and of the file."""
    stated = path.stat()
    return [stated.st_size, stated.st_mtime_ns, stated.st_ctime_ns]


def note_use(folder: Path) -> None:
    """Note that an entry is used now."""
    try:
        os.utime(folder)
    except OSError:
        logger.debug("%s: the time of use cannot be noted", folder)


def limit_bytes() -> float:
    """The size above which entries are removed.

    Raises:
        MachineError: The environment variable is not a number of gigabytes.
    """
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        limit = float(given) if given else DEFAULT_LIMIT_GB
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise MachineError(
            "the limit of the cache of label maps is invalid",
            place=LIMIT_VARIABLE,
            found=repr(given),
            expected="a number of gigabytes",
        )
    return limit * 1e9


def trim(parent: Path, *, now_s: float | None = None) -> None:
    """Remove the least recently used entries while the cache is above its limit, and what killed processes have left.

    Args:
        parent: The folder of all entries.
        now_s: The present time; None takes the clock's.
    """
    unused_before_s = (time.time() if now_s is None else now_s) - IN_USE_S
    limit = limit_bytes()
    with os.scandir(parent) as entries:
        folders = [(entry.stat().st_mtime, Path(entry.path)) for entry in entries if entry.is_dir()]
    for used_s, folder in folders:
        if folder.name.startswith((_PAINTING, _REMOVED)) and used_s < unused_before_s:
            shutil.rmtree(folder, ignore_errors=True)
    kept = sorted((used_s, folder, _bytes(folder)) for used_s, folder in folders if not folder.name.startswith("."))
    total = sum(size for _, _, size in kept)
    for used_s, folder, size in kept:
        if total <= limit or used_s >= unused_before_s:
            break
        _remove(folder)
        total -= size


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path) -> None:
    """Remove an entry at once; no process reads a part of it."""
    target = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=folder.parent))
    try:
        folder.replace(target / "entry")
    except OSError:
        logger.debug("%s is gone already", folder)
    shutil.rmtree(target, ignore_errors=True)
