"""VGG Image Annotator's CSV export: a row for each region."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2tune.annotations.formats import via
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions

COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
"""The columns that are read."""

# Polygons of thousands of points are longer than the 128 KB that the csv module allows by default.
csv.field_size_limit(2**31 - 1)


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a CSV file of VIA, or every such file in a folder, as `via.read` reads JSON.

    Raises:
        DataError: The source does not exist, or no region has the attribute ``class_attribute``.
    """
    return via.read_files(source, options, suffix=".csv", parse=_parse)


def is_via_header(line: str) -> bool:
    """Whether the first line of a CSV file is that of VIA's export."""
    header = next(csv.reader([line.lstrip("\ufeff")]), [])
    return set(COLUMNS) <= {cell.strip() for cell in header}


def _parse(unit: Unit, path: Path) -> dict[str, Any] | None:
    """The rows of a file as VIA's JSON has them; None with a finding where it is damaged or another CSV."""
    try:
        text, is_utf8 = decode_text(read_bytes(path))
    except (JsonError, OSError) as error:
        unit.note("error", "bad_csv", f"the file cannot be read ({error})")
        return None
    if not is_via_header(text.partition("\n")[0]):
        unit.note("warning", "not_via", "the file is not a CSV export of VIA; skipped")
        return None
    if not is_utf8:
        unit.note("warning", "not_utf8", "the file is not UTF-8; it was read as GB18030", hint="save it as UTF-8")
    entries: dict[str, Any] = {}
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    for row in reader:
        name = row.get("filename") or ""
        entry = entries.setdefault(f"{name}{row.get('file_size')}", {"filename": name, "regions": []})
        shape, attributes = (_object(row.get(key), unit, reader.line_num) for key in COLUMNS[1:])
        if shape:
            entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes or {}})
    return entries


def _object(text: str | Sequence[str] | None, unit: Unit, line: int) -> dict[str, Any] | None:
    """The JSON object in a cell; None with an error where it is none."""
    try:
        value = json.loads(text) if isinstance(text, str) and text.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    unit.note("error", "bad_csv", "the attributes of the region are not a JSON object", line=line)
    return None
