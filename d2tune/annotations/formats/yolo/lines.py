"""The lines of a label file of YOLO."""

from __future__ import annotations

from functools import partial

import numpy as np

from d2tune.annotations.formats.shared.parts import Part, box_part, polygon_part
from d2tune.annotations.formats.shared.reading import Reading
from d2tune.annotations.formats.shared.shapes import Shape, add_shapes
from d2tune.annotations.formats.shared.sources import measure
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.yolo.description import Description
from d2tune.annotations.geometry.polygons import PointError, check_points
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.io.places import Place
from d2tune.annotations.model.types import Points
from d2tune.text import describe

_LARGEST = 2.0
"""Coordinates beyond this are pixels, not shares."""

_ROUNDING = 1e-5
_DECIMALS = 5


def read_file(name: str, place: Place, description: Description, reading: Reading) -> Unit:
    """Read a label file into a unit; nothing in it can raise.

    Args:
        name: Its name relative to the source.
        place: Its image.
        description: The classes.
        reading: What it is read with.
    """
    unit = Unit(name)
    if measure(place, unit) is None:
        return unit
    try:
        text, _ = decode_text(read_bytes(reading.path(name)))
    except (JsonError, OSError) as error:
        unit.note("error", "bad_label_file", f"the file cannot be read ({error})")
        return unit
    rows = [row for line in text.splitlines() if (row := line.split())]
    shapes = [_shape(row, index, unit, description, reading) for index, row in enumerate(rows)]
    add_shapes(shapes, unit, reading.labels, reading.options)
    return unit


def _shape(row: list[str], index: int, unit: Unit, description: Description, reading: Reading) -> Shape:
    """The shape of a line; one whose class is not known is excluded with an error."""
    label, problem = _label(row[0], description, reading)
    if problem:
        unit.note("error", "unknown_label", problem, shape=index)
    words, score = row[1:], None
    if description.has_keypoints:
        words = words[:4]
    elif len(words) > 4 and len(words) % 2:
        score = _number(words[-1])
        words = words[:-1]
    is_score = score is not None and 0 <= score <= 1
    outline = partial(_outline, words)
    return Shape(label, outline, score=score if is_score else None, excluded=problem)


def _label(word: str, description: Description, reading: Reading) -> tuple[str, str]:
    """The class of a line, and what is wrong with it."""
    number = _number(word)
    if number is None or number != number or number < 0 or number != int(min(number, 2**31)):
        return "", f"the class is {describe(word)}, expected a whole number"
    names = description.names or dict(enumerate(reading.labels.names or ()))
    if not names:
        return str(int(number)), ""
    if int(number) in names:
        return names[int(number)], ""
    file = "the labels" if description.file is None else description.file.name
    return "", f"the class {int(number)} is not among the {len(names)} names of {file}, which are counted from 0"


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _outline(words: list[str], unit: Unit, index: int) -> Part | None:
    """A box by its center and size, or a polygon.

    Raises:
        PointError: The numbers are invalid.
    """
    assert unit.image is not None
    if len(words) < 4 or len(words) % 2:
        raise PointError(
            "bad_point", f"the line has {len(words)} numbers behind its class, expected 4 of a box, or 6 or more"
        )
    numbers = [_number(word) for word in words]
    points = check_points([numbers[at : at + 2] for at in range(0, len(numbers), 2)])
    largest = float(np.abs(points).max())
    if largest > _LARGEST:
        raise PointError("bad_point", f"a coordinate is {largest:g}, expected shares of the image between 0 and 1")
    size_px = np.array(unit.image.size_px, dtype=np.float64)
    if len(points) == 2:
        center, size = points
        return box_part(_in_pixels(np.array([center - size / 2, center + size / 2]), size_px), unit, index)
    return polygon_part(_in_pixels(points, size_px), unit, index)


def _in_pixels(points: Points, size_px: Points) -> Points:
    """Shares ``(V, 2)`` in pixels, without what rounding moved beyond the border of the image.

    Rounded to `_DECIMALS`, which gives back the coordinates that a file with ten digits was written from.
    """
    inside = np.clip(points, 0, 1)
    snapped = np.where(np.abs(points - inside) <= _ROUNDING, inside, points)
    return np.round(snapped * size_px, _DECIMALS)
