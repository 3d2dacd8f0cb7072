"""Tables of plain text for terminals and logs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+\u2212]?(\d[\d,_]*\.?\d*|\.\d+)([eE][-+]?\d+)?\s?(%|[kKMGT]i?B?|px|ms|s|min|h|x)?")
_NO_VALUE = {"", "-", "\u2013", "\u2014", "nan", "n/a"}
_GAP = "  "


def format_table(rows: Sequence[Sequence[str]], *, header: Sequence[str], align: str | None = None) -> str:
    """Lay rows out in columns below a header and a rule.

    Args:
        rows: R rows of C cells.
        header: C column names.
        align: One letter per column, ``l``, ``r`` or ``c``; None puts columns of numbers right, others left.

    Returns:
        R + 2 lines without trailing blanks, joined by line feeds.

    Raises:
        ValueError: A row or ``align`` has another length than ``header``, or ``align`` has another letter.
    """
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, the header has {len(header)}")
    columns = [[row[i] for row in rows] for i in range(len(header))]
    letters = "".join("r" if _is_numeric(column) else "l" for column in columns) if align is None else align
    if len(letters) != len(header) or set(letters) - set("lrc"):
        raise ValueError(f"align is {align!r}; expected {len(header)} letters out of l, r and c")
    widths = [max(map(_cells_wide, [name, *column])) for name, column in zip(header, columns, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        _GAP.join(_padded(*cell) for cell in zip(line, widths, letters, strict=True)).rstrip() for line in lines
    )


def _is_numeric(column: Sequence[str]) -> bool:
    values = [cell.strip() for cell in column if cell.strip().lower() not in _NO_VALUE]
    return bool(values) and all(_NUMBER.fullmatch(value) for value in values)


def _cells_wide(text: str) -> int:
    """How many terminal cells ``text`` takes: two for wide East Asian characters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int, letter: str) -> str:
    free = width - _cells_wide(text)
    left = {"l": 0, "r": free, "c": free // 2}[letter]
    return " " * left + text + " " * (free - left)
