"""Boundaries against an erosion written out pixel by pixel, and against ones drawn by hand."""

import math

import numpy as np
import pytest
import torch

from d2tune.metrics.overlap.boundary import boundary_width_px, mask_boundary, within

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def eroded_once(mask: np.ndarray) -> np.ndarray:
    """One step of a 3 x 3 square; what lies beyond the edge is not mask."""
    padded = np.pad(mask, 1)
    result = np.ones_like(mask)
    for dy in range(3):
        for dx in range(3):
            result &= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return result


def paper_boundary(mask: np.ndarray, ratio: float) -> np.ndarray:
    steps = max(1, round(ratio * math.hypot(*mask.shape)))
    inner = mask
    for _ in range(steps):
        inner = eroded_once(inner)
    return mask & ~inner


def drawn_masks(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    height, width = (int(side) for side in draw.integers(1, 90, 2))
    y, x = np.mgrid[:height, :width]
    masks = [np.zeros((height, width), bool), np.ones((height, width), bool), draw.random((height, width)) < 0.97]
    for _ in range(5):
        cy, cx, ry, rx = draw.random(4) * [height, width, height, width]
        masks.append(((y - cy) / (ry + 0.5)) ** 2 + ((x - cx) / (rx + 0.5)) ** 2 <= 1)
    return np.stack(masks)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("ratio", [0.005, 0.02, 0.1])
def test_as_eroded_pixel_by_pixel(seed: int, ratio: float) -> None:
    masks = drawn_masks(seed)
    expected = np.stack([paper_boundary(mask, ratio) for mask in masks])
    assert np.array_equal(mask_boundary(masks, dilation_ratio=ratio), expected)
    tensor = torch.from_numpy(masks)
    assert np.array_equal(mask_boundary(tensor, dilation_ratio=ratio).numpy(), expected)
    width_px = boundary_width_px(*masks.shape[1:], dilation_ratio=ratio)
    assert np.array_equal(within(tensor, width_px).numpy(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_the_device_gives_the_same_pixels(device: str) -> None:
    masks = drawn_masks(7)
    assert np.array_equal(mask_boundary(torch.from_numpy(masks).to(device)).cpu().numpy(), mask_boundary(masks))


def test_a_square_by_hand() -> None:
    """An image of 30 x 40 has a diagonal of 50: its boundaries are one pixel wide."""
    mask = np.zeros((1, 30, 40), bool)
    mask[0, 0:4, 10:15] = True  # touches the edge of the image, which counts as boundary
    expected = mask.copy()
    expected[0, 1:3, 11:14] = False
    assert np.array_equal(mask_boundary(mask), expected)


def test_no_masks_and_widths() -> None:
    assert mask_boundary(np.zeros((0, 5, 6), bool)).shape == (0, 5, 6)
    assert boundary_width_px(480, 640) == 16
    assert boundary_width_px(3, 4) == 1
