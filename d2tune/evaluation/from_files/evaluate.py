"""Evaluation of any model's predictions from files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from d2tune import files
from d2tune.annotations.convert import read_labels
from d2tune.annotations.formats.panoptic import is_panoptic
from d2tune.errors import DataError
from d2tune.evaluation.from_files.files import read_json
from d2tune.evaluation.from_files.results import kinds_of, kinds_warning, read_results
from d2tune.evaluation.outcome import evaluate_set, known_kinds, write_outcome
from d2tune.evaluation.output_files import EvaluationFiles
from d2tune.evaluation.summaries import EvaluationResult, closing_sentence
from d2tune.metrics.coco.box_checks import box_warnings
from d2tune.metrics.coco.results import Kind
from d2tune.metrics.coco.rows import read_coco
from d2tune.run_folder import ensure_writable
from d2tune.text import counted, printable
from d2tune.timing import StageTimes

logger = logging.getLogger(__name__)


def evaluate_files(
    predictions: str | Path,
    ground_truth: str | Path,
    *,
    out: str | Path,
    kinds: Sequence[Kind] | None = None,
    labels: str | Path | None = None,
    crowds: Literal["crowds", "objects"] = "crowds",
) -> EvaluationResult:
    """Evaluate any model's predictions from files.

    Args:
        predictions: A JSON list of detections in COCO's results format, a COCO panoptic JSON, or a folder of label
            PNGs.
        ground_truth: A COCO instances file, a COCO panoptic JSON, or a folder of label PNGs of the same names.
        out: The output folder.
        kinds: For instances, the kinds of metrics; None takes all, or only boxes if the detections have no masks.
        labels: With folders, a text file with a class name on each line.
        crowds: For instances, ``objects`` reads the crowds of the ground truth as objects.

    Raises:
        DataError: A file cannot be read, or predictions and ground truth do not fit together.
        RunError: ``out`` cannot be written.
    """
    both = Path(predictions), Path(ground_truth)
    if labels is not None and not both[1].is_dir():
        raise DataError("--labels needs a folder of label PNGs as ground truth", file=ground_truth)
    if both[1].is_dir():
        _refuse_crowds(crowds, both[1])
        if labels is None:
            raise DataError("label PNGs have no class names", file=ground_truth, hint="Give them with --labels FILE.")
        from d2tune.evaluation.from_files.maps import evaluate_semantic

        return evaluate_semantic(*both, class_names=read_labels(labels), out=Path(out))
    content = read_json(both[1])
    if is_panoptic(content):
        _refuse_crowds(crowds, both[1])
        from d2tune.evaluation.from_files.maps import evaluate_panoptic

        return evaluate_panoptic(*both, out=Path(out))
    if crowds == "objects":
        content = _without_crowds(content)
    return _evaluate_instances(*both, content, out=Path(out), kinds=kinds)


def _refuse_crowds(crowds: str, ground_truth: Path) -> None:
    if crowds != "crowds":
        raise DataError("--crowds needs a COCO instances file as ground truth", file=ground_truth)


def _without_crowds(content: Any) -> Any:
    """A COCO instances dict, unchecked, whose crowds are objects."""
    rows = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        return content
    return {**content, "annotations": [row | {"iscrowd": 0} if isinstance(row, dict) else row for row in rows]}


def _evaluate_instances(
    predictions: Path, ground_truth: Path, content: Any, *, out: Path, kinds: Sequence[Kind] | None
) -> EvaluationResult:
    files_read = read_results(predictions, ground_truth, content=content)
    truth, results, warnings = files_read.truth, files_read.results, list(files_read.warnings)
    if kinds is None:
        chosen = kinds_of(truth, results, predictions)
        line = kinds_warning(results, chosen, ground_truth)
        warnings += [] if line is None else [line]
    else:
        chosen = known_kinds(kinds)
    times = StageTimes()
    try:
        data = read_coco(truth, results, chosen)
    except DataError as error:
        file = predictions if (error.place or "").startswith("result ") else ground_truth
        about = {key: getattr(error, key) for key in ("place", "found", "expected", "hint")}
        raise DataError(error.message, file=file, **about) from None
    warnings += [f"{predictions}: {line}" for line in box_warnings(data, _sizes(truth))]
    crowds = sum(bool(row["iscrowd"]) for row in data.truth)
    if crowds and crowds == len(data.truth):
        hint = "if they are single objects, --crowds objects reads them as objects"
        warnings.append(f"{ground_truth}: 0 objects, {counted(crowds, 'crowd')}; {hint}")
    outputs = EvaluationFiles(out, inputs=lambda: (predictions, ground_truth))
    ensure_writable(out)
    outcome = evaluate_set(data, kinds=chosen, split=ground_truth.name, times=times)
    for line in warnings:
        logger.warning(printable(line))
    bound = {
        "ground_truth": str(ground_truth.resolve()),
        "data_sha256": files.sha256_file(ground_truth),
        "predictions": str(predictions.resolve()),
        "predictions_sha256": files.sha256_file(predictions),
        "warnings": warnings,
    }
    with outputs.written():
        write_outcome(out, outcome, bound=bound, times=times)
    sentence = closing_sentence(outcome.metrics, best_iteration=None, contact_sheet=out / "plots", kind="")
    return EvaluationResult(out, outcome.metrics, sentence)


def _sizes(truth: dict[str, Any]) -> dict[int, tuple[int, int]]:
    """Height and width of the images that have them, by id."""
    return {
        row["id"]: (row["height"], row["width"])
        for row in truth["images"]
        if all(type(row.get(key)) is int and row[key] > 0 for key in ("height", "width"))
    }
