"""The boundary of a mask, as boundary IoU defines it.

Source: Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021. The boundary of a mask is the set of its pixels within ``d`` pixels of what is not mask; outside
the image nothing is mask.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

DILATION_RATIO = 0.02
"""The paper's width of a boundary for COCO, as a share of the image's diagonal."""


def boundary_width_px(height_px: int, width_px: int, *, dilation_ratio: float = DILATION_RATIO) -> int:
    """The paper's ``d``: the share of the image's diagonal in whole pixels, at least 1."""
    return max(1, round(dilation_ratio * math.sqrt(height_px**2 + width_px**2)))


def crop_boundary(crop: NDArray[np.bool_], width_px: int) -> NDArray[np.bool_]:
    """The boundary, ``width_px`` wide, of a mask that has no pixel outside ``crop``; ``(h, w)`` both."""
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
    boundary: NDArray[np.bool_] = crop & ~eroded.view(np.bool_)
    return boundary


@functools.lru_cache(maxsize=8)
def _square(side: int) -> NDArray[np.uint8]:
    return np.ones((side, side), np.uint8)
