"""The objects of VOC XML files and of those after them: boxes, rotated boxes, polygons and mask files.

Besides VOC's own boxes, RectLabel and Roboflow write polygons (``x1``, ``y1``, ``x2``, ...), the web tool LabelMe and
CVAT polygons of ``pt`` elements and mask files, and roLabelImg rotated boxes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np

from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.mask_files import read_pixels
from d2tune.annotations.formats.shared.parts import Part, box_part, dropped, mask_part, polygon_part, unite
from d2tune.annotations.formats.shared.sources import Folders
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError, check_points
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Points
from d2tune.text import describe

MASK_FOLDER = "Masks"
"""The folder of mask files that objects name."""

_NUMBERED = re.compile(r"([xy])(\d{1,9})")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_UNREAD_OUTLINES = ("cubic_bezier", "ellipse", "circle")
_WITHOUT_AREA = ("line", "polyline", "point", "points", "keypoints")


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What objects are read with.

    Attributes:
        labels: The rules for labels.
        options: How to read.
        folders: The folders of the source.
        mask_files: Takes the mask files that objects name.
    """

    labels: Labels
    options: ReadOptions
    folders: Folders
    mask_files: set[Path] = field(default_factory=set)


def read_object(index: int, element: Element, unit: Unit, reading: Reading) -> None:
    """Read an ``object`` element: by its polygons, else its mask file, its rotated box or its box.

    Boxes and the polygons beside them count pixels from 1, and boxes include the last, so 1 is subtracted from all
    corners but the maxima of boxes. Polygons of ``pt`` elements and rotated boxes are continuous.

    Args:
        index: Its index in the file.
        element: The element.
        unit: Takes the instance and the findings.
        reading: What it is read with.
    """
    if _text(element, "deleted") == "1":
        unit.excluded[index] = "marked as deleted"
        return
    name = reading.labels.read((element.findtext("name") or "").strip("\r\n"), unit, index)
    if name is None:
        return
    try:
        parts = _parts(index, element, unit, reading)
    except PointError as error:
        unit.note("error", error.code, str(error), shape=index)
        return
    if parts:
        difficult = _text(element, "difficult") == "1"
        draft = unite(name.label, parts, unit, nested=reading.options.nested_groups, difficult=difficult)
        draft.shapes = (index,)
        unit.drafts.append(draft)


def _parts(index: int, element: Element, unit: Unit, reading: Reading) -> list[Part]:
    """The parts of an object; none with a finding that gives the reason.

    Raises:
        PointError: Its points are invalid.
    """
    parts: list[Part | None]
    outlines = polygons_of(element)
    mask = "" if element.find("segm") is None else _text(element, "segm/mask")
    if outlines:
        parts = [polygon_part(points, unit, index) for points in outlines]
    elif mask:
        parts = [_mask_file(mask, element, unit, index, reading)]
    elif (rotated := rotated_box_of(element)) is not None:
        parts = [polygon_part(rotated, unit, index, is_polygon=False)]
    elif (corners := box_of(element)) is not None:
        _note_unread_outline(element, unit, index)
        (left, top), (right, bottom) = corners.tolist()
        if right > left and bottom > top:
            parts = [box_part(corners, unit, index)]
        else:
            parts = [dropped(unit, "zero_area", "the box has no area; dropped", index)]
    else:
        _note_missing(element, unit, index)
        parts = []
    return [part for part in parts if part is not None]


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def polygons_of(element: Element) -> list[Points]:
    """The outlines ``(V, 2)`` of an object, in continuous pixels; polygons without any point are skipped.

    Raises:
        PointError: A coordinate is missing or not a number.
    """
    outlines = []
    for polygon in element.findall("polygon"):
        points = [*polygon.findall("pt"), *polygon.findall("point")]
        if points:
            outlines.append(check_points([_numbers(point, ("x", "y"), "a point") for point in points]))
            continue
        texts = _numbered(polygon)
        if texts:
            outlines.append(check_points(texts) - 1)
    return outlines


def _numbered(polygon: Element) -> list[list[float]]:
    """The points of a polygon with the elements ``x1``, ``y1``, ``x2``, ... or ``x``, ``y``, ``x``, ..."""
    values: dict[int, dict[str, str]] = {}
    for axis in ("x", "y"):
        for number, child in enumerate(polygon.findall(axis)):
            values.setdefault(number, {})[axis] = child.text or ""
    for child in polygon:
        if match := _NUMBERED.fullmatch(child.tag):
            values.setdefault(int(match[2]), {})[match[1]] = child.text or ""
    points = []
    for number, pair in sorted(values.items()):
        missing = next((axis for axis in ("x", "y") if axis not in pair), None)
        if missing is not None:
            raise PointError("bad_point", f"point {number} of the polygon has no {missing}")
        points.append([_number(pair[axis], f"{axis} of point {number} of the polygon") for axis in ("x", "y")])
    return points


def _number(text: str | None, what: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise PointError("bad_point", f"{what} is {describe(text)}, expected a number") from None


def _numbers(element: Element, keys: tuple[str, ...], what: str) -> list[float]:
    """The numbers of child elements.

    Raises:
        PointError: One is missing or not a number.
    """
    texts = [element.findtext(key) for key in keys]
    try:
        return [float(text) for text in texts]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        pass
    missing = [key for key, text in zip(keys, texts, strict=True) if text is None]
    if missing:
        named = ", ".join(f"<{key}>" for key in missing)
        raise PointError("bad_point", f"{what} has no {named}, expected " + ", ".join(f"<{key}>" for key in keys))
    return [_number(text, f"<{key}> of {what}") for key, text in zip(keys, texts, strict=True)]


def rotated_box_of(element: Element) -> Points | None:
    """The four corners ``(4, 2)`` of roLabelImg's rotated box, which turns by radians from x to y.

    Raises:
        PointError: A number is missing or invalid.
    """
    box = element.find("robndbox")
    if box is None:
        return None
    center_x, center_y, width, height, angle = _numbers(box, ("cx", "cy", "w", "h", "angle"), "the rotated box")
    check_points([[center_x, center_y], [width, height], [angle, 0]])
    along = np.array([math.cos(angle), math.sin(angle)]) * width / 2
    across = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    corners = [-along - across, along - across, along + across, across - along]
    return np.array([center_x, center_y]) + np.array(corners)


def box_of(element: Element) -> Points | None:
    """The upper left and the lower right corner ``(2, 2)`` of the box of an object, in continuous pixels.

    Raises:
        PointError: A number is missing or invalid.
    """
    box = element.find("bndbox")
    if box is not None:
        left, top, right, bottom = _numbers(box, _CORNERS, "the box")
        return check_points([[left - 1, top - 1], [right, bottom]])
    box = element.find("segm/box")
    if box is not None:
        return check_points(np.reshape(_numbers(box, _CORNERS, "the box"), (2, 2)).tolist())
    return None


def _note_unread_outline(element: Element, unit: Unit, index: int) -> None:
    unread = next((tag for tag in _UNREAD_OUTLINES if element.find(tag) is not None), None)
    if unread is not None:
        message = f"the outline <{unread}> is not read; the box of the object is used"
        unit.note("warning", "unknown_shape_type", message, shape=index, hint="export the object as a polygon")


def _note_missing(element: Element, unit: Unit, index: int) -> None:
    """Note that an object has nothing with an area."""
    line = next((tag for tag in _WITHOUT_AREA if element.find(tag) is not None), None)
    if line is not None:
        message = f"the object is a <{line}>, which has no area; skipped"
        unit.note("warning", "unsupported_shape_type", message, shape=index)
        return
    tags = ", ".join(f"<{child.tag[:40]}>" for child in list(element)[:8])
    message = f"the object has neither a polygon nor a box; it has {tags}, expected <bndbox>, <polygon> or <robndbox>"
    unit.note("error", "bad_shape", message, shape=index)


def _mask_file(name: str, element: Element, unit: Unit, index: int, reading: Reading) -> Part | None:
    """The mask file of an object, of the size of the image or of the object's box."""
    assert unit.image is not None
    path = _place_of_mask(name, unit, reading.folders)
    if path is None:
        message = f"the mask file {describe(name)} is neither in {MASK_FOLDER} nor beside the annotation file"
        unit.note("error", "mask_missing", message, shape=index)
        return None
    reading.mask_files.add(path)
    box = element.find("segm/box")
    corner, size_px = np.zeros(2), unit.image.size_px
    if box is not None:
        corners = check_points(np.reshape(_numbers(box, _CORNERS, "the box"), (2, 2)).tolist())
        corner = np.floor(corners[0])
        extent = np.ceil(corners[1]) - corner
        size_px = (int(extent[0]), int(extent[1]))
    pixels = read_pixels(path, unit, also_px=size_px, shape=index)
    if pixels is None:
        return None
    filled = pixels != 0 if pixels.ndim == 2 else np.any(pixels[..., :3] != 0, axis=-1)
    if filled.shape[::-1] == unit.image.size_px:
        corner = np.zeros(2)
    return mask_part(Patch(filled, int(corner[0]), int(corner[1])), unit, index)


def _place_of_mask(name: str, unit: Unit, folders: Folders) -> Path | None:
    """The mask file of that name near an annotation file; never one outside of the source."""
    base = PurePosixPath(name.replace("\\", "/")).name
    file = folders.source / unit.file
    mirrored = [MASK_FOLDER if part == "Annotations" else part for part in PurePosixPath(unit.file).parts[:-1]]
    places = [file.parent / MASK_FOLDER / base, folders.source.joinpath(*mirrored, base), file.parent / base]
    inside = (folders.source.resolve(), folders.root.resolve())
    for place in places:
        if place.is_file() and any(place.resolve().is_relative_to(folder) for folder in inside):
            return place
    return None
