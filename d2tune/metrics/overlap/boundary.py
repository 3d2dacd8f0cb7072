"""The boundary of a mask, as boundary IoU defines it.

Source: Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021. The boundary of a mask is the part of it that lies within ``d`` pixels of what is not mask;
beyond the edge of the image nothing is mask.
"""

from __future__ import annotations

import functools
import math
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DILATION_RATIO = 0.02
"""The paper's width of a boundary for COCO, as a share of the image's diagonal."""

Masks = TypeVar("Masks", NDArray[np.bool_], Tensor)


def boundary_width_px(height_px: int, width_px: int, *, dilation_ratio: float = DILATION_RATIO) -> int:
    """The paper's ``d``: the share of the image's diagonal in whole pixels, at least 1."""
    return max(1, round(dilation_ratio * math.sqrt(height_px**2 + width_px**2)))


def mask_boundary(masks: Masks, *, dilation_ratio: float = DILATION_RATIO) -> Masks:
    """The boundary of each mask: the mask without its erosion by ``d`` steps of a 3 x 3 square.

    Args:
        masks: ``(N, H, W)``, bool, one mask for each object (or class) on an image of ``H`` x ``W`` pixels; an array,
            or a tensor on any device.
        dilation_ratio: ``d`` as a share of the image's diagonal.

    Returns:
        ``(N, H, W)``, bool, on the same device.
    """
    width_px = boundary_width_px(*masks.shape[-2:], dilation_ratio=dilation_ratio)
    if isinstance(masks, Tensor):
        if masks.device.type != "cpu":
            return within(masks, width_px)
        return torch.from_numpy(_each_boundary(masks.numpy(), width_px))
    return _each_boundary(masks, width_px)


def _each_boundary(masks: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    boundaries = np.zeros(masks.shape, dtype=bool)
    for mask, boundary in zip(masks, boundaries, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size:
            window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            boundary[window] = crop_boundary(mask[window], width_px)
    return boundaries


def crop_boundary(crop: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """The boundary, ``width_px`` wide, of a mask that has no pixel outside ``crop`` ``(h, w)``."""
    side = 2 * width_px + 1
    if min(crop.shape) < side:  # no square of that side fits in: nothing survives the erosion
        return crop
    # one square of 2 d + 1 pixels erodes as d squares of 3 x 3 do, one after the other
    eroded = cv2.erode(
        np.ascontiguousarray(crop).view(np.uint8),
        _square(side),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0,),
    )
    return crop & ~eroded.view(bool)


@functools.lru_cache(maxsize=8)
def _square(side: int) -> NDArray[np.uint8]:
    return np.ones((side, side), np.uint8)


def within(masks: Tensor, width_px: int) -> Tensor:
    """What :func:`crop_boundary` gives, for ``(N, h, w)`` bool masks at once and on any device."""
    side = 2 * width_px + 1
    if min(masks.shape[-2:]) < side:
        return masks.clone()
    boundaries = masks.clone()
    # all pixels of the square are set: this holds for its center alone, so the result is smaller by d on each edge
    inner = _all_in_window(_all_in_window(masks, side, 1), side, 2)
    boundaries[:, width_px:-width_px, width_px:-width_px] &= ~inner
    return boundaries


def _all_in_window(masks: Tensor, length: int, dim: int) -> Tensor:
    """Whether ``length`` neighbors along ``dim`` are all set, for each place where so many fit in.

    The window doubles with every step, so that a wide one costs only a few.
    """
    reached = 1
    while reached < length:
        step = min(reached, length - reached)
        size = masks.shape[dim] - step
        masks = masks.narrow(dim, 0, size) & masks.narrow(dim, step, size)
        reached += step
    return masks
