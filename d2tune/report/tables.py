"""Tables of plain text for terminals and logs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from d2tune.text import printable

_NUMBER = re.compile(r"[-+\u2212]?(\d[\d,_]*\.?\d*|\.\d+)([eE][-+]?\d+)?\s?(%|[kKMGT]i?B?|px|ms|s|min|h|x)?")
_NO_VALUE = {"", "-", "\u2013", "\u2014", "nan", "n/a"}
_ALIGNMENTS = {"l": "left", "r": "right", "c": "center"}


def format_table(rows: Sequence[Sequence[str]], *, header: Sequence[str], align: str | None = None) -> str:
    """Lay rows out in columns below a header and a rule; control characters in cells become escapes.

    Args:
        rows: R rows of C cells.
        header: C column names.
        align: One letter per column, ``l``, ``r`` or ``c``; None aligns columns of numbers right, others left.

    Returns:
        R + 2 lines without trailing blanks, joined by line feeds.

    Raises:
        ValueError: A row or ``align`` has not the length of ``header``, or ``align`` has another letter.
    """
    from tabulate import SEPARATING_LINE, DataRow, Line, TableFormat, tabulate

    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, the header has {len(header)}")
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = [[row[i] for row in rows] for i in range(len(header))]
    letters = "".join("r" if _is_numeric(column) else "l" for column in columns) if align is None else align
    if len(letters) != len(header) or set(letters) - set(_ALIGNMENTS):
        raise ValueError(f"align is {align!r}; expected {len(header)} letters out of l, r and c")
    layout = TableFormat(None, Line("", "-", "  ", ""), None, None, None, DataRow("", "  ", ""), 0, None)
    return str(
        tabulate(
            [list(header), SEPARATING_LINE, *map(list, rows)],  # tabulate widens columns with a header of its own
            tablefmt=layout,
            colalign=[_ALIGNMENTS[letter] for letter in letters],
            disable_numparse=True,  # it would write "57.250" as 57.25
            preserve_whitespace=True,
        )
    )


def _is_numeric(column: Sequence[str]) -> bool:
    values = [cell.strip() for cell in column if cell.strip().lower() not in _NO_VALUE]
    return bool(values) and all(_NUMBER.fullmatch(value) for value in values)
