"""The run that a person means by a project file."""

from __future__ import annotations

from pathlib import Path

from d2tune.errors import RunError
from d2tune.project import load_project
from d2tune.run_folder import latest_run


def run_folder(run: str | Path) -> Path:
    """A run folder as given, or the latest run of a project file.

    Raises:
        RunError: The project has no run yet.
    """
    path = Path(run)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return path
    name = load_project(path).project.name
    latest = latest_run(name, having="checkpoints/model_best.pth")
    if latest is None:
        raise RunError(
            "the project has no finished run", file=Path("runs") / name, hint=f"Train first: d2tune train {path}"
        )
    return latest.path
