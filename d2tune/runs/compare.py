"""Whether one set of predictions is better than another on the same images, by how much and how surely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.errors import RunError
from d2tune.evaluation.comparison import ComparedSide, InstanceSide, RunComparison
from d2tune.evaluation.result_files import kinds_of, read_results
from d2tune.project import load_project

_AGAIN = "Evaluate the run again, d2tune eval RUN, and compare once more."


def compare(
    a: str | Path, b: str | Path, *, ground_truth: str | Path | None = None, out: str | Path | None = None
) -> RunComparison:
    """Compare two runs on the images that both were evaluated on, by a paired bootstrap over the images.

    Args:
        a: A run folder, the folder of an evaluation, or with ``ground_truth`` a file of COCO results.
        b: Likewise.
        ground_truth: A COCO instances file, where ``a`` and ``b`` are files of results.
        out: Folder for ``comparison.json``.

    Raises:
        RunError: A result is not that of the weights, the config and the data that are there now, or the two were
            evaluated on different data.
        DataError: A file cannot be read.
    """
    side_a, side_b = (
        _file_side(Path(side), Path(ground_truth)) if ground_truth else _run_side(Path(side)) for side in (a, b)
    )
    if side_a.truth_sha256 != side_b.truth_sha256:
        raise RunError(
            "the two were evaluated on different data and cannot be compared",
            file=b,
            hint="Evaluate both on the same data: d2tune eval RUN --data DATA, then compare the folders it writes.",
        )
    comparison = side_a.compare(side_b)
    if out is not None:
        files.write_json(Path(out) / "comparison.json", comparison.to_json())
    return comparison


def _file_side(predictions: Path, ground_truth: Path) -> InstanceSide:
    truth, results = read_results(predictions, ground_truth)
    kinds = kinds_of(truth, results, predictions)
    return InstanceSide(str(predictions), files.sha256_file(ground_truth), truth, results, kinds)


def _run_side(folder: Path) -> ComparedSide:
    """The predictions of a run or of an evaluation, if they are still those of its weights, config and data."""
    from d2tune.modeling.config import read_config
    from d2tune.runs.evaluate import dataset_of
    from d2tune.tasks import task_of

    given = folder
    folder = _newest_evaluation(folder)
    evaluation = _read_evaluation(folder)
    # a run may have been moved since; an evaluation of it lies in its folder, unless --out said otherwise
    places = (given, folder.parent, Path(evaluation["run"]))
    run = next((place for place in places if (place / "record.json").is_file()), None)
    if run is None:
        raise RunError("the run of this evaluation is gone", file=evaluation["run"], hint="Put it back there.")
    config = run / "detectron2.yaml"
    _must_be(files.sha256_file(config), evaluation["config_sha256"], config, "config", folder)
    weights = Path(evaluation["weights"])
    moved = run / "checkpoints" / weights.name
    weights = moved if moved.is_file() else weights
    if not weights.is_file():
        raise RunError("the weights of this evaluation are gone", file=weights, hint=_AGAIN)
    _must_be(files.sha256_file(weights), evaluation["weights_sha256"], weights, "weights", folder)
    dataset = dataset_of(run, evaluation["data"])
    data_sha256 = dataset.content_hash()
    _must_be(data_sha256, evaluation["data_sha256"], evaluation["data"] or "the validation split", "data", folder)
    project = load_project(run / "project.yaml").project
    evaluator = task_of(project).evaluator(dataset, read_config(config), project)
    try:
        digest = evaluator.digest(folder)
    except OSError as error:
        raise RunError("the predictions are gone", file=error.filename or folder, hint=_AGAIN) from None
    _must_be(digest, evaluation["predictions_sha256"], folder, "predictions", folder)
    return evaluator.side(evaluator.load(folder), name=str(given), truth_sha256=data_sha256)


def _newest_evaluation(folder: Path) -> Path:
    """Of a run folder, where its newest evaluation on the validation part lies: its own, or that of ``d2tune eval``."""
    if not (folder / "record.json").is_file():
        return folder
    there = [place for place in (folder, folder / "evaluation") if (place / "evaluation.json").is_file()]
    return max(there, key=lambda place: (place / "evaluation.json").stat().st_mtime, default=folder)


def _read_evaluation(folder: Path) -> dict[str, Any]:
    path = folder / "evaluation.json"
    try:
        evaluation = json.loads(path.read_bytes())
    except FileNotFoundError:
        hint = f"Evaluate it first: d2tune eval {folder}" if (folder / "record.json").is_file() else None
        expected = "a run folder or the folder of an evaluation"
        raise RunError("there is no evaluation", file=path, expected=expected, hint=hint) from None
    except (OSError, ValueError) as error:
        raise RunError(f"the evaluation cannot be read ({error})", file=path) from None
    if not isinstance(evaluation, dict) or "predictions_sha256" not in evaluation or "run" not in evaluation:
        raise RunError("the evaluation is not one of a run, or an earlier version's", file=path, hint=_AGAIN)
    return evaluation


def _must_be(found: str, expected: str, file: str | Path, what: str, folder: Path) -> None:
    if found != expected:
        raise RunError(
            f"the {what} changed since this result was made, so it is not current",
            file=file,
            found=f"SHA-256 {found[:12]}",
            expected=f"{expected[:12]}, as {folder / 'evaluation.json'} says",
            hint=_AGAIN,
        )
