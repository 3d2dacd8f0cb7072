"""Evaluation of any model's label PNGs and panoptic predictions from files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from tqdm import tqdm

from d2tune import files
from d2tune.annotations.io.places import walk_files
from d2tune.errors import DataError
from d2tune.evaluation.from_files.panoptic import PanopticFile, read_panoptic, score_panoptic_files
from d2tune.evaluation.map_metrics import MapMetrics, MapOutcome, map_sentence
from d2tune.evaluation.output_files import EvaluationFiles
from d2tune.evaluation.panoptic_metrics import panoptic_metrics
from d2tune.evaluation.semantic_metrics import semantic_metrics
from d2tune.evaluation.summaries import EvaluationResult
from d2tune.metrics.semantic import SemanticScorer
from d2tune.run_folder import ensure_writable
from d2tune.timing import StageTimes


def evaluate_semantic(
    predictions: Path, ground_truth: Path, *, class_names: Sequence[str], out: Path, device: str = "cpu"
) -> EvaluationResult:
    """Evaluate a folder of label PNGs; files with the same name in both folders are compared.

    Args:
        predictions: Folder of single-channel PNGs whose values are indices of ``class_names``, 255 for ignored.
        ground_truth: Folder of single-channel PNGs with the same values; all of its images are evaluated.
        class_names: The classes in the order of their ids.
        out: The output folder.
        device: The device on which pixels are counted.

    Raises:
        DataError: An image is missing, cannot be read, or has a value that is not a class index.
        RunError: ``out`` cannot be written.
    """
    began = time.perf_counter()
    if len(class_names) > 255:
        raise DataError("a label PNG has at most 255 classes", found=f"{len(class_names)} classes")
    if any(out.resolve().is_relative_to(folder.resolve()) for folder in (predictions, ground_truth)):
        raise DataError(
            "the output folder must not be inside a folder of label PNGs", file=out, hint="Set another with --out."
        )
    names = [name for name in walk_files(ground_truth) if name.lower().endswith(".png")]
    if not names:
        raise DataError("the folder has no label PNGs", file=ground_truth)
    missing = [name for name in names if not (predictions / name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images have no prediction; the first is missing",
            file=predictions / missing[0],
        )
    outputs = EvaluationFiles(out)
    ensure_writable(out)
    scorer = SemanticScorer(class_names, device=device)
    hashes = hashlib.sha256(), hashlib.sha256()
    for name in tqdm(names, desc="scoring", unit=" images", disable=None, leave=False):
        for digest, folder in zip(hashes, (predictions, ground_truth), strict=True):
            _add_hash(digest, name, folder / name)
        predicted, truth = (_labels(folder / name) for folder in (predictions, ground_truth))
        scorer.add(predicted, truth, name)
    bound = {
        "predictions": str(predictions.resolve()),
        "predictions_sha256": hashes[0].hexdigest(),
        "ground_truth": str(ground_truth.resolve()),
        "data_sha256": hashes[1].hexdigest(),
    }
    return _written(out, outputs, semantic_metrics(scorer, intervals=True), bound, began)


def evaluate_panoptic(predictions: Path, ground_truth: Path, *, out: Path, device: str = "cpu") -> EvaluationResult:
    """Evaluate a COCO panoptic file.

    Args:
        predictions: A COCO panoptic JSON. Its PNGs are in a folder of the same name, in ``panoptic``, or beside it.
        ground_truth: A COCO panoptic JSON with ``categories``, and its PNGs.
        out: The output folder.
        device: The device on which pixels are counted.

    Raises:
        DataError: A file is missing or damaged, or predictions and ground truth do not fit together.
        RunError: ``out`` cannot be written.
    """
    began = time.perf_counter()
    outputs = EvaluationFiles(out, inputs=lambda: (predictions, ground_truth))
    ensure_writable(out)
    predicted, truth = read_panoptic(predictions), read_panoptic(ground_truth)
    scorer = score_panoptic_files(predicted, truth, device=device)
    bound = {
        "predictions": str(predictions.resolve()),
        "predictions_sha256": _panoptic_hash(predicted),
        "ground_truth": str(ground_truth.resolve()),
        "data_sha256": _panoptic_hash(truth),
    }
    return _written(out, outputs, panoptic_metrics(scorer, intervals=True), bound, began)


def _written(
    out: Path, outputs: EvaluationFiles, metrics: MapMetrics, bound: dict[str, Any], began: float
) -> EvaluationResult:
    spent_s = time.perf_counter() - began
    with outputs.written():
        MapOutcome(metrics).write(out, bound=bound, times=StageTimes(score_s=spent_s, total_s=spent_s))
    return EvaluationResult(out, metrics, map_sentence(metrics))


def _add_hash(digest: Any, name: str, path: Path) -> None:
    digest.update(name.encode("utf-8", "surrogatepass") + b"\0" + bytes.fromhex(files.sha256_file(path)))


def _panoptic_hash(file: PanopticFile) -> str:
    """SHA-256 of the JSON and all of its PNGs, which determine the areas."""
    digest = hashlib.sha256(bytes.fromhex(files.sha256_file(file.path)))
    for image_id in sorted(file.rows):
        _add_hash(digest, image_id, file.png(image_id))
    return digest.hexdigest()


def _labels(path: Path) -> NDArray[Any]:
    try:
        with PilImage.open(path) as image:
            labels = np.asarray(image)
    except Exception as error:  # Pillow raises a dozen types for damaged images
        raise DataError(f"the label PNG cannot be read ({error})", file=path) from None
    if labels.ndim != 2:
        raise DataError("the label PNG has several channels", file=path, expected="a channel of class ids, mode L or P")
    return labels
