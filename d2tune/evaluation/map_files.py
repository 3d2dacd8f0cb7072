"""Scoring label images and panoptic predictions of any model from files."""

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
from d2tune.evaluation.map_metrics import MapMetrics, MapOutcome, map_sentence
from d2tune.evaluation.panoptic_files import PanopticFile, read_panoptic, score_panoptic_files
from d2tune.evaluation.panoptic_metrics import panoptic_metrics
from d2tune.evaluation.semantic_metrics import semantic_metrics
from d2tune.evaluation.summaries import EvaluationResult
from d2tune.metrics.semantic import SemanticScorer
from d2tune.run_folder import ensure_writable
from d2tune.timing import StageTimes


def evaluate_semantic(
    predictions: Path, ground_truth: Path, *, class_names: Sequence[str], out: Path, device: str = "cpu"
) -> EvaluationResult:
    """Score a folder of label PNGs against another; files belong together by their names.

    Args:
        predictions: Folder of single-channel images whose values are places in ``class_names``, 255 for none.
        ground_truth: Likewise; its images are the ones that are scored.
        class_names: The classes.
        out: Where the results go.
        device: Where pixels are counted.

    Raises:
        DataError: An image is missing, cannot be read, or holds an id that is no class.
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
    bound = {
        "predictions": str(predictions.resolve()),
        "predictions_sha256": hashes[0].hexdigest(),
        "ground_truth": str(ground_truth.resolve()),
        "data_sha256": hashes[1].hexdigest(),
    }
    return _written(out, semantic_metrics(scorer, intervals=True), bound, began)


def evaluate_panoptic(predictions: Path, ground_truth: Path, *, out: Path, device: str = "cpu") -> EvaluationResult:
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
    bound = {
        "predictions": str(predictions.resolve()),
        "predictions_sha256": _panoptic_hash(found),
        "ground_truth": str(ground_truth.resolve()),
        "data_sha256": _panoptic_hash(truth),
    }
    return _written(out, panoptic_metrics(scorer, intervals=True), bound, began)


def _written(out: Path, metrics: MapMetrics, bound: dict[str, Any], began: float) -> EvaluationResult:
    spent_s = time.perf_counter() - began
    MapOutcome(metrics).write(out, bound=bound, times=StageTimes(score_s=spent_s, total_s=spent_s))
    return EvaluationResult(out, metrics, map_sentence(metrics))


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
        with PilImage.open(path) as image:
            labels = np.asarray(image)
    except Exception as error:  # Pillow raises a dozen kinds for broken images
        raise DataError(f"the label image cannot be read ({error})", file=path) from None
    if labels.ndim != 2:
        raise DataError("the label image has colors", file=path, expected="one channel of class ids, mode L or P")
    return labels
