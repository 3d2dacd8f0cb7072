"""The run folder that a training begins or goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d2tune.engine.plan import TrainingPlan
from d2tune.engine.record import write_start
from d2tune.errors import RunError
from d2tune.project import Project
from d2tune.run_folder import RunFolder, latest_run, new_run


@contextmanager
def new_run_of(plan: TrainingPlan, output_dir: str | Path | None) -> Iterator[RunFolder]:
    """The folder of a new run with its record, and its lock.

    Raises:
        RunError: The folder cannot be written, is not empty, or another process trains in it.
    """
    with new_run(plan.project.name, output_dir=None if output_dir is None else Path(output_dir)) as folder:
        write_start(folder, plan)
        yield folder


def run_to_resume(project: Project, output_dir: str | Path | None) -> RunFolder:
    """The run in a folder, or the latest one of a project, that can be resumed.

    Raises:
        RunError: There is none.
    """
    if output_dir is None:
        folder = latest_run(project.name, having="checkpoints/last.pth")
        if folder is None:
            raise RunError("nothing to resume", file=Path("runs") / project.name, hint="Train without --resume first.")
        return folder
    folder = RunFolder(Path(output_dir))
    if folder.record_entries().get("assembled") is not None:
        raise RunError(
            "the run is an assembled model, which cannot be trained on",
            file=folder.path,
            hint="Train a new run of the project, and assemble again.",
        )
    if not folder.last.is_file():
        raise RunError("nothing to resume", file=folder.path, expected="checkpoints/last.pth")
    return folder
