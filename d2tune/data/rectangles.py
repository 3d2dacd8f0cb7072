"""Rectangles of training images with the objects in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PatchPlace:
    """A rectangle of an image, in pixels.

    Attributes:
        top_px: Its first row.
        left_px: Its first column.
        height_px: Its rows.
        width_px: Its columns.
    """

    top_px: int
    left_px: int
    height_px: int
    width_px: int

    def cut(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The rectangle of an array ``(H, W, ...)``, not copied."""
        return pixels[self.top_px : self.top_px + self.height_px, self.left_px : self.left_px + self.width_px]

    def shifted(self, annotation: dict[str, Any]) -> dict[str, Any] | None:
        """A Detectron2 annotation of the image as one of the rectangle; None where its box is outside.

        Polygons keep what is outside, which vanishes where they are drawn; a mask ``(H, W)`` is cut.

        Args:
            annotation: With ``bbox`` as ``XYXY_ABS``.
        """
        left, top, right, bottom = (float(value) for value in annotation["bbox"])
        left, right = left - self.left_px, right - self.left_px
        top, bottom = top - self.top_px, bottom - self.top_px
        if right <= 0 or bottom <= 0 or left >= self.width_px or top >= self.height_px:
            return None
        box = [max(0.0, left), max(0.0, top), min(float(self.width_px), right), min(float(self.height_px), bottom)]
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, np.ndarray):
            inside: Any = np.ascontiguousarray(self.cut(segmentation))
        else:
            corner = np.array([self.left_px, self.top_px], dtype=np.float64)
            inside = [(np.asarray(ring).reshape(-1, 2) - corner).reshape(-1) for ring in segmentation]
        return {**annotation, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "segmentation": inside}


def patch_place(
    annotations: Sequence[dict[str, Any]],
    size_hw: tuple[int, int],
    *,
    patch_hw: tuple[int, int],
    balance: float,
    rng: np.random.Generator,
) -> PatchPlace:
    """Where a rectangle is cut out of an image.

    With the probability ``balance`` it contains the center of a random object, of a class that is drawn first, each
    class of the image equally often; otherwise every place is equally likely.

    Args:
        annotations: Detectron2 annotations of the image, with ``bbox`` as ``XYXY_ABS``.
        size_hw: Height and width of the image, in pixels.
        patch_hw: Height and width of the rectangle, which are smaller only where those of the image are.
        balance: From 0 to 1.
        rng: Draws the place.
    """
    sides = min(patch_hw[0], size_hw[0]), min(patch_hw[1], size_hw[1])
    room = size_hw[0] - sides[0], size_hw[1] - sides[1]
    if annotations and rng.random() < balance:
        classes = sorted({annotation["category_id"] for annotation in annotations})
        chosen = classes[rng.integers(len(classes))]
        of_class = [annotation for annotation in annotations if annotation["category_id"] == chosen]
        left, top, right, bottom = of_class[rng.integers(len(of_class))]["bbox"]
        center = (top + bottom) / 2, (left + right) / 2
        corners = [
            int(np.clip(round(middle - rng.random() * side), 0, most))
            for middle, side, most in zip(center, sides, room, strict=True)
        ]
    else:
        corners = [int(rng.integers(most + 1)) for most in room]
    return PatchPlace(corners[0], corners[1], *sides)
