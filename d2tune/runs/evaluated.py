"""The newest evaluation of a run: what it was made of, and the predictions that it is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.model.dataset import Dataset
from d2tune.errors import RunError
from d2tune.evaluation.comparison import ComparedSide
from d2tune.evaluation.evaluator import Evaluator
from d2tune.packages.manifest import is_package
from d2tune.run_schema import read_evaluation, read_object
from d2tune.runs.load import default_folder

_AGAIN = "Evaluate the run again with `d2tune eval RUN`."


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation with its data.

    Attributes:
        given: The path as given.
        folder: The folder of the evaluation.
        content: Its ``evaluation.json``.
        run: The run folder or package.
        dataset: The data that it is of, which are unchanged.
        evaluator: The evaluator of these data.
    """

    given: Path
    folder: Path
    content: dict[str, Any]
    run: Path
    dataset: Dataset
    evaluator: Evaluator[Any]

    def predictions(self) -> list[Any]:
        """The predictions of all images, as the evaluator keeps them.

        Raises:
            RunError: They are missing, were changed since the evaluation, or are of other images.
        """
        try:
            digest = self.evaluator.digest(self.folder)
        except OSError as error:
            raise RunError("the predictions are missing", file=error.filename or self.folder, hint=_AGAIN) from None
        _check_hash(digest, self.content["predictions_sha256"], self.folder, "predictions", self.folder)
        return self.evaluator.load(self.folder)

    def side(self) -> ComparedSide:
        """The predictions as a side of a comparison; see `predictions`."""
        truth_sha256 = self.content["data_sha256"]
        return self.evaluator.side(self.predictions(), name=str(self.given), truth_sha256=truth_sha256)

    def check_model(self) -> None:
        """Check that config and weights are those of the evaluation.

        Raises:
            RunError: They are missing or were changed.
        """
        config = self.run / "detectron2.yaml"
        _check_hash(files.sha256_file(config), self.content["config_sha256"], config, "config", self.folder)
        weights = Path(self.content["weights"])
        moved = self.run / weights.name if is_package(self.run) else self.run / "checkpoints" / weights.name
        hashes = {path: files.sha256_file(path) for path in (moved, weights) if path.is_file()}
        if not hashes:
            raise RunError("the weights of this evaluation are missing", file=weights, hint=_AGAIN)
        if self.content["weights_sha256"] not in hashes.values():
            path, sha256 = next(iter(hashes.items()))
            _check_hash(sha256, self.content["weights_sha256"], path, "weights", self.folder)


def read_evaluated(given: Path) -> Evaluated:
    """The newest evaluation of a model on its validation split, or an evaluation by its folder.

    Args:
        given: A run folder, a package, or the folder of an evaluation.

    Raises:
        RunError: There is none, its run is missing, or its data have changed.
        D2TuneError: The data cannot be read.
    """
    from d2tune.modeling.config import read_config
    from d2tune.runs.evaluate import dataset_of
    from d2tune.runs.load import describe
    from d2tune.tasks import task_of

    folder = newest_evaluation(given)
    content = _read_evaluation(folder, given)
    # the run may have been moved; its evaluations are in its folder, except those written with --out
    recorded = Path(content["run"])
    candidates = [given, folder.parent, recorded]
    if is_package(recorded):
        candidates = [given, recorded]
    run = next((path for path in candidates if _is_model(path)), None)
    if run is None:
        hint = "Restore its folder."
        raise RunError("the run or the package of this evaluation is missing", file=content["run"], hint=hint)
    reading = {key: content.get(key) for key in ("image_root", "crowds")}
    dataset = dataset_of(run, content["data"], **reading)
    place = content["data"] or "the validation split"
    _check_hash(dataset.content_hash(), content["data_sha256"], place, "data", folder)
    project = describe(run).project
    evaluator = task_of(project).evaluator(dataset, read_config(run / "detectron2.yaml"), project)
    return Evaluated(given, folder, content, run, dataset, evaluator)


def newest_evaluation(folder: Path) -> Path:
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
