"""Values of COCO files that have another type than the format says, and what they were read as."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from d2tune.annotations.formats.shared.units import Unit
from d2tune.text import counted, describe

_WHOLE = re.compile(r"([+-]?)0*(\d+)(?:\.0*)?")


@dataclass(slots=True)
class _Kind:
    """Values of one kind: the first, what it was read as and its row, and their number."""

    value: object
    read_as: str
    row: int
    count: int = 0


@dataclass(slots=True)
class Loose:
    """What was read leniently, by what it was."""

    _kinds: dict[tuple[str, str], _Kind] = field(default_factory=dict)

    def add(self, what: str, value: object, *, read_as: str, row: int, kind: str | None = None) -> None:
        """Take a value down.

        Args:
            what: The key that has it, with the kind of its row: ``the image_id of annotations``.
            value: The value.
            read_as: What it was read as, in words.
            row: Index of the row in its list.
            kind: Values of the same kind make one finding; None is ``read_as``.
        """
        key = what, read_as if kind is None else kind
        if key not in self._kinds:
            self._kinds[key] = _Kind(value, read_as, row)
        self._kinds[key].count += 1

    def note(self, unit: Unit) -> None:
        """Add a finding for each kind, with its first value."""
        for (what, _), kind in self._kinds.items():
            where = f"row {kind.row}" + ("" if kind.count == 1 else f" and {counted(kind.count - 1, 'other row')}")
            message = f"{what} is {describe(kind.value)}; it was read as {kind.read_as} ({where})"
            unit.note("warning", "loose_type", message)


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


def matching_id(
    raw: object, known: Container[int | str], plain: Mapping[int | str, Sequence[int | str]]
) -> int | str | None:
    """The known id that a value refers to, also where it has another type; None where there is none, or several.

    Args:
        raw: The value as the file has it.
        known: The ids.
        plain: The ids by their `plain_id`.
    """
    if type(raw) is int and raw in known:
        return raw
    row_id = read_id(raw)
    if row_id is None or row_id in known:
        return row_id
    similar = plain.get(plain_id(row_id), ())
    return similar[0] if len(similar) == 1 else None


def is_other_type(raw: object, row_id: int | str) -> bool:
    """Whether a value is not the id itself, but another way to write it."""
    return type(raw) is not type(row_id) or raw != row_id
