"""Six kinds of mistakes, and the AP that mending each alone would give back.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.

Detections are matched as for AP50. Every one that matches nothing (and does not lie on a crowd of its class) is one of
these, the first that fits; IoUs are those with any ground truth but crowds, matched or not:

- localisation: the best IoU with its own class is from 0.1 to below 0.5,
- classification: the best IoU with another class is 0.5 or more,
- duplicate: the best IoU with its own class is 0.5 or more; a detection with a higher score has that instance,
- background: no IoU reaches 0.1,
- both: what remains, an IoU from 0.1 to below 0.5 with another class only.

Ground truth that no detection matches is missed, but where it is the best IoU of a localisation or classification
mistake. The order is that of the authors' program.

Mending a localisation or classification mistake makes the detection match the instance of its best IoU; where several
detections have one instance then, the one with the highest score stays and the others go. Mending duplicate,
background and both takes the detections away; mending missed takes the instances out of the ground truth. dAP is AP50
afterwards minus AP50. The six do not add up to what is missing to 100.

The authors' program differs in two ways: a mended detection never replaces the one that has the instance, even with a
higher score, and a localisation and a classification mistake on one instance stand in each other's way. It also
counts a class that is only predicted as 0, where AP50 here, as COCO's, leaves it out.
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
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
_NO_ERROR = -1


@dataclass(frozen=True, slots=True)
class TideError:
    """One kind of mistake.

    Attributes:
        count: How many there are.
        dAP: Points of AP50 that mending them all would give.
    """

    count: int
    dAP: Metric  # noqa: N815 - the name in the paper and in the result file


@dataclass(frozen=True, slots=True)
class TideResult:
    """What is lost to which mistakes.

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
    """Detections that count, N of them; or those of one image.

    Attributes:
        scores: ``(N,)``.
        classes: ``(N,)``.
        kinds: ``(N,)``, place in `KINDS`, or -1 for a match.
        targets: ``(N,)``, the instance that is matched or would be after mending, or -1.
    """

    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    kinds: NDArray[np.int64]
    targets: NDArray[np.int64]

    def chosen(self, keep: NDArray[Any]) -> _Detections:
        return _Detections(self.scores[keep], self.classes[keep], self.kinds[keep], self.targets[keep])


class TideScorer:
    """Collects images and says what their mistakes cost.

    Four numbers for each detection and two for each instance are kept.

    Args:
        n_classes: How many classes there are.
    """

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes
        self._detections: list[_Detections] = []
        self._gt_classes: list[NDArray[np.int64]] = []
        self._missed: list[NDArray[np.bool_]] = []
        self._instances = 0

    def add(self, image: ScoredImage) -> None:
        """Match the detections of one image and tell its mistakes apart."""
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
        found = _Detections(image.dt_scores[dts].astype(np.float64), classes, kinds, targets)
        found = found.chosen(matched | ~on_crowd)
        missed = real & ~np.isin(np.arange(len(real)), found.targets)
        shifted = np.where(found.targets >= 0, found.targets + self._instances, -1)
        self._detections.append(_Detections(found.scores, found.classes, found.kinds, shifted))
        self._gt_classes.append(np.where(real, gt_classes, -1))
        self._missed.append(missed)
        self._instances += len(real)

    def result(self) -> TideResult:
        """The mistakes of all images added."""
        parts = self._detections
        found = _Detections(
            np.concatenate([np.empty(0), *(part.scores for part in parts)]),
            *(
                np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])
                for name in ("classes", "kinds", "targets")
            ),
        )
        gt_classes = np.concatenate([np.empty(0, np.int64), *self._gt_classes])
        missed = np.concatenate([np.empty(0, bool), *self._missed])
        counts = np.bincount(gt_classes[gt_classes >= 0], minlength=self._n_classes)
        missed_counts = np.bincount(gt_classes[missed], minlength=self._n_classes)
        before = _mean_ap(found, counts, counts)
        mended = {
            name: _mean_ap(_mend(found, kind, gt_classes), counts, counts) for kind, name in enumerate(KINDS[:-1])
        }
        mended["missed"] = _mean_ap(found, counts, counts - missed_counts)
        numbers = np.append(np.bincount(found.kinds[found.kinds >= 0], minlength=5), missed.sum())
        reason = "no instance in the data"
        errors = {
            name: TideError(int(number), metric(mended[name] - before, reason))
            for name, number in zip(KINDS, numbers, strict=True)
        }
        return TideResult(metric(before, reason), errors)


def _best_of_each_class(image: ScoredImage) -> NDArray[np.int64]:
    """The detections that count, by falling score: as many of each class as COCO's AP takes."""
    order = np.argsort(-image.dt_scores, kind="stable")
    classes = image.dt_classes[order]
    ranks = np.empty(len(order), np.int64)
    for number in np.unique(classes):
        ranks[classes == number] = np.arange(np.count_nonzero(classes == number))
    return order[ranks < MAX_DETECTIONS[-1]]


def _match(ious: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each detection the instance it matches, or -1; one after the other, as pycocotools does.

    Args:
        ious: ``(G, D)``, detections by falling score, -1 where class or crowd forbid a match.
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
    """What kind of mistake each detection would be, and the instance that mending it would match, or -1.

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
    kinds = np.select(conditions, [_LOCALISATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND], _BOTH)
    targets = np.select(
        [kinds == _LOCALISATION, kinds == _CLASSIFICATION], [own.argmax(axis=0), other.argmax(axis=0)], -1
    )
    return kinds, targets


def _mend(found: _Detections, kind: int, gt_classes: NDArray[np.int64]) -> _Detections:
    """The detections after all mistakes of a kind are mended."""
    if kind not in (_CLASSIFICATION, _LOCALISATION):
        return found.chosen(found.kinds != kind)
    rivals = np.flatnonzero((found.kinds == kind) | (found.kinds == _NO_ERROR))
    targets = found.targets[rivals]
    order = np.lexsort((rivals, found.kinds[rivals] != _NO_ERROR, -found.scores[rivals], targets))
    first = np.append(True, targets[order][1:] != targets[order][:-1])[: len(order)]
    winners = rivals[order][first]
    keep = (found.kinds != kind) & (found.kinds != _NO_ERROR)
    keep[winners] = True
    classes, kinds = found.classes.copy(), found.kinds.copy()
    classes[winners], kinds[winners] = gt_classes[found.targets[winners]], _NO_ERROR
    return _Detections(found.scores, classes, kinds, found.targets).chosen(keep)


def _mean_ap(found: _Detections, counts: NDArray[np.int64], remaining: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP50 over the classes with ground truth, from 0 to 100; ``remaining`` instances of each are to be found.

    A class of which nothing remains to be found is perfect where it has no detection, and worth 0 where it has.
    """
    figures = np.full(len(counts), np.nan)
    for number in np.flatnonzero(counts):
        of_class = found.classes == number
        if remaining[number]:
            right = found.kinds[of_class] == _NO_ERROR
            figures[number] = _average_precision(found.scores[of_class], right, int(remaining[number]))
        else:
            figures[number] = 0.0 if of_class.any() else 100.0
    return mean_defined(figures)


def _average_precision(scores: NDArray[np.float64], right: NDArray[np.bool_], n_gt: int) -> float:
    """COCO's AP at one IoU: precision at 101 recalls, each the best at that recall or more."""
    right = right[np.argsort(-scores, kind="stable")]
    found = np.cumsum(right)
    precision = envelope(found / np.arange(1, len(right) + 1))
    places = np.searchsorted(found / n_gt, RECALLS, side="left")
    return 100 * float(np.append(precision, 0.0)[places].mean())
