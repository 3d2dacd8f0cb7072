"""The plain polygons of several files, which cause no finding, checked and rasterized together.

Nearly every polygon is plain: finite vertices inside the image, no vertex twice in a row, an area, no self-crossing.
For a dozen small polygons the cost of the checks is that of calling numpy, so the vertices of all polygons are checked
together. All other polygons are left to `shared.parts.polygon_part`, which makes the findings; both give equal parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.shared.parts import Part
from d2tune.annotations.geometry.masks import rasterize, rle_areas_px2
from d2tune.annotations.geometry.polygons import LENGTH_LIMIT_PX, PointError, no_area_limit_px, winds_wrongly
from d2tune.annotations.model.types import Points

_NUMBERS = frozenset({float, int})


@dataclass(frozen=True, slots=True)
class FileOutlines:
    """The polygons of one file.

    Attributes:
        outlines: The points as the file has them, unchecked, by the index of the shape.
        width_px: Width of the image.
        height_px: Height of the image.
    """

    outlines: Mapping[int, object]
    width_px: int
    height_px: int


def plain_parts(files: Sequence[FileOutlines]) -> list[dict[int, Part]]:
    """The parts of the plain polygons of several files.

    Returns:
        Parts by the index of the shape, for each file; polygons that are not plain are missing.
    """
    candidates: list[list[list[float]]] = []
    owners: list[tuple[int, int]] = []
    for position, file in enumerate(files):
        for shape, raw in file.outlines.items():
            if _is_outline(raw):
                candidates.append(raw)
                owners.append((position, shape))
    parts: list[dict[int, Part]] = [{} for _ in files]
    if not candidates:
        return parts
    outlines, plain, boxes = _examined(candidates, [(files[at].width_px, files[at].height_px) for at, _ in owners])
    chosen = itertools.groupby(np.flatnonzero(plain).tolist(), key=lambda index: owners[index][0])
    for position, indices in chosen:
        size = {"width_px": files[position].width_px, "height_px": files[position].height_px}
        members = list(indices)
        rles = rasterize([outlines[index] for index in members], **size)
        for index, rle, area_px2 in zip(members, rles, rle_areas_px2(rles), strict=True):
            if area_px2:
                shape, (left, top, width, height) = owners[index][1], boxes[index]
                box = (left, top, width, height)
                parts[position][shape] = Part(shape, rle, area_px2, (outlines[index],), bbox_xywh=box)
    return parts


def _examined(
    raw: list[list[list[float]]], sizes: list[tuple[int, int]]
) -> tuple[list[Points], NDArray[np.bool_], list[list[float]]]:
    """The outlines, which of them are plain, and the boxes around them."""
    points, starts, lengths = _gathered(raw)
    following = np.arange(1, len(points) + 1)
    following[starts + lengths - 1] = starts
    ends = points[following]
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    with np.errstate(all="ignore"):  # values that are not finite or are huge fail the comparisons
        is_inside = ((low >= 0) & (high <= np.array(sizes))).all(axis=1)
        same = points == ends
        repeats = np.logical_or.reduceat(same[:, 0] & same[:, 1], starts)
        has_area, is_round = _turns(points, ends, starts, lengths, low, high)
        boxes = np.concatenate([low, high - low], axis=1).tolist()
        steps = np.abs(ends - points)
        is_short = np.add.reduceat(np.maximum(steps[:, 0], steps[:, 1]), starts) <= LENGTH_LIMIT_PX
    plain = is_inside & ~repeats & has_area & is_short
    stops = (starts + lengths).tolist()
    outlines = [points[start:stop] for start, stop in zip(starts.tolist(), stops, strict=True)]
    for index in np.flatnonzero(plain & ~is_round).tolist():
        plain[index] = not _may_wind_wrongly(outlines[index])
    return outlines, plain, boxes


def _may_wind_wrongly(points: Points) -> bool:
    try:
        return winds_wrongly(points)
    except PointError:
        return True


def _is_outline(raw: object) -> TypeGuard[list[list[float]]]:
    """Whether a value is a list of three or more pairs of numbers."""
    return (
        type(raw) is list
        and len(raw) > 2
        and set(map(type, raw)) == {list}
        and set(map(len, raw)) == {2}
        and _NUMBERS.issuperset(map(type, chain.from_iterable(raw)))
    )


def _gathered(outlines: list[list[list[float]]]) -> tuple[Points, NDArray[np.intp], NDArray[np.intp]]:
    """All vertices ``(N, 2)``, and the first vertex and the number of vertices of each outline, ``(K,)``."""
    flat = list(chain.from_iterable(chain.from_iterable(outlines)))
    try:
        points = np.array(flat, dtype=np.float64).reshape(-1, 2)
    except OverflowError:  # an integer of hundreds of digits; then none of the outlines is plain
        points = np.full((len(flat) // 2, 2), np.nan)
    lengths = np.array([len(outline) for outline in outlines], dtype=np.intp)
    return points, np.cumsum(lengths) - lengths, lengths


def _turns(
    points: Points,
    ends: Points,
    starts: NDArray[np.intp],
    lengths: NDArray[np.intp],
    low: Points,
    high: Points,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which outlines clearly have an area, and which go around the mean of their vertices once, ``(K,)`` both.

    The sum of the cross products of neighboring vertices, relative to any point, is twice the shoelace area.
    """
    mean = np.add.reduceat(points, starts) / lengths[:, None]
    spoke, next_spoke = points - np.repeat(mean, lengths, axis=0), ends - np.repeat(mean, lengths, axis=0)
    turn = spoke[:, 0] * next_spoke[:, 1] - spoke[:, 1] * next_spoke[:, 0]
    sums = np.add.reduceat(turn, starts)
    least, most = np.minimum.reduceat(turn, starts), np.maximum.reduceat(turn, starts)
    rounds = np.add.reduceat(((spoke[:, 1] < 0) & (next_spoke[:, 1] >= 0)).astype(np.intp), starts)
    has_area = np.abs(sums) > 4 * no_area_limit_px(*(high - low).T)
    return has_area, ((least > 0) | (most < 0)) & (rounds == 1)
