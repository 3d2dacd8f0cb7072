"""Measures of a mask in pixels: area, lengths and perimeter, for people who count and measure what is on an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import contourpy
import cv2
import numpy as np
from numpy.typing import NDArray

SMOOTHING_PX = 0.7
"""Standard deviation of the Gaussian that a mask is smoothed with before its outline is taken."""

_MARGIN_PX = 4
_THIN_PX = 3.0


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of a mask; coordinates count from the top left corner of the image.

    Attributes:
        area_px2: Number of its pixels.
        perimeter_px: Length of its outlines, holes included.
        length_px: Long side of the smallest rectangle around it, at any angle.
        width_px: Short side of this rectangle.
        angle_deg: Direction of the long side against the x axis, from 0 to 180, clockwise on the image.
        feret_px: Largest distance between two points of its outline (maximum Feret diameter).
        x_px: Column of the center of mass.
        y_px: Row of the center of mass.
    """

    area_px2: int
    perimeter_px: float
    length_px: float
    width_px: float
    angle_deg: float
    feret_px: float
    x_px: float
    y_px: float

    @property
    def diameter_px(self) -> float:
        """Diameter of the circle with the same area, ``2 sqrt(area / pi)``."""
        return 2 * math.sqrt(self.area_px2 / math.pi)

    @property
    def circularity(self) -> float:
        """``4 pi area / perimeter^2``: 1 for a circle, 0.785 for a square; at most 1."""
        return min(1.0, 4 * math.pi * self.area_px2 / self.perimeter_px**2)


def measure(mask: NDArray[np.bool_], *, left_px: int = 0, top_px: int = 0) -> Measures:
    """Measure a mask.

    The outline is that of the mask smoothed by `SMOOTHING_PX`, where the smoothed mask is a half: the edges of upright
    rectangles stay where they are, and staircases become slanted edges, whose length a count of pixels overestimates.
    The lengths of upright rectangles and of masks that are thinner than three pixels are those of the corners of their
    pixels, and their perimeter is that of the rectangle.

    Args:
        mask: ``(h, w)``, part of the image, with at least one pixel.
        left_px: Column of the part in the image.
        top_px: Row of the part in the image.

    Raises:
        ValueError: The mask is empty.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise ValueError("the mask is empty")
    corners = _corners(rows, columns)
    outlines = _outlines(mask)
    is_upright = len(rows) == int(np.ptp(rows) + 1) * int(np.ptp(columns) + 1)
    by_corners = is_upright or not outlines or min(cv2.minAreaRect(corners)[1]) < _THIN_PX
    points = corners if by_corners else np.concatenate(outlines).astype(np.float32)
    length_px, width_px, angle_deg = _rectangle(points)
    perimeter_px = 2 * (length_px + width_px) if by_corners else sum(_length(outline) for outline in outlines)
    return Measures(
        area_px2=len(rows),
        perimeter_px=perimeter_px,
        length_px=length_px,
        width_px=width_px,
        angle_deg=angle_deg,
        feret_px=_feret(points),
        x_px=left_px + float(columns.mean()) + 0.5,
        y_px=top_px + float(rows.mean()) + 0.5,
    )


def _corners(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
    """The corners of the first and last pixel of each row of a mask, ``(P, 2)`` as x, y."""
    height = int(rows.max()) + 1
    first, last = np.full(height, np.iinfo(np.int64).max), np.full(height, -1)
    np.minimum.at(first, rows, columns)
    np.maximum.at(last, rows, columns)
    there = np.flatnonzero(last >= 0)
    sides = [(first[there], there), (first[there], there + 1), (last[there] + 1, there), (last[there] + 1, there + 1)]
    return np.concatenate([np.stack(side, axis=1) for side in sides]).astype(np.float32)


def _outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The closed outlines ``(V, 2)`` of the smoothed mask, as x, y from the corner of the mask's first pixel."""
    padded = np.pad(mask.astype(np.float32), _MARGIN_PX)
    smooth = cv2.GaussianBlur(padded, (0, 0), SMOOTHING_PX)
    lines = contourpy.contour_generator(z=smooth).lines(0.5)
    return [np.asarray(line, np.float64) + 0.5 - _MARGIN_PX for line in lines]


def _length(outline: NDArray[np.float64]) -> float:
    return float(np.hypot(*np.diff(outline, axis=0).T).sum())


def _rectangle(points: NDArray[np.float32]) -> tuple[float, float, float]:
    """Long side, short side and direction of the smallest rectangle around points."""
    _, (a, b), turned = cv2.minAreaRect(points)
    return (a, b, turned % 180) if a >= b else (b, a, (turned + 90) % 180)


def _feret(points: NDArray[np.float32]) -> float:
    """The largest distance between points, which two corners of their convex hull have."""
    hull = cv2.convexHull(points)[:, 0, :].astype(np.float64)
    return float(max(np.hypot(*(hull - corner).T).max() for corner in hull))
