"""The folder of a handover: it appears whole or not at all, and replaces only an unchanged handover."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.errors import DataError

NAME = "handover.json"
"""The list of all files of a handover, with their sizes and hashes."""

FORMAT = 1
"""Version of ``handover.json``, its entry ``d2tune_handover``."""

_ELSEWHERE = "Write to another folder with --out, or move it away."


def check_replaceable(out: Path, *, force: bool) -> None:
    """Check that nothing but an unchanged handover would be lost.

    Raises:
        DataError: The folder is not empty, and is not a handover, or was changed, or ``force`` is not set.
    """
    if not os.path.lexists(out) or (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        return
    if out.is_symlink() or not out.is_dir():
        what = "a link" if out.is_symlink() else "a file"
        raise DataError(f"{what} is already there and is not replaced", file=out, hint=_ELSEWHERE)
    listed = _listed(out)
    if listed is None:
        raise DataError("the folder is not empty, and is not a handover", file=out, hint=_ELSEWHERE)
    if not force:
        hint = "Write to another folder with --out, or replace it with --force."
        raise DataError("the handover is already there and is not replaced", file=out, hint=hint)
    there = entries(out)
    for name in sorted(there.keys() | listed.keys()):
        if there.get(name) != listed.get(name):
            state = "was changed" if name in there and name in listed else "is new" if name in there else "is missing"
            raise DataError(f"a file of the handover {state} since it was written", file=out / name, hint=_ELSEWHERE)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the context ends without an error.

    Raises:
        DataError: It cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}.", suffix=".tmp", dir=out.parent))
    except OSError as error:
        raise DataError(f"the handover cannot be written: {error.strerror or error}", file=out) from None
    try:
        folder = scratch / "new"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(scratch / "old")
        folder.rename(out)
    except OSError as error:
        raise DataError(f"the handover cannot be written: {error.strerror or error}", file=out) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of each file but ``handover.json``, by its name relative to the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
        for path in paths
        if path != folder / NAME
    }


def _listed(folder: Path) -> dict[str, Any] | None:
    """The files that ``handover.json`` lists; None where it is not one."""
    try:
        content = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    is_one = isinstance(content, dict) and content.get("d2tune_handover") == FORMAT
    return dict(content["files"]) if is_one and isinstance(content.get("files"), dict) else None
