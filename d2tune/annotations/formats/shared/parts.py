"""Shapes checked, clipped and rasterized, and united to instances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2tune.annotations.formats.shared.units import Draft, Unit
from d2tune.annotations.geometry import tracing
from d2tune.annotations.geometry.masks import (
    Patch,
    decode_mask,
    encode_mask,
    rasterize,
    rle_area_px2,
    rle_bbox_xywh,
    to_rle,
    union_rles,
)
from d2tune.annotations.geometry.nesting import CrowdedGroupError, nesting
from d2tune.annotations.geometry.polygons import (
    PointError,
    clean_points,
    clip_polygon,
    ellipse_points,
    has_no_area,
    polygons_bbox_xywh,
    rectangle_points,
    self_intersects,
)
from d2tune.annotations.model.types import Mask, Points, Polygons, RawRle, Rle


@dataclass(slots=True, eq=False)
class Part:
    """One shape of an instance.

    Attributes:
        shape: Index in the annotation file.
        rle: Its pixels, on the whole image.
        area_px2: Their number.
        polygons: Its outlines on the image; empty where it is given by its pixels alone.
        is_mask: Whether the file gives it as pixels.
        bbox_xywh: The box around the polygons, where it was computed before.
        is_box: Whether the file gives only the box around the object.
        first_corner: Of a box: whether the first of its two corners is at the right, and at the bottom.
    """

    shape: int
    rle: RawRle
    area_px2: float
    polygons: Polygons
    is_mask: bool = False
    bbox_xywh: tuple[float, float, float, float] | None = None
    is_box: bool = False
    first_corner: tuple[bool, bool] = (False, False)


def box_part(corners: Points, unit: Unit, shape: int) -> Part | None:
    """The box around an object as a part, from two opposite corners ``(2, 2)`` in any order; see `polygon_part`."""
    first, second = corners.tolist()
    part = polygon_part(rectangle_points(first, second), unit, shape, is_polygon=False)
    if part is not None:
        part.is_box = True
        part.first_corner = first[0] > second[0], first[1] > second[1]
    return part


def polygon_part(
    points: Points, unit: Unit, shape: int, *, is_polygon: bool = True, extent: Points | None = None
) -> Part | None:
    """Check, clip and rasterize an outline.

    Args:
        points: Checked vertices, shape ``(V, 2)``.
        unit: Its unit, which has the image and takes the findings.
        shape: Index in the annotation file.
        is_polygon: False for computed outlines, which need no self-crossing test.
        extent: Two corners ``(2, 2)`` of the shape, where the outline only approximates it.

    Returns:
        The part, or None with a finding that gives the reason.
    """
    try:
        return _polygon_part(points, unit, shape, is_polygon=is_polygon, extent=extent)
    except PointError as error:
        unit.note("error", error.code, f"the outline is too complex: {error}", shape=shape)
        return None


def _polygon_part(points: Points, unit: Unit, shape: int, *, is_polygon: bool, extent: Points | None) -> Part | None:
    assert unit.image is not None
    width_px, height_px = unit.image.width_px, unit.image.height_px
    if len(points) < 3:
        message = f"a polygon needs three points, it has {len(points)}; dropped"
        return dropped(unit, "too_few_points", message, shape)
    points = clean_points(points)
    if has_no_area(points):
        return dropped(unit, "zero_area", "the shape has no area; dropped", shape)
    polygons = clip_polygon(points, width_px=width_px, height_px=height_px)
    if not polygons:
        message = f"the shape lies outside the {width_px} x {height_px} px image; dropped"
        return dropped(unit, "outside_image", message, shape)
    if polygons[0] is not points and _extends_beyond(points if extent is None else extent, width_px, height_px):
        message = f"the shape extends beyond the {width_px} x {height_px} px image and was clipped"
        unit.note("warning", "clipped", message, shape=shape)
    rle = union_rles(rasterize(polygons, width_px=width_px, height_px=height_px))
    if is_polygon and self_intersects(points):
        message = "the outline crosses itself; it is filled by the even-odd rule"
        unit.note("warning", "self_intersection", message, shape=shape)
    area_px2 = rle_area_px2(rle)
    if not area_px2:
        return dropped(unit, "rasterizes_empty", "the shape is too small to cover a pixel; dropped", shape)
    return Part(shape, rle, area_px2, polygons)


def round_part(
    center: list[float], radius_x_px: float, radius_y_px: float, unit: Unit, index: int, *, theta_rad: float = 0.0
) -> Part | None:
    """A circle or an ellipse as a part; see `ellipse_points`."""
    if min(radius_x_px, radius_y_px) <= 0:
        return dropped(unit, "zero_area", "the shape has no radius and no area; dropped", index)
    cos, sin = math.cos(theta_rad), math.sin(theta_rad)
    reach = np.array(
        [math.hypot(radius_x_px * cos, radius_y_px * sin), math.hypot(radius_x_px * sin, radius_y_px * cos)]
    )
    outline = ellipse_points(center, radius_x_px, radius_y_px, theta_rad=theta_rad)
    return polygon_part(outline, unit, index, is_polygon=False, extent=np.array([center - reach, center + reach]))


def dropped(unit: Unit, code: str, message: str, shape: int) -> Part | None:
    """Note that a shape is dropped; returns None, for readers to return."""
    unit.note("warning", code, message, shape=shape)
    return None


def _extends_beyond(points: Points, width_px: int, height_px: int) -> bool:
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(low[0] < 0 or low[1] < 0 or high[0] > width_px or high[1] > height_px)


def mask_part(patch: Patch, unit: Unit, shape: int) -> Part | None:
    """Clip a mask and trace its outlines; None with a warning where it has no pixel on the image."""
    assert unit.image is not None
    width_px, height_px = unit.image.width_px, unit.image.height_px
    if not patch.mask.any():
        return dropped(unit, "rasterizes_empty", "the mask has no pixel; dropped", shape)
    clipped = patch.clipped(width_px=width_px, height_px=height_px)
    if not clipped.mask.size:
        message = f"the mask lies outside the {width_px} x {height_px} px image; dropped"
        return dropped(unit, "outside_image", message, shape)
    rle = clipped.rle(width_px=width_px, height_px=height_px)
    try:
        outer, holes = tracing.patch_outlines(clipped)
    except tracing.RaggedMaskError as error:
        unit.note("warning", "mask_ragged", f"{error}; it is kept as a run-length mask", shape=shape)
        outer, holes = [], []
    return Part(shape, rle, rle_area_px2(rle), () if holes else tuple(outer), is_mask=True)


def crowds_to_objects(unit: Unit) -> None:
    """Make the crowds of an image objects, with polygons where these are exact."""
    for draft in unit.drafts:
        if not draft.iscrowd:
            continue
        draft.iscrowd = False
        if isinstance(draft.segmentation, Rle) and not draft.layers:
            part = mask_part(Patch(decode_mask(draft.segmentation), 0, 0), unit, draft.shapes[0])
            if part is not None and part.polygons:
                draft.segmentation = part.polygons
                draft.bbox_xywh = polygons_bbox_xywh(part.polygons)
                draft.part_shapes = draft.shapes[:1] * len(part.polygons)


def unite(
    name: str,
    parts: Sequence[Part],
    unit: Unit,
    *,
    nested: str = "union",
    iscrowd: bool = False,
    score: float | None = None,
    difficult: bool = False,
) -> Draft:
    """Unite the parts of one instance.

    A part inside another part is united with a warning or, where ``nested`` is ``hole``, cut out of it.
    """
    if len(parts) == 1 and parts[0].polygons and not iscrowd:
        return _lone(name, parts[0], score, difficult)
    depths = _nesting(parts, unit)
    if len(parts) > 1 and nested == "union":
        for part, around in zip(parts, depths, strict=True):
            if around:
                message = "the part lies inside another part of its group and is united with it"
                unit.note("warning", "group_part_nested", message, shape=part.shape, also=tuple(around))
    shapes = tuple(sorted(part.shape for part in parts))
    cut_out = nested == "hole" and any(depths)
    rle = _punched(parts, depths) if cut_out else union_rles([part.rle for part in parts])
    area_px2 = parts[0].area_px2 if len(parts) == 1 else rle_area_px2(rle)
    needs_pixels = iscrowd or cut_out or any(not part.polygons for part in parts)
    if needs_pixels or (len(parts) > 1 and any(part.is_mask for part in parts)):
        box = rle_bbox_xywh(rle)
        layers = _layers(parts, depths, rle if cut_out else None)
        return Draft(
            name,
            shapes,
            to_rle(rle),
            box,
            area_px2,
            iscrowd,
            score,
            difficult=difficult,
            layers=layers,
            is_box=all(part.is_box for part in parts),
        )
    polygons = tuple(polygon for part in parts for polygon in part.polygons)
    return Draft(
        name,
        shapes,
        polygons,
        polygons_bbox_xywh(polygons),
        area_px2,
        iscrowd,
        score,
        tuple(part.shape for part in parts for _ in part.polygons),
        difficult,
        is_box=all(part.is_box for part in parts),
    )


def _lone(name: str, part: Part, score: float | None, difficult: bool) -> Draft:
    """An instance of one part with outlines."""
    box = part.bbox_xywh or polygons_bbox_xywh(part.polygons)
    alone = (part.shape,)
    shapes = alone if len(part.polygons) == 1 else alone * len(part.polygons)
    draft = Draft(name, alone, part.polygons, box, part.area_px2, False, score, shapes, difficult)
    if part.is_box:
        draft.is_box, draft.first_corner = True, part.first_corner
    return draft


def _layers(
    parts: Sequence[Part], depths: Sequence[Sequence[int]], punched: RawRle | None
) -> tuple[tuple[int, Rle], ...]:
    """What each of several parts adds to their union, or to ``punched``, where parts at odd depth are holes."""
    if len(parts) < 2:
        return ()
    if punched is None:
        return tuple((part.shape, to_rle(part.rle)) for part in parts)
    stays = decode_mask(punched)
    solid = [part for part, around in zip(parts, depths, strict=True) if not len(around) % 2]
    return tuple((part.shape, to_rle(encode_mask(decode_mask(part.rle) & stays))) for part in solid)


def _nesting(parts: Sequence[Part], unit: Unit) -> list[list[int]]:
    """For each part, the shapes of the parts that it lies inside of; of two equal parts the later lies inside."""
    try:
        around = nesting([part.rle for part in parts], [part.area_px2 for part in parts])
    except CrowdedGroupError as error:
        hint = "give separate objects group numbers of their own"
        unit.note("error", "group_too_large", str(error), shape=parts[0].shape, hint=hint)
        return [[] for _ in parts]
    return [[parts[outer].shape for outer in members] for members in around]


def _punched(parts: Sequence[Part], depths: Sequence[Sequence[int]]) -> RawRle:
    """Parts at even depth filled, parts at odd depth cut out, from the outside in."""
    levels: dict[int, list[RawRle]] = {}
    for part, around in zip(parts, depths, strict=True):
        levels.setdefault(len(around), []).append(part.rle)
    mask: Mask | None = None
    for depth, rles in sorted(levels.items()):
        pixels = decode_mask(union_rles(rles))
        mask = pixels if mask is None else mask & ~pixels if depth % 2 else mask | pixels
    assert mask is not None
    return encode_mask(mask)
