"""Which instances of two models are the same."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as mask_utils

from d2tune.annotations.model.types import Rle
from d2tune.export.check.drift import drift_of
from d2tune.inference.results import Detections


def detections(boxes: list[tuple[float, float, float, float]], *, filled: bool) -> Detections:
    rles = []
    for left, top, right, bottom in boxes:
        mask = np.zeros((40, 50), np.uint8, order="F")
        mask[int(top) : int(bottom), int(left) : int(right)] = filled
        rles.append(Rle(40, 50, mask_utils.encode(mask)["counts"].decode()))
    count = len(boxes)
    return Detections(
        40,
        50,
        np.array(boxes, np.float32),
        np.full(count, 0.5, np.float32),
        np.zeros(count, np.int64),
        tuple(rles),
        ("a",),
    )


def test_instances_with_empty_masks_are_compared_by_their_boxes() -> None:
    """Of two boxes a model has both, the other model moved one by 0.5 px and another one by half of its width."""
    ours = detections([(2, 2, 12, 12), (20, 20, 30, 30)], filled=False)
    theirs = detections([(20, 20.5, 30, 30.5), (7, 2, 17, 12)], filled=False)
    drift = drift_of([ours], [theirs])
    assert drift.kept == 0.5 and drift.box_px == 0.5
    assert drift_of([ours], [ours]).kept == 1
    filled = detections([(2, 2, 12, 12), (20, 20, 30, 30)], filled=True)
    assert drift_of([filled], [filled]).kept == 1 and drift_of([filled], [ours]).kept == 0
