"""Folds of cross-validation: the images of both splits of a project together, divided anew."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.splitting.splits import SplitOptions, make_split
from d2tune.errors import DataError
from d2tune.project import Project
from d2tune.text import counted

logger = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where an image of joined datasets comes from.

    Attributes:
        dataset: The place of its dataset, from 0.
        image_id: Its id there.
    """

    dataset: int
    image_id: int


@dataclass(frozen=True, slots=True)
class Joined:
    """Datasets as one.

    Attributes:
        dataset: All their images.
        origins: Where each image comes from, in the order of the images.
    """

    dataset: Dataset
    origins: tuple[Origin, ...]


def join(datasets: Sequence[Dataset]) -> Joined:
    """Join datasets with the same classes.

    Where their images lie in several folders, file names are relative to the folder above all of them. Ids of image
    files, by which predictions of others are assigned to images, are kept where they are distinct.

    Args:
        datasets: At least one, without images in common.
    """
    first = datasets[0]
    root, prefixes = _common_root([dataset.image_root for dataset in datasets])
    entries = sorted(
        (
            (prefix + image.file_name, Origin(place, image.id), image)
            for place, (dataset, prefix) in enumerate(zip(datasets, prefixes, strict=True))
            for image in dataset.images
        ),
        key=lambda entry: entry[:2],
    )
    images = tuple(replace(image, id=number, file_name=name) for number, (name, _, image) in enumerate(entries, 1))
    origins = tuple(origin for _, origin, _ in entries)
    by_image = [dataset.by_image() for dataset in datasets]
    instances = [
        replace(instance, image_id=number)
        for number, origin in enumerate(origins, 1)
        for instance in by_image[origin.dataset][origin.image_id]
    ]
    dataset = replace(
        first,
        images=_with_distinct_ids(images),
        instances=tuple(replace(instance, id=number) for number, instance in enumerate(instances, 1)),
        findings=tuple(finding for dataset in datasets for finding in dataset.findings),
        image_root=root,
        ledger=(),
    )
    return Joined(dataset, origins)


def _common_root(roots: Sequence[Path | None]) -> tuple[Path | None, list[str]]:
    """The folder above all images, and what comes before the file names of each dataset."""
    if len(set(roots)) == 1:
        return roots[0], [""] * len(roots)
    known = [root.absolute() for root in roots if root is not None]
    try:
        common = Path(os.path.commonpath(known)) if len(known) == len(roots) else None
    except ValueError:  # several drives
        common = None
    if common is None:
        return None, [f"{number}/" for number in range(len(roots))]
    inside = [root.relative_to(common).as_posix() for root in known]
    return common, ["" if path == "." else f"{path}/" for path in inside]


def _with_distinct_ids(images: tuple[Image, ...]) -> tuple[Image, ...]:
    """The images without the ids of their files where two images have the same."""
    ids = [image.source_id for image in images if image.source_id is not None]
    if len(set(ids)) == len(ids):
        return images
    return tuple(replace(image, source_id=None) for image in images)


@dataclass(frozen=True, slots=True)
class Folds:
    """The images of a project, divided.

    Attributes:
        folds: The image ids of each fold; each image is in exactly one.
        groups: Image ids that are in the same fold because their images are alike: near-duplicates, or frames of a
            video. Each image is in exactly one group.
    """

    folds: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]


def divide_into_folds(project: Project, dataset: Dataset) -> Folds:
    """Divide the images of a project into its folds.

    Args:
        project: The project, with its ``data.fold``.
        dataset: All images, with the project's background under their shapes.

    Raises:
        DataError: There are fewer groups of images than folds, or a fold has no annotations of a class.
    """
    data = project.data
    assert data.fold is not None
    options = SplitOptions(kfold=data.fold.of, seed=data.split_seed, group_by="folder" if data.frames else None)
    try:
        made = make_split(dataset, options)
    except DataError as error:
        error.file, error.place = str(data.root), "data.fold"
        error.hint = "Use fewer folds, or annotate more images."
        raise
    logger.info("%s", "; ".join(made.notes))
    folds = tuple(made.splits.values())
    if not project.traits.follows_objects:
        _refuse_missing_classes(project, dataset, folds, made.groups)
    return Folds(folds, made.groups)


def divide_by_fold(project: Project, dataset: Dataset) -> tuple[Dataset, Dataset]:
    """The training and validation split of a project with ``data.fold``; see `divide_into_folds`.

    Args:
        project: The project.
        dataset: All images, with the project's background under their shapes.

    Raises:
        DataError: See `divide_into_folds`.
    """
    folds = divide_into_folds(project, dataset).folds
    assert project.data.fold is not None
    number = project.data.fold.number
    rest = [image_id for at, fold in enumerate(folds) if at != number for image_id in fold]
    return dataset.subset(rest), dataset.subset(folds[number])


def _refuse_missing_classes(
    project: Project, dataset: Dataset, folds: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]
) -> None:
    """Check that each fold has annotations of each class that has any.

    Raises:
        DataError: One has none, so that its metrics would be of other classes than those of the other folds.
    """
    counts_crowds = project.is_by_pixel
    images_of: dict[int, set[int]] = {category.id: set() for category in dataset.categories}
    for instance in dataset.instances:
        if counts_crowds or not instance.iscrowd:
            images_of[instance.category_id].add(instance.image_id)
    for category in dataset.categories:
        having = images_of[category.id]
        lacking = [number for number, fold in enumerate(folds) if having.isdisjoint(fold)]
        if having and lacking:
            count = sum(not having.isdisjoint(group) for group in groups)
            raise DataError(
                f"class {category.name!r} has no annotations in fold {lacking[0]} of 0 to {len(folds) - 1}",
                file=project.data.root,
                place="data.fold",
                found=f"the class in {counted(count, 'group')} of images",
                expected=f"{len(folds)} groups or more" if count < len(folds) else None,
                hint="Use fewer folds, annotate more images of the class, or set another data.split_seed.",
            )
