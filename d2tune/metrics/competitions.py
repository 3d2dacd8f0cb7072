"""The figures by which three Kaggle competitions ranked their submissions, from 0 to 1 as they gave them.

- ``carvana`` (Carvana Image Masking Challenge): the mean over the images of Dice, ``2 |X n Y| / (|X| + |Y|)``, of the
  predicted and the true pixels; 1 where both are empty.
- ``severstal`` (Steel Defect Detection): the mean of the same Dice over all pairs of an image and a class, so that a
  class that is rightly not predicted counts 1.
- ``airbus`` (Ship Detection Challenge): at each IoU threshold t of 0.5, 0.55, ..., 0.95 a predicted ship is a hit
  where its IoU with a ship is greater than t. Hits are TP, other predictions FP, ships without a hit FN, and
  ``F2 = 5 TP / (5 TP + 4 FN + FP)``. An image's score is the mean over the thresholds; an image without ships scores
  1 without predictions and 0 with any. The figure is the mean over the images.

In ``airbus`` an instance is a ship. `d2tune.inference.submission` makes them of a predicted map: its parts whose pixels
touch at sides or corners (8-connectivity). Ships of one image should not share pixels, as the competition demands;
where some do, the pairs of the highest IoU are matched first, each ship once.
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
    """What a submission would have scored.

    Attributes:
        name: The competition: carvana, airbus or severstal.
        metric: What it counts, in words.
        value: From 0 to 1.
        per_image: The score of each image by its base name; their mean is ``value``.
    """

    name: str
    metric: str
    value: float
    per_image: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Pair:
    """One image's instances."""

    size_px: tuple[int, int]
    truth: Sequence[Instance]
    predicted: Sequence[Instance]


def competition_score(
    name: str, truth: Dataset, predicted: Dataset, *, background: str | None = None
) -> CompetitionResult:
    """Score predictions as a competition did.

    Images are paired by base name and classes by name.

    Args:
        name: carvana, airbus or severstal.
        truth: The annotated images.
        predicted: Predictions for the same images; those without any have no instances.
        background: A class that is none of the competition's; its instances do not count.

    Raises:
        DataError: The competition is unknown, an image is in one dataset alone or has two sizes, or a class is
            predicted that the truth does not have.
    """
    if name not in _METRICS:
        near = nearest(name, _METRICS)
        raise DataError(
            "no such competition",
            found=repr(name),
            expected=", ".join(_METRICS),
            hint=f"Did you mean {near!r}?" if near else None,
        )
    classes = [one for one in truth.class_names if one != background]
    places = {one: number for number, one in enumerate(classes)}
    truths, predictions = _by_name(truth), _by_name(predicted)
    _check(truths, predictions, predicted, {*classes, background})
    metric, score = _METRICS[name]
    per_image = {}
    for photo, (image, of_truth) in truths.items():
        of_prediction = predictions[photo][1]
        sides = [
            [[one for one in ones if names[one.category_id] == wanted] for wanted in places]
            for ones, names in ((of_truth, _names(truth)), (of_prediction, _names(predicted)))
        ]
        pairs = [_Pair((image.width_px, image.height_px), *both) for both in zip(*sides, strict=True)]
        per_image[photo] = score(pairs)
    value = float(np.mean(list(per_image.values()))) if per_image else 0.0
    return CompetitionResult(name, metric, value, per_image)


def _names(dataset: Dataset) -> dict[int, str]:
    return {category.id: category.name for category in dataset.categories}


def _by_name(dataset: Dataset) -> dict[str, tuple[Image, list[Instance]]]:
    groups = dataset.by_image()
    found: dict[str, tuple[Image, list[Instance]]] = {}
    for image in dataset.images:
        name = image.file_name.rsplit("/", 1)[-1]
        if name in found:
            raise DataError(
                "two images have the same base name, by which competitions tell them apart",
                file=image.file_name,
                found=f"also {found[name][0].file_name}",
            )
        found[name] = (image, groups[image.id])
    return found


def _check(
    truths: dict[str, tuple[Image, list[Instance]]],
    predictions: dict[str, tuple[Image, list[Instance]]],
    predicted: Dataset,
    known: set[str | None],
) -> None:
    alone = sorted(truths.keys() ^ predictions.keys())
    if alone:
        where = "truth" if alone[0] in truths else "predictions"
        raise DataError(
            f"the image is in the {where} alone",
            file=alone[0],
            found=f"{len(predictions)} predicted images",
            expected=f"the {len(truths)} annotated ones",
        )
    for name, (image, _) in truths.items():
        other = predictions[name][0]
        if (image.width_px, image.height_px) != (other.width_px, other.height_px):
            raise DataError(
                "the prediction has another size than the image",
                file=name,
                found=f"{other.width_px} x {other.height_px} px",
                expected=f"{image.width_px} x {image.height_px} px",
            )
    strangers = [one for one, count in predicted.counts().items() if count and one not in known]
    if strangers:
        raise DataError(
            "a class is predicted that the truth does not have",
            found=repr(strangers[0]),
            expected=", ".join(sorted(one for one in known if one is not None)),
        )


def _dice(pair: _Pair) -> float:
    """Dice of the union of the instances of each side; 1 where both are empty."""
    if not pair.truth or not pair.predicted:
        return float(not pair.truth and not pair.predicted)
    one, other = _union(pair.truth, pair.size_px), _union(pair.predicted, pair.size_px)
    return 2 * _shared_px(one, other) / (rle_area_px2(one) + rle_area_px2(other))


def _union(instances: Sequence[Instance], size_px: tuple[int, int]) -> RawRle:
    return union_segmentations([one.segmentation for one in instances], width_px=size_px[0], height_px=size_px[1])


def _shared_px(one: RawRle, other: RawRle) -> float:
    return float(mask_utils.area(mask_utils.merge([one, other], intersect=True)))


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
        (shared, rle_area_px2(one) + rle_area_px2(other) - shared, row, column)
        for row, one in enumerate(truth)
        for column, other in enumerate(predicted)
        if (shared := _shared_px(one, other))
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
