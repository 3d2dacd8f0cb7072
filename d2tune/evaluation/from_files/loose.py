"""Rows of COCO files with values of other types than the format has, read as the reader for training reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pycocotools import mask as mask_utils

from d2tune.annotations.formats.coco.loose import plain_id, read_flag, read_id, read_number
from d2tune.annotations.formats.coco.segmentations import is_nothing, rings_of, strict_rle
from d2tune.annotations.geometry.masks import check_rle
from d2tune.annotations.geometry.polygons import PointError
from d2tune.text import counted, describe

Row = dict[str, Any]

_FEWEST_NUMBERS = 6
"""Numbers of the smallest polygon, a triangle."""


class Notes:
    """Values that were of another type than the format has, by what they are."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = {}
        self._first: dict[tuple[str, str], object] = {}

    def add(self, what: str, value: object, *, read_as: str, row: int) -> None:
        """Take a value down.

        Args:
            what: The key that has it, with the kind of its row: ``the score of detections``.
            value: The value.
            read_as: What it was read as, in words.
            row: Index of the row in its list.
        """
        key = what, re.sub(r"[\d.]+|'.*'", "", read_as)
        if key not in self._first:
            self._first[key] = f"{describe(value)}; it was read as {read_as}"
        self._rows.setdefault(key, []).append(row)

    def lines(self) -> list[str]:
        """A line for each kind of value, with the rows that it concerns."""
        lines = []
        for (what, kind), rows in self._rows.items():
            where = (
                f"row {rows[0] + 1}" if len(rows) == 1 else f"{counted(len(rows), 'row')}, the first is {rows[0] + 1}"
            )
            lines.append(f"{what} is {self._first[what, kind]} ({where})")
        return lines


@dataclass(slots=True)
class Reading:
    """What was read leniently from a file.

    Attributes:
        path: The file.
        what: Its rows in the singular: ``annotation`` or ``detection``.
        notes: Values of other types.
        degenerate: Number of polygons of fewer than three points that were dropped beside others.
    """

    path: Path
    what: str
    notes: Notes = field(default_factory=Notes)
    degenerate: int = 0

    def warnings(self) -> list[str]:
        """A line for each kind of value."""
        lines = [f"{self.path}: {line}" for line in self.notes.lines()]
        if self.degenerate:
            polygons = counted(self.degenerate, "polygon")
            lines.append(f"{self.path}: {polygons} of fewer than three points beside other polygons; dropped")
        return lines

    def row(self, row: Row, index: int) -> Row:
        """A row with its segmentation, box, score, area and crowd flag of the usual types; the same object if it is."""
        changed: Row = {}
        for key, read in _READERS.items():
            if key in row:
                value = row[key]
                as_read = read(self, value, index)
                if as_read is not value:
                    changed[key] = as_read
        return row | changed if changed else row

    def _segmentation(self, value: Any, index: int) -> Any:
        if _is_usual(value):
            return value
        if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
            try:
                parsed = orjson.loads(value)
            except orjson.JSONDecodeError:
                return value
            self._note("segmentation", value, "the value that the text has", index)
            value = parsed
        if is_nothing(value):
            return None if value != [] else value
        if isinstance(value, dict):
            return self._rle(value, index)
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return self._united(value, index)
        return self._polygons(value, index) if isinstance(value, list) else value

    def _rle(self, value: Row, index: int) -> Row:
        strict, changed = strict_rle(value)
        if not changed:
            return value
        self._note("segmentation", value[changed], f"the {changed} of a run-length mask", index)
        return strict

    def _united(self, value: list[Row], index: int) -> Any:
        strict = [strict_rle(one)[0] for one in value]
        size = strict[0]["size"]
        try:
            height_px, width_px = size
            masks = [check_rle(one, width_px=width_px, height_px=height_px) for one in strict]
        except (PointError, TypeError, ValueError):
            return value
        self._note("segmentation", value, "the union of its run-length masks", index)
        return mask_utils.merge(masks)

    def _polygons(self, value: list[Any], index: int) -> list[Any]:
        """The polygons as flat lists, without those of fewer than three points where there are others."""
        try:
            rings = [_flat(ring) for ring in rings_of(value)]
        except PointError:
            return value
        if any(number is None for ring in rings for number in ring):
            return value
        kept = [ring for ring in rings if len(ring) >= _FEWEST_NUMBERS]
        if not kept or any(len(ring) % 2 for ring in rings):
            return value
        if kept != [ring for ring in value if ring]:
            self.degenerate += len(rings) - len(kept)
            if not all(ring in value for ring in rings):
                read_as = "a polygon" if len(kept) == 1 else counted(len(kept), "polygon")
                self._note("segmentation", value, read_as, index)
        return kept

    def _box(self, value: Any, index: int) -> Any:
        if value is None or (type(value) is list and not any(type(side) is str for side in value)):
            return value
        sides = value
        if isinstance(value, str):
            sides = [word for word in value.strip("[]() ").replace(",", " ").split() if word]
        numbers = [read_number(side) for side in sides] if isinstance(sides, list) and len(sides) == 4 else [None]
        if any(number is None for number in numbers):
            return value
        self._note("bbox", value, "numbers", index)
        return numbers

    def _number(self, key: str) -> Callable[[Any, int], Any]:
        def read(value: Any, index: int) -> Any:
            number = read_number(value) if isinstance(value, str) else None
            if number is None or not math.isfinite(number):
                return value
            self._note(key, value, f"the number {number:g}", index)
            return number

        return read

    def _crowd(self, value: Any, index: int) -> Any:
        if value is None or (isinstance(value, str) and read_flag(value) is not None):
            return int(bool(read_flag(value)))
        return value

    def _note(self, key: str, value: object, read_as: str, index: int) -> None:
        self.notes.add(f"the {key} of {self.what}s", value, read_as=read_as, row=index)


_READERS: dict[str, Callable[[Reading, Any, int], Any]] = {
    "segmentation": Reading._segmentation,
    "bbox": Reading._box,
    "score": lambda reading, value, index: reading._number("score")(value, index),
    "area": lambda reading, value, index: reading._number("area")(value, index),
    "iscrowd": Reading._crowd,
}


_BYTES_AS_TEXT = ("b'", 'b"')


def _is_usual(value: Any) -> bool:
    """Whether a segmentation needs no look: compressed run lengths, or flat polygons of three points or more."""
    if type(value) is dict:
        counts, size = value.get("counts"), value.get("size")
        is_plain = isinstance(counts, (str, bytes)) and counts[:2] not in _BYTES_AS_TEXT and counts[:1] != "["
        return is_plain and type(size) is list and all(type(side) is int for side in size)
    if type(value) is not list or not value:
        return False
    return all(type(ring) is list and len(ring) >= _FEWEST_NUMBERS and type(ring[0]) in (int, float) for ring in value)


def _flat(ring: list[Any]) -> list[float | None]:
    numbers = [number for pair in ring for number in (pair if isinstance(pair, list) else [pair])]
    return [read_number(number) if isinstance(number, str) else number for number in numbers]


def read_sizes(row: Row, reading: Reading, index: int) -> Row:
    """An image of the ground truth with its width and height as whole numbers where they are text or whole floats."""
    changed = {}
    for key in ("width", "height"):
        value = row.get(key)
        number = plain_id(value) if isinstance(value, str) else read_id(value) if isinstance(value, float) else None
        if isinstance(number, int):
            reading.notes.add(f"the {key} of images", value, read_as=f"the number {number}", row=index)
            changed[key] = number
    return row | changed if changed else row
