"""What the functions ask of their arguments before anything is imported."""

from __future__ import annotations

from pathlib import Path

from d2tune.errors import check_path

MOST_TOLERANCE_PX = 1000.0
"""The largest distance that outlines may be simplified by."""


def run_folder_of(run: str | Path) -> Path:
    """A run folder as given, or the latest run of a project file."""
    from d2tune.runs.latest import run_folder

    check_paths(run=run)
    return run_folder(run)


def check_paths(**paths: str | Path | None) -> None:
    """Refuse paths that no file can have, under the names of their arguments; see ``errors.check_path``."""
    for place, path in paths.items():
        check_path(path, place=place)
