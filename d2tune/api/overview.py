"""The runs that there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from d2tune.api.arguments import check_paths

if TYPE_CHECKING:
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
