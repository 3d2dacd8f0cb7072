"""From a box-sized mask to run lengths on the whole image, without a bitmap of the whole image.

Detectron2 pastes each mask into an image-sized bitmap and encodes it. On a photo of 2048 px with 100 detections this
takes about as long as the network. Here only the pixels of the box are computed, by the same bilinear sampling in the
same single-precision steps, and the run lengths of the image follow from them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

THRESHOLD = 0.5
_BLOCK = 64
"""Columns of pixels that are computed together: a fifth of the time of all at once for a box of 900 x 700 px."""
_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(0.5)


def paste_rle(
    probabilities: NDArray[np.float32], box_xyxy: NDArray[np.float32], *, height_px: int, width_px: int
) -> dict[str, Any]:
    """The mask of one detection on its image.

    Args:
        probabilities: ``(M, M)``, probability of the object over the box.
        box_xyxy: ``(4,)``, the box in pixels of the image, not empty.
        height_px: Height of the image.
        width_px: Width of the image.

    Returns:
        COCO's compressed RLE, ``{"size": [height, width], "counts": str}``.
    """
    x0, y0, x1, y1 = box_xyxy
    left, top = max(math.floor(x0) - 1, 0), max(math.floor(y0) - 1, 0)
    right, bottom = min(math.ceil(x1) + 1, width_px), min(math.ceil(y1) + 1, height_px)
    rows, row_weights = _samples(top, bottom, y0, y1, len(probabilities))
    columns, column_weights = _samples(left, right, x0, x1, len(probabilities))
    padded = np.pad(probabilities, 1)
    between = padded[rows] * (_ONE - row_weights)[:, None]
    between += padded[rows + 1] * row_weights[:, None]
    crop = _columns(np.ascontiguousarray(between.T), columns, column_weights[:, None])
    return encode_crop(crop.T, left, top, height_px=height_px, width_px=width_px)


def _columns(
    between: NDArray[np.float32], columns: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Where the mask is, transposed: ``(w, h)``, in blocks that stay in the processor's cache.

    Args:
        between: ``(M + 2, h)``, probabilities at the rows of pixels and the padded cells of the mask's columns.
        columns: ``(w,)``, the cell before each pixel.
        weights: ``(w, 1)``, the weight of the next cell.
    """
    crop = np.empty((len(columns), between.shape[1]), dtype=bool)
    here, following = np.empty((2, _BLOCK, between.shape[1]), dtype=np.float32)
    for start in range(0, len(columns), _BLOCK):
        block = slice(start, start + _BLOCK)
        some, share = columns[block], weights[block]
        low, high = here[: len(some)], following[: len(some)]
        # without "clip", take() copies through a buffer
        np.take(between, some, axis=0, out=low, mode="clip")
        np.take(between, some + 1, axis=0, out=high, mode="clip")
        low *= _ONE - share
        high *= share
        low += high
        np.greater_equal(low, THRESHOLD, out=crop[block])
    return crop


def _samples(
    start: int, stop: int, low: np.float32, high: np.float32, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions of the centers of pixels ``start`` to ``stop`` in the cells of a mask from ``low`` to ``high``.

    The steps are those of torch's ``grid_sample`` without aligned corners, each in single precision.

    Returns:
        For each pixel the index of the cell before it, where 0 is the padding before the mask, and the weight of the
        next cell.
    """
    centers = np.arange(start, stop, dtype=np.float32) + _HALF
    grid = (centers - low) / (high - low) * _TWO - _ONE
    positions = ((grid + _ONE) * np.float32(cells) - _ONE) / _TWO
    before = np.floor(positions)
    weights = positions - before
    is_outside = (before < -1) | (before >= cells)
    return np.where(is_outside, -1, before).astype(np.int64) + 1, np.where(is_outside, np.float32(0), weights)


def encode_crop(crop: NDArray[np.bool_], left: int, top: int, *, height_px: int, width_px: int) -> dict[str, Any]:
    """COCO's compressed RLE of a mask that is ``crop`` ``(h, w)`` at ``left``, ``top`` and false elsewhere."""
    h, w = crop.shape
    columns = np.zeros((w, height_px), dtype=bool)
    columns[:, top : top + h] = crop.T
    changes = np.flatnonzero(np.diff(columns.reshape(-1), prepend=False, append=False)) + left * height_px
    edges = [0, *changes.tolist()]
    if edges[-1] != height_px * width_px:
        edges.append(height_px * width_px)
    size = {"size": [height_px, width_px], "counts": np.diff(edges).tolist()}
    rle = mask_utils.frPyObjects(size, height_px, width_px)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
