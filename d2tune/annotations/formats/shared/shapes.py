"""The shapes of an annotation file in terms that the formats have in common, and the instances that they make.

A reader turns each shape of its file into a `Shape`, whose outline is read only after its label, and hands those of an
image to `add_shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.parts import Part, box_part, dropped, mask_part, polygon_part, round_part, unite
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch, decode_mask, rle_area_px2, union_rles
from d2tune.annotations.geometry.polygons import PointError, check_points
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Points
from d2tune.text import describe

Outline = Callable[[Unit, int], Part | None]
"""Reads the area of a shape: takes the unit and the index of the shape, gives None with a finding.

Raises:
    PointError: Its coordinates are invalid.
"""

_WITHOUT_AREA = frozenset(
    {
        *("arrow", "directional_vector", "graph", "keypoint", "keypoints", "line", "linestrip", "multi_point"),
        *("point", "points", "polyline", "simple_table", "skeleton", "cuboid", "cuboid_3d", "vector"),
    }
)
_OF_THE_IMAGE = frozenset({"caption", "choices", "label", "rating", "tag", "text", "textarea"})


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape.

    Attributes:
        label: Its class as the file has it, unchecked.
        outline: Reads its area; None where its type has none or is unknown.
        kind: Its type as the file names it.
        group: Shapes of an image with the same class and group are one instance; a false value stands for none.
        iscrowd: Whether the file marks it as a crowd.
        difficult: Whether the file marks it as hard to recognize.
        score: Confidence of a prediction.
        excluded: Why it is not read; empty where it is.
    """

    label: object
    outline: Outline | None
    kind: object = ""
    group: Any = None
    iscrowd: bool = False
    difficult: bool = False
    score: float | None = None
    excluded: str = ""


def add_shapes(shapes: Iterable[Shape], unit: Unit, labels: Labels, options: ReadOptions, *, first: int = 0) -> None:
    """Read the shapes of an image and add their instances to its unit.

    Args:
        shapes: In the order in which they are drawn.
        unit: The image, which takes the instances and findings.
        labels: The rules for labels.
        options: How to read.
        first: The index of the first shape among those of the file.
    """
    groups: dict[tuple[object, ...], list[tuple[Shape, Part]]] = {}
    for index, shape in enumerate(shapes, start=first):
        if shape.excluded:
            unit.excluded[index] = shape.excluded
            continue
        if shape.outline is None:
            _note_unread(shape.kind, unit, index)
            continue
        name = labels.read(shape.label, unit, index)
        if name is None:
            continue
        try:
            part = shape.outline(unit, index)
        except PointError as error:
            unit.note("error", error.code, str(error), shape=index)
            continue
        if part is not None:
            group = ("group", str(shape.group)) if shape.group else ("shape", index)
            groups.setdefault((name.label, *group), []).append((shape, part))
    for (label, *_), members in groups.items():
        draft = unite(
            str(label),
            [part for _, part in members],
            unit,
            nested=options.nested_groups,
            iscrowd=any(shape.iscrowd for shape, _ in members),
            difficult=any(shape.difficult for shape, _ in members),
            score=members[0][0].score,
        )
        if draft.area_px2:
            unit.drafts.append(draft)
            continue
        for index in draft.shapes:
            unit.note("warning", "rasterizes_empty", "the holes of the group cover all of it; dropped", shape=index)


def _note_unread(kind: object, unit: Unit, index: int) -> None:
    spelled = str(kind).lower()
    if spelled in _OF_THE_IMAGE:
        unit.note("info", "no_spatial_extent", "the entry has no position in the image; skipped", shape=index)
    elif spelled in _WITHOUT_AREA:
        message = f"a shape of type {describe(kind)} has no area; skipped"
        unit.note("warning", "unsupported_shape_type", message, shape=index)
    else:
        unit.note("warning", "unknown_shape_type", f"the type {describe(kind)} is unknown; skipped", shape=index)


def pairs_of(values: object, what: str = "a polygon") -> Points:
    """Points ``(V, 2)`` of a flat list ``x, y, x, y, ...``.

    Raises:
        PointError: The list has an odd number of values, or other values than finite numbers.
    """
    if not isinstance(values, (list, tuple)) or len(values) % 2:
        raise PointError("bad_point", f"{what} is {describe(values)}, expected x, y, x, y, ...")
    return check_points([values[at : at + 2] for at in range(0, len(values), 2)])


def numbers_of(values: Sequence[object], what: str) -> list[float]:
    """Finite numbers, checked as coordinates are.

    Raises:
        PointError: One of them is not a finite number.
    """
    bad = next((value for value in values if isinstance(value, bool) or not isinstance(value, (int, float))), None)
    if bad is not None or any(value is None for value in values):
        raise PointError("bad_point", f"{what} has {describe(list(values))}, expected numbers")
    return [float(value) for value in check_points([[value, 0] for value in values])[:, 0]]


def polygon(raw: object) -> Outline:
    """The outline of a polygon given as ``[x, y]`` pairs, unchecked."""
    return lambda unit, index: polygon_part(check_points(raw), unit, index)


def flat_polygon(raw: object) -> Outline:
    """The outline of a polygon given as ``x, y, x, y, ...``, unchecked."""
    return lambda unit, index: polygon_part(pairs_of(raw), unit, index)


def outlines(raw: Sequence[object]) -> Outline:
    """An area with several outlines of ``[x, y]`` pairs; what lies inside an even number of them is not part of it."""

    def read(unit: Unit, index: int) -> Part | None:
        return even_odd_part([check_points(points) for points in raw], unit, index)

    return read


def even_odd_part(rings: Sequence[Points], unit: Unit, index: int) -> Part | None:
    """The area inside an odd number of outlines ``(V, 2)``: one polygon each where none overlaps another."""
    if not rings:
        return dropped(unit, "too_few_points", "the shape has no outline; dropped", index)
    parts = [part for ring in rings if (part := polygon_part(ring, unit, index)) is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    union = union_rles([part.rle for part in parts])
    area_px2 = rle_area_px2(union)
    if area_px2 == sum(part.area_px2 for part in parts):
        return Part(index, union, area_px2, tuple(ring for part in parts for ring in part.polygons))
    mask = reduce(np.logical_xor, (decode_mask(part.rle) for part in parts))
    return mask_part(Patch(mask, 0, 0), unit, index)


def with_holes(outer: object, holes: Sequence[object]) -> Outline:
    """A polygon of ``[x, y]`` pairs without the polygons inside of it."""

    def read(unit: Unit, index: int) -> Part | None:
        whole = polygon_part(check_points(outer), unit, index)
        checked = [check_points(hole) for hole in holes if isinstance(hole, list) and hole]
        if whole is None or not checked:
            return whole
        cut = [part for hole in checked if (part := polygon_part(hole, unit, index)) is not None]
        mask = decode_mask(whole.rle)
        for part in cut:
            mask = mask & ~decode_mask(part.rle)
        return mask_part(Patch(mask, 0, 0), unit, index) if cut else whole

    return read


def box(x: object, y: object, width: object, height: object, *, rotation_deg: object = 0) -> Outline:
    """A box by its upper left corner and its size, rotated clockwise around its center."""

    def read(unit: Unit, index: int) -> Part | None:
        values = numbers_of([x, y, width, height, rotation_deg or 0], "a box")
        low, size = np.array(values[:2]), np.array(values[2:4])
        if values[4] % 360 == 0:
            return box_part(np.sort([low, low + size], axis=0), unit, index)
        return polygon_part(rotated(low, size, values[4], around=low + size / 2), unit, index, is_polygon=False)

    return read


def box_of_corners(left: object, top: object, right: object, bottom: object) -> Outline:
    """A box by two opposite corners in any order."""

    def read(unit: Unit, index: int) -> Part | None:
        values = numbers_of([left, top, right, bottom], "a box")
        return box_part(np.sort([values[:2], values[2:]], axis=0), unit, index)

    return read


def rotated(low: Points, size: Points, degrees: float, *, around: Points) -> Points:
    """The corners ``(4, 2)`` of a box, rotated clockwise as it is displayed (from x to y) around a point."""
    radians = math.radians(degrees % 360)
    cos, sin = math.cos(radians), math.sin(radians)
    corners: Points = low + size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - around
    turned: Points = corners @ np.array([[cos, sin], [-sin, cos]]) + around
    return turned


def ellipse(x: object, y: object, radius_x: object, radius_y: object, *, rotation_deg: object = 0) -> Outline:
    """An ellipse by its center and radii, rotated clockwise."""

    def read(unit: Unit, index: int) -> Part | None:
        values = numbers_of([x, y, radius_x, radius_y, rotation_deg or 0], "an ellipse")
        return round_part(values[:2], values[2], values[3], unit, index, theta_rad=math.radians(values[4] % 360))

    return read


def ellipse_in_box(left: object, top: object, right: object, bottom: object) -> Outline:
    """The ellipse inside a box that is given by two opposite corners."""

    def read(unit: Unit, index: int) -> Part | None:
        x, y, other_x, other_y = numbers_of([left, top, right, bottom], "an ellipse")
        radius_x, radius_y = abs(other_x - x) / 2, abs(other_y - y) / 2
        return round_part([(x + other_x) / 2, (y + other_y) / 2], radius_x, radius_y, unit, index)

    return read


def mask(patch: Callable[[Unit], Patch]) -> Outline:
    """An area given by its pixels, which are decoded when they are read."""
    return lambda unit, index: mask_part(patch(unit), unit, index)
