"""Segmentations of COCO files: what they look like in practice, and the pixels that they stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from d2tune.annotations.formats.coco.loose import Loose, read_number
from d2tune.annotations.formats.shared.normalized import to_pixels
from d2tune.annotations.formats.shared.parts import Part, box_part, mask_part, polygon_part
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch, check_rle, decode_mask, rle_area_px2, union_rles
from d2tune.annotations.geometry.polygons import COORDINATE_LIMIT_PX, PointError, check_points
from d2tune.annotations.model.types import Points
from d2tune.text import describe

_DEEPEST = 4
"""Lists in lists in lists of pairs, as converters from other formats write them."""

_NUMBERS = frozenset({float, int})
_KEY = "the segmentation of annotations"
_BOX = "the bbox of annotations"


@dataclass(frozen=True, slots=True)
class Segmentations:
    """Reads segmentations.

    Attributes:
        loose: Takes down values of other types than the format has.
        is_normalized: Whether coordinates are shares of the image's size.
    """

    loose: Loose
    is_normalized: bool = False

    def read(self, row: dict[str, Any], unit: Unit, index: int) -> Part | None:
        """The segmentation of an annotation; one that has only a box becomes a rectangle.

        Raises:
            PointError: It is invalid.
        """
        raw = row.get("segmentation")
        segmentation = self._parsed(raw, index, _KEY)
        if isinstance(segmentation, dict) and has_counts(segmentation):
            return self._rle_part(segmentation, unit, index)
        if is_nothing(segmentation):
            return self._box_part(row, unit, index)
        if not isinstance(segmentation, list):
            message = f"the segmentation is {describe(raw)}, expected polygons or a run-length mask"
            raise PointError("bad_point", message)
        if any(isinstance(one, dict) for one in segmentation):
            return self._rles_part(segmentation, unit, index)
        return self._polygons_part(segmentation, unit, index)

    def _parsed(self, value: object, index: int, key: str) -> object:
        """A value that is JSON as text, parsed; other values as they are."""
        if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
            return value
        try:
            parsed: object = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
        self.loose.add(key, value, read_as="the value that the text has", row=index)
        return parsed

    def _box_part(self, row: dict[str, Any], unit: Unit, index: int) -> Part | None:
        raw = row.get("bbox")
        box = self._parsed(raw, index, _BOX)
        if isinstance(box, str):
            words = box.replace(",", " ").split()
            box = self._numbers(words, index, _BOX) if len(words) == 4 else box
        if not isinstance(box, list) or len(box) != 4:
            message = f"the annotation has no segmentation, and its bbox is {describe(raw)}"
            raise PointError("bad_point", message)
        numbers = self._numbers(box, index, _BOX)
        corners = check_points([numbers[:2], numbers[2:]])
        corners[1] += corners[0]
        if self.is_normalized:
            corners = to_pixels(corners, unit)
        return box_part(np.stack([corners.min(axis=0), corners.max(axis=0)]), unit, index)

    def _polygons_part(self, segmentation: list[object], unit: Unit, index: int) -> Part | None:
        """Each list of coordinates is a polygon; the instance is their union."""
        rings, form = _rings(segmentation)
        outlines = [_points(ring) for ring in rings]
        if form:
            self.loose.add(_KEY, segmentation, read_as=form, row=index)
        if self.is_normalized:
            outlines = [to_pixels(points, unit) for points in outlines]
        parts = [part for points in outlines if (part := polygon_part(points, unit, index)) is not None]
        if len(parts) < 2:
            return parts[0] if parts else None
        rle = union_rles([part.rle for part in parts])
        return Part(index, rle, rle_area_px2(rle), tuple(polygon for part in parts for polygon in part.polygons))

    def _numbers(self, values: list[Any], index: int, key: str) -> list[Any]:
        """Values with numbers that are text as numbers."""
        numbers = [read_number(value) for value in values]
        if all(type(value) is not str for value in values) or any(number is None for number in numbers):
            return values
        self.loose.add(key, values, read_as="numbers", row=index)
        return numbers

    def _rles_part(self, segmentation: list[Any], unit: Unit, index: int) -> Part | None:
        """A list of run-length masks, whose union is the instance."""
        if not all(isinstance(one, dict) and has_counts(one) for one in segmentation):
            message = f"the segmentation is {describe(segmentation)}, expected polygons or a run-length mask"
            raise PointError("bad_point", message)
        self.loose.add(_KEY, segmentation, read_as="the union of its run-length masks", row=index)
        raws = [self._checked_rle(one, unit, index) for one in segmentation]
        return mask_part(Patch(decode_mask(union_rles(raws)), 0, 0), unit, index)

    def _rle_part(self, segmentation: dict[str, Any], unit: Unit, index: int) -> Part | None:
        return mask_part(Patch(decode_mask(self._checked_rle(segmentation, unit, index)), 0, 0), unit, index)

    def _checked_rle(self, segmentation: dict[str, Any], unit: Unit, index: int) -> dict[str, Any]:
        assert unit.image is not None
        width_px, height_px = unit.image.size_px
        strict, changed = strict_rle(segmentation)
        if changed:
            self.loose.add(_KEY, segmentation[changed], read_as=f"the {changed} of a run-length mask", row=index)
        return check_rle(strict, width_px=width_px, height_px=height_px)


def is_nothing(segmentation: object) -> bool:
    """Whether a value means that there is no segmentation: null, ``[]``, ``[[]]``, ``{}``, empty text or counts."""
    if isinstance(segmentation, list):
        return all(is_nothing(one) for one in segmentation)
    if isinstance(segmentation, dict):
        return not has_counts(segmentation)
    return segmentation is None or (isinstance(segmentation, str) and not segmentation.strip())


def has_counts(segmentation: dict[str, Any]) -> bool:
    """Whether a run-length mask has counts or a size, so that it is meant as one."""
    counts = segmentation.get("counts")
    return bool(segmentation) and not (isinstance(counts, (list, str)) and not counts)


def _rings(segmentation: list[Any]) -> tuple[list[list[Any]], str]:
    """The polygons, and what the value is read as where it is not a list of flat lists."""
    are_flat = all(isinstance(ring, list) and ring and not isinstance(ring[0], list) for ring in segmentation)
    if are_flat and not _are_pairs(segmentation):
        return segmentation, ""
    rings = list(rings_of(segmentation))
    if all(ring in segmentation and not isinstance(ring[0], list) for ring in rings):  # with empty ones between them
        return rings, ""
    return rings, "a polygon" if len(rings) == 1 else f"{len(rings)} polygons"


def _points(ring: list[Any]) -> Points:
    """The vertices ``(V, 2)`` of a polygon that is flat or a list of pairs."""
    if isinstance(ring[0], list):
        return check_points(ring)
    if len(ring) % 2:
        raise PointError("bad_point", f"a polygon is {describe(ring)}, expected x, y, x, y, ...")
    if _NUMBERS.issuperset(map(type, ring)) and -COORDINATE_LIMIT_PX <= min(ring) <= max(ring) <= COORDINATE_LIMIT_PX:
        points = np.array(ring, dtype=np.float64).reshape(-1, 2)
        if not np.isnan(points).any():
            return points
    return check_points([ring[at : at + 2] for at in range(0, len(ring), 2)])  # which says what is wrong


def rings_of(value: list[Any], *, depth: int = _DEEPEST) -> Iterator[list[Any]]:
    """The polygons of a segmentation, each flat or a list of pairs, without empty ones.

    Raises:
        PointError: It is none, or nested too deeply.
    """
    if not value:
        return
    if not any(isinstance(one, (list, type(None))) for one in value) or _are_pairs(value):
        yield value
        return
    if depth == 0:
        raise PointError("bad_point", f"the segmentation is nested too deeply: {describe(value)}")
    for one in value:
        if isinstance(one, list):
            yield from rings_of(one, depth=depth - 1)
        elif one is not None:
            raise PointError("bad_point", f"a polygon is {describe(one)}, expected x, y, x, y, ...")


def _are_pairs(value: list[Any]) -> bool:
    """Whether a list holds three or more points ``[x, y]`` rather than polygons."""
    if len(value) < 3:
        return False
    return all(isinstance(one, list) and len(one) == 2 and not any(isinstance(x, list) for x in one) for one in value)


def strict_rle(segmentation: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A run-length mask as the format has it, and the key whose type was another, empty where none was.

    Counts may be the text of a bytes object (``"b'...'"``), JSON as text, or whole floats; sizes whole floats or text.
    """
    counts, size = segmentation.get("counts"), segmentation.get("size")
    plain_counts, plain_size = _plain_counts(counts), _whole_numbers(size)
    strict = {"size": plain_size, "counts": plain_counts}
    if type(plain_counts) is not type(counts) or (isinstance(counts, str) and counts != plain_counts):
        return strict, "counts"
    if isinstance(counts, list) and not all(type(run) is int for run in counts) and plain_counts is not counts:
        return strict, "counts"
    return strict, "size" if plain_size is not size else ""


def _plain_counts(counts: object) -> object:
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        try:
            unwrapped = ast.literal_eval(counts)
        except (ValueError, SyntaxError, MemoryError):
            return counts
        return unwrapped.decode("ascii", "replace") if isinstance(unwrapped, bytes) else counts
    if isinstance(counts, str) and counts[:1] == "[" and "," in counts:  # no comma is in compressed counts
        try:
            return _whole_numbers(orjson.loads(counts))
        except orjson.JSONDecodeError:
            return counts
    return _whole_numbers(counts)


def _whole_numbers(values: object) -> object:
    """A list with whole floats and numbers in text as whole numbers; any other value as it is."""
    if not isinstance(values, list) or all(type(value) is int for value in values):
        return values
    numbers = [read_number(value) for value in values]
    if any(number is None or number != number or abs(number) > 1e15 or number != int(number) for number in numbers):
        return values
    return [int(number) for number in numbers if number is not None]
