"""The metrics by which three Kaggle competitions ranked their submissions, from 0 to 1 as on their leaderboards.

- ``carvana`` (Carvana Image Masking Challenge): the mean over the images of Dice, ``2 |X n Y| / (|X| + |Y|)``, of the
  predicted and the annotated pixels; 1 where both are empty.
- ``severstal`` (Steel Defect Detection): the mean of the same Dice over all pairs of an image and a class, so that a
  class that is absent from both counts 1.
- ``airbus`` (Ship Detection Challenge): at each IoU threshold t of 0.5, 0.55, ..., 0.95 a predicted ship is a hit
  where its IoU with an annotated ship is greater than t. Hits are TP, other predictions FP, ships without a hit FN, and
  ``F2 = 5 TP / (5 TP + 4 FN + FP)``. The score of an image is the mean over the thresholds; an image without ships
  scores 1 without predictions and 0 with any. The metric is the mean over the images.

In ``airbus`` an instance is a ship. The competition requires that ships of one image share no pixels; where some do,
the pairs of the highest IoU are matched first, each ship once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_utils

from d2tune.annotations.geometry.masks import rle_area_px2, union_segmentations
from d2tune.annotations.model.dataset import Dataset, Image, Instance
from d2tune.annotations.model.types import RawRle
from d2tune.errors import DataError, nearest

TWENTIETHS = range(10, 20)
"""The IoU thresholds of ``airbus`` in twentieths, so that nothing is rounded."""


@dataclass(frozen=True, slots=True)
class CompetitionResult:
    """The score of a submission.

    Attributes:
        name: The competition: carvana, airbus or severstal.
        metric: Its metric in words.
        value: From 0 to 1.
        per_image: The score of each image by its base name; their mean is ``value``.
    """

    name: str
    metric: str
    value: float
    per_image: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The instances of one image, of one class or of all."""

    size_px: tuple[int, int]
    truth: Sequence[Instance]
    predicted: Sequence[Instance]


def competition_score(
    name: str, truth: Dataset, predicted: Dataset, *, background: str | None = None
) -> CompetitionResult:
    """Score predictions by the metric of a competition.

    Images are paired by base name and classes by name.

    Args:
        name: carvana, airbus or severstal.
        truth: The annotated images.
        predicted: Predictions for the same images; those without any have no instances.
        background: A class that is not one of the competition's; its instances do not count.

    Raises:
        DataError: The competition is unknown, an image is in only one of the datasets or has two sizes, or a predicted
            class is not in the ground truth.
    """
    if name not in _METRICS:
        near = nearest(name, _METRICS)
        raise DataError(
            "the competition is unknown",
            found=repr(name),
            expected=", ".join(_METRICS),
            hint=f"Did you mean {near!r}?" if near else None,
        )
    classes = [one for one in truth.class_names if one != background]
    truths, predictions = _by_name(truth), _by_name(predicted)
    _check(truths, predictions, predicted, {*classes, background})
    metric, score = _METRICS[name]
    truth_names, predicted_names = _class_names(truth), _class_names(predicted)
    per_image = {}
    for file_name, (image, annotated) in truths.items():
        sides = (
            _by_class(annotated, truth_names, classes),
            _by_class(predictions[file_name][1], predicted_names, classes),
        )
        pairs = [_Pair((image.width_px, image.height_px), *both) for both in zip(*sides, strict=True)]
        per_image[file_name] = score(pairs)
    value = float(np.mean(list(per_image.values()))) if per_image else 0.0
    return CompetitionResult(name, metric, value, per_image)


def _class_names(dataset: Dataset) -> dict[int, str]:
    return {category.id: category.name for category in dataset.categories}


def _by_class(instances: Sequence[Instance], names: dict[int, str], classes: Sequence[str]) -> list[list[Instance]]:
    return [[one for one in instances if names[one.category_id] == wanted] for wanted in classes]


def _by_name(dataset: Dataset) -> dict[str, tuple[Image, list[Instance]]]:
    groups = dataset.by_image()
    by_name: dict[str, tuple[Image, list[Instance]]] = {}
    for image in dataset.images:
        name = image.file_name.rsplit("/", 1)[-1]
        if name in by_name:
            raise DataError(
                "two images have the same base name, but competitions identify images by it",
                file=image.file_name,
                found=f"also {by_name[name][0].file_name}",
            )
        by_name[name] = (image, groups[image.id])
    return by_name


def _check(
    truths: dict[str, tuple[Image, list[Instance]]],
    predictions: dict[str, tuple[Image, list[Instance]]],
    predicted: Dataset,
    known: set[str | None],
) -> None:
    alone = sorted(truths.keys() ^ predictions.keys())
    if alone:
        where = "ground truth" if alone[0] in truths else "predictions"
        raise DataError(
            f"the image is only in the {where}",
            file=alone[0],
            found=f"{len(predictions)} predicted images",
            expected=f"the {len(truths)} annotated images",
        )
    for name, (image, _) in truths.items():
        predicted_image = predictions[name][0]
        if (image.width_px, image.height_px) != (predicted_image.width_px, predicted_image.height_px):
            raise DataError(
                "the size of the prediction differs from the size of the image",
                file=name,
                found=f"{predicted_image.width_px} x {predicted_image.height_px} px",
                expected=f"{image.width_px} x {image.height_px} px",
            )
    unknown = [one for one, count in predicted.counts().items() if count and one not in known]
    if unknown:
        raise DataError(
            "a predicted class is not in the ground truth",
            found=repr(unknown[0]),
            expected=", ".join(sorted(one for one in known if one is not None)),
        )


def _dice(pair: _Pair) -> float:
    """Dice of the union of the instances of each side; 1 where both are empty."""
    if not pair.truth or not pair.predicted:
        return float(not pair.truth and not pair.predicted)
    a, b = _union(pair.truth, pair.size_px), _union(pair.predicted, pair.size_px)
    return 2 * _shared_px(a, b) / (rle_area_px2(a) + rle_area_px2(b))


def _union(instances: Sequence[Instance], size_px: tuple[int, int]) -> RawRle:
    return union_segmentations([one.segmentation for one in instances], width_px=size_px[0], height_px=size_px[1])


def _shared_px(a: RawRle, b: RawRle) -> float:
    return float(mask_utils.area(mask_utils.merge([a, b], intersect=True)))


def _mean_dice(pairs: Sequence[_Pair]) -> float:
    return float(np.mean([_dice(pair) for pair in pairs])) if pairs else 1.0


def _foreground_dice(pairs: Sequence[_Pair]) -> float:
    return _dice(_joined(pairs)) if pairs else 1.0


def _joined(pairs: Sequence[_Pair]) -> _Pair:
    """All classes as one."""
    truth = [one for pair in pairs for one in pair.truth]
    return _Pair(pairs[0].size_px, truth, [one for pair in pairs for one in pair.predicted])


def _mean_f2(pairs: Sequence[_Pair]) -> float:
    ships = _joined(pairs) if pairs else _Pair((0, 0), (), ())
    if not ships.truth or not ships.predicted:
        return float(not ships.truth and not ships.predicted)
    truth = [_union([one], ships.size_px) for one in ships.truth]
    predicted = [_union([one], ships.size_px) for one in ships.predicted]
    shared_union = [
        (shared, rle_area_px2(a) + rle_area_px2(b) - shared, row, column)
        for row, a in enumerate(truth)
        for column, b in enumerate(predicted)
        if (shared := _shared_px(a, b))
    ]
    shared_union.sort(key=lambda pair: pair[0] / pair[1], reverse=True)
    scores = []
    for twentieths in TWENTIETHS:
        hits: list[tuple[int, int]] = []
        for shared, union, row, column in shared_union:
            free = all(row != taken[0] and column != taken[1] for taken in hits)
            if free and 20 * shared > twentieths * union:
                hits.append((row, column))
        missed, wrong = len(truth) - len(hits), len(predicted) - len(hits)
        scores.append(5 * len(hits) / (5 * len(hits) + 4 * missed + wrong))
    return float(np.mean(scores))


_METRICS: dict[str, tuple[str, Callable[[Sequence[_Pair]], float]]] = {
    "carvana": ("mean Dice", _foreground_dice),
    "airbus": ("mean F2 over IoU 0.50:0.95", _mean_f2),
    "severstal": ("mean Dice over images and classes", _mean_dice),
}

COMPETITIONS = tuple(_METRICS)
"""The competitions with a metric here."""
