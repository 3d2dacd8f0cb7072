"""Cross-validation of a project: a training for each fold, and the mean of their metrics."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.data.splits import load_splits
from d2tune.errors import D2TuneError, ProjectError, RunError
from d2tune.project import LoadedProject
from d2tune.report.tables import format_table
from d2tune.run_folder import ensure_writable
from d2tune.run_lock import locked
from d2tune.search.settings import first_difference, settings_of
from d2tune.search.statistics import FoldMean, fold_mean
from d2tune.search.training import Trained, train_in

NAME = "kfold.json"
"""The file with the results, in the folder of the folds."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class KfoldResult:
    """The results of the folds.

    Attributes:
        folder: Their folder.
        folds: One for each fold, in their order.
        means: The mean of each main metric by its title; without those that are not defined in a fold.
    """

    folder: Path
    folds: tuple[Trained, ...]
    means: dict[str, FoldMean]

    @property
    def main(self) -> FoldMean | None:
        """The mean of the metric by which models are compared."""
        return next(iter(self.means.values()), None)

    def text(self) -> str:
        """A table of the folds, and the means with their intervals."""
        titles = list(self.folds[0].values)
        rows = [
            [str(number), str(fold.images), *(_cell(fold.values.get(title)) for title in titles), str(fold.run)]
            for number, fold in enumerate(self.folds)
        ]
        header = ["fold", "images", *titles, "run"]
        table = format_table(rows, header=header, align="rr" + "r" * len(titles) + "l")
        lines = [f"{title}: {mean} (Student's t over {mean.folds} folds)" for title, mean in self.means.items()]
        undefined = [title for title in titles if title not in self.means]
        lines += [f"{title}: not defined in each fold" for title in undefined]
        return "\n".join([table, "", *lines])


@dataclass(frozen=True, slots=True)
class KfoldFile:
    """What ``kfold.json`` says.

    Attributes:
        project: Name of the project.
        folds: Number of folds.
        data_sha256: See `data_hash`.
        settings: See `settings_of`.
        trained: The names of the run folders of the folds that are trained, in their order.
    """

    project: str
    folds: int
    data_sha256: str
    settings: dict[str, Any]
    trained: tuple[str, ...]


def read_kfold(folder: Path, *, hint: str | None = None) -> KfoldFile:
    """Read the ``kfold.json`` of a folder.

    Args:
        folder: The folder of the folds.
        hint: The next step where it cannot be used.

    Raises:
        RunError: There is none, it is damaged, or it is of another version.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_bytes())
        schema = content["schema"]
        read = KfoldFile(
            project=content["project"],
            folds=content["folds"],
            data_sha256=content["data_sha256"],
            settings=content["settings"],
            trained=tuple(str(row["run"]) for row in content["results"]),
        )
    except OSError:
        raise RunError(
            "is not a folder of folds", file=folder, expected=f"a folder with {NAME}, which `d2tune kfold` writes"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError("is damaged", file=path, hint=hint) from error
    if schema != _VERSION:
        raise RunError("is of another version of d2tune", file=path, found=str(schema), hint=hint)
    if not (isinstance(read.folds, int) and isinstance(read.settings, dict)):
        raise RunError("is damaged", file=path, hint=hint)
    return read


def kfold(
    loaded: LoadedProject,
    *,
    folds: int,
    output_dir: Path | None = None,
    resume: bool = False,
    num_gpus: int | None = None,
    sample: bool = True,
) -> KfoldResult:
    """Train a project on each fold of its data, one after the other.

    Args:
        loaded: The project.
        folds: Number of folds.
        output_dir: Folder for the runs ``fold0``, ``fold1``, ... and ``kfold.json``; None is
            ``runs/<project>/kfold_<time>``.
        resume: Go on in ``output_dir``, or in the latest folder of the project: finished folds are kept, an unfinished
            one is resumed.
        num_gpus: As for a training.
        sample: Render the project's sample where its data are missing.

    Raises:
        D2TuneError: The project, its data or the folder cannot be used, or a fold has no annotations of a class.
        SystemExit: A training was stopped by a signal.
    """
    check_startable(loaded, folds=folds)
    if folds < 2:
        raise ProjectError("the number of folds must be 2 or more", place="--folds", found=str(folds))
    about = {
        "schema": _VERSION,
        "project": loaded.project.name,
        "project_file": str(loaded.file.resolve()),
        "folds": folds,
        "data_sha256": data_hash(loaded, folds=folds, sample=sample),
        "settings": settings_of(loaded.project),
    }
    folder = _folder(loaded, output_dir, resume=resume)
    ensure_writable(folder)
    with locked(folder):
        if resume:
            _check_same(folder, about)
        loaded = loaded.with_tracking_group(f"{loaded.project.name}-{folder.name}")
        done: list[Trained] = []
        _write(folder, about, done)
        for number in range(folds):
            print(f"\nfold {number} of 0 to {folds - 1}: {folder / f'fold{number}'}", flush=True)
            one, run = loaded.with_fold(number, of=folds), folder / f"fold{number}"
            try:
                done.append(train_in(one, run, num_gpus=num_gpus, sample=sample))
            except D2TuneError:
                if not (done or resume or run.exists()):  # no training began, and the next one may be another
                    (folder / NAME).unlink()
                raise
            _write(folder, about, done)
    return KfoldResult(folder, tuple(done), means_of(done))


def check_startable(loaded: LoadedProject, *, folds: int | None) -> None:
    """Check that a project is not that of one fold already, and that no launcher has started several processes.

    Args:
        loaded: The project.
        folds: Number of folds that its data are divided into; None takes its own splits.

    Raises:
        ProjectError: It is, or one has.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ProjectError(
            "several trainings one after the other are started by one process",
            found=f"WORLD_SIZE={os.environ['WORLD_SIZE']}",
            hint="Start the command without torchrun, with --num-gpus.",
        )
    if folds is not None and loaded.project.data.fold is not None:
        raise ProjectError("the project trains on one fold", file=loaded.file, place="data.fold", hint="Remove it.")


def data_hash(loaded: LoadedProject, *, folds: int | None, sample: bool) -> str:
    """A hash of the data of a project, which are read and checked for it.

    Args:
        loaded: The project.
        folds: Number of folds that the data are divided into; None takes the project's own splits.
        sample: Render the project's sample where its data are missing.

    Raises:
        DataError: The data cannot be used or divided.
    """
    project = (loaded if folds is None else loaded.with_fold(0, of=folds)).project
    splits = load_splits(project, sample=sample)
    return hashlib.sha256(f"{splits.train.content_hash()} {splits.val.content_hash()}".encode()).hexdigest()


def means_of(done: Sequence[Trained]) -> dict[str, FoldMean]:
    """The mean of each metric that all folds have."""
    means = {}
    for title in done[0].values if done else ():
        values = [value for fold in done if (value := fold.values.get(title)) is not None]
        if len(values) == len(done):
            means[title] = fold_mean(values)
    return means


def _folder(loaded: LoadedProject, output_dir: Path | None, *, resume: bool) -> Path:
    parent = Path("runs") / loaded.project.name
    if resume:
        begun = sorted(parent.glob(f"kfold_*/{NAME}"), key=lambda path: path.stat().st_mtime)
        folder = output_dir or (begun[-1].parent if begun else parent)
        if not (folder / NAME).is_file():
            raise RunError("there are no folds to resume", file=folder, hint="Begin without --resume.")
        return folder
    folder = output_dir or parent / f"kfold_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    if folder.is_dir() and any(folder.iterdir()):
        hint = "Set another folder with --output-dir, or go on with --resume."
        raise RunError("the output folder is not empty", file=folder, hint=hint)
    return folder


def _check_same(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse to go on with the folds of another project, of other data or with other settings.

    Raises:
        RunError: Says what is different.
    """
    path = folder / NAME
    again = "Begin without --resume in another folder."
    then = read_kfold(folder, hint=again)
    if then.project != about["project"]:
        raise RunError(
            "the folds are of another project", file=path, found=repr(about["project"]), expected=repr(then.project)
        )
    if then.folds != about["folds"]:
        raise RunError(
            "the number of folds is another", file=path, found=str(about["folds"]), expected=f"--folds {then.folds}"
        )
    changed = first_difference(then.settings, about["settings"])
    if changed is not None:
        key, was, now = changed
        raise RunError(f"{key} changed since the folds began", file=path, found=now, expected=was, hint=again)
    if then.data_sha256 != about["data_sha256"]:
        raise RunError("the data changed since the folds began", file=path, hint=again)


def _write(folder: Path, about: Mapping[str, Any], done: Sequence[Trained]) -> None:
    results = [
        {
            "fold": number,
            "run": fold.run.name,
            "values": fold.values,
            "images": fold.images,
            "best_iteration": fold.best_iteration,
        }
        for number, fold in enumerate(done)
    ]
    is_whole = len(done) == about["folds"]
    means = {title: asdict(mean) for title, mean in means_of(done).items()} if is_whole else {}
    content = {**about, "command": sys.argv, "results": results, "means": means}
    files.write_json(folder / NAME, content)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
