"""Writing the layout that RF-DETR trains on: a folder for each split, with its images and a COCO file beside them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from d2tune.annotations.formats.coco.writer import to_coco
from d2tune.annotations.formats.shared.copying import Images, copies_of, place_image, places_of
from d2tune.annotations.io.images import read_header
from d2tune.annotations.io.outputs import refuse_existing, write_output
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.files import holds
from d2tune.text import counted

logger = logging.getLogger(__name__)

FILE_NAME = "_annotations.coco.json"

FOLDERS = {"train": "train", "val": "valid", "": "train"}
"""The folder of each split of a project; of images of no split the one to train on."""

SUPERCATEGORY = "object"
"""RF-DETR takes a category whose supercategory is ``none`` for the root of all others, and does not count it."""


def write(dataset: Dataset, out: Path, *, split: str = "", images: Images = "copy", force: bool = False) -> list[Path]:
    """Write the folder of a split: its images and ``_annotations.coco.json``.

    The ids of categories count from 1 in the order of the classes, and each category has a supercategory, because
    RF-DETR counts classes by them. Images keep their folders below the split's.

    Args:
        dataset: What to write.
        out: The folder of the data set.
        split: ``train`` or ``val`` of a project; empty for images of no split.
        images: Whether images are copied or hard-linked, or left where they are.
        force: Whether files that an earlier conversion wrote are replaced; others never are.

    Returns:
        The files written.

    Raises:
        DataError: A file is already there, or an image cannot be linked.
    """
    folder = out / FOLDERS[split]
    places = places_of(dataset.images)
    targets = {image.id: folder / places[image.id] for image in dataset.images}
    copies = [] if images == "none" else list(copies_of(dataset.images, targets))
    path = folder / FILE_NAME
    named = tuple(replace(image, file_name=places[image.id].as_posix()) for image in dataset.images)
    content = orjson.dumps(_value(replace(dataset, images=named)), option=orjson.OPT_INDENT_2)
    is_there = holds(path, [content])
    refuse_existing([] if is_there else [path], force=force)
    refuse_existing([target for _, target in copies], force=False)
    for source, target in copies:
        place_image(source, target, images)
    if not is_there:
        write_output(path, content)
    if not split:
        logger.warning(
            "%s: RF-DETR also needs %s to validate on; convert a project file to write both splits",
            out,
            out / FOLDERS["val"] / FILE_NAME,
        )
    _name_turned(dataset.images, out)
    return [path, *(target for _, target in copies)]


def _name_turned(images: Sequence[Image], out: Path) -> None:
    """Log how many photos are displayed otherwise than they are stored, which RF-DETR does not consider."""
    turned = sum(image.path is not None and read_header(image.path).orientation > 1 for image in images)
    if turned:
        logger.warning(
            "%s: %s stored turned (EXIF orientation). RF-DETR reads the pixels as they are stored, beside outlines of "
            "the displayed image: turn the pixels of these files, and convert again",
            out,
            f"{counted(turned, 'photo')} {'is' if turned == 1 else 'are'}",
        )


def _value(dataset: Dataset) -> dict[str, Any]:
    coco = to_coco(dataset)
    categories = [row | {"supercategory": SUPERCATEGORY} for row in coco["categories"]]
    return {"info": {"description": ""}, "licenses": [], **coco, "categories": list(categories)}
