"""Findings: errors, warnings and notes made while reading annotations, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """An error, warning or note made while reading.

    Attributes:
        level: ``error`` (nothing may be written), ``warning`` or ``info``.
        code: One of the codes listed in ``docs/findings.md``.
        file: The annotation file, relative to the source folder, with forward slashes.
        message: One sentence for the user.
        shape: Index of the shape in the file, from 0.
        line: Line in the file, from 1.
        column: Column in the line, from 1.
        hint: The name that was probably intended, or what to do.
        also: Further shapes or files that it concerns.
        image: The image that it concerns, where the file has the annotations of several images.
    """

    level: Level
    code: str
    file: str
    message: str
    shape: int | None = None
    line: int | None = None
    column: int | None = None
    hint: str | None = None
    also: tuple[int | str, ...] = ()
    image: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict without the keys that have no value, except ``shape``, which may be null."""
        row: dict[str, Any] = {
            "level": self.level,
            "code": self.code,
            "file": self.file,
            "shape": self.shape,
            "message": self.message,
        }
        optional = {"line": self.line, "column": self.column, "hint": self.hint, "also": list(self.also) or None}
        optional["image"] = self.image
        return row | {key: value for key, value in optional.items() if value is not None}

    def place(self) -> str:
        """``file``, with the shape or line and the image where there are any."""
        place = self.file
        if self.shape is not None:
            place += f": shape {self.shape}"
        elif self.line is not None:
            place += f": line {self.line}" + ("" if self.column is None else f", column {self.column}")
        return f"{place} ({self.image})" if self.image else place
