"""The contact sheet of an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.io.photos.reading import read_photo_of
from d2tune.annotations.model.dataset import Dataset, Image, Instance
from d2tune.annotations.model.types import Rle
from d2tune.inference.results import CocoResult
from d2tune.metrics.coco.summary import SHOWN_SCORE
from d2tune.report.sheets.contact_sheet import Panel, write_contact_sheet

MOST_PANELS = 16
LONGEST_SIDE_PX = 1100
"""Images are reduced to this long side before drawing, because the panels are smaller."""


def write_images(path: Path, dataset: Dataset, results: Sequence[CocoResult], *, title: str, subtitle: str) -> None:
    """Write a PNG with ground truth beside predictions for up to 16 images, spread evenly over the dataset.

    Args:
        path: The PNG.
        dataset: The images and their ground truth.
        results: Rows in COCO's results format with masks; those with a score of at least `SHOWN_SCORE` are drawn.
        title: First line of the sheet.
        subtitle: Second line of the sheet.
    """
    chosen = chosen_images(len(dataset.images))
    by_image: dict[int, list[CocoResult]] = defaultdict(list)
    for result in results:
        if result["score"] >= SHOWN_SCORE:
            by_image[result["image_id"]].append(result)
    truth = dataset.by_image()
    names = {category.id: category.name for category in dataset.categories}
    panels = [
        _panel(image, truth[image.id], by_image[image.id], names)
        for image in (dataset.images[index] for index in chosen)
    ]
    write_contact_sheet(path, panels, title=title, subtitle=subtitle)


def chosen_images(images: int) -> list[int]:
    """Indices of up to 16 of this number of images, spread evenly."""
    indices: list[int] = np.unique(np.linspace(0, images - 1, MOST_PANELS).round().astype(int)).tolist()
    return indices


def _panel(image: Image, truth: Sequence[Instance], results: Sequence[CocoResult], names: dict[int, str]) -> Panel:
    photo = read_photo_of(image)
    factor = min(1.0, LONGEST_SIDE_PX / max(photo.shape[:2]))
    size = (max(1, round(photo.shape[1] * factor)), max(1, round(photo.shape[0] * factor)))
    return Panel(
        image_rgb=cv2.resize(photo, size, interpolation=cv2.INTER_AREA),
        title=image.file_name,
        truth_masks=_stack([instance_mask(instance, image) for instance in truth], size),
        truth_labels=[names[instance.category_id] for instance in truth],
        truth_crowds=[instance.iscrowd for instance in truth],
        predicted_masks=_stack([_decode(row["segmentation"]) for row in results], size),
        predicted_labels=[names[row["category_id"]] for row in results],
        predicted_scores=[row["score"] for row in results],
    )


def instance_mask(instance: Instance, image: Image) -> NDArray[np.bool_]:
    """The pixels ``(H, W)`` of an instance on its image."""
    size = (image.height_px, image.width_px)
    if isinstance(instance.segmentation, Rle):
        return _decode(instance.segmentation.to_coco())
    rles = mask_utils.frPyObjects([polygon.reshape(-1).tolist() for polygon in instance.segmentation], *size)
    return np.asarray(mask_utils.decode(mask_utils.merge(rles)), dtype=bool)


def _decode(rle: dict[str, Any]) -> NDArray[np.bool_]:
    return np.asarray(mask_utils.decode({**rle, "counts": rle["counts"].encode()}), dtype=bool)


def _stack(masks: list[NDArray[np.bool_]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The masks ``(N, height, width)``, resized to ``size`` (width, height)."""
    if not masks:
        return np.zeros((0, size[1], size[0]), dtype=bool)
    return np.stack([cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0 for mask in masks])
