"""COCO results files, and the ground truth that they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2tune.errors import DataError
from d2tune.metrics.coco.results import KINDS, Kind


def read_results(predictions: Path, ground_truth: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO instances dict, and the detections of a COCO results file, or of a COCO file with scores.

    Raises:
        DataError: A file cannot be read, or is something else.
    """
    results = _read_json(predictions)
    if isinstance(results, dict) and isinstance(results.get("annotations"), list):
        results = results["annotations"]
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise DataError("is no COCO results file", file=predictions, expected="a JSON list of detections")
    truth = _read_json(ground_truth)
    if not isinstance(truth, dict):
        raise DataError("is no COCO instances file", file=ground_truth, expected="a JSON object with `annotations`")
    return truth, results


def kinds_of(truth: dict[str, Any], results: Sequence[dict[str, Any]], file: Path) -> tuple[Kind, ...]:
    """All kinds where there are masks, else boxes alone.

    Raises:
        DataError: Some detections have masks and some have none.
    """
    rows = results or [row for row in truth.get("annotations") or () if isinstance(row, dict)]
    without = [number for number, row in enumerate(rows, start=1) if not row.get("segmentation")]
    if results and 0 < len(without) < len(rows):
        raise DataError(
            "some detections have no segmentation",
            file=file,
            place=f"result {without[0]} of {len(rows)}",
            found=f"{len(without)} without",
            hint="Add them, or score boxes alone with --metrics bbox.",
        )
    return KINDS if rows and not without else ("bbox",)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError("there is no such file", file=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the file is no JSON ({error})", file=path) from None
