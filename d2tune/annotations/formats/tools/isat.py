"""ISAT: a JSON file for each image, with the objects in layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d2tune.annotations.formats.shared import shapes
from d2tune.annotations.formats.shared.reading import Reading, load_json, place_image, read_shapes, read_source
from d2tune.annotations.formats.shared.shapes import Shape
from d2tune.annotations.formats.shared.signatures import is_isat
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions

TITLE = "ISAT"

_BACKGROUND = "__background__"


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a folder of ISAT files, or one file.

    Objects of an image with the same category and group are one instance. They are counted in the order of their
    layers, in which they cover each other. Objects of the category ``__background__`` are ignored.

    Raises:
        DataError: The source does not exist or has no such file.
    """
    return read_source(source, options, _read_file, title=TITLE)


def _read_file(name: str, reading: Reading) -> list[Unit]:
    unit, value = load_json(name, reading, is_isat, TITLE)
    if value is None:
        return [unit]
    info, path = value["info"], reading.path(name)
    folders = (path.parent, path.parent.parent / "images", path.parent.parent)
    size_px = info.get("width"), info.get("height")
    is_placed = place_image(unit, info["name"], reading, folders=folders, stem=path.stem, size_px=size_px)
    rows = [row if isinstance(row, dict) else {} for row in value["objects"]]
    shapes_read = [_shape(row) for row in sorted(rows, key=_layer)]
    for index, shape in enumerate(shapes_read):
        if shape.excluded:
            unit.note("info", "ignored_label", shape.excluded, shape=index)
    read_shapes(shapes_read, unit, reading, is_placed=is_placed)
    return [unit]


def _layer(row: dict[str, Any]) -> float:
    layer = row.get("layer")
    return float(layer) if isinstance(layer, (int, float)) and layer == layer else 0.0


def _shape(row: dict[str, Any]) -> Shape:
    points, bbox = row.get("segmentation"), row.get("bbox")
    label = row.get("category")
    if not points and isinstance(bbox, list) and len(bbox) == 4:
        outline = shapes.box_of_corners(*bbox)
    else:
        outline = shapes.polygon(points)
    return Shape(
        label,
        outline,
        group=row.get("group"),
        iscrowd=row.get("iscrowd") in (1, True, "1"),
        excluded=f"the label {label!r} is ignored" if label == _BACKGROUND else "",
    )
