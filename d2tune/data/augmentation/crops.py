"""Random rectangles of images that cut no instance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from d2tune.data.rectangles import PatchPlace

LEAST_CROP_SHARE = 0.4
"""Smallest share of the height and of the width of an image that a crop takes."""

_Sides = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels; the pixels at right and bottom are outside."""


def whole_crop(
    annotations: Sequence[dict[str, Any]], size_hw: tuple[int, int], *, rng: np.random.Generator
) -> PatchPlace:
    """A random rectangle with whole instances: each one of the image is in it with its whole box, or outside.

    A random instance is in it. Where the rectangle would cut others, it grows until it holds them. In an image without
    instances every place is equally likely.

    Args:
        annotations: Detectron2 annotations of the image, with ``bbox`` as ``XYXY_ABS``.
        size_hw: Height and width of the image, in pixels.
        rng: Draws size and place.
    """
    height_px, width_px = size_hw
    boxes = [_pixels_of(annotation["bbox"], size_hw) for annotation in annotations]
    shares = rng.uniform(LEAST_CROP_SHARE, 1.0, size=2)
    sides = max(1, round(width_px * shares[0])), max(1, round(height_px * shares[1]))
    kept = boxes[rng.integers(len(boxes))] if boxes else None
    left, right = _interval(sides[0], width_px, (kept[0], kept[2]) if kept else None, rng)
    top, bottom = _interval(sides[1], height_px, (kept[1], kept[3]) if kept else None, rng)
    left, top, right, bottom = _grown((left, top, right, bottom), boxes)
    return PatchPlace(top, left, bottom - top, right - left)


def _pixels_of(box: Sequence[float], size_hw: tuple[int, int]) -> _Sides:
    """The pixels that a box touches."""
    left, top, right, bottom = box
    return (
        max(0, math.floor(left)),
        max(0, math.floor(top)),
        min(size_hw[1], math.ceil(right)),
        min(size_hw[0], math.ceil(bottom)),
    )


def _interval(side_px: int, most_px: int, kept: tuple[int, int] | None, rng: np.random.Generator) -> tuple[int, int]:
    """A random interval of a length, or longer, that contains another one."""
    if kept is None:
        first = int(rng.integers(most_px - side_px + 1))
        return first, first + side_px
    side_px = max(side_px, kept[1] - kept[0])
    least, most = max(0, kept[1] - side_px), min(kept[0], most_px - side_px)
    first = int(rng.integers(least, max(least, most) + 1))
    return first, first + side_px


def _grown(crop: _Sides, boxes: Sequence[_Sides]) -> _Sides:
    """The smallest rectangle around another one that cuts no box."""
    while True:
        touched = [box for box in boxes if _overlap(crop, box)]
        corners = [crop, *touched]
        larger = (
            min(one[0] for one in corners),
            min(one[1] for one in corners),
            max(one[2] for one in corners),
            max(one[3] for one in corners),
        )
        if larger == crop:
            return crop
        crop = larger


def _overlap(one: _Sides, other: _Sides) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
