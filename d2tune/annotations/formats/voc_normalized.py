"""Normalized coordinates in VOC files, written as the pixels that VOC files have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from d2tune.annotations.formats.shared.normalized import is_normalized, note_normalized
from d2tune.annotations.formats.shared.units import Unit

_NUMBERED = re.compile(r"[xy]\d*")


def scale_normalized(objects: Sequence[Element], unit: Unit) -> None:
    """Change the coordinates of objects to pixels where all of them are between 0 and 1, with a warning.

    Args:
        objects: The ``object`` elements of a file, which are changed.
        unit: Its unit, which has the image and takes the finding.
    """
    assert unit.image is not None
    if not is_normalized(_number(leaf.text) for element in objects for leaf, _ in _coordinates(element)):
        return
    note_normalized(unit)
    width_px, height_px = unit.image.size_px
    for element in objects:
        for leaf, first in _coordinates(element):
            size_px = width_px if leaf.tag.startswith("x") else height_px
            leaf.text = repr(float(leaf.text or "") * size_px + first)


def _coordinates(element: Element) -> Iterator[tuple[Element, int]]:
    """The elements with the coordinates of an object, each with the number that the first pixel has there."""
    for path, first in (("bndbox", 1), ("segm/box", 0)):
        for box in element.findall(path):
            yield from ((leaf, first if leaf.tag in ("xmin", "ymin") else 0) for leaf in box)
    for polygon in element.findall("polygon"):
        yield from ((leaf, 1) for leaf in polygon if _NUMBERED.fullmatch(leaf.tag))
        for point in (*polygon.findall("pt"), *polygon.findall("point")):
            yield from ((leaf, 0) for leaf in point if leaf.tag in ("x", "y"))


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
