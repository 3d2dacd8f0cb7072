"""Which parts of a group lie inside other parts, without comparing all pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycocotools.mask as coco_mask  # type: ignore[import-untyped,unused-ignore]

from d2tune.annotations.model.types import RawRle

PAIRS_LIMIT = 100_000
"""How many pairs of parts, the box of one inside the box of the second, are compared pixel by pixel."""

NEIGHBORS_LIMIT = 100 * PAIRS_LIMIT
"""How many pairs of parts with overlapping boxes are tested."""

_PAIRS_AT_ONCE = 1_000_000


class CrowdedGroupError(ValueError):
    """A group with more parts on top of one another than can be compared."""


def nesting(rles: Sequence[RawRle], areas_px: Sequence[float]) -> list[list[int]]:
    """For each part, the ascending indices of those that it lies inside of; of two equal parts the later lies inside.

    Args:
        rles: The masks of the parts, all of one image.
        areas_px: Their numbers of pixels.

    Raises:
        CrowdedGroupError: More than `PAIRS_LIMIT` pairs would have to be compared, or more than `NEIGHBORS_LIMIT`
            pairs of boxes overlap.
    """
    around: list[list[int]] = [[] for _ in rles]
    if len(rles) < 2:
        return around
    import shapely  # takes 40 ms, and few files have groups

    boxes = coco_mask.toBbox(list(rles))
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    areas = np.asarray(areas_px)
    rectangles = shapely.box(*low.T, *high.T)
    tree = shapely.STRtree(rectangles)
    pairs = neighbors = 0
    at_once = max(1, _PAIRS_AT_ONCE // len(rles))
    for start in range(0, len(rles), at_once):
        inner, outer = tree.query(rectangles[start : start + at_once])
        inner += start
        is_larger = (areas[outer] > areas[inner]) | ((areas[outer] == areas[inner]) & (outer < inner))
        fits = is_larger & (low[outer] <= low[inner]).all(axis=1) & (high[outer] >= high[inner]).all(axis=1)
        neighbors += len(inner)
        inner, outer = inner[fits], outer[fits]
        pairs += len(inner)
        if pairs > PAIRS_LIMIT or neighbors > NEIGHBORS_LIMIT:
            raise CrowdedGroupError(f"the group has {len(rles)} parts, of which too many overlap")
        for index in np.unique(inner).tolist():
            members = np.sort(outer[inner == index])
            # with "crowd", the overlap is divided by the area of the inner part alone
            shares = coco_mask.iou([rles[index]], [rles[member] for member in members.tolist()], [1] * len(members))
            around[index] = members[shares[0] >= 1.0].tolist()
    return around
