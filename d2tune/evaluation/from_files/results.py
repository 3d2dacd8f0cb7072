"""COCO results files and their ground truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2tune.errors import DataError
from d2tune.metrics.coco.results import KINDS, Kind


def read_results(predictions: Path, ground_truth: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read COCO results and their ground truth.

    Args:
        predictions: A JSON list in COCO's results format, or a COCO file whose annotations have scores.
        ground_truth: A COCO instances file.

    Returns:
        A COCO instances dict, and rows in COCO's results format.

    Raises:
        DataError: A file cannot be read, or does not have this format.
    """
    results = _read_json(predictions)
    if isinstance(results, dict) and isinstance(results.get("annotations"), list):
        results = results["annotations"]
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise DataError("the file is not a COCO results file", file=predictions, expected="a JSON list of detections")
    truth = _read_json(ground_truth)
    if not isinstance(truth, dict):
        raise DataError(
            "the file is not a COCO instances file", file=ground_truth, expected="a JSON object with `annotations`"
        )
    return truth, results


def kinds_of(truth: dict[str, Any], results: Sequence[dict[str, Any]], file: Path) -> tuple[Kind, ...]:
    """The kinds of metrics that can be computed: all with masks, only boxes without.

    Args:
        truth: A COCO instances dict; it decides if there are no results.
        results: Rows in COCO's results format.
        file: The file of the results, for the error.

    Raises:
        DataError: Only some detections have masks.
    """
    rows = results or [row for row in truth.get("annotations") or () if isinstance(row, dict)]
    without = [number for number, row in enumerate(rows, start=1) if not row.get("segmentation")]
    if results and 0 < len(without) < len(rows):
        raise DataError(
            "some detections have no segmentation",
            file=file,
            place=f"result {without[0]} of {len(rows)}",
            found=f"{len(without)} detections without",
            hint="Add segmentations, or evaluate only boxes with --metrics bbox.",
        )
    return KINDS if rows and not without else ("bbox",)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError("the file does not exist", file=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the file is not valid JSON ({error})", file=path) from None
