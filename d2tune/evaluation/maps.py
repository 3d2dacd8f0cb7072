"""Scoring label pictures and panoptic predictions of any model from files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from tqdm import tqdm

from d2tune import files
from d2tune.annotations.images import walk_files
from d2tune.errors import DataError
from d2tune.evaluation import bootstrap
from d2tune.evaluation.metric import Metric
from d2tune.evaluation.outcome import SCHEMA
from d2tune.evaluation.panoptic_files import PanopticFile, read_panoptic, score_panoptic_files
from d2tune.evaluation.report import with_interval
from d2tune.evaluation.scores import REPLICATES
from d2tune.evaluation.semantic import SemanticResult, SemanticScorer
from d2tune.report import bar_plots, confusion_plot
from d2tune.report.tables import format_table
from d2tune.run_folder import ensure_writable


@dataclass(frozen=True, slots=True)
class MapsResult:
    """What an evaluation of label pictures or panoptic predictions made.

    Attributes:
        out: The folder with ``evaluation.json`` and, for label pictures, ``plots``.
        table: A row for each class, and the figures with their intervals.
        sentence: The figure that counts.
    """

    out: Path
    table: str
    sentence: str


def evaluate_semantic(
    predictions: Path, ground_truth: Path, *, class_names: Sequence[str], out: Path, device: str = "cpu"
) -> MapsResult:
    """Score a folder of label PNGs against another; files belong together by their names.

    Args:
        predictions: Folder of single-channel pictures whose values are places in ``class_names``, 255 for none.
        ground_truth: Likewise; its pictures are the ones that are scored.
        class_names: The classes.
        out: Where the results go.
        device: Where pixels are counted.

    Raises:
        DataError: A picture is missing, cannot be read, or holds an id that is no class.
    """
    began = time.perf_counter()
    if len(class_names) > 255:
        raise DataError("a label PNG tells 255 classes apart", found=f"{len(class_names)} classes")
    if any(out.resolve().is_relative_to(folder.resolve()) for folder in (predictions, ground_truth)):
        raise DataError(
            "the results may not lie among the label PNGs", file=out, hint="Name another folder with --out."
        )
    names = [name for name in walk_files(ground_truth) if name.lower().endswith(".png")]
    if not names:
        raise DataError("there are no label PNGs", file=ground_truth)
    lost = [name for name in names if not (predictions / name).is_file()]
    if lost:
        raise DataError(
            "there is no prediction of this name", file=predictions / lost[0], found=f"{len(lost)} of {len(names)} lost"
        )
    ensure_writable(out)
    scorer = SemanticScorer(class_names, device=device)
    hashes = hashlib.sha256(), hashlib.sha256()
    for name in tqdm(names, desc="scoring", unit="image", disable=None, leave=False):
        for digest, folder in zip(hashes, (predictions, ground_truth), strict=True):
            _add_hash(digest, name, folder / name)
        predicted, truth = (_labels(folder / name) for folder in (predictions, ground_truth))
        scorer.add(predicted, truth, name)
    result = scorer.result()
    metrics = _spanned(result.metrics, scorer.resample, scorer.images)
    bound = {
        "predictions": str(predictions.resolve()),
        "predictions_sha256": hashes[0].hexdigest(),
        "ground_truth": str(ground_truth.resolve()),
        "data_sha256": hashes[1].hexdigest(),
    }
    plain = result.to_json()
    content = {"images": result.images, "metrics": {"semantic": _plain(metrics)}, "classes": plain["classes"]}
    content |= {"confusion": plain["confusion"], "replicates": REPLICATES}
    _write(out, "semantic", bound, content, began)
    _plot(out / "plots", result)
    header = ["class", "pixels", *result.classes[0].metrics]
    rows = [[row.name, str(row.pixels), *(str(one) for one in row.metrics.values())] for row in result.classes]
    return MapsResult(out, _table(header, rows, metrics, result.images), _sentence("mIoU", metrics, result.images))


def evaluate_panoptic(predictions: Path, ground_truth: Path, *, out: Path, device: str = "cpu") -> MapsResult:
    """Score a COCO panoptic file against another.

    Args:
        predictions: A COCO panoptic JSON; its PNGs lie in a folder of the same name, in ``panoptic`` or beside it.
        ground_truth: Likewise, with ``categories``.
        out: Where the results go.
        device: Where pixels are counted.

    Raises:
        DataError: A file is missing, or they do not belong together.
    """
    began = time.perf_counter()
    ensure_writable(out)
    found, truth = read_panoptic(predictions), read_panoptic(ground_truth)
    scorer = score_panoptic_files(found, truth, device=device)
    result = scorer.result()
    metrics = _spanned(result.metrics, scorer.resample, scorer.images)
    bound = {
        "predictions": str(predictions.resolve()),
        "predictions_sha256": _panoptic_hash(found),
        "ground_truth": str(ground_truth.resolve()),
        "data_sha256": _panoptic_hash(truth),
    }
    classes = result.to_json()["classes"]
    content = {"images": result.images, "metrics": {"panoptic": _plain(metrics)}, "classes": classes}
    _write(out, "panoptic", bound, content | {"replicates": REPLICATES}, began)
    rows = [
        [row.name, "thing" if row.isthing else "stuff", str(row.tp), str(row.fp), str(row.fn)]
        + [str(row.metrics[name]) for name in ("PQ", "SQ", "RQ")]
        for row in result.classes
        if row.tp + row.fp + row.fn
    ]
    header = ["class", "kind", "right", "false", "missed", "PQ", "SQ", "RQ"]
    return MapsResult(out, _table(header, rows, metrics, result.images), _sentence("PQ", metrics, result.images))


def _add_hash(digest: Any, name: str, path: Path) -> None:
    digest.update(name.encode("utf-8", "surrogatepass") + b"\0" + bytes.fromhex(files.sha256_file(path)))


def _panoptic_hash(file: PanopticFile) -> str:
    """SHA-256 over the JSON and all its PNGs, which the areas come from."""
    digest = hashlib.sha256(bytes.fromhex(files.sha256_file(file.path)))
    for image_id in sorted(file.rows):
        _add_hash(digest, image_id, file.png(image_id))
    return digest.hexdigest()


def _labels(path: Path) -> NDArray[Any]:
    try:
        with PilImage.open(path) as picture:
            labels = np.asarray(picture)
    except Exception as error:  # Pillow raises a dozen kinds for broken pictures
        raise DataError(f"the label picture cannot be read ({error})", file=path) from None
    if labels.ndim != 2:
        raise DataError("the label picture has colours", file=path, expected="one channel of class ids, mode L or P")
    return labels


def _spanned(
    metrics: dict[str, Metric], resample: Callable[[Any], dict[str, NDArray[np.float64]]], images: int
) -> dict[str, Metric]:
    """The figures with their intervals."""
    spans = bootstrap.intervals(resample, images, replicates=REPLICATES)
    return {
        name: one if one.value is None else replace(one, low=spans[name].low, high=spans[name].high)
        for name, one in metrics.items()
    }


def _plain(metrics: dict[str, Metric]) -> dict[str, Any]:
    return {name: one.to_json() for name, one in metrics.items()}


def _write(out: Path, task: str, bound: dict[str, Any], content: dict[str, Any], began: float) -> None:
    spent_s = round(time.perf_counter() - began, 3)
    times = {"times": {"score_s": spent_s, "total_s": spent_s}}
    files.write_json(out / "evaluation.json", {"schema": SCHEMA, "task": task, **bound, **content, **times})


def _plot(folder: Path, result: SemanticResult) -> None:
    bars = [
        bar_plots.Bar(row.name, row.metrics["IoU"].value, reason=row.metrics["IoU"].reason) for row in result.classes
    ]
    subtitle = f"{result.images} image{'' if result.images == 1 else 's'}"
    bar_plots.write_class_iou(folder / "class_iou.png", bars, mean=result.metrics["mIoU"].value, subtitle=subtitle)
    square = np.vstack([result.confusion, np.zeros((1, result.confusion.shape[1]), np.int64)])
    names = [row.name for row in result.classes]
    confusion_plot.write_confusion(folder / "confusion.png", square, names, subtitle=f"pixels of {subtitle}")


def _table(header: list[str], rows: list[list[str]], metrics: dict[str, Metric], images: int) -> str:
    figures = [[name, with_interval(one)] for name, one in metrics.items()]
    span = f"value (95 % interval over {images} image{'' if images == 1 else 's'})"
    return "\n".join([format_table(rows, header=header), "", format_table(figures, header=["figure", span])])


def _sentence(name: str, metrics: dict[str, Metric], images: int) -> str:
    one = metrics[name]
    on = f"{images} image{'' if images == 1 else 's'}"
    if one.value is None:
        return f"No {name} can be computed on {on}: {one.reason}."
    return f"{name} on {on}: {with_interval(one)}."
