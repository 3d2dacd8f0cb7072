"""Fused detections, against values computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from d2tune.modeling.assembled.fusion import Detected, fuse, resample


def detected(*rows: tuple[list[float], float, int], masks: Tensor) -> Detected:
    boxes, scores, classes = zip(*rows, strict=True)
    return Detected(torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes), masks)


def test_one_object_in_two_views_and_one_that_a_single_view_sees() -> None:
    a = detected(([0.0, 0.0, 10.0, 10.0], 0.8, 0), masks=torch.ones(1, 4, 4))
    b = detected(([2.0, 0.0, 12.0, 10.0], 0.4, 0), ([0.0, 0.0, 10.0, 10.0], 0.5, 1), masks=torch.zeros(2, 4, 4))
    fused = fuse([a, b], most=10)
    # IoU 80 / 120; the box is (0.8 a + 0.4 b) / 1.2, the score (0.8 + 0.4) / 2
    assert fused.classes.tolist() == [0, 1]
    assert fused.scores.tolist() == pytest.approx([0.6, 0.25])
    assert fused.boxes.tolist() == [pytest.approx([2 / 3, 0, 32 / 3, 10]), pytest.approx([0, 0, 10, 10])]
    # the cells of the fused box are at 1.92, 4.42, 6.92 and 9.42 px; the last is 0.267 cells beyond the middle of a's
    # last cell, so that it has 0.733 of its value; a has two thirds of the weight
    row = [2 / 3, 2 / 3, 2 / 3, 2 / 3 * (1 - 0.26667)]
    assert fused.masks[0].tolist() == [pytest.approx(row, abs=1e-4)] * 4
    assert not fused.masks[1].any()
    assert fuse([a, b], most=1).scores.tolist() == pytest.approx([0.6])


def test_detections_of_one_view_stay_apart() -> None:
    # two objects behind each other, IoU 0.9, which both views see
    near, behind = [0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 100.0, 90.0]
    view = detected((near, 0.9, 0), (behind, 0.7, 0), masks=torch.rand(2, 8, 8))
    fused = fuse([view, view], most=10)
    assert fused.boxes.tolist() == [near, behind]
    assert fused.scores.tolist() == pytest.approx([0.9, 0.7])
    assert torch.allclose(fused.masks, view.masks, atol=1e-6)


def test_other_classes_and_far_boxes_are_other_objects() -> None:
    a = detected(([0.0, 0.0, 10.0, 10.0], 0.8, 0), masks=torch.ones(1, 2, 2))
    other_class = detected(([0.0, 0.0, 10.0, 10.0], 0.6, 1), masks=torch.ones(1, 2, 2))
    below = detected(([0.0, 3.0, 10.0, 13.0], 0.6, 0), masks=torch.ones(1, 2, 2))  # IoU 70 / 130 = 0.538
    assert fuse([a, other_class], most=10).scores.tolist() == pytest.approx([0.4, 0.3])
    assert fuse([a, below], most=10).scores.tolist() == pytest.approx([0.4, 0.3])


def test_views_without_instances() -> None:
    empty = Detected(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, 1))
    a = detected(([0.0, 0.0, 10.0, 10.0], 0.8, 0), masks=torch.ones(1, 4, 4))
    assert fuse([empty, a], most=10).scores.tolist() == pytest.approx([0.4])
    assert torch.equal(fuse([empty, a], most=10).masks, a.masks)
    nothing = fuse([empty, empty], most=10)
    assert (nothing.boxes.shape, nothing.masks.shape) == ((0, 4), (0, 1, 1))


def test_a_mask_on_another_box() -> None:
    mask, box = torch.rand(6, 6), torch.tensor([10.0, 20.0, 40.0, 50.0])
    assert torch.allclose(resample(mask, box, box, side=6), mask, atol=1e-6)
    left = torch.tensor([10.0, 20.0, 25.0, 50.0])
    assert torch.allclose(resample(mask, box, left, side=6)[:, 1::2].mean(1), _left_half(mask), atol=1e-5)
    beside = torch.tensor([100.0, 20.0, 130.0, 50.0])
    assert not resample(mask, box, beside, side=6).any()


def _left_half(mask: Tensor) -> Tensor:
    """The mean of the values at 0.25, 1.25 and 2.25 cells right of the middle of the first cell."""
    return torch.stack([0.75 * mask[:, at] + 0.25 * mask[:, at + 1] for at in range(3)]).mean(0)
