"""Masks traced to polygons along the edges of their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import has_no_area
from d2tune.annotations.model.types import Mask, Points, Polygons

CORNERS_LIMIT = 1_000_000
"""A mask whose outlines have more corners is not traced."""

_PIXELS_AT_ONCE = 1 << 22


class RaggedMaskError(ValueError):
    """A mask with more than `CORNERS_LIMIT` corners, such as noise."""


def patch_outlines(patch: Patch) -> tuple[list[Points], list[Points]]:
    """Outer outlines and holes of a patch along the pixel edges, in image coordinates; see `mask_outlines`."""
    offset = np.array([patch.left_px, patch.top_px], dtype=np.float64)
    outer, holes = mask_outlines(patch.mask)
    return [part + offset for part in outer], [part + offset for part in holes]


def mask_outlines(mask: NDArray[Any]) -> tuple[list[Points], list[Points]]:
    """The outlines of a mask along its pixel edges.

    Pixels that share only a corner are separate; background that meets only at a corner is connected, so that an area
    of background that reaches the outside at a corner is not a hole.

    Args:
        mask: Pixels, shape ``(H, W)``.

    Returns:
        Outer outlines and holes, each polygon ``(V, 2)`` with its corners only, from the top row down.

    Raises:
        RaggedMaskError: There are more than `CORNERS_LIMIT` corners.
    """
    filled = np.asarray(mask, dtype=bool)
    x, y, is_rising = _corners(filled)
    second = np.concatenate([[False], (y[1:] == y[:-1]) & (x[1:] == x[:-1])]) if len(y) else np.zeros(0, dtype=bool)
    upward = np.where(is_rising, ~second, second)
    along_row = _partners(np.arange(len(y)))
    along_column = _partners(np.lexsort((upward, y, x)))
    return _walk(x, y, along_row, along_column, filled)


def _corners(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """The corners of outlines: columns, rows, and whether pixels meet from lower left to upper right, all ``(K,)``.

    Corners are in the order of the rows; a corner where two pixels meet occurs twice. The mask is processed in bands of
    rows, because the comparisons take several times its memory.
    """
    height, width = mask.shape
    rows_at_once = max(1, _PIXELS_AT_ONCE // (width + 2))
    corners: list[tuple[NDArray[Any], ...]] = []
    count = 0
    for top in range(0, height + 1, rows_at_once):
        stop = min(top + rows_at_once, height + 1)
        first, last = max(top - 1, 0), min(stop, height)
        padded = np.zeros((stop - top + 1, width + 2), dtype=bool)
        padded[first - top + 1 : last - top + 1, 1:-1] = mask[first:last]
        up_left, up_right = padded[:-1, :-1], padded[:-1, 1:]
        low_left, low_right = padded[1:, :-1], padded[1:, 1:]
        single = up_left ^ up_right ^ low_left ^ low_right
        falling = up_left & low_right & ~up_right & ~low_left
        rising = up_right & low_left & ~up_left & ~low_right
        y, x = np.nonzero(single | falling | rising)
        copies = 1 + (falling | rising)[y, x]
        count += int(copies.sum())
        if count > CORNERS_LIMIT:
            raise RaggedMaskError(f"the outlines of the mask have more than {CORNERS_LIMIT:,} corners")
        corners.append((np.repeat(x, copies), np.repeat(y + top, copies), np.repeat(rising[y, x], copies)))
    x, y, is_rising = (np.concatenate(values) for values in zip(*corners, strict=True))
    return x, y, is_rising


def _partners(order: NDArray[np.intp]) -> list[int]:
    """The corner at the opposite end of each edge, where the ends of edges follow each other in ``order``."""
    partner = np.empty(len(order), dtype=np.intp)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    pairs: list[int] = partner.tolist()
    return pairs


def _walk(
    x: NDArray[np.intp], y: NDArray[np.intp], along_row: list[int], along_column: list[int], mask: Mask
) -> tuple[list[Points], list[Points]]:
    """Follow row edges and column edges alternately from each corner that is not part of an outline yet."""
    seen = bytearray(len(along_row))
    outer: list[Points] = []
    holes: list[Points] = []
    for first in range(len(along_row)):
        if seen[first]:
            continue
        loop, corner = [], first
        while not seen[corner]:
            across = along_row[corner]
            seen[corner] = seen[across] = 1
            loop += [corner, across]
            corner = along_column[across]
        outline = np.stack([x[loop], y[loop]], axis=1).astype(np.float64)
        inside = y[first] < mask.shape[0] and x[first] < mask.shape[1] and mask[y[first], x[first]]
        (outer if inside else holes).append(outline)
    return outer, holes


def mask_to_polygons(mask: NDArray[Any], *, tolerance_px: float = 0.0) -> Polygons | None:
    """The outlines of a mask as polygons.

    Args:
        mask: Pixels, shape ``(H, W)``.
        tolerance_px: How far the outline may move (Douglas and Peucker, 1973); 0 keeps the pixel edges exactly.

    Returns:
        One polygon ``(V, 2)`` per part; None where the mask is too ragged or has a hole, which polygons cannot have.
    """
    try:
        outer, holes = mask_outlines(mask)
    except RaggedMaskError:
        return None
    if holes:
        return None
    if tolerance_px <= 0:
        return tuple(outer)
    return tuple(simplify(part, tolerance_px=tolerance_px) for part in outer)


def runs_along_pixels(points: Points) -> bool:
    """Whether a closed outline ``(V, 2)`` of more than four vertices runs along the edges of pixels, as of a mask."""
    steps = np.roll(points, -1, axis=0) - points
    return len(points) > 4 and bool(np.all(points == np.round(points)) and np.all((steps == 0).any(axis=1)))


def simplify(points: Points, *, tolerance_px: float) -> Points:
    """A closed polygon with fewer vertices; removed vertices are within ``tolerance_px`` of the new outline.

    The polygon is returned unchanged where the result would have no area.
    """
    far = int(np.argmax(np.sum((points - points[0]) ** 2, axis=1)))
    ring = np.concatenate([points, points[:1]])
    keep = np.zeros(len(ring), dtype=bool)
    keep[[0, far, len(points)]] = True
    stack = [(0, far), (far, len(points))]
    while stack:
        start, stop = stack.pop()
        if stop - start < 2:
            continue
        gaps = _gaps_px(ring[start + 1 : stop], ring[start], ring[stop])
        worst = int(np.argmax(gaps))
        if gaps[worst] > tolerance_px:
            middle = start + 1 + worst
            keep[middle] = True
            stack += [(start, middle), (middle, stop)]
    simpler = points[keep[:-1]]
    return points if has_no_area(simpler) else simpler


def _gaps_px(points: Points, start: Points, end: Points) -> NDArray[np.float64]:
    """Distances of points ``(V, 2)`` from the segment ``start`` to ``end``, shape ``(V,)``."""
    line = end - start
    length_squared = float(line @ line)
    share = np.clip((points - start) @ line / length_squared, 0, 1) if length_squared else np.zeros(len(points))
    gaps: NDArray[np.float64] = np.sqrt(np.sum((points - start - share[:, None] * line) ** 2, axis=1))
    return gaps
