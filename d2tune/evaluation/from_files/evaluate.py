"""Evaluation of any model's predictions from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d2tune import files
from d2tune.annotations.convert import read_labels
from d2tune.errors import DataError
from d2tune.evaluation.from_files.results import kinds_of, read_results
from d2tune.evaluation.outcome import evaluate_results, write_outcome
from d2tune.evaluation.summaries import EvaluationResult, closing_sentence
from d2tune.metrics.coco.results import Kind
from d2tune.run_folder import ensure_writable
from d2tune.timing import StageTimes


def evaluate_files(
    predictions: str | Path,
    ground_truth: str | Path,
    *,
    out: str | Path,
    kinds: Sequence[Kind] | None = None,
    labels: str | Path | None = None,
) -> EvaluationResult:
    """Evaluate any model's predictions from files.

    Args:
        predictions: A JSON list of detections in COCO's results format, a COCO panoptic JSON, or a folder of label
            PNGs.
        ground_truth: A COCO instances file, a COCO panoptic JSON, or a folder of label PNGs of the same names.
        out: The output folder.
        kinds: For instances, the kinds of metrics; None takes all, or only boxes if the detections have no masks.
        labels: With folders, a text file with a class name on each line.

    Raises:
        DataError: A file cannot be read, or predictions and ground truth do not fit together.
        RunError: ``out`` cannot be written.
    """
    both = Path(predictions), Path(ground_truth)
    if labels is not None and not both[1].is_dir():
        raise DataError("--labels needs a folder of label PNGs as ground truth", file=ground_truth)
    if both[1].is_dir():
        if labels is None:
            raise DataError("label PNGs have no class names", file=ground_truth, hint="Give them with --labels FILE.")
        from d2tune.evaluation.from_files.maps import evaluate_semantic

        return evaluate_semantic(*both, class_names=read_labels(labels), out=Path(out))
    truth, results = read_results(*both)
    if any("segments_info" in row for row in truth.get("annotations") or () if isinstance(row, dict)):
        from d2tune.evaluation.from_files.maps import evaluate_panoptic

        return evaluate_panoptic(*both, out=Path(out))
    kinds = kinds_of(truth, results, both[0]) if kinds is None else kinds
    target = Path(out)
    ensure_writable(target)
    times = StageTimes()
    outcome = evaluate_results(truth, results, kinds=kinds, split=Path(ground_truth).name, times=times)
    bound = {
        "ground_truth": str(Path(ground_truth).resolve()),
        "data_sha256": files.sha256_file(ground_truth),
        "predictions": str(Path(predictions).resolve()),
        "predictions_sha256": files.sha256_file(predictions),
    }
    write_outcome(target, outcome, bound=bound, times=times)
    sentence = closing_sentence(outcome.metrics, best_iteration=None, contact_sheet=target / "plots", kind="")
    return EvaluationResult(target, outcome.metrics, sentence)
