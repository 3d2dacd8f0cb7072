"""The latest run of a project file."""

from __future__ import annotations

from pathlib import Path

from d2tune.errors import RunError
from d2tune.project import load_project
from d2tune.run_folder import latest_run


def run_folder(run: str | Path) -> Path:
    """The run folder of a command's argument.

    Args:
        run: A run folder, or a project file for its latest finished run.

    Raises:
        ProjectError: The project file is invalid.
        RunError: The project has no finished run.
    """
    path = Path(run)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return path
    name = load_project(path).project.name
    latest = latest_run(name, having="checkpoints/model_best.pth")
    if latest is None:
        raise RunError("the project has no finished run", file=Path("runs") / name, hint=f"Run `d2tune train {path}`.")
    return latest.path
