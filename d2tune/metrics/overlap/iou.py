"""IoU of detections and ground truth: boxes as pycocotools computes them, masks from counts of pixels.

Pixels are counted in whole numbers, and the quotient of two such numbers is the same on every device. Only pairs that
can match are kept (:class:`Pairs`): no pair below the lowest IoU threshold ever matches.

The boundary IoU of a pair is the smaller one of mask IoU and the IoU of the two boundaries, and against a crowd the
mask IoU alone, as in the evaluation code of Cheng et al. (Boundary IoU, CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pairs:
    """Detections and ground truth of one class on one image whose IoU reaches the lowest threshold.

    Attributes:
        detection: ``(E,)``, index of the detection.
        truth: ``(E,)``, index of the ground truth.
        iou: ``(E,)``, float64.
    """

    detection: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def join_pairs(several: Sequence[Pairs], offsets: Sequence[tuple[int, int]] | None = None) -> Pairs:
    """Several pairs as one.

    Args:
        several: The pairs.
        offsets: What to add to the indices of detections and of ground truth of each; nothing by default.
    """
    moves = offsets or [(0, 0)] * len(several)
    nothing = np.zeros(0, np.int64)
    return Pairs(
        np.concatenate([nothing, *(pairs.detection + move[0] for pairs, move in zip(several, moves, strict=True))]),
        np.concatenate([nothing, *(pairs.truth + move[1] for pairs, move in zip(several, moves, strict=True))]),
        np.concatenate([np.zeros(0), *(pairs.iou for pairs in several)]),
    )


def pairs_of(iou: NDArray[np.float64], same_class: NDArray[np.bool_], floor: float) -> Pairs:
    """The pairs of an IoU matrix that can match.

    Args:
        iou: ``(D, G)``.
        same_class: ``(D, G)``.
        floor: The lowest IoU that counts.
    """
    detection, truth = np.nonzero((iou >= floor) & same_class)
    return Pairs(detection, truth, iou[detection, truth])


def box_iou(
    detections_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """IoU of boxes, ``(D, G)``, by the same float64 operations in the same order as pycocotools' ``bbIou``.

    Args:
        detections_xywh: ``(D, 4)``.
        truth_xywh: ``(G, 4)``.
        crowd: ``(G,)``; against a crowd the union is the detection's own area.
    """
    detections, truth = detections_xywh[:, None, :], truth_xywh[None, :, :]
    near, far = detections_xywh[:, :2] + detections_xywh[:, 2:], truth_xywh[:, :2] + truth_xywh[:, 2:]
    sides = np.minimum(near[:, None, :], far[None, :, :]) - np.maximum(detections[..., :2], truth[..., :2])
    overlap = sides[..., 0] * sides[..., 1]
    detection_areas = detections_xywh[:, 2] * detections_xywh[:, 3]
    truth_areas = truth_xywh[:, 2] * truth_xywh[:, 3]
    union = np.where(
        crowd[None, :], detection_areas[:, None], detection_areas[:, None] + truth_areas[None, :] - overlap
    )
    touching = (sides[..., 0] > 0) & (sides[..., 1] > 0)
    iou: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros(overlap.shape), where=touching)
    return iou


def count_iou(
    overlap: NDArray[np.int64],
    detection_areas: NDArray[np.int64],
    truth_areas: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """IoU from counts of pixels, as pycocotools' ``rleIou`` has it; all arguments broadcast against each other."""
    union = np.where(crowd, detection_areas, detection_areas + truth_areas - overlap)
    return np.divide(overlap, union, out=np.zeros(overlap.shape), where=overlap > 0)
