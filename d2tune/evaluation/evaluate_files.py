"""Scoring the predictions of any model from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d2tune import files
from d2tune.annotations.convert import read_labels
from d2tune.errors import DataError
from d2tune.evaluation.outcome import evaluate_results, write_outcome
from d2tune.evaluation.result_files import kinds_of, read_results
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
    """Score any model's predictions from files.

    Args:
        predictions: A JSON list of detections in COCO's results format, a COCO panoptic JSON, or a folder of label
            PNGs.
        ground_truth: A COCO instances file, a COCO panoptic JSON, or a folder of label PNGs of the same names.
        out: Where the results go.
        kinds: What of instances to score; None scores boxes, and masks and boundaries where the detections have masks.
        labels: With folders, a file of class names, one a line.

    Raises:
        DataError: A file cannot be read, or they do not belong together.
    """
    both = Path(predictions), Path(ground_truth)
    if labels is not None and not both[1].is_dir():
        raise DataError("a file of labels goes with folders of label PNGs", file=ground_truth)
    if both[1].is_dir():
        if labels is None:
            raise DataError("label PNGs name no classes", file=ground_truth, hint="Name them with --labels FILE.")
        from d2tune.evaluation.map_files import evaluate_semantic

        return evaluate_semantic(*both, class_names=read_labels(labels), out=Path(out))
    truth, results = read_results(*both)
    if any("segments_info" in row for row in truth.get("annotations") or () if isinstance(row, dict)):
        from d2tune.evaluation.map_files import evaluate_panoptic

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
