"""Boundaries against an erosion written out pixel by pixel, and by hand."""

import math

import numpy as np
import pytest
import torch

from d2tune.metrics.overlap.bitmaps import mask_boundaries
from d2tune.metrics.overlap.boundary import boundary_width_px, crop_boundary
from tests.metrics.grids import seeds

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


def random_masks(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    height, width = (int(side) for side in draw.integers(1, 90, 2))
    y, x = np.mgrid[:height, :width]
    masks = [np.zeros((height, width), bool), np.ones((height, width), bool), draw.random((height, width)) < 0.97]
    for _ in range(5):
        cy, cx, ry, rx = draw.random(4) * [height, width, height, width]
        masks.append(((y - cy) / (ry + 0.5)) ** 2 + ((x - cx) / (rx + 0.5)) ** 2 <= 1)
    return np.stack(masks)


def cropped_boundary(mask: np.ndarray, width_px: int) -> np.ndarray:
    """The boundary of a whole mask from the box around it."""
    boundary = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size:
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        boundary[window] = crop_boundary(mask[window], width_px)
    return boundary


@pytest.mark.parametrize("seed", seeds(30))
@pytest.mark.parametrize("ratio", [0.005, 0.02, 0.1])
def test_as_eroded_pixel_by_pixel(seed: int, ratio: float) -> None:
    masks = random_masks(seed)
    expected = np.stack([paper_boundary(mask, ratio) for mask in masks])
    width_px = boundary_width_px(*masks.shape[1:], dilation_ratio=ratio)
    assert np.array_equal(np.stack([cropped_boundary(mask, width_px) for mask in masks]), expected)
    assert np.array_equal(mask_boundaries(torch.from_numpy(masks), width_px).numpy(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_the_device_gives_the_same_pixels(device: str) -> None:
    masks = random_masks(7)
    expected = np.stack([paper_boundary(mask, 0.02) for mask in masks])
    width_px = boundary_width_px(*masks.shape[1:])
    assert np.array_equal(mask_boundaries(torch.from_numpy(masks).to(device), width_px).cpu().numpy(), expected)


def test_a_square_by_hand() -> None:
    """An image of 30 x 40 has a diagonal of 50: its boundaries are one pixel wide."""
    mask = np.zeros((30, 40), bool)
    mask[0:4, 10:15] = True  # touches the edge of the image, which counts as boundary
    expected = mask.copy()
    expected[1:3, 11:14] = False
    assert np.array_equal(cropped_boundary(mask, boundary_width_px(30, 40)), expected)
    assert np.array_equal(mask_boundaries(torch.from_numpy(mask[None]), 1)[0].numpy(), expected)


def test_no_masks_and_widths() -> None:
    assert mask_boundaries(torch.zeros(0, 5, 6, dtype=torch.bool), 1).shape == (0, 5, 6)
    assert boundary_width_px(480, 640) == 16
    assert boundary_width_px(3, 4) == 1
