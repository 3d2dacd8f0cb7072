"""Which parts of a group lie inside which others, without comparing all with all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pycocotools.mask as coco_mask  # type: ignore[import-untyped,unused-ignore]

from d2tune.annotations.model.types import RawRle

PAIRS_LIMIT = 100_000
"""So many pairs of parts, the box of one inside that of the other, are compared pixel by pixel."""

NEIGHBOURS_LIMIT = 100 * PAIRS_LIMIT
"""So many pairs of parts that may overlap have their boxes compared."""


class CrowdedGroupError(ValueError):
    """A group with more parts on top of one another than can be compared."""


def nesting(rles: Sequence[RawRle], areas_px: Sequence[float]) -> list[list[int]]:
    """For each part, the ascending indices of those that it lies inside of; of two equal parts the later lies inside.

    Parts are sorted into grids of cells, one grid for each power of two of their width and height, so that what
    surrounds a part is found in the four cells of each grid that reach its corner.

    Args:
        rles: The masks of the parts, all of one image.
        areas_px: Their numbers of pixels.

    Raises:
        CrowdedGroupError: More than `PAIRS_LIMIT` pairs would have to be compared.
    """
    around: list[list[int]] = [[] for _ in rles]
    if len(rles) < 2:
        return around
    boxes = coco_mask.toBbox(list(rles)).astype(np.int64)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    levels = np.ceil(np.log2(np.maximum(boxes[:, 2:], 1))).astype(np.int64)
    cells: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, key in enumerate(np.concatenate([levels, low >> levels], axis=1).tolist()):
        cells[tuple(key)].append(index)
    grids = sorted({key[:2] for key in cells})
    areas = np.asarray(areas_px)
    pairs = neighbors = 0
    for inner, ((x, y), (level_x, level_y)) in enumerate(zip(low.tolist(), levels.tolist(), strict=True)):
        near: list[int] = []
        for grid_x, grid_y in grids:
            if grid_x >= level_x and grid_y >= level_y:
                column, row = x >> grid_x, y >> grid_y
                for cell in ((column, row), (column - 1, row), (column, row - 1), (column - 1, row - 1)):
                    near += cells.get((grid_x, grid_y, *cell), ())
        if len(near) < 2:
            continue
        outer = np.sort(np.array(near))
        is_larger = (areas[outer] > areas[inner]) | ((areas[outer] == areas[inner]) & (outer < inner))
        fits = is_larger & (low[outer] <= low[inner]).all(axis=1) & (high[outer] >= high[inner]).all(axis=1)
        outer = outer[fits]
        neighbors += len(near)
        pairs += len(outer)
        if pairs > PAIRS_LIMIT or neighbors > NEIGHBOURS_LIMIT:
            raise CrowdedGroupError(f"the group has {len(rles)} parts, too many of them on top of one another")
        if len(outer):
            # with "crowd", the overlap is divided by the area of the inner part alone
            shares = coco_mask.iou([rles[inner]], [rles[index] for index in outer.tolist()], [1] * len(outer))[0]
            around[inner] = outer[shares >= 1.0].tolist()
    return around
