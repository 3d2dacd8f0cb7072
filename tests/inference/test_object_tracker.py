"""The tracker around a network that finds a color exactly: places, sizes and masks must be right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d2tune.data.tracking_crops import ObjectBox, box_of
from d2tune.inference.object_tracker import ObjectTracker, TrackerOptions, body_box, resolved
from d2tune.modeling.siammask.meta_arch import Kernels, Searched

OPTIONS = TrackerOptions(
    window_influence=0.4,
    penalty=0.04,
    update_rate=1.0,
    mask_threshold=0.35,
    mask_share=0.0,
    channel_order="BGR",
)


class ColorNetwork(nn.Module):
    """Finds the pixels with the color of the middle of the exemplar, and answers as SiamMask does."""

    def kernels(self, exemplars: Tensor) -> Kernels:
        color = exemplars[:, :, 58:69, 58:69].float().mean(dim=(2, 3))
        return Kernels(color, color, color)

    def search(self, kernels: Kernels, images: Tensor) -> Searched:
        near = (images.float() - kernels.scores[:, :, None, None]).abs().amax(dim=1) < 30
        boxes, logits = [], []
        for mask in near:
            rows, columns = mask.nonzero().unbind(1)
            low, high = torch.stack([columns.min(), rows.min()]), torch.stack([columns.max(), rows.max()])
            box = torch.cat([(low + high) / 2.0, high - low + 1.0])
            at = (torch.arange(25) - 12.0) * 8 + 127
            away = torch.hypot(at[None, :] - box[0], at[:, None] - box[1])
            logits.append(torch.stack([torch.zeros(1, 25, 25), 6 - away[None] / 4]))
            boxes.append(box.expand(1, 25, 25, 4))
        return Searched(torch.stack(logits), torch.stack(boxes), near.float(), [])

    def boxes(self, searched: Searched) -> Tensor:
        return searched.deltas

    def masks(self, searched: Searched, places: Tensor) -> Tensor:
        padded = F.pad(searched.correlation, [32] * 4)
        crops = [padded[n, 8 * y : 8 * y + 127, 8 * x : 8 * x + 127] for n, y, x in places.tolist()]
        return 20 * torch.stack(crops) - 10


def frame(*rectangles: tuple[int, int, int, int, tuple[int, int, int]]) -> Any:
    """A gray frame with rectangles: left, top, width, height and color; and their masks."""
    image = np.full((240, 320, 3), 100, np.uint8)
    masks = {}
    for number, (left, top, width, height, color) in enumerate(rectangles, start=1):
        masks[number] = np.zeros((240, 320), bool)
        masks[number][top : top + height, left : left + width] = True
        image[masks[number]] = color
    return image, masks


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_objects_that_move_and_grow_are_followed_to_the_pixel(share: float) -> None:
    red, blue = (220, 30, 30), (40, 60, 230)
    tracker = ObjectTracker(ColorNetwork(), replace(OPTIONS, mask_share=share))
    tracker.start(*frame((40, 50, 40, 30, red), (200, 40, 30, 50, blue)))
    assert tracker.objects == [1, 2]
    for step in range(1, 12):
        truth = ((40 + 8 * step, 50 + 5 * step, 40 + step, 30 + step, red), (200 + 4 * step, 40, 30, 50 + step, blue))
        image, masks = frame(*truth)
        tracked = tracker.step(image)
        given = resolved(tracked, threshold=OPTIONS.mask_threshold)
        for number, mask in masks.items():
            assert iou(given[number], mask) > 0.93, (step, number)
            box, expected = tracked[number].box, box_of(mask)
            assert expected is not None
            assert (box.x, box.y) == pytest.approx((expected.x, expected.y), abs=1.0)
            assert (box.width_px, box.height_px) == pytest.approx((expected.width_px, expected.height_px), rel=0.1)
            assert tracked[number].score > 0.9


def test_a_pixel_belongs_to_the_more_probable_object() -> None:
    image, masks = frame((40, 50, 40, 40, (220, 30, 30)))
    tracker = ObjectTracker(ColorNetwork(), OPTIONS)
    tracker.start(image, {1: masks[1], 2: masks[1]})
    given = resolved(tracker.step(image), threshold=0.35)
    assert not (given[1] & given[2]).any() and iou(given[1] | given[2], masks[1]) > 0.93
    assert resolved({}, threshold=0.5) == {}


def test_an_empty_mask_is_not_followed() -> None:
    image, masks = frame((40, 50, 40, 40, (220, 30, 30)))
    tracker = ObjectTracker(ColorNetwork(), OPTIONS)
    tracker.start(image, {1: np.zeros_like(masks[1])})
    assert tracker.objects == [] and tracker.step(image) == {}


def test_the_body_of_a_mask_has_no_lines_and_specks() -> None:
    mask = np.zeros((120, 200), bool)
    mask[20:60, 30:60] = True
    assert body_box(mask) == ObjectBox(45, 40, 30, 40)
    mask[58:60, 60:190] = mask[100:103, 5:8] = True
    box = body_box(mask)
    assert box is not None
    assert (box.x, box.y, box.width_px, box.height_px) == pytest.approx((45, 40, 30, 40), abs=2)
    line = np.zeros((120, 200), bool)
    line[50, 20:180] = True
    assert body_box(line) == ObjectBox(100, 50.5, 160, 1)
    assert body_box(np.zeros((5, 5), bool)) is None
