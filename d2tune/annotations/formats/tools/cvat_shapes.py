"""The shapes of CVAT for images that have an area."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

import numpy as np

from d2tune.annotations.formats.shared import shapes
from d2tune.annotations.formats.shared.parts import Part
from d2tune.annotations.formats.shared.shapes import Outline
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError
from d2tune.text import describe


def _number(row: Element, key: str) -> float:
    """The number of an attribute.

    Raises:
        PointError: It is missing, not a number or not finite.
    """
    text = row.get(key)
    try:
        number = float(text or "")
    except ValueError:
        raise PointError("bad_point", f"{key} of a {row.tag} is {describe(text)}, expected a number") from None
    if not math.isfinite(number):
        raise PointError("non_finite_coordinate", f"{key} of a {row.tag} is {describe(text)}, expected a finite number")
    return number


def polygon(row: Element) -> Outline:
    """A polygon with ``x,y`` pairs that semicolons separate."""

    def pairs() -> list[list[float]]:
        try:
            texts = [pair.split(",") for pair in (row.get("points") or "").split(";") if pair.strip()]
            return [[float(value) for value in pair] for pair in texts]
        except ValueError:
            message = f"points are {describe(row.get('points'))}, expected x,y;x,y;..."
            raise PointError("bad_point", message) from None

    return lambda unit, index: shapes.polygon(pairs())(unit, index)


def box(row: Element) -> Outline:
    """A box, rotated clockwise around its center."""

    def read(unit: Unit, index: int) -> Part | None:
        left, top, right, bottom = (_number(row, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        degrees = _number(row, "rotation") if row.get("rotation") else 0.0
        return shapes.box(left, top, right - left, bottom - top, rotation_deg=degrees)(unit, index)

    return read


def ellipse(row: Element) -> Outline:
    """An ellipse, rotated clockwise around its center."""

    def read(unit: Unit, index: int) -> Part | None:
        values = [_number(row, key) for key in ("cx", "cy", "rx", "ry")]
        degrees = _number(row, "rotation") if row.get("rotation") else 0.0
        return shapes.ellipse(*values, rotation_deg=degrees)(unit, index)

    return read


def mask(row: Element) -> Outline:
    """A mask of runs within a box."""
    return shapes.mask(lambda unit: _patch(row, unit))


def _patch(row: Element, unit: Unit) -> Patch:
    """The pixels of a mask: runs of background and object in turn, along the rows of its box."""
    left, top, width, height = (round(_number(row, key)) for key in ("left", "top", "width", "height"))
    words = (row.get("rle") or "").replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
        raise PointError("bad_rle", "the runs of the mask are not whole numbers")
    assert unit.image is not None
    if width > unit.image.width_px or height > unit.image.height_px:
        raise PointError("bad_rle", f"the box of the mask has {width} x {height} px, more than the image")
    runs = np.array(words, dtype=np.int64)
    total = int(runs.sum()) if len(runs) else 0
    if min(width, height) < 1 or total != width * height:
        raise PointError("bad_rle", f"the runs add up to {total} pixels, the box of the mask has {width * height}")
    return Patch(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width), left, top)


OUTLINES = {"polygon": polygon, "box": box, "ellipse": ellipse, "mask": mask}
"""How the outline of an element is read, by its tag."""
