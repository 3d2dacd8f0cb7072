"""Scoring a finished run, or predictions of any model from a file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.convert import read_labels
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.splitting.lists import is_list
from d2tune.data.label_maps import with_background
from d2tune.data.splits import load_splits, read_split
from d2tune.errors import DataError
from d2tune.evaluation.evaluator import Metrics, Scoring, evaluator_of
from d2tune.evaluation.map_files import MapsResult, evaluate_panoptic, evaluate_semantic
from d2tune.evaluation.outcome import evaluate_results, write_outcome
from d2tune.evaluation.summaries import closing_sentence, metrics_text
from d2tune.inference.loop import StageTimes
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.modeling.from_run import load_run
from d2tune.project import Project, load_project
from d2tune.run_folder import RunFolder, ensure_writable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation made.

    Attributes:
        out: The folder with ``evaluation.json``, ``plots``, and for a run ``predictions.json`` and
            ``contact_sheet.png``.
        metrics: The scores.
        sentence: The result in one sentence.
    """

    out: Path
    metrics: Metrics
    sentence: str

    @property
    def table(self) -> str:
        """A row for each class, and the figures with their intervals."""
        return metrics_text(self.metrics)


def evaluate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    weights: str = "best",
    out: str | Path | None = None,
    kinds: Sequence[Kind] = KINDS,
    batch_size: int | None = None,
) -> EvaluationResult:
    """Score a run's weights on its validation part, or on other data with the same classes.

    Args:
        run: The run folder.
        data: Folder or file of annotations, or a list of images among the project's annotations; None takes the
            project's validation part.
        weights: ``best``, ``final`` or a checkpoint file.
        out: Where the results go; None is ``evaluation`` in the run folder, with the names of other data and of other
            weights than the best behind it.
        kinds: What to score: ``bbox``, ``segm``, ``boundary``.
        batch_size: Images per forward pass; None is 8 on CUDA and up to 4 on the CPU.

    Raises:
        D2TuneError: The run, the weights or the data cannot be used.
    """
    target = Path(out) if out is not None else Path(run) / _folder_name(data, weights)
    loaded = load_run(run, weights=weights)
    project = loaded.loaded.project
    if project.task != "instance" and tuple(kinds) != KINDS:
        raise DataError("--metrics is for instances", file=run, found=f"a {project.task} run")
    dataset = _dataset(loaded.folder, project, loaded.record, data)
    ensure_writable(target)
    times = StageTimes()
    evaluator = evaluator_of(dataset, loaded.cfg, project)
    found = evaluator.predict(loaded.model, batch_size=batch_size, times=times)
    split = "val" if data is None else Path(data).name
    outcome = evaluator.evaluate(found, Scoring(split=split, kinds=kinds, times=times))
    data_sha256 = dataset.content_hash()
    if data is None and data_sha256 != loaded.record["data"]["val_sha256"]:
        logger.warning("the validation data have changed since the run was trained; earlier scores are not comparable")
    bound = {
        "run": str(Path(run).resolve()),
        "data": None if data is None else str(Path(data).resolve()),
        "data_sha256": data_sha256,
        "weights": str(loaded.weights.resolve()),
        "weights_sha256": loaded.weights_sha256,
        "config_sha256": files.sha256_file(loaded.folder.config),
        "predictions_sha256": evaluator.save(found, target),
    }
    outcome.write(target, bound=bound, times=times)
    images = target / "contact_sheet.png"
    evaluator.draw(
        images,
        found,
        title=loaded.record["project"],
        subtitle=f"{loaded.weights.stem} on {data or 'the validation part'}, {outcome.headline}",
    )
    kind = "validation" if data is None else "other"
    sentence = closing_sentence(outcome.metrics, best_iteration=None, contact_sheet=images, kind=kind)
    return EvaluationResult(target, outcome.metrics, sentence)


def _folder_name(data: str | Path | None, weights: str) -> str:
    names = []
    if data is not None:
        # two folders may have one name; the hash of the whole path tells them apart
        path = Path(data).resolve()
        names.append(f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}")
    names += [] if weights == "best" else [Path(weights).stem]
    return "_".join(["evaluation", *names])


def evaluate_files(
    predictions: str | Path,
    ground_truth: str | Path,
    *,
    out: str | Path,
    kinds: Sequence[Kind] | None = None,
    labels: str | Path | None = None,
) -> EvaluationResult | MapsResult:
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
        return evaluate_semantic(*both, class_names=read_labels(labels), out=Path(out))
    truth, results = read_results(*both)
    if any("segments_info" in row for row in truth.get("annotations") or () if isinstance(row, dict)):
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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError("there is no such file", file=path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the file is no JSON ({error})", file=path) from None


def dataset_of(run: str | Path, data: str | Path | None) -> Dataset:
    """The images that a run was evaluated on, without loading its model.

    Args:
        run: The run folder.
        data: As in `evaluate`.

    Raises:
        D2TuneError: The run or the data cannot be used.
    """
    folder = RunFolder(Path(run))
    return _dataset(folder, load_project(folder.project).project, folder.read_record(), data)


def _dataset(folder: RunFolder, project: Project, record: dict[str, Any], data: str | Path | None) -> Dataset:
    classes = tuple(record["classes"])
    project = project if project.class_names else project.model_copy(update={"classes": classes})
    if data is None:
        return load_splits(project, sample=False).val
    source = Path(data).resolve()
    if not source.exists():
        raise DataError("no such data", file=source)
    if not is_list(source):
        same_kind = project.data.format == "label_images"
        moved = {"root": source.parent} | ({} if same_kind else {"format": "auto", "images": None})
        project = project.model_copy(update={"data": project.data.model_copy(update=moved)})
    part = str(source) if is_list(source) else source.name
    found = read_split(project, part, labels=classes, restore_dir=folder.restored_images)
    return found if project.task == "instance" else with_background(found, project.data.background)
