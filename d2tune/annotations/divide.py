"""Dividing annotated images into splits."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2tune.annotations.convert import read_without_errors
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.splitting.splits import Split, make_split, write_split


def divide(source: str | Path, *, out: str | Path | None = None, **options: Any) -> tuple[Split, Path]:
    """Divide annotated images into splits and write lists of their names.

    Args:
        source: Folder or file of annotations.
        out: Folder for the lists; None is ``splits`` in the source folder, or beside the source file.
        options: ``how`` (`SplitOptions`), ``force``, and those of ``convert.read_without_errors``.

    Returns:
        The split, and the folder with the lists.

    Raises:
        FindingsError: The annotations have errors.
        DataError: The annotations or an option cannot be used, or lists of another split are there.
    """
    path = Path(source)
    how, force = options.pop("how", None), options.pop("force", False)
    reading = options.pop("options", None) or ReadOptions()
    with tempfile.TemporaryDirectory(prefix="d2tune-") as scratch:
        dataset = read_without_errors(path, options=replace(reading, restore_dir=Path(scratch)), **options)
        made = make_split(dataset, how)
    folder = Path(out) if out is not None else (path if path.is_dir() else path.parent) / "splits"
    write_split(made, folder, force=force)
    return made, folder
