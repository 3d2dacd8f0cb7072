"""Comparison of runs, evaluations or files of predictions on the same images."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.io.output_record import COMPARISON, NAME
from d2tune.annotations.io.outputs import protected, refuse_existing, write_output_json
from d2tune.errors import RunError
from d2tune.evaluation.comparison import ComparedSide, InstanceSide, RunComparison
from d2tune.evaluation.from_files.results import kinds_of, read_results
from d2tune.packages.manifest import is_package
from d2tune.run_schema import read_evaluation, read_object
from d2tune.runs.load import default_folder
from d2tune.text import printable

logger = logging.getLogger(__name__)

_AGAIN = "Evaluate the run again with `d2tune eval RUN`, then repeat the comparison."


def compare(
    a: str | Path, b: str | Path, *, ground_truth: str | Path | None = None, out: str | Path | None = None
) -> RunComparison:
    """Compare two models that were evaluated on the same images, by a paired bootstrap over the images.

    Args:
        a: Path of A: a run folder, a package, the folder of an evaluation, or with ``ground_truth`` a file of COCO
            results.
        b: Path of B: the same.
        ground_truth: A COCO instances file, if ``a`` and ``b`` are files of results.
        out: Folder for ``comparison.json``; None writes no file.

    Raises:
        RunError: The weights, config, data or predictions of a run have changed since its evaluation, or the
            evaluations are of different data or tasks.
        DataError: A file cannot be read.
    """
    side_a, side_b = (
        _file_side(Path(side), Path(ground_truth)) if ground_truth else _run_side(Path(side)) for side in (a, b)
    )
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


def _run_side(folder: Path) -> ComparedSide:
    """The predictions of a model or an evaluation; its weights, config, data and predictions must be unchanged."""
    from d2tune.modeling.config import read_config
    from d2tune.runs.evaluate import dataset_of
    from d2tune.runs.load import describe
    from d2tune.tasks import task_of

    given = folder
    folder = _newest_evaluation(folder)
    evaluation = _read_evaluation(folder, given)
    # the run may have been moved; its evaluations are in its folder, except those written with --out
    recorded = Path(evaluation["run"])
    candidates = [given, folder.parent, recorded]
    if is_package(recorded):
        candidates = [given, recorded]
    run = next((path for path in candidates if _is_model(path)), None)
    if run is None:
        hint = "Restore its folder."
        raise RunError("the run or the package of this evaluation is missing", file=evaluation["run"], hint=hint)
    config = run / "detectron2.yaml"
    _check_hash(files.sha256_file(config), evaluation["config_sha256"], config, "config", folder)
    weights = Path(evaluation["weights"])
    moved = run / weights.name if is_package(run) else run / "checkpoints" / weights.name
    hashes = {path: files.sha256_file(path) for path in (moved, weights) if path.is_file()}
    if not hashes:
        raise RunError("the weights of this evaluation are missing", file=weights, hint=_AGAIN)
    if evaluation["weights_sha256"] not in hashes.values():
        path, sha256 = next(iter(hashes.items()))
        _check_hash(sha256, evaluation["weights_sha256"], path, "weights", folder)
    reading = {key: evaluation.get(key) for key in ("image_root", "crowds")}
    dataset = dataset_of(run, evaluation["data"], **reading)
    data_sha256 = dataset.content_hash()
    _check_hash(data_sha256, evaluation["data_sha256"], evaluation["data"] or "the validation split", "data", folder)
    project = describe(run).project
    evaluator = task_of(project).evaluator(dataset, read_config(config), project)
    try:
        digest = evaluator.digest(folder)
    except OSError as error:
        raise RunError("the predictions are missing", file=error.filename or folder, hint=_AGAIN) from None
    _check_hash(digest, evaluation["predictions_sha256"], folder, "predictions", folder)
    return evaluator.side(evaluator.load(folder), name=str(given), truth_sha256=data_sha256)


def _newest_evaluation(folder: Path) -> Path:
    """The folder with the newest evaluation of a model on its validation split: by training, or by ``d2tune eval``."""
    if is_package(folder):
        return default_folder(folder, "evaluation")
    if not _is_model(folder):
        return folder
    evaluated = [path for path in (folder, folder / "evaluation") if (path / "evaluation.json").is_file()]
    return max(evaluated, key=lambda path: (path / "evaluation.json").stat().st_mtime, default=folder)


def _is_model(folder: Path) -> bool:
    return (folder / "record.json").is_file() or is_package(folder)


def _read_evaluation(folder: Path, given: Path) -> dict[str, Any]:
    path = folder / "evaluation.json"
    try:
        evaluation = read_object(path, "evaluation")
    except FileNotFoundError:
        hint = f"Run `d2tune eval {given}`." if _is_model(given) else None
        expected = "a run folder, a package or the folder of an evaluation"
        raise RunError("the evaluation does not exist", file=path, expected=expected, hint=hint) from None
    if "predictions_sha256" not in evaluation or "run" not in evaluation:
        raise RunError("the evaluation is not of a run, or was written by an earlier version", file=path, hint=_AGAIN)
    return read_evaluation(path)


def _check_hash(sha256: str, expected: str, file: str | Path, what: str, folder: Path) -> None:
    if sha256 != expected:
        raise RunError(
            f"the {what} changed after the evaluation",
            file=file,
            found=f"SHA-256 {sha256[:12]}",
            expected=f"{expected[:12]}, as in {folder / 'evaluation.json'}",
            hint=_AGAIN,
        )
