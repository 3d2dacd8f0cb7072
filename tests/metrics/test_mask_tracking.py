"""J and success of followed objects, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from d2tune.metrics.mask_tracking import MaskTrackScorer, box_iou, mask_iou


def test_overlaps_by_hand() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(4 / 12) and mask_iou(a, ~a) == 0.0
    assert box_iou((0, 0, 4, 2), (2, 0, 4, 2)) == pytest.approx(4 / 12)
    assert box_iou((0, 0, 1, 1), (5, 5, 1, 1)) == 0.0


def test_metrics_by_hand() -> None:
    scorer = MaskTrackScorer(("car", "dog"), 3)
    scorer.add(0, 0, j=0.8, box=0.9)
    scorer.add(0, 0, j=0.6, box=0.5)
    scorer.add(2, 0, j=0.1, box=0.49)
    values = {name: metric.value for name, metric in scorer.metrics().items()}
    assert values == pytest.approx({"J": 50.0, "box50": 200 / 3, "J75": 100 / 3})
    # the last image twice, the first not at all
    resampled = scorer.resample(np.array([[0, 1, 2], [1, 1, 1]]))
    assert resampled["J"].tolist() == pytest.approx([10.0, 50.0])
    car, dog = scorer.classes()
    assert (car.name, car.objects, car.metrics["J"].value) == ("car", 3, pytest.approx(50.0))
    assert dog.objects == 0 and dog.metrics["J"].value is None and dog.metrics["J"].reason
