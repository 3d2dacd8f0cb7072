"""CVAT for images 1.1: an XML file for all images of a task."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from d2tune.annotations.formats.shared import shapes
from d2tune.annotations.formats.shared.parts import Part
from d2tune.annotations.formats.shared.reading import Reading, place_image, read_shapes, read_source
from d2tune.annotations.formats.shared.shapes import Outline, Shape
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError
from d2tune.annotations.io.json_files import JsonError, read_bytes
from d2tune.annotations.io.xml_files import XmlError, parse_xml
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.text import describe

TITLE = "CVAT for images"

_SHAPES = ("polygon", "box", "ellipse", "mask", "polyline", "points", "skeleton", "cuboid", "tag")


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read an XML file of CVAT, or all of a folder; images are in ``images`` beside it or beside it.

    Classes have the order of the labels in the file. Shapes of an image with the same label and ``group_id`` are one
    instance. They are counted in the order in which they cover each other (``z_order``). Tracks of videos are an error.

    Raises:
        DataError: The source does not exist or has no such file.
    """
    return read_source(source, options, _read_file, title=TITLE, suffix=".xml")


def _read_file(name: str, reading: Reading) -> list[Unit]:
    file, path = Unit(name), reading.path(name)
    try:
        root = parse_xml(read_bytes(path))
    except XmlError as error:
        file.note("error", "bad_xml", str(error), line=error.line, column=error.column)
        return [file]
    except (OSError, JsonError) as error:
        file.note("error", "bad_xml", f"the file cannot be read ({error})")
        return [file]
    if root.tag != "annotations":
        message = f"the file contains <{root.tag[:40]}>, which is not an annotation of CVAT; skipped"
        file.note("warning", "not_this_format", message)
        return [file]
    reading.read.append(name)
    tracks = root.findall("track")
    if tracks:
        message = f"the file has {len(tracks)} tracks of a video, which are not read"
        hint = "export the task as CVAT for images 1.1 or COCO 1.0, which have the shapes of each frame"
        file.note("error", "several_frames", message, hint=hint)
    meta = root.find("meta")
    reading.list_classes(element.findtext("name") or "" for element in ([] if meta is None else meta.iter("label")))
    units, first = [file] if file.findings else [], 0
    for element in root.findall("image"):
        unit, count = _read_image(element, name, reading, first)
        units.append(unit)
        first += count
    return units


def _read_image(element: Element, name: str, reading: Reading, first: int) -> tuple[Unit, int]:
    """The unit of an image, and the number of its shapes, which are counted from ``first``."""
    unit, folder = Unit(name), reading.path(name).parent
    subset = element.get("subset") or ""
    folders = [*([folder / "images" / subset] if subset else []), folder / "images", folder]
    number = element.get("id") or ""
    is_placed = place_image(
        unit,
        element.get("name"),
        reading,
        folders=folders,
        size_px=(element.get("width"), element.get("height")),
        source_id=int(number) if number.isdecimal() else number or None,
    )
    rows = sorted((row for row in element if row.tag in _SHAPES), key=_z_order)
    read_shapes([_shape(row) for row in rows], unit, reading, is_placed=is_placed, first=first)
    return unit, len(rows)


def _z_order(row: Element) -> int:
    try:
        return int(row.get("z_order") or 0)
    except ValueError:
        return 0


def _shape(row: Element) -> Shape:
    group = row.get("group_id")
    outline = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}.get(row.tag)
    return Shape(row.get("label"), outline and outline(row), row.tag, group=None if group == "0" else group)


def _number(row: Element, key: str) -> float:
    """The number of an attribute.

    Raises:
        PointError: It is missing or not a number.
    """
    text = row.get(key)
    try:
        return float(text or "")
    except ValueError:
        raise PointError("bad_point", f"{key} of a {row.tag} is {describe(text)}, expected a number") from None


def _polygon(row: Element) -> Outline:
    def pairs() -> list[list[float]]:
        try:
            texts = [pair.split(",") for pair in (row.get("points") or "").split(";") if pair.strip()]
            return [[float(value) for value in pair] for pair in texts]
        except ValueError:
            message = f"points are {describe(row.get('points'))}, expected x,y;x,y;..."
            raise PointError("bad_point", message) from None

    return lambda unit, index: shapes.polygon(pairs())(unit, index)


def _box(row: Element) -> Outline:
    def read(unit: Unit, index: int) -> Part | None:
        left, top, right, bottom = (_number(row, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        degrees = _number(row, "rotation") if row.get("rotation") else 0.0
        return shapes.box(left, top, right - left, bottom - top, rotation_deg=degrees)(unit, index)

    return read


def _ellipse(row: Element) -> Outline:
    def read(unit: Unit, index: int) -> Part | None:
        values = [_number(row, key) for key in ("cx", "cy", "rx", "ry")]
        degrees = _number(row, "rotation") if row.get("rotation") else 0.0
        return shapes.ellipse(*values, rotation_deg=degrees)(unit, index)

    return read


def _mask(row: Element) -> Outline:
    return shapes.mask(lambda unit: _patch(row))


def _patch(row: Element) -> Patch:
    """The pixels of a mask: runs of background and object in turn, along the rows of its box."""
    left, top, width, height = (round(_number(row, key)) for key in ("left", "top", "width", "height"))
    words = (row.get("rle") or "").replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
        raise PointError("bad_rle", "the runs of the mask are not whole numbers")
    runs = np.array(words, dtype=np.int64)
    total = int(runs.sum()) if len(runs) else 0
    if min(width, height) < 1 or total != width * height:
        raise PointError("bad_rle", f"the runs add up to {total} pixels, the box of the mask has {width * height}")
    return Patch(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width), left, top)
