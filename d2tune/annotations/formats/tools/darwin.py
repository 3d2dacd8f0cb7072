"""V7 Darwin JSON 2.0: a JSON file for each image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from d2tune.annotations.formats.shared import shapes
from d2tune.annotations.formats.shared.reading import (
    Reading,
    load_json,
    objects_in,
    place_image,
    read_shapes,
    read_source,
)
from d2tune.annotations.formats.shared.shapes import Outline, Shape
from d2tune.annotations.formats.shared.signatures import is_darwin
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions

TITLE = "Darwin JSON"

_KINDS = ("polygon", "mask", "ellipse", "bounding_box")
_LAYER = "raster_layer"


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a folder of Darwin files, or one file.

    A polygon of several paths has what lies inside an odd number of them. Masks are read from the raster layer. Items
    of several slots and videos are errors.

    Raises:
        DataError: The source does not exist or has no such file.
    """
    return read_source(source, options, _read_file, title=TITLE)


def _read_file(name: str, reading: Reading) -> list[Unit]:
    unit, value = load_json(name, reading, is_darwin, TITLE)
    if value is None:
        return [unit]
    item, path = value["item"], reading.path(name)
    slots = objects_in(item.get("slots"), unit, "slots")
    rows = objects_in(value["annotations"], unit, "annotations")
    if len(slots) > 1 or any("frames" in row for row in rows):
        what = "the annotations of a video" if len(slots) < 2 else f"{len(slots)} slots"
        unit.note("error", "several_frames", f"the item has {what}, expected one image")
        unit.exclude(range(len(rows)))
        return [unit]
    slot = slots[0] if slots else {}
    size_px = slot.get("width"), slot.get("height")
    source_info = item.get("source_info")
    item_id = source_info.get("item_id") if isinstance(source_info, dict) else None
    folders = (path.parent, path.parent.parent / "images", path.parent.parent)
    is_placed = place_image(
        unit, item.get("name"), reading, folders=folders, stem=path.stem, size_px=size_px, source_id=item_id
    )
    layer: dict[str, Any] = next((row[_LAYER] for row in rows if isinstance(row.get(_LAYER), dict)), {})
    read_shapes([_shape(row, layer) for row in rows if _LAYER not in row], unit, reading, is_placed=is_placed)
    return [unit]


def _shape(row: dict[str, Any], layer: dict[str, Any]) -> Shape:
    label = row.get("name")
    kind = next((kind for kind in _KINDS if isinstance(row.get(kind), dict)), None)
    if kind is None:
        known = {"id", "name", "slot_names", "properties", "attributes", "instance_id", "text", "ranges", "reviewers"}
        return Shape(label, None, next((key for key in row if key not in known), "unknown"))
    return Shape(label, _outline(kind, row[kind], row, layer), kind)


def _outline(kind: str, value: dict[str, Any], row: dict[str, Any], layer: dict[str, Any]) -> Outline:
    if kind == "mask":
        return shapes.mask(lambda unit: _patch(row.get("id"), layer, unit))
    if kind == "bounding_box":
        return shapes.box(value.get("x"), value.get("y"), value.get("w"), value.get("h"))
    if kind == "ellipse":
        center, radius, angle = _pair(value.get("center")), _pair(value.get("radius")), value.get("angle") or 0
        degrees = math.degrees(angle) if isinstance(angle, (int, float)) else angle
        return shapes.ellipse(*center, *radius, rotation_deg=degrees)
    paths = value.get("paths", [value.get("path")])
    return shapes.outlines([_points(path) for path in paths if path] if isinstance(paths, list) else [])


def _points(path: object) -> list[list[object]]:
    return [_pair(point) for point in path] if isinstance(path, list) else [[path]]


def _pair(point: object) -> list[object]:
    return [point.get("x"), point.get("y")] if isinstance(point, dict) else [None, None]


def _patch(annotation_id: object, layer: dict[str, Any], unit: Unit) -> Patch:
    """The pixels of a mask: those that have its number in the raster layer, rows from the top."""
    assert unit.image is not None
    width_px, height_px = unit.image.size_px
    numbers = layer.get("mask_annotation_ids_mapping")
    number = numbers.get(str(annotation_id)) if isinstance(numbers, dict) else None
    runs = layer.get("dense_rle")
    if type(number) is not int or not isinstance(runs, list) or len(runs) % 2 or not all(map(_is_count, runs)):
        raise PointError("mask_missing", "the raster layer does not have the mask")
    values, counts = np.array(runs[0::2], dtype=np.int64), np.array(runs[1::2], dtype=np.int64)
    if int(counts.sum()) != width_px * height_px:
        message = f"the raster layer has {int(counts.sum())} pixels, the image {width_px * height_px}"
        raise PointError("bad_rle", message)
    return Patch(np.repeat(values == number, counts).reshape(height_px, width_px), 0, 0)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**40
