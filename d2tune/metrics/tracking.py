"""How well tracks follow objects: IDF1, identity switches and MOTA.

IDF1, IDP and IDR (Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking, 2016,
arXiv 1609.01775) pair each object with at most one track for the whole video, so that as many frames as possible agree.
MOTA and identity switches (Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance: The CLEAR MOT
Metrics, 2008) pair them anew in each frame, where a pair of the frame before is kept as long as it overlaps; so does
TrackEval, whose order of rules is followed here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

MIN_IOU = 0.5
"""The IoU from which a detection is at the place of an object."""

_KEPT_PAIR = 1000.0
"""Added to the IoU of the pairs of the frame before, so that none of them is given up for a better IoU."""


@dataclass(frozen=True, slots=True)
class TrackingMetrics:
    """How well tracks follow objects, from counts of boxes or masks over all frames.

    Attributes:
        idf1: Harmonic mean of ``idp`` and ``idr``, 0 to 1; 1 where there are neither objects nor detections.
        idp: Share of the detections that are at the place of the object that their track is paired with.
        idr: Share of the objects' frames in which the paired track is at the place of the object.
        mota: ``1 - (misses + false_detections + switches) / truths``, 1 at most; may be negative.
        switches: Identity switches: frames in which an object is at the place of another track than the last time.
        misses: Frames of objects without a detection.
        false_detections: Detections without an object.
        truths: Frames of all objects.
        detections: Detections in all frames.
        objects: Number of objects.
        tracks: Number of tracks.
    """

    idf1: float
    idp: float
    idr: float
    mota: float
    switches: int
    misses: int
    false_detections: int
    truths: int
    detections: int
    objects: int
    tracks: int

    def to_json(self) -> dict[str, Any]:
        """All values by name."""
        return asdict(self)


class TrackingScorer:
    """Compares tracks with objects, frame by frame.

    Args:
        min_iou: The IoU from which a detection is at the place of an object.
    """

    def __init__(self, *, min_iou: float = MIN_IOU) -> None:
        self._min_iou = min_iou
        self._truths: Counter[int] = Counter()
        self._detections: Counter[int] = Counter()
        self._together: Counter[tuple[int, int]] = Counter()
        self._previous: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._matches = self._switches = 0

    def add(self, object_ids: NDArray[np.int64], track_ids: NDArray[np.int64], iou: NDArray[np.float64]) -> None:
        """Add the next frame.

        Args:
            object_ids: ``(T,)``, the ids of the objects in the frame, each at most once.
            track_ids: ``(P,)``, the ids of the tracks in the frame, each at most once.
            iou: ``(T, P)``, IoU of their boxes or masks.

        Raises:
            ValueError: The shapes do not match, or an id occurs twice.
        """
        objects, tracks = object_ids.tolist(), track_ids.tolist()
        if iou.shape != (len(objects), len(tracks)):
            raise ValueError(f"iou is {iou.shape} for {len(objects)} objects and {len(tracks)} tracks")
        if len(set(objects)) < len(objects) or len(set(tracks)) < len(tracks):
            raise ValueError("an id occurs twice in a frame")
        self._truths.update(objects)
        self._detections.update(tracks)
        close = iou >= self._min_iou
        self._together.update((objects[row], tracks[column]) for row, column in np.argwhere(close).tolist())
        self._match(objects, tracks, np.where(close, iou, 0.0))

    def _match(self, objects: list[int], tracks: list[int], iou: NDArray[np.float64]) -> None:
        """Pair the objects and tracks of a frame, and count identity switches."""
        kept = np.array([[self._previous.get(one) == other for other in tracks] for one in objects], bool)
        gain = np.where(iou > 0, iou + _KEPT_PAIR * kept.reshape(iou.shape), 0.0)
        rows, columns = linear_sum_assignment(-gain)
        pairs = {objects[row]: tracks[column] for row, column in zip(rows, columns, strict=True) if gain[row, column]}
        self._matches += len(pairs)
        self._switches += sum(self._last.get(one, other) != other for one, other in pairs.items())
        self._last.update(pairs)
        self._previous = pairs

    def result(self) -> TrackingMetrics:
        """The metrics of all frames so far."""
        truths, detections = self._truths.total(), self._detections.total()
        agreeing = self._agreeing()
        misses, false = truths - self._matches, detections - self._matches
        return TrackingMetrics(
            idf1=_share(2 * agreeing, truths + detections),
            idp=_share(agreeing, detections),
            idr=_share(agreeing, truths),
            mota=1.0 - (misses + false + self._switches) / truths if truths else float(not detections),
            switches=self._switches,
            misses=misses,
            false_detections=false,
            truths=truths,
            detections=detections,
            objects=len(self._truths),
            tracks=len(self._detections),
        )

    def _agreeing(self) -> int:
        """The most frames that agree if each object is paired with at most one track: true positives of IDF1."""
        row_of = {one: row for row, one in enumerate(self._truths)}
        column_of = {one: column for column, one in enumerate(self._detections)}
        counts = np.zeros((len(row_of), len(column_of)), np.int64)
        for (one, other), count in self._together.items():
            counts[row_of[one], column_of[other]] = count
        return int(counts[linear_sum_assignment(-counts)].sum())


def _share(count: int, total: int) -> float:
    return count / total if total else 1.0
