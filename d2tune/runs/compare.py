"""Comparison of runs, evaluations or files of predictions on the same images."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from d2tune import files
from d2tune.annotations.io.output_record import COMPARISON, NAME
from d2tune.annotations.io.outputs import protected, refuse_existing, write_output_json
from d2tune.errors import RunError
from d2tune.evaluation.comparison import ComparedSide, InstanceSide, RunComparison
from d2tune.evaluation.from_files.results import kinds_of, read_results
from d2tune.run_folder import RunFolder
from d2tune.run_schema import chosen_on_images
from d2tune.runs.evaluated import Evaluated, read_evaluated
from d2tune.runs.other_model import other_side
from d2tune.text import printable

logger = logging.getLogger(__name__)


def compare(
    a: str | Path, b: str | Path, *, ground_truth: str | Path | None = None, out: str | Path | None = None
) -> RunComparison:
    """Compare two models that were evaluated on the same images, by a paired bootstrap over the images.

    Args:
        a: Path of A: a run folder, a package, the folder of an evaluation, or a file of COCO results of any model.
        b: Path of B: the same.
        ground_truth: A COCO instances file, if ``a`` and ``b`` are both files of results.
        out: Folder for ``comparison.json``; None writes no file.

    Raises:
        RunError: The weights, config, data or predictions of a run have changed since its evaluation, or the
            evaluations are of different data or tasks.
        DataError: A file cannot be read.
    """
    side_a: ComparedSide
    side_b: ComparedSide
    if ground_truth is not None:
        side_a, side_b = (_file_side(Path(side), Path(ground_truth)) for side in (a, b))
    else:
        side_a, side_b = _sides(Path(a), Path(b))
    if side_a.truth_sha256 != side_b.truth_sha256:
        raise RunError(
            "evaluations on different data cannot be compared",
            file=b,
            hint="Evaluate both runs with `d2tune eval RUN --data DATA`, then compare the folders that it writes.",
        )
    comparison = side_a.compare(side_b)
    if out is not None:
        path = Path(out) / "comparison.json"
        inputs = [Path(side) for side in (a, b, ground_truth) if side is not None]
        with protected(lambda: inputs):
            refuse_existing([path], force=True, kind=COMPARISON, is_own=_is_comparison)
        write_output_json(path, comparison.to_json(), kind=COMPARISON)
    return comparison


def _is_comparison(path: Path) -> bool:
    """Whether a file is a comparison by an earlier version, which kept no record."""
    if (path.parent / NAME).exists():
        return False
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"schema", "a", "b", "verdict"} <= value.keys()


def _file_side(predictions: Path, ground_truth: Path) -> InstanceSide:
    both = read_results(predictions, ground_truth)
    for line in both.warnings:
        logger.warning(printable(line))
    kinds = kinds_of(both.truth, both.results, predictions)
    return InstanceSide(str(predictions), files.sha256_file(ground_truth), both.truth, both.results, kinds)


def _sides(a: Path, b: Path) -> list[ComparedSide]:
    """The sides of two evaluations, or of an evaluation and a file of results on the same images.

    Raises:
        RunError: The weights, config, data or predictions of an evaluation have changed, or both are files.
        DataError: The file cannot be read.
    """
    given = [None if side.is_file() else _evaluated(side) for side in (a, b)]
    beside = next((one for one in given if one is not None), None)
    if beside is None:
        hint = "Give the COCO instances file of their images: --ground-truth FILE."
        raise RunError("two files of results need their ground truth", file=a, hint=hint)
    return [_other(path, beside) if one is None else one.side() for path, one in zip((a, b), given, strict=True)]


def _evaluated(folder: Path) -> Evaluated:
    """A model or an evaluation; its weights, config, data and predictions must be unchanged."""
    evaluated = read_evaluated(folder)
    evaluated.check_model()
    assembled = chosen_on_images(RunFolder(evaluated.run).record_entries())
    if assembled and evaluated.content.get("data") is None:
        logger.warning("%s", printable(f"{folder}: {assembled}"))
    return evaluated


def _other(path: Path, beside: Evaluated) -> ComparedSide:
    side, warnings = other_side(path, beside)
    for line in warnings:
        logger.warning(printable(line))
    return side
