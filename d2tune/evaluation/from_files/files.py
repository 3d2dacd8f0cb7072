"""Files of predictions in the forms that other tools write, and their ground truth, as JSON values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.io.json_files import JsonError, decode_json, decode_text, read_bytes
from d2tune.errors import DataError

Row = dict[str, Any]

_LISTS = ("annotations", "predictions", "results", "detections")
"""Keys under which a JSON object may hold its detections."""


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """The detections of a file.

    Attributes:
        path: The file.
        rows: Rows in COCO's results format, ids as they are.
        images: Its own ``images`` with their names; empty for a list of detections.
        categories: Its own ``categories``; empty for a list of detections.
    """

    path: Path
    rows: list[Row]
    images: tuple[Row, ...] = ()
    categories: tuple[Row, ...] = ()


def read_predictions(path: Path) -> PredictionFile:
    """Read a JSON list of detections, the same as JSON lines, or an object with such a list.

    The detections of an image may be a list under ``instances``, as Detectron2 keeps them.

    Raises:
        DataError: The file cannot be read, or has no detections in one of these forms.
    """
    value = read_json(path, lines=True)
    tables: dict[str, tuple[Row, ...]] = {}
    if isinstance(value, dict):
        tables = {key: _objects(value.get(key)) for key in ("images", "categories")}
        key = next((key for key in _LISTS if isinstance(value.get(key), list)), None)
        if key is None:
            raise _not_results(path, f"an object with {', '.join(map(repr, list(value)[:5])) or 'no keys'}")
        value = value[key]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise _not_results(path, f"a list of {type(value[0]).__name__}" if value and isinstance(value, list) else None)
    if any(isinstance(row.get("instances"), list) for row in value):
        value = _flattened(value, path)
    return PredictionFile(path, value, tables.get("images", ()), tables.get("categories", ()))


def _not_results(path: Path, content: str | None) -> DataError:
    expected = "a JSON list of detections"
    return DataError("the file is not a COCO results file", file=path, found=content, expected=expected)


def _objects(value: object) -> tuple[Row, ...]:
    return tuple(row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def _flattened(rows: list[Row], path: Path) -> list[Row]:
    """The detections of all images; those without an image take that of their list."""
    flat: list[Row] = []
    for row in rows:
        members = row.get("instances", [row])
        if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
            raise _not_results(path, "an image whose instances are not a list of objects")
        image = {key: row[key] for key in ("image_id", "file_name") if key in row}
        flat += [image | member for member in members]
    return flat


def read_json(path: Path, *, lines: bool = False) -> Any:
    """Read a JSON file; numbers that JSON does not have (NaN) are read.

    Args:
        path: The file.
        lines: Whether the file may have an object on each line instead.

    Raises:
        DataError: The file does not exist or is not valid JSON.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise DataError("the file does not exist", file=path) from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror or error})", file=path) from None
    except JsonError as error:
        raise DataError(str(error), file=path) from None
    try:
        return decode_json(content)[0]
    except JsonError as error:
        rows = _json_lines(content) if lines else None
        if rows is None:
            raise DataError(str(error), file=path) from None
        return rows


def _json_lines(content: bytes) -> list[Any] | None:
    """The objects of JSON lines; None where a line is not one."""
    try:
        rows = [json.loads(line) for line in decode_text(content)[0].splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    return rows if len(rows) > 1 and all(isinstance(row, dict) for row in rows) else None
