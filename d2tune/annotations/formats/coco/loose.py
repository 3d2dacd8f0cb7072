"""Values of COCO files that have another type than the format says, and what they were read as."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from d2tune.annotations.formats.shared.units import Unit
from d2tune.text import counted, describe

_WHOLE = re.compile(r"([+-]?)0*(\d+)(?:\.0*)?")


@dataclass(slots=True)
class Loose:
    """What was read leniently, by what it was."""

    _rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    _first: dict[tuple[str, str], object] = field(default_factory=dict)

    def add(self, what: str, value: object, *, read_as: str, row: int) -> None:
        """Take a value down.

        Args:
            what: The key that has it, with the kind of its row: ``the image_id of annotations``.
            value: The value.
            read_as: What it was read as, in words.
            row: Index of the row in its list.
        """
        self._first.setdefault((what, read_as), value)
        self._rows.setdefault((what, read_as), []).append(row)

    def note(self, unit: Unit) -> None:
        """Add a finding for each kind, with the rows that it concerns."""
        for (what, read_as), rows in self._rows.items():
            value = describe(self._first[what, read_as])
            where = f"row {rows[0]}" if len(rows) == 1 else f"{counted(len(rows), 'row')}, the first is {rows[0]}"
            unit.note("warning", "loose_type", f"{what} is {value}; it was read as {read_as} ({where})")


def read_id(value: object) -> int | str | None:
    """An id as it is kept: a whole number or text; None where it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return value if isinstance(value, (int, str)) else None


def plain_id(value: int | str) -> int | str:
    """What an id is compared by, so that 1, "1", "01" and "1.0" are one id."""
    match = _WHOLE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or len(match[2]) > 100:
        return value
    return int(match[1] + match[2])


def read_flag(value: object) -> bool | None:
    """A flag that is 0 or 1 in COCO files, also as text or a truth value; null is 0. None where it is neither."""
    if value is None or value == "":
        return False
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.strip().lower(), plain_id(value))
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    return None


def read_number(value: object) -> float | None:
    """A number, also as text; None where it is neither."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
