"""A network whose detections are exact: it detects connected regions of one color in its input.

The color of an object is ``(class + 1, number, shade)``; the background is ``(0, 0, 0)``. Two objects that touch have
different numbers, and a window sees of an object exactly the pixels that it has there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from scipy import ndimage

Scene = NDArray[np.uint8]


class ColorNetwork:
    """A callable with the inputs and outputs of a Detectron2 model; remembers the sizes of its inputs.

    The score of a detection is between 0.5 and 1: the more pixels it has, the higher.
    """

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.batches: list[int] = []

    def __call__(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batches.append(len(samples))
        return [{"instances": self._detect(sample)} for sample in samples]

    def _detect(self, sample: dict[str, Any]) -> Instances:
        pixels = sample["image"].numpy().transpose(1, 2, 0)
        self.sizes.append(pixels.shape[:2])
        size_hw = sample["height"], sample["width"]
        regions = regions_of(enlarged(pixels, size_hw))
        masks = np.stack([mask for _, mask in regions]) if regions else np.zeros((0, *size_hw), bool)
        edges = [(np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))) for mask in masks]
        boxes = [(x[0], y[0], x[-1] + 1, y[-1] + 1) for x, y in edges]
        instances = Instances(size_hw)
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        areas = torch.from_numpy(masks.sum(axis=(1, 2))).double()
        instances.scores = (1 - 0.5 / (1 + areas / 1000)).float()
        instances.pred_classes = torch.tensor([class_id for class_id, _ in regions], dtype=torch.int64)
        instances.pred_masks = torch.from_numpy(masks)
        return instances


def regions_of(scene: Scene) -> list[tuple[int, NDArray[np.bool_]]]:
    """Class and mask of each connected region of one color."""
    values = scene.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    regions = []
    for value in np.unique(values[values > 0]).tolist():
        labels, count = ndimage.label(values == value, structure=np.ones((3, 3)))
        regions += [((value >> 16) - 1, labels == number) for number in range(1, count + 1)]
    return regions


def enlarged(pixels: Scene, size_hw: tuple[int, int]) -> Scene:
    """The nearest pixel of the input for each pixel of the image."""
    rows, columns = (
        ((np.arange(side) + 0.5) * own / side).astype(int) for side, own in zip(size_hw, pixels.shape[:2], strict=True)
    )
    near: Scene = pixels[rows][:, columns]
    return near


def scene(height_px: int, width_px: int) -> Scene:
    """An empty image."""
    return np.zeros((height_px, width_px, 3), np.uint8)


def draw_rectangle(image: Scene, box: tuple[int, int, int, int], *, number: int = 1, class_id: int = 0) -> None:
    """Fill a rectangle: left, top, right, bottom."""
    left, top, right, bottom = box
    image[top:bottom, left:right] = (class_id + 1, number, 7)


def draw_disc(image: Scene, x: float, y: float, radius: float, *, number: int = 1, class_id: int = 0) -> None:
    """Fill a disc."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    image[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = (class_id + 1, number, 7)
