"""Polygons: checks, clipping, areas and self-crossings.

Coordinates are continuous pixels: pixel ``i`` covers ``[i, i + 1)``, so the image is the rectangle from ``(0, 0)``
to ``(width_px, height_px)``. A polygon is filled by the even-odd rule. Polygons are checked
and clipped before pycocotools, which crashes or takes all memory on coordinates that are huge or not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.types import Points, Polygons
from d2tune.text import describe

COORDINATE_LIMIT_PX = 1e12
"""Coordinates beyond this are refused; up to this value clipping is exact enough."""

LENGTH_LIMIT_PX = 4_000_000
"""Longer outlines are not rasterized: pycocotools takes 80 bytes per pixel of length, and crashes on very long ones."""

PARTS_LIMIT = 10_000
"""How often an outline may enter the image over one of its borders."""

MEETINGS_LIMIT = 20_000_000
"""How many pairs of edges of an outline are tested for crossings."""

CUTS_LIMIT = 10_000_000
"""How many places where edges pass the height of a vertex are used for the area of an outline."""

_AREA_EPS_PX = 1e-9
_LARGEST_RADIUS_PX = 1e6
_PAIRS_AT_ONCE = 1 << 20
_BOXES_COMPARED = 1000
_FEW_EDGES = 100
_LATER_EDGES = np.triu(np.ones((_FEW_EDGES, _FEW_EDGES), dtype=np.bool_), 2)


class PointError(ValueError):
    """Points that are invalid.

    Args:
        code: ``non_finite_coordinate`` or ``bad_point``.
        message: The point and its error.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_points(raw: object) -> Points:
    """Check the points of a file.

    Returns:
        Array of shape ``(V, 2)``; ``V`` may be 0.

    Raises:
        PointError: ``raw`` is not a list of pairs of finite numbers up to `COORDINATE_LIMIT_PX`.
    """
    if not isinstance(raw, (list, tuple)):
        raise PointError("bad_point", f"points are {describe(raw)}, expected a list of [x, y] pairs")
    for index, point in enumerate(raw):
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise PointError("bad_point", f"point {index} is {describe(point)}, expected [x, y]")
    flat = [value for point in raw for value in point]
    if not {float, int}.issuperset(map(type, flat)):
        index = next(index for index, value in enumerate(flat) if type(value) is not float and type(value) is not int)
        message = f"point {index // 2} has {describe(flat[index])}, expected two numbers"
        raise PointError("bad_point", message)
    if flat and not (min(flat) >= -COORDINATE_LIMIT_PX and max(flat) <= COORDINATE_LIMIT_PX and sum(flat) == sum(flat)):
        _refuse_far(flat)
    return np.array(flat, dtype=np.float64).reshape(-1, 2)


def _refuse_far(flat: Sequence[float]) -> None:
    for index, value in enumerate(flat):
        if isinstance(value, float) and not math.isfinite(value):
            message = f"point {index // 2} has the coordinate {value}, expected a finite number"
            raise PointError("non_finite_coordinate", message)
        if abs(value) > COORDINATE_LIMIT_PX:
            message = f"point {index // 2} has a coordinate beyond {COORDINATE_LIMIT_PX:.0e} px"
            raise PointError("bad_point", message)


def clean_points(points: Points) -> Points:
    """Remove vertices that repeat the one before, and a last vertex that repeats the first."""
    if len(points) < 2:
        return points
    differs = points != _following(points)
    stays = differs[:, 0] | differs[:, 1]
    if stays.all():
        return points
    return points[stays] if stays.any() else points[:1]


def _following(points: NDArray[Any]) -> NDArray[Any]:
    """The row after each row, the first after the last."""
    return np.concatenate([points[1:], points[:1]])


def signed_area_px2(points: Points) -> float:
    """The shoelace area of a polygon ``(V, 2)``, positive where it turns from x to y."""
    x, y = points[:, 0] - points[0, 0], points[:, 1] - points[0, 1]
    return float(0.5 * (np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])))


def has_no_area(points: Points) -> bool:
    """Whether the even-odd fill of a polygon ``(V, 2)`` is empty: collinear or retraced vertices."""
    if len(points) < 3:
        return True
    width_px, height_px = points.max(axis=0) - points.min(axis=0)
    limit = no_area_limit_px(float(width_px), float(height_px))
    if abs(signed_area_px2(points)) > limit:
        return False
    crossing, _ = _meetings(points)
    return not crossing and _even_odd_area_px2(points) <= limit


def no_area_limit_px(width_px: Any, height_px: Any) -> Any:
    """The area up to which an outline of that width and height counts as empty; also for arrays."""
    return _AREA_EPS_PX + 1e-12 * (width_px * height_px)


def self_intersects(points: Points) -> bool:
    """Whether the outline crosses itself, so that areas of it are wound in opposite directions or more than once.

    An outline that only touches itself does not cross itself: a keyhole polygon runs along its slit twice and is valid.
    """
    return not _is_star_shaped(points) and winds_wrongly(points)


def winds_wrongly(points: Points) -> bool:
    """`self_intersects` without its shortcut for outlines that go around their center."""
    crossing, touching = _meetings(points)
    if crossing or not touching:
        return crossing
    signed = abs(signed_area_px2(points))
    return abs(_even_odd_area_px2(points) - signed) > 1e-6 * (1 + signed)


def _is_star_shaped(points: Points) -> bool:
    """Whether the outline goes around the mean of its vertices once in one direction; a fast sufficient test."""
    spoke = points - points.mean(axis=0)
    x, y = spoke[:, 0], spoke[:, 1]
    next_x, next_y = _following(x), _following(y)
    turn = x * next_y - y * next_x
    if not ((turn > 0).all() or (turn < 0).all()):
        return False
    return int(np.count_nonzero((y < 0) & (next_y >= 0))) == 1


def _meetings(points: Points) -> tuple[bool, bool]:
    """Whether two edges cross inside both, and whether two edges that are not neighbors touch."""
    count = len(points)
    if count < 4:
        return False, False
    ends = _following(points)
    low, high = np.minimum(points, ends), np.maximum(points, ends)
    if count <= _FEW_EDGES:
        (low_x, low_y), (high_x, high_y) = low.T.copy(), high.T.copy()
        begins = np.less_equal.outer(low_x, high_x)
        begins &= np.less_equal.outer(low_y, high_y)
        shared = begins & begins.T
        shared &= _LATER_EDGES[:count, :count]
        a, b = shared.nonzero()
        if len(a) < 2:  # the last edge and the first edge, which are neighbors
            return False, False
        extent = high.max(axis=0) - low.min(axis=0)
        return _pairs_meet(points, ends, a, b, 1e-12 * max(float(extent.max()), 1.0) ** 2)
    reach, extent = (high - low).sum(axis=0), high.max(axis=0) - low.min(axis=0)
    axis = 0 if reach[0] * extent[1] <= reach[1] * extent[0] else 1
    order = np.argsort(low[:, axis], kind="stable")
    last = np.searchsorted(low[order, axis], high[order, axis], side="right")
    rivals = np.maximum(last - np.arange(count) - 1, 0)
    scale = 1e-12 * max(float(extent.max()), 1.0) ** 2
    touching = False
    start = 0
    totals = np.cumsum(rivals)
    while start < count:
        done = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, done + _PAIRS_AT_ONCE, side="right")))
        block = rivals[start:stop]
        first = np.repeat(np.arange(start, stop), block)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(block) - block, block)
        a, b = order[first], order[second]
        across = 1 - axis
        near = (low[a, across] <= high[b, across]) & (low[b, across] <= high[a, across])
        crosses, touches = _pairs_meet(points, ends, a[near], b[near], scale)
        if crosses:
            return True, touching
        touching |= touches
        start = stop
        if start < count and totals[start - 1] > MEETINGS_LIMIT:
            raise PointError("outline_too_complex", f"its {count:,} edges are near one another too often")
    return False, touching


def _pairs_meet(
    points: Points, ends: Points, a: NDArray[np.intp], b: NDArray[np.intp], scale: float
) -> tuple[bool, bool]:
    """Whether any edge pairs ``(a, b)``, both ``(K,)``, cross, and whether any touch that are not neighbors."""
    gap = np.abs(a - b)
    apart = (gap > 1) & (gap < len(points) - 1)
    a, b = a[apart], b[apart]
    if not len(a):
        return False, False
    start_a, start_b = points[a], points[b]
    along_a, along_b, between = ends[a] - start_a, ends[b] - start_b, start_b - start_a
    # The distances of the ends of one edge from the line of the second edge, times the length of the second edge.
    b_starts, b_turns, a_starts = _cross(along_a, between), _cross(along_a, along_b), _cross(along_b, -between)
    b_sides = _signs(b_starts, scale) * _signs(b_starts + b_turns, scale)
    a_sides = _signs(a_starts, scale) * _signs(a_starts - b_turns, scale)
    crosses = bool(((b_sides < 0) & (a_sides < 0)).any())
    return crosses, bool(((b_sides <= 0) & (a_sides <= 0)).any())


def _cross(first: Points, second: Points) -> NDArray[np.float64]:
    """The cross products of vectors ``(K, 2)``, shape ``(K,)``."""
    products: NDArray[np.float64] = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return products


def _signs(values: NDArray[np.float64], scale: float) -> NDArray[np.int8]:
    """-1, 0 or 1 for each value ``(K,)``, 0 up to ``scale``."""
    return (values > scale).astype(np.int8) - (values < -scale).astype(np.int8)


def _even_odd_area_px2(points: Points) -> float:
    """The exact even-odd area of a polygon whose edges do not cross: the sum of trapezoids between vertex heights."""
    ends = _following(points)
    level, rank = np.unique(points[:, 1], return_inverse=True)
    first, last = np.minimum(rank, _following(rank)), np.maximum(rank, _following(rank))
    spans = last - first
    cuts = int(spans.sum())
    if cuts > CUTS_LIMIT:
        raise PointError("outline_too_complex", f"its {len(points):,} points touch one another too often")
    edge = np.repeat(np.arange(len(points)), spans)
    band = np.arange(cuts) + np.repeat(first - np.cumsum(spans) + spans, spans)
    middle, height = (level[1:] + level[:-1]) / 2, np.diff(level)
    slope = (ends[edge, 0] - points[edge, 0]) / (ends[edge, 1] - points[edge, 1])
    x = points[edge, 0] + slope * (middle[band] - points[edge, 1])
    order = np.lexsort((x, band))
    x, band = x[order], band[order]
    # a closed outline cuts each band an even number of times
    return float(np.dot(x[1::2] - x[0::2], height[band[0::2]]))


def clip_polygon(points: Points, *, width_px: int, height_px: int) -> Polygons:
    """The part of a polygon on the image.

    A polygon inside the image is returned unchanged. Other polygons are cut at each side that they pass and divided
    where the cut separates them, so that no edges without area remain along the border. Only where the parts of an
    outline that crosses itself may overlap, it is not divided (Sutherland and Hodgman, 1974), because the union of the
    parts would not be its even-odd fill.

    Args:
        points: Clean vertices, shape ``(V, 2)``.
        width_px: Width of the image.
        height_px: Height of the image.

    Returns:
        Polygons inside the image, none where the polygon is outside.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    if low[0] >= 0 and low[1] >= 0 and high[0] <= width_px and high[1] <= height_px:
        return (points,)
    if low[0] >= width_px or low[1] >= height_px or high[0] <= 0 or high[1] <= 0:
        return ()
    sides = ((0, 0.0, 1.0), (0, float(width_px), -1.0), (1, 0.0, 1.0), (1, float(height_px), -1.0))
    kept = _cut_at(points, sides, _cut_apart)
    if len(kept) > 1 and _boxes_overlap(kept) and self_intersects(points):
        kept = _cut_at(points, sides, _cut_whole)
    return kept


def _cut_at(
    points: Points,
    sides: Sequence[tuple[int, float, float]],
    cut: Callable[[Points, int, float, float], list[Points]],
) -> Polygons:
    """The parts of a polygon after ``cut`` at each side, without parts that have no area."""
    parts = [points]
    for axis, border_px, inward in sides:
        parts = [kept for part in parts for kept in cut(part, axis, border_px, inward)]
    cleaned = (clean_points(part) for part in parts)
    return tuple(part for part in cleaned if not has_no_area(part))


def _boxes_overlap(polygons: Polygons) -> bool:
    """Whether the boxes around any two of several polygons overlap; True where there are too many to test."""
    if len(polygons) > _BOXES_COMPARED:
        return True
    low = np.array([part.min(axis=0) for part in polygons])
    high = np.array([part.max(axis=0) for part in polygons])
    shared = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(axis=2)
    return int(np.count_nonzero(shared)) > len(polygons)


def _crossings(points: Points, axis: int, border_px: float, inward: float) -> tuple[NDArray[np.bool_], Points]:
    """Which vertices are inside the border, ``(V,)``, and where each edge meets it, ``(V, 2)``."""
    ends = _following(points)
    start_px, end_px = inward * (points[:, axis] - border_px), inward * (ends[:, axis] - border_px)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = start_px / (start_px - end_px)
        met = points + share[:, None] * (ends - points)
    met = np.where((start_px == 0)[:, None], points, np.where((end_px == 0)[:, None], ends, met))
    met[:, axis] = border_px
    return start_px > 0, met


def _cut_whole(points: Points, axis: int, border_px: float, inward: float) -> list[Points]:
    """Cut at one border without dividing the outline, whose even-odd fill is correct also where it crosses itself."""
    inside, met = _crossings(points, axis, border_px, inward)
    if inside.all():
        return [points]
    rows: list[Points] = []
    for index, is_inside in enumerate(inside):
        following = inside[(index + 1) % len(inside)]
        if is_inside:
            rows.append(points[index])
        if is_inside != following:
            rows.append(met[index])
    return [np.array(rows)] if len(rows) >= 3 else []


def _cut_apart(points: Points, axis: int, border_px: float, inward: float) -> list[Points]:
    """Cut at one border; the areas that the border separates become separate polygons.

    The outline consists of chains that enter and leave at the border. Along the border, inside and outside alternate
    from one end of a chain to the next, which decides the ends to join. Ends at the same place are ordered by the slope
    of their edges.
    """
    inside, met = _crossings(points, axis, border_px, inward)
    if inside.all():
        return [points]
    count = len(points)
    entries = np.flatnonzero(~inside & _following(inside))
    exits = np.flatnonzero(inside & ~_following(inside))
    if not len(entries):
        return []
    if len(entries) > PARTS_LIMIT:
        raise PointError("outline_too_complex", f"it crosses the border of the image {len(entries):,} times")
    exits = np.roll(exits, -int(np.searchsorted(exits, entries[0], side="right")))
    chains = []
    for entry, leave in zip(entries.tolist(), exits.tolist(), strict=True):
        steps = np.arange(entry + 1, (leave if leave > entry else leave + count) + 1) % count
        chains.append(np.concatenate([met[entry : entry + 1], points[steps], met[leave : leave + 1]]))
    tips = np.array([tip for chain in chains for tip in (chain[0], chain[-1])])
    inner = np.array([neighbor for chain in chains for neighbor in (chain[1], chain[-2])])
    step = inner - tips
    lean = step[:, 1 - axis] / np.abs(step[:, axis])
    order = np.lexsort((lean, tips[:, 1 - axis]))
    partner = np.empty(len(tips), dtype=np.intp)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return _join_chains(chains, partner)


def _join_chains(chains: list[Points], partner: NDArray[np.intp]) -> list[Points]:
    """Join chains to closed polygons; tip ``2 i`` is the start of chain ``i``, tip ``2 i + 1`` its end."""
    polygons, used = [], [False] * len(chains)
    for first in range(len(chains)):
        if used[first]:
            continue
        pieces, tip = [], 2 * first
        while not used[tip // 2]:
            used[tip // 2] = True
            chain = chains[tip // 2]
            pieces.append(chain if tip % 2 == 0 else chain[::-1])
            tip = int(partner[tip ^ 1])
        polygons.append(np.concatenate(pieces))
    return polygons


def rectangle_points(first: Sequence[float], second: Sequence[float]) -> Points:
    """Four corners ``(4, 2)`` from two opposite corners in any order."""
    (left, right), (top, bottom) = sorted((first[0], second[0])), sorted((first[1], second[1]))
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)


def round_vertex_count(radius_px: float) -> int:
    """The number of vertices for a circle: at least 24, a multiple of 4, for an outline within 0.1 px of the circle.

    Circles with a radius above a million pixels get the vertices of a circle of a million pixels.

    The gap between a circle and a chord over the angle ``2 a`` is ``r (1 - cos a)``, so ``a = acos(1 - 0.1 / r)``.
    """
    radius_px = min(radius_px, _LARGEST_RADIUS_PX)
    least = 24 if radius_px <= 0.1 else max(24, math.ceil(math.pi / math.acos(1 - 0.1 / radius_px)))
    return least + -least % 4


def ellipse_points(
    center: Sequence[float], radius_x_px: float, radius_y_px: float, *, theta_rad: float = 0.0
) -> Points:
    """A polygon ``(V, 2)`` with the area of the ellipse; ``theta_rad`` rotates it from x towards y.

    A regular polygon of ``n`` vertices on a circle of radius ``R`` has the area ``n R^2 sin(2 pi / n) / 2``, so the
    radii are scaled by ``sqrt(2 pi / (n sin(2 pi / n)))``.
    """
    count = round_vertex_count(max(radius_x_px, radius_y_px))
    scale = math.sqrt(2 * math.pi / (count * math.sin(2 * math.pi / count)))
    quarter = np.arange(count) * (2 * math.pi / count)
    x, y = scale * radius_x_px * np.cos(quarter), scale * radius_y_px * np.sin(quarter)
    cos, sin = math.cos(theta_rad), math.sin(theta_rad)
    return np.stack([center[0] + x * cos - y * sin, center[1] + x * sin + y * cos], axis=1)


def outline_length_px(points: Points) -> float:
    """The length of a closed outline ``(V, 2)``, each edge counted by its longer extent along x or y."""
    steps = np.abs(_following(points) - points)
    return float(np.maximum(steps[:, 0], steps[:, 1]).sum())


def polygons_bbox_xywh(polygons: Sequence[Points]) -> tuple[float, float, float, float]:
    """The box ``(x, y, width, height)`` around the vertices."""
    vertices = polygons[0] if len(polygons) == 1 else np.concatenate(list(polygons))
    left, top = vertices.min(axis=0).tolist()
    right, bottom = vertices.max(axis=0).tolist()
    return left, top, right - left, bottom - top
