"""COCO results files and their ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.coco.segmentations import is_nothing
from d2tune.errors import DataError
from d2tune.evaluation.from_files.files import PredictionFile, read_json, read_predictions
from d2tune.evaluation.from_files.loose import Reading, read_sizes
from d2tune.evaluation.from_files.matching import (
    CLASSES,
    IMAGES,
    Matched,
    RowMatcher,
    Truth,
    image_warnings,
    match_table,
)
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.text import counted, describe

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """The detections of a file and their ground truth, with the same ids.

    Attributes:
        truth: A COCO instances dict.
        results: Rows in COCO's results format.
        warnings: What is unusual about them, a line each.
    """

    truth: dict[str, Any]
    results: list[Row]
    warnings: tuple[str, ...]


def read_results(predictions: Path, ground_truth: Path, *, content: Any = None) -> ResultFiles:
    """Read COCO results and their ground truth.

    Images and classes are matched by their names where both files have names, else by their ids. Values of other types
    than the format has are read as the reader for training reads them.

    Args:
        predictions: A JSON list in COCO's results format, or a COCO file whose annotations have scores.
        ground_truth: A COCO instances file.
        content: The value of ``ground_truth`` where it was read before.

    Raises:
        DataError: A file cannot be read, does not have this format, or they do not belong together.
    """
    predicted = read_predictions(predictions)
    value = read_json(ground_truth) if content is None else content
    if not isinstance(value, dict):
        raise DataError(
            "the file is not a COCO instances file", file=ground_truth, expected="a JSON object with `annotations`"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(value.get(key), list):
            raise DataError(
                "the ground truth is not a COCO instances file",
                file=ground_truth,
                place=key,
                found="nothing" if key not in value else describe(value[key]),
                expected="a list",
            )
    of_truth, of_results = Reading(ground_truth, "annotation"), Reading(predictions, "detection")
    sized = [read_sizes(row, of_truth, at) if isinstance(row, dict) else row for at, row in enumerate(value["images"])]
    images = Truth(sized, IMAGES, ground_truth, of_truth.notes)
    classes = Truth(value["categories"], CLASSES, ground_truth, of_truth.notes)
    truth_rows = [
        _truth_row(row, at, images, classes, of_truth, len(value["annotations"]))
        for at, row in enumerate(value["annotations"])
    ]
    results, warnings = _matched_rows(predicted, images, classes, of_results, truth_rows)
    truth = {**value, "images": images.rows, "categories": classes.rows, "annotations": truth_rows}
    _fill_sizes(images.rows, truth_rows, results)
    boxes = _boxes_as_masks(truth_rows)
    lines = [*warnings, *of_truth.warnings(), *of_results.warnings()]
    if boxes:
        without = counted(boxes, "annotation")
        lines.append(f"{ground_truth}: {without} without a segmentation; there the box counts as the mask")
    if not predicted.rows:
        lines.append(f"{predictions}: there are no detections")
    scores = [row["score"] for row in results if isinstance(row.get("score"), int | float)]
    if scores and min(scores) >= 0 and 1 < max(scores) <= 100:
        line = f"the highest score is {max(scores):g}; scores are from 0 to 1 (divide percent by 100)"
        lines.append(f"{predictions}: {line}")
    return ResultFiles(truth, results, tuple(lines))


def _truth_row(row: Any, index: int, images: Truth, classes: Truth, reading: Reading, rows: int) -> Any:
    if not isinstance(row, dict):
        return row
    row = reading.row(row, index)
    changed: Row = {}
    for truth, key in ((images, "image_id"), (classes, "category_id")):
        raw = row.get(key)
        number = truth.ids.get(raw, index)
        if number is None and truth.number_of:
            raise DataError(
                f"the {truth.kind.word} of an annotation does not exist",
                file=truth.path,
                place=f"annotation {index + 1} of {rows}",
                found=f"{key} {describe(raw)}",
                expected=f"an id of `{'images' if truth is images else 'categories'}`",
            )
        if number is not None and (number != raw or type(raw) is not int):
            changed[key] = number
    return row | changed if changed else row


def _matched_rows(
    predicted: PredictionFile, images: Truth, classes: Truth, reading: Reading, truth_rows: Sequence[Any]
) -> tuple[list[Row], list[str]]:
    """The detections with the ids of the ground truth, and warnings about images that only one side has."""
    path, rows = predicted.path, predicted.rows
    tables: list[Matched | None] = [
        match_table(table, truth, path) if table else None
        for table, truth in ((predicted.images, images), (predicted.categories, classes))
    ]
    find_image, find_class = (
        RowMatcher(truth, matched, path, len(rows), reading.notes)
        for truth, matched in zip((images, classes), tables, strict=True)
    )
    matched_rows: list[Row] = []
    for index, raw in enumerate(rows):
        image_id = find_image.number(raw, index)
        if image_id is None and images.number_of:
            continue
        category_id = find_class.number(raw, index)
        row = reading.row(raw, index)
        if row.get("image_id") is not image_id or row.get("category_id") is not category_id:
            row = row | {"image_id": image_id, "category_id": category_id}
        matched_rows.append(row)
    warnings: list[str] = []
    if tables[0] is not None:
        _refuse_other_sizes(predicted, tables[0], images)
        objects = Counter(row["image_id"] for row in truth_rows if isinstance(row, dict))
        warnings = image_warnings(tables[0], images, path, objects)
    return matched_rows, warnings


def _refuse_other_sizes(predicted: PredictionFile, matched: Matched, images: Truth) -> None:
    """Refuse images whose size in the predictions differs from that in the ground truth."""
    sizes = {row["id"]: (row.get("width"), row.get("height")) for row in images.rows if isinstance(row, dict)}
    for row, number in zip(predicted.images, matched.numbers.values(), strict=True):
        size = row.get("width"), row.get("height")
        if number is None or not all(type(side) is int for side in (*size, *sizes[number])) or size == sizes[number]:
            continue
        raise DataError(
            "an image has another size in the ground truth",
            file=predicted.path,
            place=images.shown(number),
            found="{} x {} px".format(*size),
            expected="{} x {} px, as in {}".format(*sizes[number], images.path),
        )


def _fill_sizes(images: list[Any], *sides: Sequence[Any]) -> None:
    """Give images without a size that of the first run-length mask on them."""
    unsized = {
        row["id"]: at
        for at, row in enumerate(images)
        if isinstance(row, dict) and row.get("width") is None and row.get("height") is None
    }
    for row in (row for side in sides for row in side if unsized and isinstance(row, dict)):
        segmentation = row.get("segmentation")
        image_id = row.get("image_id")
        if not isinstance(segmentation, dict) or not isinstance(image_id, int) or image_id not in unsized:
            continue
        size = segmentation.get("size")
        if isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
            at = unsized.pop(image_id)
            images[at] = images[at] | {"height": size[0], "width": size[1]}


def _boxes_as_masks(rows: list[Any]) -> int:
    """Give annotations without a segmentation that of their box, where others have one; returns their number."""
    without = [at for at, row in enumerate(rows) if isinstance(row, dict) and is_nothing(row.get("segmentation"))]
    if len(without) == len(rows):
        return 0
    count = 0
    for at in without:
        box = rows[at].get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box):
            x, y, w, h = box
            if w > 0 and h > 0:
                rows[at] = rows[at] | {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
                count += 1
    return count


def kinds_of(truth: dict[str, Any], results: Sequence[Row], file: Path) -> tuple[Kind, ...]:
    """The kinds of metrics that can be computed: all with masks, only boxes without.

    Args:
        truth: A COCO instances dict; it decides if there are no results.
        results: Rows in COCO's results format.
        file: The file of the results, for the error.

    Raises:
        DataError: Only some detections have masks.
    """
    annotations = [row for row in truth.get("annotations") or () if isinstance(row, dict)]
    without = [number for number, row in enumerate(results, start=1) if is_nothing(row.get("segmentation"))]
    if 0 < len(without) < len(results):
        raise DataError(
            "some detections have no segmentation",
            file=file,
            place=f"result {without[0]} of {len(results)}",
            found=f"{len(without)} detections without",
            hint="Add segmentations, or evaluate only boxes with --metrics bbox.",
        )
    has_masks = any(not is_nothing(row.get("segmentation")) for row in annotations)
    return KINDS if not without and (has_masks or (results and not annotations)) else ("bbox",)


def kinds_warning(results: Sequence[Row], kinds: Sequence[Kind], ground_truth: Path) -> str | None:
    """Why masks are not evaluated although the detections have them; None where they are, or have none."""
    if "segm" in kinds or not results or is_nothing(results[0].get("segmentation")):
        return None
    return f"{ground_truth}: no annotation has a segmentation; only boxes are evaluated"
