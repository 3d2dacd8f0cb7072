"""Masks of detections cut to their boxes, and the pixels that moved masks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2tune.inference.results import Detections
from d2tune.metrics.overlap.run_lengths import crops


@dataclass(frozen=True, slots=True, eq=False)
class MaskCrop:
    """The part of a mask inside its box.

    Attributes:
        left: Column of the image at which the crop begins.
        top: Row of the image at which it begins.
        pixels: ``(h, w)`` bool; no pixels for an empty mask.
        area_px2: Number of the pixels of the mask.
        center_px: ``(2,)``, x and y of the center of mass, in pixels of the image.
    """

    left: int
    top: int
    pixels: NDArray[np.bool_]
    area_px2: int
    center_px: NDArray[np.float64]

    @property
    def size_px(self) -> float:
        """Square root of the area, at least 1."""
        return max(1.0, math.sqrt(self.area_px2))


def crops_of(detections: Detections) -> list[MaskCrop]:
    """The mask of each detection cut to its box; the box itself for models without masks."""
    if detections.rles is None:
        return [_box(row, detections) for row in np.rint(detections.boxes_xyxy).astype(int)]
    cut = crops([rle.to_coco() for rle in detections.rles])
    return [_crop(pixels.T, left, top) for pixels, left, top in cut]


def _box(corners: NDArray[np.int64], detections: Detections) -> MaskCrop:
    left, top = max(int(corners[0]), 0), max(int(corners[1]), 0)
    right, bottom = min(int(corners[2]), detections.width_px), min(int(corners[3]), detections.height_px)
    return _crop(np.ones((max(bottom - top, 0), max(right - left, 0)), bool), left, top)


def _crop(pixels: NDArray[np.bool_], left: int, top: int) -> MaskCrop:
    area_px2 = int(np.count_nonzero(pixels))
    if not area_px2:
        center = np.array([left, top], np.float64)
    else:
        columns, rows = pixels.sum(axis=0), pixels.sum(axis=1)
        x = float(columns @ (np.arange(len(columns)) + 0.5)) / area_px2
        y = float(rows @ (np.arange(len(rows)) + 0.5)) / area_px2
        center = np.array([left + x, top + y])
    return MaskCrop(left, top, pixels, area_px2, center)


def shared_px2(masks: Sequence[MaskCrop], moves_px: NDArray[np.int64], others: Sequence[MaskCrop]) -> NDArray[np.int64]:
    """The number of pixels that moved masks share with others, ``(M, N)``.

    Args:
        masks: M masks.
        moves_px: ``(M, 2)``, by how many columns and rows each of them is moved.
        others: N masks.
    """
    shared = np.zeros((len(masks), len(others)), np.int64)
    if not masks or not others:
        return shared
    starts, stops = _spans(masks)
    other_starts, other_stops = _spans(others)
    starts, stops = starts + moves_px, stops + moves_px
    begin = np.maximum(starts[:, None], other_starts[None])
    end = np.minimum(stops[:, None], other_stops[None])
    for row, column in np.argwhere((end > begin).all(axis=2)).tolist():
        (x, y), (stop_x, stop_y) = begin[row, column].tolist(), end[row, column].tolist()
        a_x, a_y = starts[row].tolist()
        b_x, b_y = other_starts[column].tolist()
        shared[row, column] = np.count_nonzero(
            masks[row].pixels[y - a_y : stop_y - a_y, x - a_x : stop_x - a_x]
            & others[column].pixels[y - b_y : stop_y - b_y, x - b_x : stop_x - b_x]
        )
    return shared


def _spans(masks: Sequence[MaskCrop]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Left and top, and right and bottom of each mask, ``(M, 2)`` each."""
    starts = np.array([(mask.left, mask.top) for mask in masks], np.int64)
    sizes = np.array([(mask.pixels.shape[1], mask.pixels.shape[0]) for mask in masks], np.int64)
    return starts, starts + sizes
