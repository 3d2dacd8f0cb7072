"""The runs that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from d2tune.api.arguments import check_paths, run_folder_of

if TYPE_CHECKING:
    from d2tune.loggers.dashboard import Dashboard
    from d2tune.review.report import ReportResult
    from d2tune.runs.overview import RunSummary
    from d2tune.runs.removal import Removal


def runs(
    project: str | Path | None = None,
    *,
    sort: str = "started",
    reverse: bool = False,
    states: Sequence[str] = (),
    data: str | None = None,
    last: int | None = None,
) -> list[RunSummary]:
    """The runs of a project, or of all projects, with state, metric, hashes, times and size; see ``runs.overview``.

    Args:
        project: Name of a project, a project file, a run folder, or any folder with runs in it; None is ``runs``.
        sort: ``started``, ``metric``, ``time``, ``size``, ``project`` or ``state``.
        reverse: Whether the order is reversed.
        states: Of ``running``, ``finished``, ``stopped``, ``failed`` and ``damaged``, those to keep; none keeps all.
        data: How the hash of the training or the validation split begins; None keeps all.
        last: How many to keep; None keeps all.

    Raises:
        D2TuneError: The folder does not exist, or a value is invalid.
    """
    from d2tune.runs.overview import list_runs
    from d2tune.runs.overview_table import arranged

    check_paths(project=project)
    arranged([], sort=sort, states=states, last=last)
    return arranged(list_runs(project), sort=sort, reverse=reverse, states=states, data=data, last=last)


def remove_runs(older_than: str, project: str | Path | None = None, *, remove: bool = False) -> Removal:
    """Remove the runs that ended long ago and are not needed any more; see ``runs.removal``.

    Args:
        older_than: How long ago, such as ``12h``, ``30d`` or ``2w``.
        project: As in `runs`.
        remove: Whether they are removed; else nothing is changed, and the result says which ones would be.

    Raises:
        D2TuneError: The age is invalid, or the folder does not exist.
    """
    from d2tune.runs.removal import remove_old

    check_paths(project=project)
    return remove_old(older_than, project, remove=remove)


def dashboard(project: str | Path, *, entity: str | None = None) -> Dashboard:
    """Make a workspace and a report of Weights & Biases for a project; without a connection say what they would show.

    Args:
        project: A project file, or the name of a project that has runs in ``runs``.
        entity: The user or team of W&B; None takes ``WANDB_ENTITY``, or the user's default.

    Raises:
        D2TuneError: The project does not exist, wandb-workspaces is not installed, or W&B refuses.
    """
    from d2tune.loggers.dashboard import make

    check_paths(project=project)
    return make(project, entity=entity)


def write_report(
    *runs: str | Path,
    predictions: Mapping[str, str | Path] | None = None,
    out: str | Path | None = None,
    images: int = 12,
) -> ReportResult:
    """Write one HTML file about runs: metrics, curves, classes, errors, images, data, timings; see ``review.report``.

    Args:
        runs: Run folders, or project files for their latest runs; others are compared with the first one.
        predictions: Files of COCO results of other models on the images of the first run, by the names of the models.
        out: The file; None is ``report.html``, in the run folder if there is one run, else in the working folder.
        images: How many images are shown with a divider between ground truth and predictions.

    Raises:
        D2TuneError: A path is not a run folder, or the file exists and is not such a report.
    """
    from d2tune.modeling.light_imports import light_imports

    check_paths(out=out, **(predictions or {}))
    with light_imports():
        from d2tune.review import report

    return report.write_report(
        [Path(run_folder_of(run)) for run in runs],
        predictions={name: Path(file) for name, file in (predictions or {}).items()},
        out=None if out is None else Path(out),
        images=images,
    )
