"""The outlines of an instance, and one polygon with the same area as all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from d2tune.annotations.geometry.masks import decode_mask, rasterize, rle_areas_px2, union_rles
from d2tune.annotations.geometry.polygons import signed_area_px2
from d2tune.annotations.geometry.tracing import RaggedMaskError, mask_outlines
from d2tune.annotations.model.dataset import Image, Instance
from d2tune.annotations.model.types import Points, Rle
from d2tune.errors import DataError

_MOST_DISTANCES = 20_000_000


def rings_of(instance: Instance, image: Image) -> tuple[list[Points], int]:
    """The outlines ``(V, 2)`` of an instance, holes last, and the number of holes.

    Polygons that overlap, so that an outline would cut the other, are replaced by the outlines of their pixels.

    Raises:
        DataError: The mask has too many corners.
    """
    if not isinstance(instance.segmentation, Rle):
        polygons = list(instance.segmentation)
        if len(polygons) == 1:
            return polygons, 0
        rles = rasterize(polygons, width_px=image.width_px, height_px=image.height_px)
        if sum(rle_areas_px2(rles)) == instance.area_px2:
            return [_turned(polygon, is_hole=False) for polygon in polygons], 0
        mask = decode_mask(union_rles(rles))
    else:
        mask = decode_mask(instance.segmentation)
    try:
        outer, holes = mask_outlines(mask)
    except RaggedMaskError as error:
        raise DataError(f"the mask of an object cannot be a polygon: {error}", file=image.file_name) from error
    rings = [*(_turned(ring, is_hole=False) for ring in outer), *(_turned(ring, is_hole=True) for ring in holes)]
    return rings, len(holes)


def _turned(ring: Points, *, is_hole: bool) -> Points:
    """A ring in the direction of outlines, or in that of holes."""
    return ring if (signed_area_px2(ring) < 0) == is_hole else ring[::-1]


def joined(rings: Sequence[Points]) -> Points:
    """One polygon ``(V, 2)`` of all rings: from a vertex of what is joined so far to the nearest of the next and back.

    Each cut is passed twice, so it has no area under the even-odd rule.
    """
    path, *others = rings
    for ring in others:
        here, there = _nearest(path, ring)
        around = np.concatenate([ring[there:], ring[: there + 1]])
        path = np.concatenate([path[: here + 1], around, path[here:]])
    moves = np.any(path != np.roll(path, 1, axis=0), axis=1)
    return path[moves] if others else path


def _nearest(path: Points, ring: Points) -> tuple[int, int]:
    """The vertices of two outlines that are nearest to one another; of very long ones, to the first of the second."""
    if len(path) * len(ring) > _MOST_DISTANCES:
        ring = ring[:1]
    gaps = np.square(path[:, None, :] - ring[None, :, :]).sum(axis=2)
    here, there = np.unravel_index(int(gaps.argmin()), gaps.shape)
    return int(here), int(there)
