"""Measures of masks against the formulas of the shapes that they are of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from d2tune.annotations.geometry import tracing
from d2tune.inference.measures import measure

SHIFTS = tuple(np.random.default_rng(0).uniform(-0.5, 0.5, (8, 2)).tolist())
"""Where the center of a shape is within its pixel."""


def disc(radius_px: float, shift: tuple[float, float] = (0.3, 0.0)) -> NDArray[np.bool_]:
    side = int(2 * radius_px) + 8
    y, x = np.mgrid[:side, :side] + 0.5
    mask: NDArray[np.bool_] = np.hypot(x - side / 2 - shift[0], y - side / 2 - shift[1]) <= radius_px
    return mask


def turned_rectangle(
    length_px: float, width_px: float, angle_deg: float, shift: tuple[float, float] = (0.13, -0.29)
) -> NDArray[np.bool_]:
    side = int(math.hypot(length_px, width_px)) + 8
    y, x = np.mgrid[:side, :side] + 0.5
    x, y, angle = x - side / 2 - shift[0], y - side / 2 - shift[1], math.radians(angle_deg)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    mask: NDArray[np.bool_] = (abs(along) <= length_px / 2) & (abs(across) <= width_px / 2)
    return mask


@pytest.mark.parametrize(
    ("height", "width"), [(4, 10), (10, 4), (1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (40, 100), (300, 299)]
)
def test_upright_rectangles_are_exact(height: int, width: int) -> None:
    mask = np.zeros((height + 5, width + 7), dtype=bool)
    mask[2 : 2 + height, 3 : 3 + width] = True
    measures = measure(mask, left_px=100, top_px=50)
    assert measures.area_px2 == height * width
    assert (measures.length_px, measures.width_px) == (max(height, width), min(height, width))
    assert measures.perimeter_px == 2 * (height + width)
    assert measures.feret_px == pytest.approx(math.hypot(height, width))
    assert (measures.x_px, measures.y_px) == (100 + 3 + width / 2, 50 + 2 + height / 2)
    if height != width:
        assert measures.angle_deg == (0 if width > height else 90)


@pytest.mark.parametrize("radius_px", [10, 11, 12, 15, 20, 33, 50, 100, 300])
def test_discs(radius_px: float) -> None:
    for shift in SHIFTS:
        measures = measure(disc(radius_px, shift))
        assert measures.perimeter_px == pytest.approx(2 * math.pi * radius_px, rel=0.02)
        assert measures.diameter_px == pytest.approx(2 * radius_px, rel=0.02)
        for side in (measures.length_px, measures.width_px):
            assert side == pytest.approx(2 * radius_px, abs=0.7)
        assert measures.feret_px == pytest.approx(2 * radius_px, abs=1)
        assert 0.95 < measures.circularity <= 1


@pytest.mark.parametrize("radius_px", [10, 20])
def test_discs_anywhere_on_the_grid(radius_px: float) -> None:
    """A disc of 20 px has only 19 rows where its top and bottom lie on the middles of two rows of pixels."""
    shifts = np.random.default_rng(1).uniform(-0.5, 0.5, (500, 2))
    errors_px = np.array([measure(disc(radius_px, tuple(shift))).width_px for shift in shifts]) - 2 * radius_px
    assert -1 <= errors_px.min() < -0.8 and errors_px.max() <= 0
    assert -0.4 < errors_px.mean() < -0.2 and np.mean(errors_px < -0.8) < 0.02


@pytest.mark.parametrize("angle_deg", [0, 1, 5, 10, 20, 30, 45, 60, 77, 90, 150])
@pytest.mark.parametrize(("length_px", "width_px"), [(60, 20), (90, 80), (200, 50), (400, 25)])
def test_turned_rectangles(length_px: float, width_px: float, angle_deg: float) -> None:
    all_measures = [measure(turned_rectangle(length_px, width_px, angle_deg, shift)) for shift in SHIFTS]
    for measures in all_measures:
        assert measures.perimeter_px == pytest.approx(2 * (length_px + width_px), rel=0.02)
        assert measures.length_px == pytest.approx(length_px, abs=0.8)
        assert measures.width_px == pytest.approx(width_px, abs=0.8)
        assert measures.feret_px == pytest.approx(math.hypot(length_px, width_px), abs=1.5)
        assert abs((measures.angle_deg - angle_deg + 90) % 180 - 90) < 1
    # over the places within a pixel there is no bias
    assert np.mean([measures.length_px for measures in all_measures]) == pytest.approx(length_px, abs=0.4)
    assert np.mean([measures.width_px for measures in all_measures]) == pytest.approx(width_px, abs=0.4)


def test_a_rectangle_that_is_turned_by_30_degrees_is_not_wider_than_an_upright_one() -> None:
    """The corners of its pixels are 1.37 px further apart than its sides."""
    widths = [measure(turned_rectangle(60, 12, 30, shift)).width_px for shift in SHIFTS]
    assert np.abs(np.array(widths) - 12).max() < 0.1


@pytest.mark.parametrize("copy", [np.array, np.flipud, np.fliplr, np.rot90, np.transpose])
def test_mirrored_masks_have_the_same_lengths(copy: object) -> None:
    mask = turned_rectangle(81, 37, 12)
    mask[60:89, 20:49] |= turned_rectangle(20, 9, 70)
    assert callable(copy)
    measures, of_copy = measure(mask), measure(np.ascontiguousarray(copy(mask)))
    assert of_copy.length_px == pytest.approx(measures.length_px)
    assert of_copy.width_px == pytest.approx(measures.width_px)
    assert of_copy.feret_px == pytest.approx(measures.feret_px)
    assert of_copy.perimeter_px == pytest.approx(measures.perimeter_px, rel=0.01)


def test_thin_curves_are_measured_along_both_sides() -> None:
    """A ring of the width of a pixel has the perimeters of two circles."""
    side = 120
    y, x = np.mgrid[:side, :side] + 0.5
    distance = np.hypot(x - 60, y - 60)
    ring = (distance <= 50.5) & (distance > 49)
    measures = measure(ring)
    assert measures.perimeter_px == pytest.approx(2 * math.pi * (50.5 + 49), rel=0.02)
    assert measures.length_px == pytest.approx(101, abs=1)


def test_a_hole_counts_in_the_perimeter_and_not_in_the_area() -> None:
    ring = disc(40)
    ring &= ~np.pad(disc(20), (ring.shape[0] - disc(20).shape[0]) // 2)
    measures = measure(ring)
    assert measures.area_px2 == pytest.approx(math.pi * (40**2 - 20**2), rel=0.01)
    assert measures.perimeter_px == pytest.approx(2 * math.pi * (40 + 20), rel=0.02)


def test_pieces_that_do_not_touch_are_counted() -> None:
    mask = np.zeros((12, 20), dtype=bool)
    mask[1:4, 1:4] = mask[4:6, 4:8] = mask[9:11, 15:18] = True  # the first two touch at a corner
    assert measure(mask).pieces == 2 and measure(mask[:7]).pieces == 1 and measure(mask[9:11, 15:18]).pieces == 1


def test_a_mask_with_too_many_corners_has_no_perimeter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "CORNERS_LIMIT", 40)
    measures = measure(disc(10))
    assert math.isnan(measures.perimeter_px) and math.isnan(measures.circularity)
    assert measures.length_px == pytest.approx(20, abs=0.9)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        measure(np.zeros((4, 4), dtype=bool))
