"""CVAT for images 1.1: an XML file for all images of a task."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from d2tune.annotations.formats.shared.reading import Reading, place_image, read_shapes, read_source
from d2tune.annotations.formats.shared.shapes import Shape
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.tools.cvat_shapes import OUTLINES
from d2tune.annotations.io.json_files import JsonError, read_bytes
from d2tune.annotations.io.xml_files import XmlError, parse_xml
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions

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
    outline = OUTLINES.get(row.tag)
    return Shape(row.get("label"), outline and outline(row), row.tag, group=None if group == "0" else group)
