"""The training and validation parts that a project names, read and checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from d2tune.annotations.convert import findings_table, read_dataset
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.splitting.splits import split
from d2tune.data.label_maps import with_background
from d2tune.data.location import locate_data
from d2tune.data.sources import refuse_shared_images, split_source
from d2tune.errors import DataError
from d2tune.project import Project

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Splits:
    """What a project trains on and what it is evaluated on, with the same categories.

    Attributes:
        train: The training part.
        val: The validation part.
        root: The folder that they were read from: the project's, or that of its rendered sample.
        rendered: Whether the data are a rendered sample, because the project's own were missing.
    """

    train: Dataset
    val: Dataset
    root: Path
    rendered: bool = False


def load_splits(project: Project, *, sample: bool = True, restore_dir: Path | None = None) -> Splits:
    """Read both parts of a project's data.

    Args:
        project: Its ``data`` and ``classes`` say what to read.
        sample: Whether the project's sample may take the place of missing data; it is rendered if it is missing too.
        restore_dir: Where images that exist only inside the annotations are written; by default
            ``.restored`` in the data folder.

    Raises:
        DataError: There are no data, they have errors, or there is nothing to learn from.
    """
    project, rendered = locate_data(project, sample=sample, render=sample)
    data = project.data
    refuse_shared_images(project)
    restore = restore_dir or data.root / ".restored"
    labels = project.class_names or None
    background = data.background
    train = with_background(read_split(project, data.train, labels=labels, restore_dir=restore), background)
    labels = train.class_names
    if isinstance(data.val, float):
        if len(train.images) < 2:
            raise DataError("one image cannot be divided into training and validation", file=data.root / data.train)
        train, val = split(train, fraction=data.val, seed=data.split_seed)
    else:
        val = with_background(read_split(project, data.val, labels=labels, restore_dir=restore), background)
    _check(project, train)
    return Splits(train, val, data.root, rendered)


def read_split(project: Project, part: str, *, labels: tuple[str, ...] | None, restore_dir: Path | None) -> Dataset:
    """Read one part of a project's data.

    Raises:
        DataError: It is missing, has errors, or has no images.
    """
    data = project.data
    source, options = split_source(project, part, labels, restore_dir=restore_dir)
    for path in (source, options.image_list):
        if path is not None and not path.exists():
            hint = "Correct data.root, data.train, data.val and data.annotations in the project."
            raise DataError("no such data", file=path, hint=hint)
    dataset = read_dataset(source, format=data.format, options=options)
    notable = [finding for finding in dataset.findings if finding.level != "info"]
    if notable:
        logger.warning("%s:\n%s", source, findings_table(notable))
    dataset.raise_on_errors()
    if project.has_label_maps and data.background is None:
        dataset = _with_labels(dataset, skip_bad=data.skip_bad)
    if not dataset.images:
        raise DataError("no images", file=source, expected="images with annotations beside them")
    # reading rasters has opened all of them
    return dataset if data.format == "label_images" else _with_whole_images(dataset, skip_bad=data.skip_bad)


def _with_labels(dataset: Dataset, *, skip_bad: bool) -> Dataset:
    """The images that have a shape: where nothing says what the others show, all their pixels are left out."""
    drawn = dataset.by_image()
    empty = [image for image in dataset.images if not drawn[image.id]]
    if empty and not skip_bad:
        raise DataError(
            "the image has no shape, so all its pixels are left out and it teaches nothing",
            file=empty[0].path or Path(empty[0].file_name),
            found=f"{len(empty)} such images" if empty[1:] else None,
            hint="Label it, name the class of what no shape covers with data.background, or set data.skip_bad.",
        )
    for image in empty:
        logger.warning("left out: %s has no shape", image.path or image.file_name)
    return dataset.subset([image.id for image in dataset.images if drawn[image.id]]) if empty else dataset


def _with_whole_images(dataset: Dataset, *, skip_bad: bool) -> Dataset:
    kept = []
    for image in dataset.images:
        try:
            if image.path is not None:
                check_image(image.path)
        except DataError as error:
            if not skip_bad:
                raise
            logger.warning("left out: %s", error.one_line())
        else:
            kept.append(image.id)
    return dataset if len(kept) == len(dataset.images) else dataset.subset(kept)


_ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND\xaeB`\x82"}
_TAIL_BYTES = 1024


def check_image(path: Path) -> None:
    """Make sure that an image can be decoded to its end, before an hour of training finds that it cannot.

    A JPEG or PNG whose last bytes hold its format's end mark is taken as whole; all others are decoded.

    Raises:
        DataError: The image is cut off or damaged.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            ending = _ENDINGS.get(path.suffix.lower())
            if ending is not None and ending in stream.read():
                return
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"the image cannot be read: {error}", file=path, hint="Replace it, or remove it with its annotation file."
        ) from None


def _check(project: Project, train: Dataset) -> None:
    source = project.data.root / project.data.train
    drawn = {name: count for name, count in train.counts().items() if name != project.data.background}
    if not any(drawn.values()):
        raise DataError(
            "no instance in the training part, so there is nothing to learn",
            file=source,
            found=f"{len(train.images)} images without a shape",
            hint="Draw polygons first: `d2tune annotate`.",
        )
    counts, background = train.counts(), project.data.background
    present = [name for name, count in counts.items() if count or name == background]
    if project.is_by_pixel and len(present) == 1:
        raise DataError(
            "all labeled pixels of the training part are of one class, so there is nothing to tell apart",
            file=source,
            found=present[0],
            expected="two classes or more",
            hint="Name the class of the pixels that no shape covers with data.background, or label other classes.",
        )
    undrawn = [name for name in counts if name not in present]
    if undrawn and project.needs_every_class:
        where = "things" if undrawn[0] in project.things else "stuff"
        raise DataError(
            f"nobody drew a {undrawn[0]} in the training part",
            file=source,
            place=where,
            found=", ".join(f"{count} {name}" for name, count in counts.items()),
            hint=f"Draw some, or take it out of {where}.",
        )
    if undrawn:
        logger.warning("nobody drew a %s in the training part: it cannot be learned", " or a ".join(undrawn))
