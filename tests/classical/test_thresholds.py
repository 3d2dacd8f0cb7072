"""Thresholds against OpenCV, against the definition, and against the values of the library's own images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from d2tune.classical import thresholds
from d2tune.errors import DataError

TABLE = {
    # scikit-image's image: Otsu (as OpenCV's), Riddler-Calvard from the mean, Li
    "camera": (102, 103.07, 78.91),
    "coins": (107, 107.45, 94.63),
    "page": (157, 158.26, 146.01),
    "text": (109, 110.10, 100.17),
    "moon": (87, 88.09, 71.50),
    "cell": (122, 121.97, 67.80),
    "clock": (174, 153.93, 147.97),
    "microaneurysms": (93, 96.05, 93.28),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_images_of_the_library(name: str) -> None:
    gray = getattr(data, name)()
    otsu, riddler_calvard, li = TABLE[name]
    assert thresholds.otsu(gray) == otsu == cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)[0]
    assert thresholds.riddler_calvard(gray) == pytest.approx(riddler_calvard, abs=0.01)
    assert thresholds.li(gray) == pytest.approx(li, abs=0.01)


def disks(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    gray = np.full((120, 160), int(random.integers(20, 90)), np.uint8)
    for _ in range(12):
        center = tuple(int(value) for value in random.integers(0, 160, 2))
        cv2.circle(gray, center, int(random.integers(5, 25)), int(random.integers(120, 240)), -1)
    return np.clip(gray + random.normal(0, 8, gray.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_diskss(seed: int) -> None:
    gray = disks(seed)
    ours, theirs = thresholds.otsu(gray), cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)[0]
    assert ((gray > ours) == (gray > theirs)).all()
    t = thresholds.riddler_calvard(gray)
    assert t == pytest.approx((gray[gray <= t].mean() + gray[gray > t].mean()) / 2, abs=1e-5)


def test_two_values_by_hand() -> None:
    gray = np.array([[10] * 6, [50] * 6], np.uint8)
    assert thresholds.riddler_calvard(gray) == 30
    assert 10 <= thresholds.otsu(gray) < 50
    low, high = thresholds.multi_otsu(np.repeat(np.array([10, 50, 200], np.uint8), 50), 3)
    assert 10 <= low < 50 <= high < 200


def test_sauvola_by_hand() -> None:
    gray = np.full((9, 9), 100, np.uint8)
    gray[4, 4] = 0
    local = thresholds.sauvola(gray, window_px=3, k=0.2)
    mean, std, half_range = 800 / 9, float(np.std([100] * 8 + [0])), 127.5
    assert local[4, 4] == pytest.approx(mean * (1 + 0.2 * (std / half_range - 1)), rel=1e-3)


def test_a_shade_that_defeats_a_global_threshold() -> None:
    """Dark strokes on paper whose brightness falls to less than that of the strokes at its bright end."""
    paper = np.tile(np.linspace(220, 60, 200), (60, 1))
    truth = np.zeros(paper.shape, bool)
    truth[10:14, 5:195] = truth[40:44, 5:195] = True
    gray = np.where(truth, 0.6 * paper, paper).astype(np.uint8)
    wrong = [(gray <= limit) != truth for limit in (thresholds.otsu(gray), thresholds.sauvola(gray, window_px=25))]
    assert wrong[0].mean() > 0.3
    assert wrong[1].mean() < 0.05


def test_an_image_of_a_single_value() -> None:
    gray = np.full((4, 4), 77, np.uint8)
    assert thresholds.otsu(gray) == thresholds.riddler_calvard(gray) == thresholds.li(gray) == 77


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: thresholds.otsu(np.empty((0, 3))), "no pixels"),
        (lambda: thresholds.riddler_calvard(np.array([1.0, np.nan])), "not finite"),
        (lambda: thresholds.multi_otsu(np.array([1, 1, 2, 2], np.uint8), 3), "fewer gray values"),
        (lambda: thresholds.multi_otsu(np.arange(20), 9), "out of range"),
        (lambda: thresholds.sauvola(np.ones((5, 5)), window_px=4), "an odd number"),
    ],
)
def test_bad_input(call, line: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=line):
        call()
