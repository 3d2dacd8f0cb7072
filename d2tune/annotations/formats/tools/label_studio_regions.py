"""The regions of Label Studio: coordinates in percent of the image, and brush masks as packed run lengths."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2tune.annotations.formats.labelme_shapes import decode_base64
from d2tune.annotations.formats.shared import shapes
from d2tune.annotations.formats.shared.parts import Part, box_part, polygon_part, round_part
from d2tune.annotations.formats.shared.shapes import Outline, Shape, numbers_of
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.tools.packed_runs import PackedRunsError, unpack
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError, check_points

_CHANNELS = 4
"""Brush masks are images of red, green, blue and opacity."""


@dataclass(frozen=True, slots=True)
class Region:
    """A region of an annotation.

    Attributes:
        row: Its result, with the size of the image.
        value: Its geometry.
        kind: Its type, empty where only the keys of its value give it.
        labels: Its classes, where they are in a result of their own.
    """

    row: dict[str, Any]
    value: dict[str, Any]
    kind: str
    labels: list[object]


def shape_of(region: Region) -> Shape:
    """The shape of a region; of several classes the first is read."""
    key = _classes_key(region.value)
    classes = classes_of(region)
    kind = (key if key != "labels" else "") or region.kind or key
    label = classes[0] if classes else None
    return Shape(label, _outline(region.value), _plain(kind), score=_score(region.row))


def classes_of(region: Region) -> list[object]:
    """The classes of a region, unchecked."""
    key = _classes_key(region.value)
    return region.value[key] if key else region.labels


def _classes_key(value: dict[str, Any]) -> str:
    """The key of the classes in a geometry, ``polygonlabels``; empty where they are elsewhere."""
    return next((key for key in value if key.endswith("labels") and isinstance(value[key], list)), "")


def _plain(kind: str) -> str:
    """``keypoint`` for ``keypointlabels``."""
    return kind.removesuffix("labels") if kind != "labels" else "label"


def _score(row: dict[str, Any]) -> float | None:
    score = row.get("score")
    is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
    return float(score) if is_number and score is not None and 0 <= score <= 1 else None


def _outline(value: dict[str, Any]) -> Outline | None:
    if isinstance(value.get("points"), list):
        return lambda unit, index: polygon_part(_in_pixels(check_points(value["points"]), unit), unit, index)
    if "rle" in value:
        return shapes.mask(lambda unit: _brush(value["rle"], unit))
    if "imageDataURL" in value:
        return shapes.mask(lambda unit: _bitmask(value["imageDataURL"], unit))
    if "radiusX" in value:
        return lambda unit, index: _ellipse(value, unit, index)
    return (lambda unit, index: _rectangle(value, unit, index)) if _is_rectangle(value) else None


def _is_rectangle(value: dict[str, Any]) -> bool:
    return {"x", "y", "width", "height"} <= value.keys()


def _in_pixels(points: Any, unit: Unit) -> Any:
    """Points ``(V, 2)`` in percent of the image, in pixels."""
    assert unit.image is not None
    return points * np.array(unit.image.size_px) / 100


def _rectangle(value: dict[str, Any], unit: Unit, index: int) -> Part | None:
    """A rectangle, rotated clockwise around its upper left corner."""
    numbers = numbers_of([value[key] for key in ("x", "y", "width", "height")], "a rectangle")
    (degrees,) = numbers_of([value.get("rotation") or 0], "a rotation")
    low, size = _in_pixels(np.array([numbers[:2], numbers[2:]]), unit)
    if degrees % 360 == 0:
        return box_part(np.sort([low, low + size], axis=0), unit, index)
    return polygon_part(shapes.rotated(low, size, degrees, around=low), unit, index, is_polygon=False)


def _ellipse(value: dict[str, Any], unit: Unit, index: int) -> Part | None:
    """An ellipse, rotated clockwise around its center."""
    numbers = numbers_of([value.get(key) for key in ("x", "y", "radiusX", "radiusY")], "an ellipse")
    (degrees,) = numbers_of([value.get("rotation") or 0], "a rotation")
    center, (radius_x, radius_y) = _in_pixels(np.array([numbers[:2], numbers[2:]]), unit).tolist()
    return round_part(center, radius_x, radius_y, unit, index, theta_rad=math.radians(degrees % 360))


def _brush(rle: object, unit: Unit) -> Patch:
    """The pixels of a brush mask: those that are not fully transparent, rows from the top."""
    assert unit.image is not None
    width_px, height_px = unit.image.size_px
    if not isinstance(rle, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in rle):
        raise PointError("bad_rle", "the brush mask is not a list of bytes")
    expected = width_px * height_px * _CHANNELS
    try:
        values = unpack(bytes(rle), limit=expected)
    except PackedRunsError as error:
        raise PointError("bad_rle", f"the brush mask is damaged: {error}") from error
    if len(values) != expected:
        raise PointError("bad_rle", f"the brush mask has {len(values)} values, expected {expected}")
    return Patch(values.reshape(height_px, width_px, _CHANNELS)[..., 3] > 0, 0, 0)


def _bitmask(url: object, unit: Unit) -> Patch:
    """The pixels of a mask that is a PNG as a data URL."""
    from PIL import Image as PilImage

    assert unit.image is not None
    content = decode_base64(url)
    try:
        with PilImage.open(io.BytesIO(content or b"")) as image:
            pixels = np.asarray(image.getchannel("A") if "A" in image.getbands() else image.convert("L"))
    except Exception as error:  # Pillow raises a dozen kinds for broken images
        raise PointError("mask_undecodable", f"the mask cannot be decoded ({error})") from error
    if pixels.shape[::-1] != unit.image.size_px:
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise PointError("mask_undecodable", f"the mask has {size} px, the image {unit.image.size_px}")
    return Patch(pixels > 0, 0, 0)
