"""Intersections by matrix products and boxes, against counting and against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from d2tune.metrics.coco.matching import AreaRange, outside, pack_bits, unpack_bits
from d2tune.metrics.overlap.bitmaps import intersections
from d2tune.metrics.overlap.iou import box_iou
from d2tune.metrics.overlap.run_lengths import compare, encode

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("detections", "truth", "height", "width"),
    [(3, 5, 10, 7), (0, 4, 9, 9), (4, 0, 9, 9), (7, 6, 211, 307), (1, 1, 1, 1)],
)
def test_intersections_are_counted_exactly(device: str, detections: int, truth: int, height: int, width: int) -> None:
    draw = np.random.default_rng(0)
    one, other = (draw.random((count, height, width)) < 0.8 for count in (detections, truth))
    expected = (one[:, None] & other[None]).sum((2, 3))
    counted = intersections(torch.from_numpy(one).to(device), torch.from_numpy(other).to(device))
    assert np.array_equal(counted, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_whole_images_are_counted_exactly(device: str) -> None:
    """12 million set pixels, far beyond what float16 can hold."""
    mask = torch.ones(1, 3000, 4000, dtype=torch.bool, device=device)
    assert intersections(mask, mask).tolist() == [[12_000_000]]


def test_boxes_as_pycocotools_has_them() -> None:
    draw = np.random.default_rng(1)
    for _ in range(50):
        detections, truth = (np.round(draw.random((count, 4)) * 50, int(draw.integers(0, 4))) for count in (9, 8))
        crowd = draw.random(8) < 0.3
        assert np.array_equal(box_iou(detections, truth, crowd), mask_utils.iou(detections, truth, crowd.tolist()))


def test_boxes_by_hand() -> None:
    """Overlap 5 x 10 of 100 + 100 - 50; against a crowd, of the detection's 100; boxes that only touch share none."""
    boxes = np.array([[0.0, 0, 10, 10]])
    truth = np.array([[5.0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 5, 5]])
    assert box_iou(boxes, truth, np.array([False, True, False])).tolist() == [[50 / 150, 50 / 100, 0]]


def test_more_masks_than_a_byte_can_count() -> None:
    """300 columns of an image as detections and as ground truth, each of 4 to 11 pixels."""
    masks = torch.zeros(300, 12, 300, dtype=torch.bool)
    for at in range(300):
        masks[at, : 4 + at % 8, at] = True
    rles, classes = encode(masks), np.zeros(300, np.int64)
    areas, pairs, _ = compare(rles, rles, classes, classes, np.zeros(300, bool), floor=0.5, boundary_px=None)
    assert areas.tolist() == [4 + at % 8 for at in range(300)]
    assert np.array_equal(pairs.detection, pairs.truth) and pairs.iou.tolist() == [1.0] * 300


def test_bits_come_back() -> None:
    draw = np.random.default_rng(2)
    for ranges, thresholds in ((4, 10), (9, 10), (1, 1), (64, 1), (13, 10)):
        flags = draw.random((17, ranges, thresholds)) < 0.5
        bits = pack_bits(flags)
        assert bits.shape == (17, -(-ranges * thresholds // 64))
        assert np.array_equal(unpack_bits(bits, ranges=ranges, thresholds=thresholds), flags)


def test_both_limits_belong_to_an_area_range() -> None:
    area = (AreaRange("x", 10, 20, "between 10 and 20 px"),)
    assert outside(np.array([9.9, 10, 20, 20.1]), area)[:, 0].tolist() == [True, False, False, True]


def test_encoding_tensors() -> None:
    masks = np.random.default_rng(3).random((4, 13, 8)) < 0.5
    decoded = mask_utils.decode(encode(torch.from_numpy(masks))).transpose(2, 0, 1).astype(bool)
    assert np.array_equal(decoded, masks) and encode(torch.zeros(0, 4, 4, dtype=torch.bool)) == []
