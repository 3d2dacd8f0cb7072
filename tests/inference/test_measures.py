"""Measures of masks against the formulas of the shapes that they are of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from d2tune.inference.measures import measure


def disc(radius_px: float, *, shift_px: float = 0.0) -> NDArray[np.bool_]:
    side = int(2 * radius_px) + 8
    y, x = np.mgrid[:side, :side] + 0.5
    mask: NDArray[np.bool_] = (x - side / 2 - shift_px) ** 2 + (y - side / 2) ** 2 <= radius_px**2
    return mask


def turned_rectangle(length_px: float, width_px: float, angle_deg: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[:300, :300] + 0.5
    x, y, angle = x - 150.37, y - 149.79, math.radians(angle_deg)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    mask: NDArray[np.bool_] = (abs(along) <= length_px / 2) & (abs(across) <= width_px / 2)
    return mask


@pytest.mark.parametrize(("height", "width"), [(4, 10), (10, 4), (1, 1), (1, 7), (2, 2), (3, 3), (40, 100)])
def test_upright_rectangles_are_exact(height: int, width: int) -> None:
    mask = np.zeros((height + 5, width + 7), dtype=bool)
    mask[2 : 2 + height, 3 : 3 + width] = True
    measures = measure(mask, left_px=100, top_px=50)
    assert measures.area_px2 == height * width
    assert measures.length_px == pytest.approx(max(height, width), abs=1e-4)
    assert measures.width_px == pytest.approx(min(height, width), abs=1e-4)
    assert measures.perimeter_px == pytest.approx(2 * (height + width), abs=1e-3)
    assert measures.feret_px == pytest.approx(math.hypot(height, width), abs=1e-4)
    assert (measures.x_px, measures.y_px) == (100 + 3 + width / 2, 50 + 2 + height / 2)
    if height != width:
        assert measures.angle_deg == pytest.approx(0 if width > height else 90, abs=1e-3)


@pytest.mark.parametrize("radius_px", [10, 20, 50, 100])
def test_discs(radius_px: float) -> None:
    measures = measure(disc(radius_px, shift_px=0.3))
    assert measures.perimeter_px == pytest.approx(2 * math.pi * radius_px, rel=0.02)
    for diameter in (measures.length_px, measures.width_px, measures.feret_px, measures.diameter_px):
        assert diameter == pytest.approx(2 * radius_px, rel=0.02)
    assert 0.96 < measures.circularity <= 1


@pytest.mark.parametrize("angle_deg", [10, 20, 30, 45, 60, 77, 150])
def test_turned_rectangles(angle_deg: float) -> None:
    measures = measure(turned_rectangle(200, 50, angle_deg))
    assert measures.length_px == pytest.approx(200, rel=0.02)
    assert measures.width_px == pytest.approx(50, rel=0.02)
    assert measures.perimeter_px == pytest.approx(500, rel=0.025)
    assert measures.angle_deg == pytest.approx(angle_deg, abs=0.5)


def test_a_hole_counts_in_the_perimeter_and_not_in_the_area() -> None:
    ring = disc(40)
    ring &= ~np.pad(disc(20), (ring.shape[0] - disc(20).shape[0]) // 2)
    measures = measure(ring)
    assert measures.area_px2 == pytest.approx(math.pi * (40**2 - 20**2), rel=0.01)
    assert measures.perimeter_px == pytest.approx(2 * math.pi * (40 + 20), rel=0.02)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        measure(np.zeros((4, 4), dtype=bool))
