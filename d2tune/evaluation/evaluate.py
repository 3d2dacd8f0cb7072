"""Scoring a finished run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from d2tune import files
from d2tune.annotations.dataset import Dataset
from d2tune.data.parts import load_parts, read_part
from d2tune.errors import DataError
from d2tune.evaluation.coco import CocoMetrics, score
from d2tune.evaluation.loop import predict_dataset
from d2tune.evaluation.pictures import write_pictures
from d2tune.evaluation.report import closing_sentence, write_evaluation
from d2tune.modeling.from_run import LoadedRun, load_run
from d2tune.run_folder import ensure_writable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation made.

    Attributes:
        out: The folder with ``evaluation.json``, ``predictions.json`` and ``contact_sheet.png``.
        metrics: The scores.
        sentence: The result in one sentence.
    """

    out: Path
    metrics: CocoMetrics
    sentence: str


def evaluate(
    run: str | Path, *, data: str | Path | None = None, weights: str = "best", out: str | Path | None = None
) -> EvaluationResult:
    """Score a run's weights on its validation part, or on other data with the same classes.

    Args:
        run: The run folder.
        data: Folder or file of annotations; None takes the project's validation part.
        weights: ``best``, ``final`` or a checkpoint file.
        out: Where the results go; None is ``evaluation`` in the run folder, or ``evaluation_<name of the data>``.

    Raises:
        D2TuneError: The run, the weights or the data cannot be used.
    """
    name = "evaluation" if data is None else f"evaluation_{Path(data).stem}"
    target = Path(out) if out is not None else Path(run) / name
    loaded = load_run(run, weights=weights)
    dataset = _dataset(loaded, data)
    ensure_writable(target)
    results = predict_dataset(loaded.model, dataset, loaded.cfg)
    metrics = score(dataset, results)
    data_sha256 = dataset.content_hash()
    if data is None and data_sha256 != loaded.record["data"]["val_sha256"]:
        logger.warning("the validation data have changed since the run was trained; earlier scores are not comparable")
    files.write_json(target / "predictions.json", results, indent=None)
    write_evaluation(
        target / "evaluation.json",
        metrics,
        data_sha256=data_sha256,
        weights_sha256=loaded.weights_sha256,
        config=loaded.folder.config,
    )
    pictures = target / "contact_sheet.png"
    figure = metrics.segm["AP"]
    write_pictures(
        pictures,
        dataset,
        results,
        title=loaded.record["project"],
        subtitle=f"{loaded.weights.stem} on {data or 'the validation part'}, mask AP {figure}",
    )
    kind = "validation" if data is None else "other"
    sentence = closing_sentence(metrics, best_iteration=None, pictures=pictures, kind=kind)
    return EvaluationResult(target, metrics, sentence)


def _dataset(loaded: LoadedRun, data: str | Path | None) -> Dataset:
    project = loaded.loaded.project
    classes = tuple(loaded.record["classes"])
    project = project.model_copy(update={"classes": classes})
    if data is None:
        return load_parts(project, sample=False).val
    source = Path(data).resolve()
    if not source.exists():
        raise DataError("no such data", file=source)
    moved = project.data.model_copy(update={"root": source.parent, "format": "auto", "images": None})
    restore_dir = loaded.folder.restored_images
    return read_part(project.model_copy(update={"data": moved}), source.name, labels=classes, restore_dir=restore_dir)
