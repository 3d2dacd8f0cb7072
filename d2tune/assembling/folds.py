"""The runs of a finished ``d2tune kfold``, which show on all images what is worth doing with another run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.photos.findings import with_white
from d2tune.annotations.model.dataset import Dataset
from d2tune.assembling.candidates import is_same_network
from d2tune.assembling.members import Member, check_fits, read_member
from d2tune.data.folds import divide_into_folds, join
from d2tune.data.splits import load_splits
from d2tune.errors import DataError, RunError
from d2tune.metrics.bootstrap import least_images
from d2tune.run_folder import RunFolder
from d2tune.search.kfold import read_kfold
from d2tune.search.settings import first_difference, settings_of
from d2tune.search.training import is_finished

_MAY_DIFFER = ("name", "train.seed", "train.eval_every", "train.validation_loss", "train.on_divergence")
"""Settings of folds that change nothing of what is worth doing with a run, beside those of `settings_of`; the name
is checked for itself."""
_SAME_SIZE = ("MIN_SIZE_TEST", "MAX_SIZE_TEST")


@dataclass(frozen=True, slots=True, eq=False)
class FoldRun:
    """The run of a fold.

    Attributes:
        path: Its folder.
        weights_sha256: Hash of its best weights.
        dataset: The validation images of the fold, on which it was not trained.
    """

    path: Path
    weights_sha256: str
    dataset: Dataset

    def read(self) -> Member:
        """The run with its weights."""
        return read_member(self.path, self.path.name)


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """The runs of all folds.

    Attributes:
        folder: Their folder.
        runs: One for each fold, in their order.
        groups: ``(n_images,)``, the number from 0 of the group of each image: near-duplicates and the frames of a video
            are of one group. The images of the first fold come first.
    """

    folder: Path
    runs: tuple[FoldRun, ...]
    groups: NDArray[np.int64]

    @property
    def images(self) -> tuple[int, ...]:
        """Number of images of each fold."""
        return tuple(len(run.dataset.images) for run in self.runs)


def read_folds(folder: Path, run: Member) -> Folds:
    """Read the folds of the project of a run.

    Args:
        folder: The output folder of ``d2tune kfold``.
        run: A run of the same project.

    Raises:
        RunError: The folder is not one of folds, they are not all trained, or a fold is of another project, other
            classes, another network or other settings than the run.
        DataError: Images of a fold are missing or have changed, or there are too few.
    """
    file = read_kfold(folder)
    project = run.loaded.project
    if file.project != project.name:
        raise RunError(
            "the folds are of another project",
            file=folder,
            found=repr(file.project),
            expected=f"{project.name!r}, as {run.given}",
        )
    paths = [folder / name for name in file.trained]
    finished = sum(is_finished(RunFolder(path)) for path in paths)
    if finished < file.folds:
        hint = f"Go on with `d2tune kfold PROJECT.yaml --folds {file.folds} --output-dir {folder} --resume`."
        raise RunError(
            "the folds are not all trained",
            file=folder,
            found=f"{finished} finished",
            expected=f"{file.folds}",
            hint=hint,
        )
    members = [replace(_checked(read_member(path, path.name), run), state={}) for path in paths]
    datasets, groups = _datasets(members)
    check_enough(groups, folder)
    runs = [FoldRun(one.folder.path, one.weights_sha256, own) for one, own in zip(members, datasets, strict=True)]
    return Folds(folder, tuple(runs), groups)


def check_enough(groups: NDArray[np.int64], folder: Path) -> None:
    """Check that a difference on the images of all folds can be significant.

    Args:
        groups: See `Folds`.
        folder: See `Folds`.

    Raises:
        DataError: There are too few images that are not alike.
    """
    least = least_images()
    count = int(groups.max()) + 1
    if count < least:
        raise DataError(
            "the folds have too few images to prove anything on them",
            file=folder,
            found=f"{count} that are not alike",
            expected=f"{least} or more",
            hint="Annotate more images.",
        )


def _checked(fold: Member, run: Member) -> Member:
    """A run of a fold that was trained as another run was.

    Raises:
        RunError: It was not.
    """
    check_fits(fold, run)
    hint = "Train the run and its folds with the same project file and the same overrides."
    then, now = (
        {key: value for key, value in settings_of(one.loaded.project).items() if key not in _MAY_DIFFER}
        for one in (fold, run)
    )
    difference = first_difference(then, now)
    if difference is not None:
        key, own, expected = difference
        raise RunError(
            f"the fold was trained with another {key}",
            file=fold.given,
            found=own,
            expected=f"{expected}, as {run.given}",
            hint=hint,
        )
    if not is_same_network(fold, run):
        raise RunError("the fold has another network", file=fold.given, expected=f"that of {run.given}", hint=hint)
    for key in _SAME_SIZE:
        if (own := fold.cfg.INPUT[key]) != (expected := run.cfg.INPUT[key]):
            raise RunError(
                f"the fold evaluates images of another size: INPUT.{key}",
                file=fold.given,
                found=f"{own}",
                expected=f"{expected}, as {run.given}",
                hint="Set train.image_size for both where train.budget has chosen it.",
            )
    return fold


def _datasets(members: Sequence[Member]) -> tuple[list[Dataset], NDArray[np.int64]]:
    """The validation images of each fold, and the groups of all.

    Raises:
        DataError: Those of a fold are missing or have changed since its training.
    """
    first = members[0].loaded.project
    splits = load_splits(first, sample=False)
    everything = join([splits.train, splits.val]).dataset
    made = divide_into_folds(first, everything)
    datasets = []
    for member, ids in zip(members, made.folds, strict=True):
        dataset = everything.subset(ids)
        expected = member.record["data"]["val_sha256"]
        if (sha256 := dataset.content_hash()) != expected:
            raise DataError(
                "the validation images of the fold have changed since its training, or some are missing",
                file=member.given,
                found=f"SHA-256 {sha256[:12]}",
                expected=expected[:12],
                hint="Restore the data, or train the folds again.",
            )
        datasets.append(with_white(dataset, member.cfg.INPUT.WHITE or None))
    group_of = {image_id: number for number, group in enumerate(made.groups) for image_id in group}
    return datasets, np.array([group_of[image_id] for image_id in chain(*made.folds)], np.int64)
