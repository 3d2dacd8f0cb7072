"""What is noticed while reading annotations, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something noticed while reading, as data.

    Attributes:
        level: ``error`` (nothing may be written), ``warning`` or ``info``.
        code: What it is, one of the codes listed in ``docs/findings.md``.
        file: The annotation file, relative to the source folder, with forward slashes.
        message: One sentence a person understands.
        shape: Index of the shape in the file, from 0.
        line: Line in the file, from 1.
        column: Column in the line, from 1.
        hint: What was probably meant, or what to do.
        also: Other shapes or files that take part.
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

    def to_json(self) -> dict[str, Any]:
        """A plain dict; keys without a value are left out, but for ``shape``, which may be null."""
        row: dict[str, Any] = {
            "level": self.level,
            "code": self.code,
            "file": self.file,
            "shape": self.shape,
            "message": self.message,
        }
        optional = {"line": self.line, "column": self.column, "hint": self.hint, "also": list(self.also) or None}
        return row | {key: value for key, value in optional.items() if value is not None}

    def place(self) -> str:
        """``file``, with the shape or line where there is one."""
        if self.shape is not None:
            return f"{self.file}: shape {self.shape}"
        if self.line is not None:
            column = "" if self.column is None else f", column {self.column}"
            return f"{self.file}: line {self.line}{column}"
        return self.file
