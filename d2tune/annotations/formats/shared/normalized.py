"""Coordinates between 0 and 1, which are shares of the size of the image instead of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.model.types import Points

_TOLERANCE = 0.01
"""How far rounding and clipping move normalized coordinates beyond 0 and 1."""


def is_normalized(coordinates: Iterable[object]) -> bool:
    """Whether all coordinates of a file are between 0 and 1, and one of them is not a whole number.

    In pixels, they would be objects of less than a pixel in the corner of the image. The first larger coordinate ends
    the test, so that a generator costs nothing for nearly every file.

    Args:
        coordinates: The numbers in the file, unchecked; what is not a number means that they are not normalized.
    """
    is_whole = True
    for value in coordinates:
        if type(value) is not float and type(value) is not int:
            return False
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            return False
        is_whole = is_whole and value == int(value)
    return not is_whole


def corners_of(box_xywh: Sequence[object]) -> Iterator[object]:
    """The coordinates of the two corners of a box, None for what is not a number."""
    numbers = [value if type(value) in (int, float) else None for value in box_xywh]
    yield from numbers[:2]
    for start, length in zip(numbers[:2], numbers[2:4], strict=False):
        yield None if start is None or length is None else start + length  # type: ignore[operator]


def note_normalized(unit: Unit) -> None:
    """Note the warning that the coordinates of a file are scaled."""
    message = "all coordinates are between 0 and 1; they are read as shares of the width and height of the image"
    unit.note("warning", "normalized_coordinates", message, hint="write coordinates in pixels")


def to_pixels(points: Points, unit: Unit) -> Points:
    """Normalized points ``(V, 2)`` in pixels of the unit's image."""
    assert unit.image is not None
    return points * np.array(unit.image.size_px, dtype=np.float64)
