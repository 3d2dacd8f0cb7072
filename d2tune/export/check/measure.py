"""The measurements of a check: drift, the main metric, latency and size of an exported model and its reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from d2tune.data.image_reader import Pixels
from d2tune.export.check.drift import Drift, drift_of
from d2tune.export.check.images import CheckImages, evenly
from d2tune.inference.images import ImageLike, read_pixels
from d2tune.inference.loop import inference_mode
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.loaded import LoadedModel
from d2tune.tasks import task_of

_TIMED_IMAGES, _TIMED_ROUNDS = 8, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a check measured; the pairs are of the reference and the exported model.

    Attributes:
        drift: The differences of the predictions.
        min_scores: Whether the instances above the thresholds of the model were compared; otherwise, because there
            were none, all.
        where: Where the images come from, beside the generated ones.
        given_images: Number of images that are not generated.
        metric: Name of the main metric; None without ground truth.
        values: The main metric, from 0 to 100.
        latency_ms: Median time of a prediction on an image in memory.
        size_bytes: Size of the weights.
    """

    drift: Drift
    min_scores: bool
    where: str
    given_images: int
    metric: str | None
    values: tuple[float | None, float | None]
    latency_ms: tuple[float, float]
    size_bytes: tuple[int, int]


def measure(
    reference: LoadedModel, exported: LoadedModel, images: CheckImages, *, compared: LoadedModel | None = None
) -> Measured:
    """Compare an exported model with its reference.

    Args:
        reference: The model that it was made of.
        exported: The exported model.
        images: The images.
        compared: What the predictions are compared with, where it is not the reference: the model on images that are
            padded to a fixed size.

    Raises:
        DataError: An image cannot be read.
    """
    with inference_mode(reference.model):
        pair = compared or reference, exported
        everything = [*images.generated, *images.given]
        drift = drift_of(*(_predictions(_predictor(loaded), everything) for loaded in pair))
        uses_thresholds = drift.instances != 0 or drift.other_instances != 0
        if not uses_thresholds:
            drift = drift_of(*(_predictions(_predictor(loaded, all_scores=True), everything) for loaded in pair))
        metric, values = _main_metrics(reference, exported, images)
        return Measured(
            drift=drift,
            min_scores=uses_thresholds,
            where=images.where,
            given_images=len(images.given),
            metric=metric,
            values=values,
            latency_ms=_latencies(_predictor(reference), _predictor(exported), images.given or images.generated),
            size_bytes=(weights_bytes(reference), weights_bytes(exported)),
        )


def weights_bytes(loaded: LoadedModel) -> int:
    """Size of the files of the weights: the file itself, and what has its name with another suffix."""
    return sum(path.stat().st_size for path in loaded.files if path.stem == loaded.weights.stem)


def _predictor(loaded: LoadedModel, *, all_scores: bool = False) -> Predictor[Any, Any]:
    task = task_of(loaded.project)
    min_scores = None
    if task.has_scores and not all_scores:
        min_scores = [loaded.thresholds[name] for name in loaded.class_names]
    return task.predictor(loaded.model, loaded.cfg, loaded.project, loaded.categories, min_scores=min_scores)


def _predictions(predictor: Predictor[Any, Any], images: Sequence[ImageLike]) -> list[Any]:
    return predictor.batch(images, batch_size=1)


def _main_metrics(
    reference: LoadedModel, exported: LoadedModel, images: CheckImages
) -> tuple[str | None, tuple[float | None, float | None]]:
    if images.dataset is None:
        return None, (None, None)
    task = task_of(reference.project)
    values = []
    for loaded in (reference, exported):
        evaluator = task.evaluator(images.dataset, loaded.cfg, loaded.project)
        predictions = evaluator.predict(_predictor(loaded, all_scores=True), batch_size=1, show_progress=False)
        values.append(evaluator.quick(predictions).value)
    return task.main_metric, (values[0], values[1])


def _latencies(
    reference: Predictor[Any, Any], exported: Predictor[Any, Any], images: Sequence[ImageLike]
) -> tuple[float, float]:
    """The medians of both in ms, measured in turns after a first prediction each."""
    pixels = [_shown(reference, image) for image in evenly(images, _TIMED_IMAGES)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_number in range(_TIMED_ROUNDS + 1):
        for array in pixels:
            for predictor, own in zip((reference, exported), seconds, strict=True):
                start = time.perf_counter()
                predictor(array)
                if round_number:
                    own.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[0]), 1e3 * statistics.median(seconds[1])


def _shown(predictor: Predictor[Any, Any], image: ImageLike) -> Pixels:
    """An image in memory, as a predictor takes it."""
    pixels = read_pixels(image, predictor.reader)
    return predictor.reader.shown(pixels)
