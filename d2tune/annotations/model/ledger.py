"""The ledger: the fate of every shape, and why."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from d2tune.files import holds_rows_with, refuse_foreign, write_bytes, write_json

Fate = Literal["kept", "clipped", "merged", "dropped"]
FATES: tuple[Fate, ...] = get_args(Fate)
"""The fates of a shape; one that was clipped and merged counts as merged."""

COLUMNS = ("file", "shape", "line", "image", "label", "fate", "instances", "codes", "why")
"""The columns of a ledger file."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of cells that spreadsheets take for formulas."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """The fate of one shape.

    Attributes:
        file: The annotation file, relative to the source folder.
        fate: ``kept`` as annotated, ``clipped`` at the image border, ``merged`` with other shapes into one instance,
            or ``dropped``.
        shape: Index in the file, from 0; None where only the line is known.
        line: Line in the file, from 1 (run-length CSV).
        image: ``Image.file_name`` of its image; empty where it has none.
        label: Class name as it was read; empty where it was not read.
        instances: Ids of its instances: one, or several where a mask was split.
        partners: The number of shapes of those instances.
        codes: Codes of its findings, in order.
        message: Why it was dropped or clipped, in words.
    """

    file: str
    fate: Fate
    shape: int | None = None
    line: int | None = None
    image: str = ""
    label: str = ""
    instances: tuple[int, ...] = ()
    partners: int = 1
    codes: tuple[str, ...] = ()
    message: str = ""

    @property
    def why(self) -> str:
        """The reason in words."""
        reasons = [self.message] if self.message else []
        if self.partners > 1:
            reasons.append(f"one of the {self.partners} shapes of instance {self.instances[0]}")
        if len(self.instances) > 1:
            reasons.append(f"split into {len(self.instances)} instances")
        return "; ".join(reasons) or "used as annotated"

    def to_json(self) -> dict[str, Any]:
        """A plain dict with the keys `COLUMNS`."""
        row: dict[str, Any] = {name: getattr(self, name) for name in COLUMNS}
        return row | {"instances": list(self.instances), "codes": list(self.codes)}


def summary(rows: Iterable[LedgerRow]) -> str:
    """``171 shapes: 160 kept, 6 clipped, 4 merged, 1 dropped``."""
    counts = Counter(row.fate for row in rows)
    total = sum(counts.values())
    fates = ", ".join(f"{counts[fate]} {fate}" for fate in FATES if counts[fate])
    return f"{total} shape{'' if total == 1 else 's'}" + (f": {fates}" if fates else "")


def write_ledger(path: str | Path, rows: Iterable[LedgerRow]) -> None:
    """Write one row a shape, atomically: as JSON where the file ends in ``.json``, else as CSV.

    In the CSV a text that a spreadsheet would compute, such as a label ``=1+1``, has ``'`` before it.
    """
    path = Path(path)
    refuse_foreign(path, is_own=_is_ledger)
    if path.suffix.lower() == ".json":
        write_json(path, [row.to_json() for row in rows])
        return
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    table.writerow(COLUMNS)
    for row in rows:
        cells = row.to_json()
        joined = {key: " ".join(map(str, cells[key])) for key in ("instances", "codes")}
        table.writerow(list(map(spreadsheet_cell, (cells | joined).values())))
    write_bytes(path, stream.getvalue().encode("utf-8", errors="backslashreplace"))


def spreadsheet_cell(value: str | int | None) -> str | int:
    """A value of the CSV; text that begins like a formula becomes text for spreadsheets as well."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _is_ledger(content: bytes) -> bool:
    header = content.split(b"\n", 1)[0].decode("ascii", "replace").replace('"', "").strip()
    return header == ",".join(COLUMNS) or holds_rows_with(content, COLUMNS)
