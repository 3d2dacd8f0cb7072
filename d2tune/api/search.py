"""Folds of cross-validation, and the search for better settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from d2tune.api.arguments import check_paths
from d2tune.api.training import load_project
from d2tune.project import LoadedProject

if TYPE_CHECKING:
    from d2tune.search.kfold import KfoldResult
    from d2tune.search.sweep import SweepResult


def kfold(
    project: str | Path | LoadedProject,
    *,
    folds: int = 5,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    output_dir: str | Path | None = None,
    resume: bool = False,
    num_gpus: int | None = None,
    sample: bool = True,
    wandb: bool = False,
) -> KfoldResult:
    """Train a project on each fold of its data; see ``search.kfold.kfold``.

    Args:
        project: A project file, or the result of ``load_project``.
        folds: Number of folds.
        profile: See ``load_project``.
        overrides: See ``load_project``.
        output_dir: Folder for the runs of the folds; None is ``runs/<project>/kfold_<time>``.
        resume: Whether to go on in ``output_dir``, or in the latest folder of folds of the project.
        num_gpus: See ``train``.
        sample: See ``train``.
        wandb: See ``load_project``.

    Raises:
        D2TuneError: The project, its data or the folder cannot be used, or a fold has no annotations of a class.
    """
    from d2tune.search import kfold as search

    check_paths(output_dir=output_dir)
    loaded = project
    if not isinstance(loaded, LoadedProject):
        loaded = load_project(loaded, profile=profile, overrides=overrides, wandb=wandb, num_gpus=num_gpus)
    folder = None if output_dir is None else Path(output_dir)
    return search.kfold(loaded, folds=folds, output_dir=folder, resume=resume, num_gpus=num_gpus, sample=sample)


def sweep(
    project: str | Path,
    *,
    space: str | Path,
    trials: int,
    folds: int | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    output_dir: str | Path | None = None,
    num_gpus: int | None = None,
    sample: bool = True,
    wandb: bool = False,
) -> SweepResult:
    """Search for better settings of a project; see ``search.sweep.sweep``.

    Args:
        project: A project file.
        space: A YAML file with the keys to search and their values.
        trials: Trials of the study, those of other processes and of earlier starts included.
        folds: Number of folds that each trial is trained on; None trains on the project's own split.
        profile: See ``load_project``.
        overrides: See ``load_project``; they hold for all trials.
        output_dir: Folder of the study and its runs; None is ``runs/<project>/sweep_<name of the space>``.
        num_gpus: See ``train``.
        sample: See ``train``.
        wandb: See ``load_project``.

    Raises:
        D2TuneError: The project, its data, the space or the study cannot be used, or three trials in a row failed.
    """
    from d2tune.search.space import read_space

    check_paths(project=project, space=space, output_dir=output_dir)

    def load(words: Sequence[str]) -> LoadedProject:
        return load_project(project, profile=profile, overrides=[*overrides, *words], wandb=wandb, num_gpus=num_gpus)

    read = read_space(Path(space), load)
    from d2tune.search import sweep as search  # which imports Detectron2, after the space was checked

    return search.sweep(
        load,
        read,
        trials=trials,
        words=overrides,
        folds=folds,
        output_dir=None if output_dir is None else Path(output_dir),
        num_gpus=num_gpus,
        sample=sample,
    )


def wandb_sweep(
    project: str | Path,
    *,
    space: str | Path,
    trials: int,
    out: str | Path,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
) -> Path:
    """Write the space of a search as a sweep file of Weights & Biases.

    Args:
        project: A project file.
        space: A YAML file with the keys to search and their values.
        trials: After how many runs the sweep ends.
        out: The sweep file.
        profile: See ``load_project``.
        overrides: See ``load_project``; they hold for all runs.
        force: Whether an earlier sweep file is replaced.

    Raises:
        D2TuneError: The project or the space is invalid, or the file exists.
    """
    from d2tune.search.space import read_space
    from d2tune.search.wandb_sweep import write_wandb_sweep

    check_paths(project=project, space=space, out=out)

    def load(words: Sequence[str]) -> LoadedProject:
        return load_project(project, profile=profile, overrides=[*overrides, *words])

    words = [*overrides, *([] if profile is None else ["--profile", profile])]
    return write_wandb_sweep(
        Path(out), read_space(Path(space), load), load([]), words=words, trials=trials, force=force
    )
