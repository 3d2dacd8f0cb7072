"""The shapes of a Labelme file that have an area, read into parts."""

from __future__ import annotations

import base64
import binascii
import io
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from d2tune.annotations.formats.shared.normalized import is_normalized, note_normalized, to_pixels
from d2tune.annotations.formats.shared.parts import Part, box_part, mask_part, polygon_part, round_part
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError, check_points
from d2tune.annotations.io.images import magic_suffix
from d2tune.annotations.model.types import Mask, Points

POINT_COUNTS = {"rectangle": (2, 4), "circle": (2,), "oriented_rectangle": (4,), "mask": (2,)}
"""The valid numbers of points of a shape of each type; a polygon has any number."""

AREA_TYPES = frozenset({"polygon", *POINT_COUNTS})

_OUTLINE_TYPES = frozenset({"rotation", "quadrilateral"})
"""Types of X-AnyLabeling that are polygons of their points."""

_LINE_TYPES = frozenset({"line", "linestrip", "polyline", "point", "points"})
"""Types without an area."""

_MASK_LIMIT_SAMPLES = 2**27
_CORNER_TOLERANCE_PX = 0.01


def decode_base64(data: object) -> bytes | None:
    """The bytes of base64 text, with or without a ``data:`` prefix; None where it is not valid base64."""
    if not isinstance(data, str):
        return None
    if data.startswith("data:"):
        data = data.partition(",")[2]
    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        return None


def area_type(raw: object) -> str | None:
    """One of `AREA_TYPES` for the ``shape_type`` of a file, in any case; None where the type has no area or is unknown.

    A missing type is a polygon, and so are the types of other tools that list the corners of an outline.
    """
    if raw == "polygon" or raw is None or raw == "":
        return "polygon"
    kind = spelled(raw)
    return "polygon" if kind in _OUTLINE_TYPES else kind if kind in AREA_TYPES else None


def spelled(raw: object) -> str:
    """A ``shape_type`` as Labelme spells it: ``Oriented Rectangle`` is ``oriented_rectangle``."""
    return raw.strip().lower().replace(" ", "_").replace("-", "_") if isinstance(raw, str) else ""


def is_line_type(raw: object) -> bool:
    """Whether the ``shape_type`` of a file is one that has no area."""
    return spelled(raw) in _LINE_TYPES


def written_shape(raw: dict[str, Any]) -> dict[str, Any]:
    """The type and the points of a shape as Labelme takes them, which knows neither four corners nor other spellings.

    Types that are unknown here stay as they are.
    """
    kind, points = area_type(raw.get("shape_type")), raw.get("points")
    if kind is None:
        return {"shape_type": raw.get("shape_type")}
    if spelled(raw.get("shape_type")) == "rotation" and isinstance(points, list) and len(points) == 4:
        return {"shape_type": "oriented_rectangle"}
    if kind == "rectangle" and isinstance(points, list) and len(points) != 2:
        try:
            corners = rectangle_corners(check_points(points[:4]))
        except PointError:
            corners = None
        return {"shape_type": "polygon"} if corners is None else {"shape_type": kind, "points": corners.tolist()}
    return {"shape_type": kind}


def in_pixels(shapes: list[object], unit: Unit) -> list[object]:
    """The shapes of a file, with their points in pixels where all of them are between 0 and 1."""
    if not is_normalized(number for shape in shapes for number in _coordinates(shape)):
        return shapes
    note_normalized(unit)
    scaled: list[object] = []
    for shape in shapes:
        points = np.array(list(_coordinates(shape)), dtype=np.float64).reshape(-1, 2)
        scaled.append(shape | {"points": to_pixels(points, unit).tolist()} if len(points) else shape)  # type: ignore[operator]
    return scaled


def _coordinates(shape: object) -> Iterator[object]:
    """The coordinates of a shape that has an area, unchecked; none of a mask."""
    kind = area_type(shape.get("shape_type")) if isinstance(shape, dict) else None
    points = shape.get("points") if isinstance(shape, dict) and kind not in (None, "mask") else None
    for point in points if isinstance(points, list) else ():
        if isinstance(point, list) and len(point) == 2:
            yield from point
        else:
            yield None


def read_shape(shape: dict[str, Any], unit: Unit, index: int, *, kind: str | None = None) -> Part | None:
    """Check the points of a shape that has an area and read it into a part.

    Args:
        shape: The shape.
        unit: Its unit, which has the image and takes the findings.
        index: Index in the file.
        kind: One of `AREA_TYPES`; None takes the type in the file.
    """
    kind = kind or area_type(shape.get("shape_type")) or "polygon"
    try:
        points = check_points(shape.get("points"))
    except PointError as error:
        unit.note("error", error.code, str(error), shape=index)
        return None
    if kind == "rectangle" and len(points) == 5 and np.array_equal(points[0], points[-1]):
        points = points[:-1]
    wanted = POINT_COUNTS.get(kind)
    if wanted is not None and len(points) not in wanted:
        counts = " or ".join(map(str, wanted))
        message = f"a shape of type {kind} needs {counts} points, this shape has {len(points)}"
        unit.note("error", "wrong_point_count", message, shape=index)
        return None
    return _READERS[kind](points, shape, unit, index)


def rectangle_corners(points: Points) -> Points | None:
    """Two opposite corners ``(2, 2)`` of a rectangle with sides along the axes, in any order of its corners.

    Args:
        points: Two or four corners, ``(2, 2)`` or ``(4, 2)``.

    Returns:
        The corners; None where four points are not the corners of such a rectangle.
    """
    if len(points) == 2:
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    is_low, is_high = points - low <= _CORNER_TOLERANCE_PX, high - points <= _CORNER_TOLERANCE_PX
    sides = {tuple(corner) for corner in is_high.tolist()}
    has_all = len(sides) == 4 or not np.all(high - low > _CORNER_TOLERANCE_PX)
    return np.stack([low, high]) if has_all and np.all(is_low | is_high) else None


def _read_polygon(points: Points, shape: dict[str, Any], unit: Unit, index: int) -> Part | None:
    return polygon_part(points, unit, index)


def _read_rectangle(points: Points, shape: dict[str, Any], unit: Unit, index: int) -> Part | None:
    corners = rectangle_corners(points)
    if corners is None:
        return polygon_part(points, unit, index)
    return box_part(corners, unit, index)


def _read_circle(points: Points, shape: dict[str, Any], unit: Unit, index: int) -> Part | None:
    radius_px = math.dist(*points.tolist())
    return round_part(points[0].tolist(), radius_px, radius_px, unit, index)


def _read_mask(points: Points, shape: dict[str, Any], unit: Unit, index: int) -> Part | None:
    data = shape.get("mask")
    if data is None or data == "":
        unit.note("error", "mask_missing", "the mask shape has no mask", shape=index)
        return None
    mask = _decode_png(decode_base64(data))
    if mask is None:
        unit.note("error", "mask_undecodable", "the mask is not a valid PNG in base64", shape=index)
        return None
    (x1, y1), (x2, y2) = points.tolist()
    if all(value == int(value) for value in (x1, y1, x2, y2)):
        wanted = (int(x2 - x1 + 1), int(y2 - y1 + 1))
        if wanted != (mask.shape[1], mask.shape[0]):
            size = f"{mask.shape[1]} x {mask.shape[0]}"
            message = f"the PNG has {size} px, its corners {wanted[0]} x {wanted[1]}; the size of the PNG is used"
            unit.note("warning", "mask_bbox_mismatch", message, shape=index)
    return mask_part(Patch(mask, round(x1), round(y1)), unit, index)


def _decode_png(content: bytes | None) -> Mask | None:
    """The pixels of a mask, ``(h, w)``: those that are not 0."""
    from PIL import Image as PilImage

    if content is None or magic_suffix(content) != ".png":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PilImage.DecompressionBombWarning)
            image = PilImage.open(io.BytesIO(content))
        with image:
            bands = len(image.getbands())
            if image.width * image.height * bands > _MASK_LIMIT_SAMPLES:
                return None
            filled: Mask = np.asarray(image.getchannel(0) if bands > 1 else image) != 0
            for band in range(1, min(bands, 3)):
                filled |= np.asarray(image.getchannel(band)) != 0
    except Exception:  # Pillow raises a dozen kinds for broken PNGs
        return None
    return filled


_READERS: dict[str, Callable[[Points, dict[str, Any], Unit, int], Part | None]] = {
    "polygon": _read_polygon,
    "rectangle": _read_rectangle,
    "oriented_rectangle": _read_polygon,
    "circle": _read_circle,
    "mask": _read_mask,
}
