"""The ledger: what became of every shape, and why."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from d2tune.files import holds_rows_with, refuse_foreign, write_bytes, write_json

if TYPE_CHECKING:
    from d2tune.annotations.dataset import Finding
    from d2tune.annotations.reading import Draft, Unit

Fate = Literal["kept", "clipped", "merged", "dropped"]
FATES: tuple[Fate, ...] = get_args(Fate)
"""What can become of a shape; one that was clipped and merged counts as merged."""

COLUMNS = ("file", "shape", "line", "image", "label", "fate", "instances", "codes", "why")
"""The columns of a ledger file."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What became of one shape.

    Attributes:
        file: The annotation file, relative to the source folder.
        fate: ``kept`` as drawn, ``clipped`` at the picture's edge, ``merged`` with others into one instance, or
            ``dropped``.
        shape: Index in the file, from 0; None where only the line is known.
        line: Line in the file, from 1 (run-length CSV).
        image: ``Image.file_name`` of its picture; empty where that cannot be had.
        label: Class name as it was read; empty where it was not.
        instances: Ids of the instances it is part of: one, or several where a mask was split.
        partners: How many shapes those instances have in all.
        codes: Codes of the findings about it, in order.
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
        return "; ".join(reasons) or "used as drawn"

    def to_json(self) -> dict[str, Any]:
        """A plain dict with the keys `COLUMNS`."""
        row: dict[str, Any] = {name: getattr(self, name) for name in COLUMNS}
        return row | {"instances": list(self.instances), "codes": list(self.codes)}


def rows_of(unit: Unit, ids: Sequence[int]) -> Iterator[LedgerRow]:
    """The rows of one image's annotations, in the order of their shapes.

    Args:
        unit: What was read.
        ids: Ids of the instances that its drafts became, in their order; empty where it has no image.
    """
    image = unit.image.file_name if unit.image is not None else ""
    if len(ids) == len(unit.drafts) and not unit.findings and not unit.left_out:
        shapes = [draft.shapes for draft in unit.drafts]
        if all(len(one) == 1 for one in shapes) and len(set(shapes)) == len(shapes):  # as nearly every file is
            for number, draft in zip(ids, unit.drafts, strict=True):
                yield LedgerRow(unit.file, "kept", draft.shapes[0], None, image, draft.label, (number,))
            return
    found: dict[int, list[Finding]] = {}
    for finding in unit.findings:
        if finding.shape is not None:
            found.setdefault(finding.shape, []).append(finding)
    used: dict[int, list[tuple[int, Draft]]] = {}
    for number, draft in zip(ids, unit.drafts, strict=False):
        for shape in draft.shapes:
            used.setdefault(shape, []).append((number, draft))
    lost = dict.fromkeys((shape for draft in unit.drafts for shape in draft.shapes), _reason(unit.findings))
    reasons: Mapping[int, str] = lost | unit.left_out
    for shape in sorted({*found, *used, *reasons}):
        notes = found.get(shape, [])
        codes = tuple(dict.fromkeys(finding.code for finding in notes))
        if shape in used:
            yield _used(unit.file, shape, image, used[shape], codes, notes)
        else:
            message = _reason(notes) or reasons.get(shape, "")
            yield LedgerRow(unit.file, "dropped", shape, None, image, codes=codes, message=message)
    for finding in () if unit.left_out else unit.findings:
        if finding.shape is None and finding.line is not None:
            message = finding.message
            yield LedgerRow(unit.file, "dropped", None, finding.line, image, codes=(finding.code,), message=message)


def _used(
    file: str,
    shape: int,
    image: str,
    used: Sequence[tuple[int, Draft]],
    codes: tuple[str, ...],
    notes: Sequence[Finding],
) -> LedgerRow:
    ids, draft = tuple(number for number, _ in used), used[0][1]
    clipped = next((finding.message for finding in notes if finding.code == "clipped"), "")
    fate: Fate = "merged" if len(draft.shapes) > 1 else "clipped" if clipped else "kept"
    return LedgerRow(file, fate, shape, None, image, draft.label, ids, len(draft.shapes), codes, clipped)


def _reason(findings: Sequence[Finding]) -> str:
    """The message of the finding that decided: the first error, else the last one."""
    errors = [finding for finding in findings if finding.level == "error"]
    decisive = errors[:1] or list(findings[-1:])
    return decisive[0].message if decisive else ""


def summary(rows: Iterable[LedgerRow]) -> str:
    """``171 shapes: 160 kept, 6 clipped, 4 merged, 1 dropped``."""
    counts = Counter(row.fate for row in rows)
    total = sum(counts.values())
    fates = ", ".join(f"{counts[fate]} {fate}" for fate in FATES if counts[fate])
    return f"{total} shape{'' if total == 1 else 's'}" + (f": {fates}" if fates else "")


def write_ledger(path: str | Path, rows: Iterable[LedgerRow]) -> None:
    """Write one row a shape, atomically: as JSON where the file ends in ``.json``, else as CSV."""
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
        joined = {key: " ".join(str(one) for one in cells[key]) for key in ("instances", "codes")}
        table.writerow(["" if value is None else value for value in (cells | joined).values()])
    write_bytes(path, stream.getvalue().encode("utf-8", errors="backslashreplace"))


def _is_ledger(content: bytes) -> bool:
    header = content.split(b"\n", 1)[0].decode("ascii", "replace").replace('"', "").strip()
    return header == ",".join(COLUMNS) or holds_rows_with(content, COLUMNS)
