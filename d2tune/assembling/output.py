"""The output folder of an assembly, with which the same command goes on."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.assembling.members import Member
from d2tune.assembling.result import NAME
from d2tune.errors import RunError
from d2tune.run_folder import RunFolder, ensure_writable
from d2tune.run_lock import locked

_VERSION = 1


def about_members(members: Sequence[Member], swa_iterations: int | None) -> dict[str, Any]:
    """What an assembly belongs to.

    Args:
        members: The runs.
        swa_iterations: See `assembling.assemble`.
    """
    return {
        "schema": _VERSION,
        "members": [{"run": str(one.folder.path.resolve()), "sha256": one.weights_sha256} for one in members],
        "swa_iterations": swa_iterations,
    }


@contextlib.contextmanager
def opened(out: str | Path | None, about: Mapping[str, Any], *, project: str) -> Iterator[RunFolder]:
    """Begin an assembly, or go on with one that was ended, and hold the lock of its folder.

    Args:
        out: The output folder; None is ``runs/<project>/assembled_<time>``.
        about: What the assembly belongs to.
        project: Name of the project.

    Raises:
        RunError: The folder has something else, or another process writes to it.
    """
    folder = Path(out) if out else Path("runs") / project / f"assembled_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    _check_free(folder, about)
    ensure_writable(folder)
    with locked(folder):
        files.write_json(folder / NAME, {**about, "command": sys.argv, "written": None})
        yield RunFolder(folder)


def _check_free(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse a folder with anything but an assembly of the same runs that was ended.

    Raises:
        RunError: It has.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    begun: Any = None
    with contextlib.suppress(OSError, ValueError):
        begun = json.loads((folder / NAME).read_bytes())
    hint = "Set another folder with --out."
    if not isinstance(begun, dict) or "members" not in begun:
        raise RunError("the output folder is not empty", file=folder, hint=hint)
    if begun.get("written") is not None:
        raise RunError("the folder has a finished assembly", file=folder, hint=hint)
    if begun.get("folds") != about.get("folds") or any(begun.get(key) != value for key, value in about.items()):
        raise RunError("the folder has an assembly of other runs, folds or options", file=folder, hint=hint)
