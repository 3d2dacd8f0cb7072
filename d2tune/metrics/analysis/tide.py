"""Six types of detection errors, and the AP that fixing each alone would give back.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.

Detections are matched as for AP50. Each detection that matches nothing (and does not lie on a crowd of its class) is
one of these errors, the first that applies; IoUs are those with any ground truth except crowds, matched or not:

- localization: the best IoU with its own class is from 0.1 to below 0.5,
- classification: the best IoU with another class is 0.5 or more,
- duplicate: the best IoU with its own class is 0.5 or more; a detection with a higher score has that instance,
- background: no IoU reaches 0.1,
- both: the rest, an IoU from 0.1 to below 0.5 with another class only.

Ground truth that no detection matches is missed, unless it is the best IoU of a localization or classification error.
The order is that of the authors' program.

Fixing a localization or classification error makes the detection match the instance of its best IoU; if several
detections then match one instance, the one with the highest score stays and the others are removed. Fixing duplicate,
background and both removes the detections; fixing missed removes the instances from the ground truth. dAP is AP50
afterwards minus AP50. The six do not add up to 100 minus AP50.

The authors' program differs in two ways: a fixed detection never replaces the one that has the instance, even with a
higher score, and a localization and a classification error on one instance exclude each other. It also counts a class
that is only predicted as 0, while AP50 here, as COCO's, excludes it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.analysis.scored_image import ScoredImage
from d2tune.metrics.coco.accumulate import envelope
from d2tune.metrics.coco.matching import MAX_DETECTIONS, RECALLS
from d2tune.metrics.metric import Metric, mean_defined, metric

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""The names of the errors in ``evaluation.json``."""

_CLASSIFICATION, _LOCALIZATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
_NO_ERROR = -1


@dataclass(frozen=True, slots=True)
class TideError:
    """One type of error.

    Attributes:
        count: Number of errors.
        dAP: Points of AP50 that fixing all of them would give.
    """

    count: int
    dAP: Metric  # noqa: N815 - the name in the paper and in the result file


@dataclass(frozen=True, slots=True)
class TideResult:
    """The cost of each type of error.

    Attributes:
        AP50: AP at IoU 0.5, the mean over classes with ground truth.
        errors: By the names of `KINDS`.
    """

    AP50: Metric
    errors: dict[str, TideError]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the same."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Detections:
    """N detections that count, of one image or of all.

    Attributes:
        scores: ``(N,)``.
        classes: ``(N,)``.
        kinds: ``(N,)``, index into `KINDS`, or -1 for a match.
        targets: ``(N,)``, the instance that is matched, or would be matched after the fix, or -1.
    """

    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    kinds: NDArray[np.int64]
    targets: NDArray[np.int64]

    def chosen(self, keep: NDArray[Any]) -> _Detections:
        return _Detections(self.scores[keep], self.classes[keep], self.kinds[keep], self.targets[keep])


@dataclass(frozen=True, slots=True)
class ImageErrors:
    """The matches and errors of one image with G instances.

    Attributes:
        detections: ``(N,)``, the detections that count, by falling score, as indices of those of the image.
        kinds: ``(N,)``, index into `KINDS`, or -1 for a match.
        targets: ``(N,)``, the instance that is matched, or would be matched after the fix, or -1.
        missed: ``(G,)``, bool: instances, but for crowds, that no detection has as its target.
    """

    detections: NDArray[np.int64]
    kinds: NDArray[np.int64]
    targets: NDArray[np.int64]
    missed: NDArray[np.bool_]


def image_errors(image: ScoredImage) -> ImageErrors:
    """Match the detections of an image and classify its errors."""
    dts = _best_of_each_class(image)
    real = ~image.gt_crowd
    ious = image.ious[:, dts].astype(np.float64)
    classes, gt_classes = image.dt_classes[dts].astype(np.int64), image.gt_classes.astype(np.int64)
    same_class = gt_classes[:, None] == classes
    matches = _match(np.where(same_class & real[:, None], ious, -1.0))
    on_crowd = ((ious >= FOREGROUND_IOU) & same_class & image.gt_crowd[:, None]).any(axis=0)
    kinds, targets = _kinds(ious[real], same_class[real])
    targets = np.where(targets < 0, -1, np.append(np.flatnonzero(real), -1)[targets])
    matched = matches >= 0
    kinds, targets = np.where(matched, _NO_ERROR, kinds), np.where(matched, matches, targets)
    counts = matched | ~on_crowd
    missed = real & ~np.isin(np.arange(len(real)), targets[counts])
    return ImageErrors(dts[counts], kinds[counts], targets[counts], missed)


class TideScorer:
    """Collects images and computes the costs of their errors.

    It keeps four numbers for each detection and two for each instance.

    Args:
        n_classes: Number of classes.
    """

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes
        self._detections: list[_Detections] = []
        self._gt_classes: list[NDArray[np.int64]] = []
        self._missed: list[NDArray[np.bool_]] = []
        self._instances = 0

    def add(self, image: ScoredImage) -> None:
        """Match the detections of one image and classify its errors."""
        errors = image_errors(image)
        shifted = np.where(errors.targets >= 0, errors.targets + self._instances, -1)
        scores, classes = image.dt_scores[errors.detections], image.dt_classes[errors.detections]
        self._detections.append(_Detections(scores.astype(np.float64), classes.astype(np.int64), errors.kinds, shifted))
        self._gt_classes.append(np.where(image.gt_crowd, -1, image.gt_classes.astype(np.int64)))
        self._missed.append(errors.missed)
        self._instances += len(image.gt_classes)

    def result(self) -> TideResult:
        """The errors of all images added."""
        detections = _joined(self._detections)
        gt_classes = np.concatenate([np.empty(0, np.int64), *self._gt_classes])
        missed = np.concatenate([np.empty(0, bool), *self._missed])
        counts = np.bincount(gt_classes[gt_classes >= 0], minlength=self._n_classes)
        missed_counts = np.bincount(gt_classes[missed], minlength=self._n_classes)
        before = _mean_ap(detections, counts, counts)
        fixed = {
            name: _mean_ap(_fix(detections, kind, gt_classes), counts, counts) for kind, name in enumerate(KINDS[:-1])
        }
        fixed["missed"] = _mean_ap(detections, counts, counts - missed_counts)
        numbers = np.append(np.bincount(detections.kinds[detections.kinds >= 0], minlength=5), missed.sum())
        reason = "no instance in the data"
        errors = {
            name: TideError(int(number), metric(fixed[name] - before, reason))
            for name, number in zip(KINDS, numbers, strict=True)
        }
        return TideResult(metric(before, reason), errors)


def _joined(several: list[_Detections]) -> _Detections:
    """The detections of several images as one."""
    nothing = np.empty(0, np.int64)
    return _Detections(
        np.concatenate([np.empty(0), *(one.scores for one in several)]),
        np.concatenate([nothing, *(one.classes for one in several)]),
        np.concatenate([nothing, *(one.kinds for one in several)]),
        np.concatenate([nothing, *(one.targets for one in several)]),
    )


def _best_of_each_class(image: ScoredImage) -> NDArray[np.int64]:
    """The detections that count, by falling score: at most 100 of each class, as in COCO's AP."""
    order = np.argsort(-image.dt_scores, kind="stable")
    classes = image.dt_classes[order]
    ranks = np.empty(len(order), np.int64)
    for number in np.unique(classes):
        ranks[classes == number] = np.arange(np.count_nonzero(classes == number))
    return order[ranks < MAX_DETECTIONS[-1]]


def _match(ious: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each detection the instance it matches, or -1; one after the other, as pycocotools does.

    Args:
        ious: ``(G, D)``, detections by falling score, -1 where class or crowd exclude a match.
    """
    free = ious.copy()
    matches = np.full(ious.shape[1], -1)
    for column in np.flatnonzero((ious >= FOREGROUND_IOU).any(axis=0)):
        # of equal IoUs pycocotools takes the last
        row = len(free) - 1 - int(np.argmax(free[::-1, column]))
        if free[row, column] >= FOREGROUND_IOU:
            matches[column] = row
            free[row] = -1.0
    return matches


def _kinds(ious: NDArray[np.float64], same_class: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The type of error of each unmatched detection, and the instance that it would match after the fix, or -1.

    Args:
        ious: ``(G, D)``, without crowds.
        same_class: ``(G, D)``.
    """
    if not len(ious):
        nothing = np.full(ious.shape[1], -1)
        return np.full(ious.shape[1], _BACKGROUND), nothing
    own, other = np.where(same_class, ious, -1.0), np.where(same_class, -1.0, ious)
    best_own, best_other = own.max(axis=0), other.max(axis=0)
    conditions = [
        (best_own >= BACKGROUND_IOU) & (best_own < FOREGROUND_IOU),
        best_other >= FOREGROUND_IOU,
        best_own >= FOREGROUND_IOU,
        np.maximum(best_own, best_other) < BACKGROUND_IOU,
    ]
    kinds = np.select(conditions, [_LOCALIZATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND], _BOTH)
    targets = np.select(
        [kinds == _LOCALIZATION, kinds == _CLASSIFICATION], [own.argmax(axis=0), other.argmax(axis=0)], -1
    )
    return kinds, targets


def _fix(detections: _Detections, kind: int, gt_classes: NDArray[np.int64]) -> _Detections:
    """The detections after all errors of a type are fixed."""
    scores, classes, kinds, targets = detections.scores, detections.classes, detections.kinds, detections.targets
    if kind not in (_CLASSIFICATION, _LOCALIZATION):
        return detections.chosen(kinds != kind)
    rivals = np.flatnonzero((kinds == kind) | (kinds == _NO_ERROR))
    order = np.lexsort((rivals, kinds[rivals] != _NO_ERROR, -scores[rivals], targets[rivals]))
    ordered = targets[rivals][order]
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(order)]
    winners = rivals[order][first]
    keep = (kinds != kind) & (kinds != _NO_ERROR)
    keep[winners] = True
    fixed_classes, fixed_kinds = classes.copy(), kinds.copy()
    fixed_classes[winners], fixed_kinds[winners] = gt_classes[targets[winners]], _NO_ERROR
    return _Detections(scores, fixed_classes, fixed_kinds, targets).chosen(keep)


def _mean_ap(detections: _Detections, counts: NDArray[np.int64], remaining: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP50 over the classes with ground truth, from 0 to 100, with ``remaining`` instances of each class.

    A class without remaining instances has AP 100 without detections, and 0 with any.
    """
    aps = np.full(len(counts), np.nan)
    for number in np.flatnonzero(counts):
        of_class = detections.classes == number
        if remaining[number]:
            right = detections.kinds[of_class] == _NO_ERROR
            aps[number] = _average_precision(detections.scores[of_class], right, int(remaining[number]))
        else:
            aps[number] = 0.0 if of_class.any() else 100.0
    return mean_defined(aps)


def _average_precision(scores: NDArray[np.float64], right: NDArray[np.bool_], n_gt: int) -> float:
    """COCO's AP at one IoU: precision at 101 recalls, each the highest at that recall or more."""
    right = right[np.argsort(-scores, kind="stable")]
    true = np.cumsum(right)
    precision = envelope(true / np.arange(1, len(right) + 1))
    places = np.searchsorted(true / n_gt, RECALLS, side="left")
    return 100 * float(np.append(precision, 0.0)[places].mean())
