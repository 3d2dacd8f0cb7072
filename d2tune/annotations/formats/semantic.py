"""Instances painted in the order of their shapes: semantic label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.geometry.masks import decode_mask, rasterize, to_raw
from d2tune.annotations.io.outputs import beside, png_bytes, refuse_existing, write_output, write_output_json
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.annotations.model.types import RawRle, Rle
from d2tune.errors import DataError

IGNORE_LABEL = 255
"""The label of ignored pixels, which belong to no class: training and evaluation skip them."""


def paint(instances: Sequence[Instance], *, width_px: int, height_px: int) -> NDArray[np.int32]:
    """Which instance is on top at each pixel; later shapes cover earlier shapes.

    Args:
        instances: The instances of one image.
        width_px: Width of the image.
        height_px: Height of the image.

    Returns:
        Array ``(H, W)`` with the index into ``instances``, or -1 where there is none.
    """
    layers: list[tuple[int, int, RawRle]] = []
    for index, instance in enumerate(instances):
        layers += [(order, index, rle) for order, rle in _layers(instance, index, width_px, height_px)]
    top = np.full((height_px, width_px), -1, dtype=np.int32)
    for _, index, rle in sorted(layers, key=lambda layer: layer[:2]):
        top[decode_mask(rle)] = index
    return top


def _layers(instance: Instance, index: int, width_px: int, height_px: int) -> list[tuple[int, RawRle]]:
    """The parts of an instance with their positions in the order of the shapes."""
    last = instance.shapes[-1] if instance.shapes else index
    if isinstance(instance.segmentation, Rle):
        return [(order, to_raw(rle)) for order, rle in instance.layers or ((last, instance.segmentation),)]
    rles = rasterize(instance.segmentation, width_px=width_px, height_px=height_px)
    orders = instance.part_shapes or (last,) * len(rles)
    return list(zip(orders, rles, strict=True))


def semantic_map(dataset: Dataset, instances: Sequence[Instance], top: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Class labels ``(H, W)`` from a painted image: the index of the category from 0, or `IGNORE_LABEL`."""
    return _look_up([instance.category_id - 1 for instance in instances], top, dataset)


def separated_map(dataset: Dataset, instances: Sequence[Instance], top: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Labels ``(H, W)`` for Detectron2's panoptic FPN: 0 for things, 1 and up for stuff, or `IGNORE_LABEL`."""
    stuff = [category.id for category in dataset.categories if not category.isthing]
    label_of = {category_id: number for number, category_id in enumerate(stuff, start=1)}
    return _look_up([label_of.get(instance.category_id, 0) for instance in instances], top, dataset)


def _look_up(labels: Sequence[int], top: NDArray[np.int32], dataset: Dataset) -> NDArray[np.uint8]:
    """The label of the instance on top at each pixel ``(H, W)``."""
    if len(dataset.categories) > IGNORE_LABEL:
        raise DataError(
            "a label map holds at most 255 classes",
            found=str(len(dataset.categories)),
            hint="Exclude some of the labels.",
        )
    table: NDArray[Any] = np.array([*labels, IGNORE_LABEL], dtype=np.uint8)
    labeled: NDArray[np.uint8] = table[top]
    return labeled


def write(dataset: Dataset, out: Path, *, force: bool = False) -> list[Path]:
    """Write one gray PNG per image, and ``categories.json`` with the class of each gray value.

    Args:
        dataset: What to write.
        out: The folder; images keep their subfolders in it.
        force: Whether files that an earlier conversion wrote are replaced; others never are.

    Returns:
        The files written.

    Raises:
        DataError: A file is already there, or there are more than 255 classes.
    """
    places = beside(dataset.images, out, ".png")
    table = out / "categories.json"
    refuse_existing([*places.values(), table], force=force)
    groups = dataset.by_image()
    for image in dataset.images:
        instances = groups[image.id]
        top = paint(instances, width_px=image.width_px, height_px=image.height_px)
        write_output(places[image.id], png_bytes(semantic_map(dataset, instances, top)))
    rows = [
        {"label": category.id - 1, "name": category.name, "isthing": int(category.isthing)}
        for category in dataset.categories
    ]
    write_output_json(table, rows)
    return [*places.values(), table]
