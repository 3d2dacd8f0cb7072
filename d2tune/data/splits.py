"""The training and validation splits of a project, read and checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotations.convert import findings_table, read_dataset
from d2tune.annotations.io.photos.findings import with_shared_white
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.splitting.sharing import refuse_shared_images
from d2tune.annotations.splitting.splits import split
from d2tune.data.folds import divide_by_fold, join
from d2tune.data.label_maps import with_background
from d2tune.data.location import locate_data
from d2tune.data.sharing import separate_labels
from d2tune.data.sources import refuse_shared_names, split_source
from d2tune.errors import DataError
from d2tune.project import Project
from d2tune.text import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Splits:
    """The training and validation splits of a project, with the same categories.

    Attributes:
        train: The training split.
        val: The validation split.
        root: The folder that they were read from: the project's data folder, or that of its rendered sample.
        rendered: Whether the data are a rendered sample, because the data folder is missing.
    """

    train: Dataset
    val: Dataset
    root: Path
    rendered: bool = False


def load_splits(project: Project, *, sample: bool = True, restore_dir: Path | None = None) -> Splits:
    """Read both splits of a project.

    Args:
        project: The project, with its ``data`` and ``classes``.
        sample: Whether the project's sample may replace missing data; it is rendered if it is missing as well.
        restore_dir: Folder for images that exist only inside the annotations, which get a folder for each split in it;
            by default ``.restored`` in the data folder.

    Raises:
        DataError: The data are missing, have errors, or have no annotations to train on.
    """
    project, rendered = locate_data(project, sample=sample, render=sample)
    data = project.data
    refuse_shared_names(project)
    restore = restore_dir or data.root / ".restored"
    labels = project.class_names or None
    background = data.background
    train = with_background(read_split(project, data.train, labels=labels, restore_dir=restore / "train"), background)
    labels = train.class_names
    own_val = None
    if isinstance(data.val, str):
        own_val = with_background(read_split(project, data.val, labels=labels, restore_dir=restore / "val"), background)
        refuse_sharing(project, {"train": train, "val": own_val})
    if own_val is None or data.fold is not None:
        train, val = divide(project, train, own_val)
    else:
        val = own_val
    _check(project, train, val)
    (train, _), (val, _) = shared = with_shared_white(train, val)
    notes = [note for _, notes in shared for note in notes]
    if notes:
        logger.warning("%s:\n%s", data.root, findings_table(notes))
    return Splits(train, val, data.root, rendered)


def load_validation(project: Project) -> Dataset:
    """Read the validation split, by itself if it has files of its own and the training split cannot be read.

    Args:
        project: The project, with its ``data`` and ``classes``.

    Raises:
        DataError: See `load_splits`.
    """
    try:
        return load_splits(project, sample=False).val
    except DataError as error:
        located, _ = locate_data(project, sample=False, render=False)
        data, labels = located.data, located.class_names
        if isinstance(data.val, float) or data.fold is not None or not labels or _is_readable(located, data.train):
            raise
        val = read_split(located, data.val, labels=labels, restore_dir=data.root / ".restored" / "val")
        logger.warning("%s: the validation split is read without the training split", error.one_line())
        return with_background(val, data.background)


def _is_readable(project: Project, split: str) -> bool:
    """Whether all images of a split are where its annotations say."""
    restore = project.data.root / ".restored" / "train"
    try:
        dataset = read_split(project, split, labels=project.class_names, restore_dir=restore)
    except DataError:
        return False
    return not any(finding.code == "image_found_elsewhere" for finding in dataset.findings)


def refuse_sharing(project: Project, splits: Mapping[str, Dataset]) -> None:
    """Check that no two splits have an image in common; see `separate_labels`.

    Args:
        project: The project.
        splits: Its datasets by the name of the split.

    Raises:
        DataError: Splits share images.
    """
    images = {name: dataset.images for name, dataset in splits.items()}
    refuse_shared_images(images, is_separate=separate_labels(project, splits))


def divide(project: Project, train: Dataset, val: Dataset | None) -> tuple[Dataset, Dataset]:
    """The training and validation split of a project with ``data.fold``, or whose ``data.val`` is a fraction.

    Args:
        project: The project.
        train: The images of ``data.train``, with the project's background under their shapes.
        val: Those of ``data.val``; None where it is a fraction.

    Raises:
        DataError: The images cannot be divided.
    """
    if project.data.fold is None:
        return divide_by_fraction(project, train)
    return divide_by_fold(project, join([train] if val is None else [train, val]).dataset)


def divide_by_fraction(project: Project, dataset: Dataset) -> tuple[Dataset, Dataset]:
    """The training and validation split of a project whose ``data.val`` is a fraction.

    Args:
        project: The project.
        dataset: All images, with the project's background under their shapes; see `with_background`.

    Raises:
        DataError: There are fewer than two images, or all of them are near-duplicates.
    """
    data = project.data
    assert isinstance(data.val, float)
    if len(dataset.images) < 2:
        raise DataError(
            "the images cannot be divided into a training and a validation split",
            file=data.root / data.train,
            found="1 image",
            expected="2 images or more",
        )
    return split(dataset, fraction=data.val, seed=data.split_seed)


def read_split(project: Project, name: str, *, labels: tuple[str, ...] | None, restore_dir: Path | None) -> Dataset:
    """Read a split of a project.

    Args:
        project: The project, with its ``data`` section.
        name: The value of ``data.train`` or ``data.val``, or an absolute path.
        labels: Class names; None takes those that occur.
        restore_dir: Folder for images that exist only inside the annotations.

    Raises:
        DataError: The split is missing, has errors, or has no images.
    """
    data = project.data
    source, options = split_source(project, name, labels, restore_dir=restore_dir)
    for path in (source, options.image_list):
        if path is not None and not path.exists():
            hint = "Correct data.root, data.train, data.val or data.annotations in the project."
            raise DataError("the annotations are missing", file=path, hint=hint)
    dataset = read_dataset(source, format=data.format, options=options)
    notable = [finding for finding in dataset.findings if finding.level != "info"]
    if notable:
        logger.warning("%s:\n%s", source, findings_table(notable))
    dataset.raise_on_errors()
    if project.has_label_maps and data.background is None:
        dataset = _only_labeled_images(dataset, skip_bad=data.skip_bad)
    if not dataset.images:
        raise DataError("the split has no images", file=source, expected="images with annotations beside them")
    return dataset


def _only_labeled_images(dataset: Dataset, *, skip_bad: bool) -> Dataset:
    """The images with shapes; without a class for the background, all pixels of the other images are ignored."""
    by_image = dataset.by_image()
    empty = [image for image in dataset.images if not by_image[image.id]]
    if empty and not skip_bad:
        raise DataError(
            "the image has no shapes, so it has no labeled pixels",
            file=empty[0].path or Path(empty[0].file_name),
            found=f"{len(empty)} such images" if empty[1:] else None,
            hint="Annotate it, set data.background to the class of pixels that no shape covers, or set data.skip_bad.",
        )
    for image in empty:
        logger.warning("excluded: %s has no shapes", image.path or image.file_name)
    return dataset.subset([image.id for image in dataset.images if by_image[image.id]]) if empty else dataset


def _check_crowds(project: Project, split: str, dataset: Dataset) -> None:
    """Stop where a split has crowds alone, which are not trained on; warn where it has some.

    Raises:
        DataError: All objects of the split are marked as crowds.
    """
    data, crowds = project.data, dataset.crowds
    if not crowds or project.is_by_pixel:
        return
    if not any(count for name, count in dataset.counts().items() if name != data.background):
        is_own = isinstance(data.val, str) and data.fold is None and split == "validation"
        name = str(data.val) if is_own else data.train
        raise DataError(
            f"all annotations of the {split} split are marked as crowds (iscrowd), which training excludes",
            file=data.root / name,
            found=f"0 objects, {counted(crowds, 'crowd')}",
            hint="If they are single objects, read them as objects: set data.crowds to objects.",
        )
    logger.warning(
        "%s of the %s split marked as crowds (iscrowd) and excluded; data.crowds: objects reads them as objects",
        counted(crowds, "annotation"),
        split,
    )


def _check(project: Project, train: Dataset, val: Dataset) -> None:
    source = project.data.root / project.data.train
    counts, background = train.counts(), project.data.background
    if project.is_by_pixel:
        counts = {name: count + train.crowd_counts()[name] for name, count in counts.items()}
    _check_crowds(project, "training", train)
    _check_crowds(project, "validation", val)
    if not any(count for name, count in counts.items() if name != background):
        raise DataError(
            "the training split has no annotations",
            file=source,
            found=f"{counted(len(train.images), 'image')} without shapes",
            hint="Annotate objects with `d2tune annotate`.",
        )
    present = [name for name, count in counts.items() if count or name == background]
    if project.is_by_pixel and len(present) == 1:
        raise DataError(
            "all labeled pixels of the training split have the same class",
            file=source,
            found=present[0],
            expected="two classes or more",
            hint="Set data.background to the class of pixels that no shape covers, or annotate more classes.",
        )
    missing = [name for name in counts if name not in present]
    if missing and project.needs_every_class:
        where = "things" if missing[0] in project.things else "stuff"
        raise DataError(
            f"class {missing[0]!r} has no annotations in the training split",
            file=source,
            place=where,
            found=", ".join(f"{count} {name}" for name, count in counts.items()),
            hint=f"Annotate the class, or remove it from {where}.",
        )
    if missing:
        logger.warning("classes without annotations in the training split cannot be learned: %s", ", ".join(missing))
