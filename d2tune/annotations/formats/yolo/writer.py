"""Writing YOLO's label files of polygons, ``data.yaml``, and the images in the folders that go with them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

from d2tune.annotations.formats.shared.copying import Images, copies_of, place_image, places_of
from d2tune.annotations.formats.yolo.layout import IMAGES, LABELS
from d2tune.annotations.formats.yolo.rings import joined, rings_of
from d2tune.annotations.io.outputs import refuse_existing, write_output
from d2tune.annotations.model.dataset import Dataset, Image, Instance
from d2tune.files import holds
from d2tune.text import counted

logger = logging.getLogger(__name__)


def write(dataset: Dataset, out: Path, *, split: str = "", images: Images = "copy", force: bool = False) -> list[Path]:
    """Write a label file for each image, ``data.yaml``, and the images.

    A label file has a line for each object: the number of its class from 0, and a polygon in shares of the image. The
    outlines of an object with holes or of several pieces are joined by cuts of no width; their number is logged. Crowds
    are not written, and their number is logged.

    Args:
        dataset: What to write.
        out: The folder; it gets ``images`` and ``labels``.
        split: Folder in both, ``train`` or ``val`` of a project; empty for images of no split.
        images: Whether images are copied or hard-linked; labels alone need images in ``images`` under the same names.
        force: Whether files that an earlier conversion wrote are replaced; others never are.

    Returns:
        The files written.

    Raises:
        DataError: A file is already there, an image cannot be linked, or a mask is too ragged for a polygon.
    """
    places = places_of(dataset.images, unwanted=(IMAGES, LABELS))
    targets = {image.id: out / IMAGES / split / places[image.id] for image in dataset.images}
    labels = {image.id: (out / LABELS / split / places[image.id]).with_suffix(".txt") for image in dataset.images}
    description, content = out / "data.yaml", description_of(dataset.class_names, split=split)
    has_description = holds(description, [content])
    copies = [] if images == "none" else list(copies_of(dataset.images, targets))
    refuse_existing([*labels.values(), *([] if has_description else [description])], force=force)
    refuse_existing([target for _, target in copies], force=False)
    groups = dataset.by_image()
    unlike = Counter[str]()
    for image in dataset.images:
        write_output(labels[image.id], "".join(lines_of(groups[image.id], image, unlike)).encode("ascii"))
    for source, target in copies:
        place_image(source, target, images)
    if not has_description:
        write_output(description, content)
    log_unlike(unlike, out)
    return [description, *labels.values(), *(target for _, target in copies)]


def description_of(class_names: Sequence[str], *, split: str = "") -> bytes:
    """``data.yaml``; without ``path``, its folders are relative to it.

    Args:
        class_names: The classes in the order of their ids.
        split: Folder in ``images``; empty for images of no split.
    """
    train, val = (f"{IMAGES}/{one}" if split else IMAGES for one in ("train", "val"))
    names = yaml.safe_dump(dict(enumerate(class_names)), allow_unicode=True, sort_keys=False)
    lines = ["names:\n", *(f"  {line}\n" for line in names.splitlines())]
    note = "" if split else "  # the same images; name others to validate on"
    return f"train: {train}\nval: {val}{note}\nnc: {len(class_names)}\n{''.join(lines)}".encode()


def lines_of(
    instances: Sequence[Instance], image: Image, unlike: Counter[str], *, with_scores: bool = False
) -> Iterator[str]:
    """The line of each object.

    Args:
        instances: The objects of an image.
        image: The image.
        unlike: Counts what lines do not express.
        with_scores: Whether the score of a prediction is the last number of its line.

    Raises:
        DataError: A mask is too ragged for a polygon.
    """
    size_px = np.array([image.width_px, image.height_px], dtype=np.float64)
    for instance in instances:
        if instance.iscrowd:
            unlike["crowd"] += 1
            continue
        rings, holes = rings_of(instance, image)
        unlike["object with holes"] += holes > 0
        unlike["object of several pieces"] += len(rings) - holes > 1
        numbers = " ".join(f"{value:.10g}" for value in (joined(rings) / size_px).reshape(-1).tolist())
        score = f" {instance.score:.6g}" if with_scores and instance.score is not None else ""
        yield f"{instance.category_id - 1} {numbers}{score}\n"


def log_unlike(unlike: Counter[str], out: Path) -> None:
    """Log what YOLO's labels do not express."""
    holes, pieces, crowds = unlike["object with holes"], unlike["object of several pieces"], unlike["crowd"]
    if holes or pieces:
        logger.warning(
            "%s: YOLO has one polygon for each object. The outlines of %s with holes and of %s of several pieces are "
            "joined by cuts of no width; a tool that ignores the even-odd rule fills the holes",
            out,
            counted(holes, "object"),
            counted(pieces, "object"),
        )
    if crowds:
        logger.warning("%s: %s not written, because YOLO has no crowds", out, counted(crowds, "crowd"))
