"""Instances of one image pasted into another (Ghiasi et al. 2021, "Simple Copy-Paste", arXiv 2012.07177).

Label maps have no instances: there the pixels of a class are pasted (Olsson et al. 2021, "ClassMix", arXiv 2007.07936).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from detectron2.structures import BoxMode
from detectron2.structures.masks import polygons_to_bitmask
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL

MOST_PASTED = 8
"""The most instances that are pasted into an image."""

LEAST_VISIBLE = 0.2
"""Instances of which less than this share stays visible under what is pasted are no longer annotated."""

EDGE_SIGMA_PX = 1.0
"""Standard deviation of the Gaussian under which the edge of a pasted instance is blended."""

_MARGIN_PX = 4

Mask = NDArray[np.bool_]
"""``(H, W)``."""


@dataclass(frozen=True, slots=True)
class CutOut:
    """An instance of an image with the pixels around it.

    Attributes:
        pixels: ``(h, w, 3)``.
        mask: ``(h, w)``: the pixels of the instance.
        category_id: Its class.
    """

    pixels: NDArray[np.uint8]
    mask: Mask
    category_id: int


@dataclass(frozen=True, slots=True)
class Pasted:
    """An image with instances of another one in it.

    Attributes:
        image: ``(H, W, 3)``.
        annotations: Of all that is visible, with masks ``(H, W)``: those of the image, and then those that were pasted.
        masks: Of the pasted ones as they are visible, in the order of ``annotations``.
    """

    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]]
    masks: list[Mask]


def cut_outs(
    image: NDArray[np.uint8], annotations: Sequence[dict[str, Any]], *, rng: np.random.Generator
) -> list[CutOut]:
    """A random half of the instances of an image, at least one and at most `MOST_PASTED`.

    Args:
        image: ``(H, W, 3)``.
        annotations: Detectron2 annotations of the image, with polygons or masks ``(H, W)``.
        rng: Chooses.
    """
    taken = [annotation for annotation in annotations if rng.random() < 0.5]
    if annotations and not taken:
        taken = [annotations[int(rng.integers(len(annotations)))]]
    return list(_cut(image, taken[:MOST_PASTED]))


def _cut(image: NDArray[np.uint8], annotations: Sequence[dict[str, Any]]) -> Iterator[CutOut]:
    for annotation in annotations:
        mask = mask_of(annotation, (image.shape[0], image.shape[1]))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            continue
        inside = (
            slice(max(0, rows[0] - _MARGIN_PX), rows[-1] + 1 + _MARGIN_PX),
            slice(max(0, columns[0] - _MARGIN_PX), columns[-1] + 1 + _MARGIN_PX),
        )
        yield CutOut(image[inside], mask[inside], annotation["category_id"])


def mask_of(annotation: dict[str, Any], size_hw: tuple[int, int]) -> Mask:
    """The pixels of a Detectron2 annotation with polygons or a mask ``(H, W)``."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, np.ndarray):
        return np.asarray(segmentation, dtype=bool)
    rings = [np.asarray(ring, dtype=np.float64) for ring in segmentation]
    return np.asarray(polygons_to_bitmask(rings, *size_hw), dtype=bool)


def paste(
    image: NDArray[np.uint8],
    annotations: Sequence[dict[str, Any]],
    given: Sequence[CutOut],
    *,
    rng: np.random.Generator,
) -> Pasted:
    """An image with instances of another one at random places, each one above those before it.

    The centers of their boxes lie inside the image; what is outside is cut. Masks of the image lose the pixels that are
    covered, and instances that are hidden but for a share of `LEAST_VISIBLE` are no longer annotated.

    Args:
        image: ``(H, W, 3)``, not changed.
        annotations: Its annotations, with polygons or masks ``(H, W)``.
        given: What is pasted.
        rng: Draws the places.
    """
    size_hw = image.shape[0], image.shape[1]
    blended = image.astype(np.float32)
    pasted: list[Mask] = []
    for one in given:
        pasted.append(_paste_one(blended, one, rng))
    covered = np.zeros(size_hw, dtype=bool)
    visible: list[dict[str, Any]] = []
    masks: list[Mask] = []
    for one, mask in zip(reversed(given), reversed(pasted), strict=True):
        shown = _shown(mask, covered)
        covered |= mask
        if shown is not None:
            visible.insert(0, _annotation({"category_id": one.category_id, "iscrowd": 0}, shown))
            masks.insert(0, shown)
    kept = []
    for annotation in annotations:
        shown = _shown(mask_of(annotation, size_hw), covered)
        if shown is not None:
            kept.append(_annotation(annotation, shown))
    return Pasted(np.rint(blended).clip(0, 255).astype(np.uint8), [*kept, *visible], masks)


def _paste_one(image: NDArray[np.float32], one: CutOut, rng: np.random.Generator) -> Mask:
    """Blend an instance into an image at a random place, and return its pixels there."""
    height, width = one.mask.shape
    size_hw = image.shape[0], image.shape[1]
    top = int(rng.integers(size_hw[0])) - height // 2
    left = int(rng.integers(size_hw[1])) - width // 2
    rows = slice(max(0, top), min(size_hw[0], top + height))
    columns = slice(max(0, left), min(size_hw[1], left + width))
    inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    share = cv2.GaussianBlur(one.mask.astype(np.float32), (0, 0), EDGE_SIGMA_PX)[inside][:, :, None]
    image[rows, columns] += share * (one.pixels[inside] - image[rows, columns])
    mask = np.zeros(size_hw, dtype=bool)
    mask[rows, columns] = one.mask[inside]
    return mask


def _shown(mask: Mask, covered: Mask) -> Mask | None:
    """The pixels of a mask that are not covered; None where they are too few."""
    shown: Mask = mask & ~covered
    area_px2 = int(shown.sum())
    return shown if area_px2 and area_px2 >= LEAST_VISIBLE * mask.sum() else None


def _annotation(annotation: dict[str, Any], mask: Mask) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
    return {**annotation, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "segmentation": mask}


def paste_class(
    image: NDArray[Any],
    labels: NDArray[np.uint8],
    given: NDArray[Any],
    given_labels: NDArray[np.uint8],
    *,
    background: int | None,
    rng: np.random.Generator,
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """An image with the pixels that a random class has in another one, at the same place; edges of photos are blended.

    Args:
        image: ``(H, W, C)``, not changed.
        labels: ``(H, W)``: its class indices, 255 for ignored pixels.
        given: ``(h, w, C)``, of the same type as ``image``.
        given_labels: ``(h, w)``.
        background: A class that is not pasted.
        rng: Chooses the class.
    """
    height, width = min(image.shape[0], given.shape[0]), min(image.shape[1], given.shape[1])
    of_given = given_labels[:height, :width]
    classes = [int(one) for one in np.unique(of_given) if one not in (IGNORE_LABEL, background)]
    if not classes:
        return image, labels
    mask = of_given == classes[rng.integers(len(classes))]
    mixed, mixed_labels = image.copy(), labels.copy()
    mixed_labels[:height, :width][mask] = of_given[mask]
    target, pixels = mixed[:height, :width], given[:height, :width]
    if image.dtype == np.uint8:
        share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), EDGE_SIGMA_PX)[:, :, None]
        blended = target + share * (pixels.astype(np.float32) - target)
        mixed[:height, :width] = np.rint(blended).clip(0, 255).astype(np.uint8)
    else:
        target[mask] = pixels[mask]
    return mixed, mixed_labels
