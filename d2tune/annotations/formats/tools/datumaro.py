"""Datumaro JSON: a file for each subset, as Datumaro and CVAT write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from d2tune.annotations.formats.shared.signatures import is_datumaro
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch, check_rle, decode_mask
from d2tune.annotations.geometry.polygons import PointError
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.text import describe

TITLE = "Datumaro"


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a Datumaro file, or all of a folder; images are in ``images/SUBSET`` beside ``annotations``.

    Classes have the order of the labels in the file. Annotations of an item with the same label and the same group are
    one instance. They are counted in the order in which they cover each other (``z_order``).

    Raises:
        DataError: The source does not exist or has no such file.
    """
    return read_source(source, options, _read_file, title=TITLE)


def _read_file(name: str, reading: Reading) -> list[Unit]:
    file, value = load_json(name, reading, is_datumaro, TITLE)
    if value is None:
        return [file]
    labels = _labels(value["categories"], file)
    reading.list_classes(label for label in labels if label)
    path = reading.path(name)
    top = path.parent.parent
    folders = (top / "images" / path.stem, top / "images", path.parent / "images", path.parent)
    units, first = [], 0
    for item in value["items"]:
        unit = Unit(name)
        if not isinstance(item, dict):
            unit.note("error", "bad_shape", f"an item is {describe(item)}, expected an object")
            units.append(unit)
            continue
        rows = objects_in(item.get("annotations"), unit, "annotations")
        image = _image(item)
        size = image.get("size")
        size_px = (size[1], size[0]) if isinstance(size, list) and len(size) == 2 else (None, None)
        named, item_id = image.get("path"), item.get("id")
        is_placed = place_image(
            unit,
            named or item_id,
            reading,
            folders=folders,
            size_px=size_px,
            source_id=item_id,
            without_suffix=not named,
        )
        read = [_shape(row, labels, unit) for row in sorted(rows, key=_z_order)]
        read_shapes(read, unit, reading, is_placed=is_placed, first=first)
        first += len(rows)
        units.append(unit)
    return [file, *units] if file.findings else units


def _labels(categories: dict[str, Any], file: Unit) -> list[str]:
    of_labels = categories.get("label")
    rows = of_labels.get("labels") if isinstance(of_labels, dict) else None
    return [str(row.get("name", "")) for row in objects_in(rows, file, "labels")]


def _image(item: dict[str, Any]) -> dict[str, Any]:
    """The image of an item, also of the later form ``media``."""
    media = item.get("image") or item.get("media")
    return media if isinstance(media, dict) else {}


def _z_order(row: dict[str, Any]) -> float:
    value = row.get("z_order")
    return float(value) if isinstance(value, (int, float)) and value == value else 0.0


def _shape(row: dict[str, Any], labels: list[str], unit: Unit) -> Shape:
    number, attributes = row.get("label_id"), row.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    label: object = number
    if type(number) is int and 0 <= number < len(labels):
        label = labels[number]
    return Shape(
        label if isinstance(label, str) else None,
        _outline(row, attributes),
        row.get("type"),
        group=row.get("group"),
        iscrowd=attributes.get("is_crowd") in (1, True),
        difficult=attributes.get("difficult") in (1, True),
    )


def _outline(row: dict[str, Any], attributes: dict[str, Any]) -> Outline | None:
    kind = row.get("type")
    if kind == "polygon":
        return shapes.flat_polygon(row.get("points"))
    if kind == "bbox":
        box = row.get("bbox")
        corners = box if isinstance(box, list) and len(box) == 4 else [None] * 4
        return shapes.box(*corners, rotation_deg=attributes.get("rotation"))
    if kind == "ellipse":
        points = row.get("points")
        return shapes.ellipse_in_box(*(points if isinstance(points, list) and len(points) == 4 else [None] * 4))
    if kind == "mask":
        return shapes.mask(lambda unit: _patch(row.get("rle"), unit))
    return None


def _patch(rle: object, unit: Unit) -> Patch:
    assert unit.image is not None
    width_px, height_px = unit.image.size_px
    if not isinstance(rle, dict):
        raise PointError("mask_missing", f"the run-length mask is {describe(rle)}, expected counts and size")
    return Patch(decode_mask(check_rle(rle, width_px=width_px, height_px=height_px)), 0, 0)
