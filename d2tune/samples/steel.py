"""Strips of hot-rolled steel and their defects, laid out as Severstal's steel defect detection data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from d2tune.samples.rendering.canvas import (
    blurred,
    curve,
    develop,
    ellipse,
    fill,
    pixel_grid,
    ribbon,
    smooth,
    stroke,
    to_image,
    value_noise,
)
from d2tune.samples.rendering.csv_sample import Drawing, Layout, hex_name, write_csv_sample

CLASS_NAMES = ("background", "1", "2", "3", "4")
SIZE = (64, 400)
"""Height and width in pixels, a quarter of Severstal's."""

_LAYOUT = Layout("severstal", "train.csv", "train_images", "test_images", CLASS_NAMES[1:])
_TEST_EVERY, _TEST_AT = 10, 9
_WHOLE_SHARE = 0.52
_SECOND_SHARE = 0.2

Gray = np.ndarray
"""Reflected light (H, W) float32."""


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write ``train_images/*.jpg``, ``train.csv`` and ``test_images/*.jpg``, each tenth image one of the test.

    As in the public file, ``train.csv`` lists only images with a defect.

    Returns:
        How many images each split has.
    """
    return write_csv_sample(
        folder,
        _LAYOUT,
        lambda index: _draw(index, seed),
        images=images,
        name_of=lambda index: f"{hex_name('steel', index, 9)}.jpg",
        is_test=lambda index: index % _TEST_EVERY == _TEST_AT,
    )


def _draw(index: int, seed: int) -> Drawing:
    rng = np.random.default_rng([seed, index, *b"steel"])
    surface, strip = _surface(rng)
    masks: list[tuple[int, np.ndarray]] = []
    if rng.random() >= _WHOLE_SHARE:
        kinds = [index % len(_DEFECTS)]
        if rng.random() < _SECOND_SHARE:
            kinds.append(int(rng.choice([k for k in range(len(_DEFECTS)) if k != kinds[0]])))
        for kind in kinds:
            free = strip.copy()
            for _, mask in masks:
                free[blurred(mask.astype(np.float32), 3) > 0.02] = False
            mask = _DEFECTS[kind](rng, surface, strip) & free
            if mask.sum() > 20:
                masks.append((kind, mask))
    image = np.repeat(surface[..., None], 3, axis=2)
    return _gray(develop(rng, np.ascontiguousarray(image, np.float32))), masks


def _gray(image_rgb: np.ndarray) -> np.ndarray:
    """As the line camera has it: no color."""
    return np.repeat(image_rgb[..., 1:2], 3, axis=2)


def _surface(rng: np.random.Generator) -> tuple[Gray, np.ndarray]:
    """Rolled steel with bands and grain across, and where the strip lies, (H, W) bool: its end may be in sight."""
    x, y = pixel_grid(SIZE)
    tone = rng.uniform(0.06, 0.22)
    bands = value_noise(rng, (1, SIZE[1]), rng.uniform(18, 60), octaves=4)
    grain = value_noise(rng, SIZE, 3, octaves=2, stretch=rng.choice([0.6, 1.0, 3.0]))
    cloud = value_noise(rng, SIZE, 50, octaves=3)
    surface = tone * (0.4 + 0.7 * bands + 0.4 * cloud) * (0.8 + 0.4 * grain)
    surface = surface * (1 + rng.uniform(-0.25, 0.25) * (y / SIZE[0] - 0.5))
    strip = np.ones(SIZE, bool)
    if rng.random() < 0.25:
        edge = rng.uniform(0.1, 0.45) * SIZE[1] + rng.normal(0, 4) * (y / SIZE[0])
        beyond = x < edge if rng.random() < 0.5 else x > SIZE[1] - edge
        surface = np.where(beyond, 0.002 + 0.002 * grain, surface)
        strip = ~beyond
    return blurred(surface.astype(np.float32), 0.4), strip


def _place(rng: np.random.Generator, strip: np.ndarray, margin_px: float) -> np.ndarray:
    """A spot on the strip, (x, y), that keeps off its ends."""
    columns = np.flatnonzero(strip[SIZE[0] // 2])
    low, high = columns[0] + margin_px, columns[-1] - margin_px
    return np.array([rng.uniform(low, max(high, low + 1)), rng.uniform(0.2, 0.8) * SIZE[0]])


def _blob(rng: np.random.Generator, center: np.ndarray, radius_x: float, radius_y: float) -> np.ndarray:
    outline = ellipse(center, radius_x, radius_y, points=9)
    return smooth(center + (outline - center) * rng.uniform(0.7, 1.2, (9, 1)))


def _pits(rng: np.random.Generator, surface: Gray, strip: np.ndarray) -> np.ndarray:
    """Class 1: small dark pits in loose groups; an annotator outlines each group."""
    mask = np.zeros(SIZE, bool)
    for _ in range(rng.integers(2, 5)):
        center = _place(rng, strip, 20)
        wide, high = rng.uniform(10, 24), rng.uniform(8, 17)
        region = fill([_blob(rng, center, wide, high)], SIZE) > 0.5
        for _ in range(int(wide * high / 9)):
            spot = center + rng.normal(0, 0.45, 2) * [wide, high]
            pit = fill([ellipse(spot, rng.uniform(0.8, 1.6), rng.uniform(1.0, 2.6), points=12)], SIZE)
            surface *= 1 - rng.uniform(0.6, 0.9) * pit
        mask |= region
    return mask


def _cracks(rng: np.random.Generator, surface: Gray, strip: np.ndarray) -> np.ndarray:
    """Class 2: thin dark lines from edge to edge of the strip."""
    mask = np.zeros(SIZE, bool)
    for _ in range(rng.integers(2, 5)):
        x = _place(rng, strip, 14)[0]
        top, bottom = np.sort(rng.uniform(-0.1, 1.1, 2)) if rng.random() < 0.3 else (-0.1, 1.1)
        bottom = max(bottom, top + 0.45)
        ends = np.array([[x, top * SIZE[0]], [x + rng.normal(0, 3), bottom * SIZE[0]]])
        line = curve(ends[0], ends.mean(axis=0) + np.array([rng.normal(0, 2), 0]), ends[1])
        surface *= 1 - rng.uniform(0.75, 0.95) * stroke(line, rng.uniform(2.2, 3.4), SIZE)
        surface *= 1 + 0.5 * stroke(line + np.array([2.6, 0]), 1.6, SIZE, blur_px=0.6)
        mask |= fill([ribbon(line, 12)], SIZE) > 0.5
    return mask


def _scratches(rng: np.random.Generator, surface: Gray, strip: np.ndarray) -> np.ndarray:
    """Class 3: bright scrapes along the direction of rolling, in bundles."""
    mask = np.zeros(SIZE, bool)
    for _ in range(rng.integers(1, 4)):
        long, high, lean = rng.uniform(20, 60), rng.uniform(4, 10), rng.normal(0, 0.12)
        center = _place(rng, strip, long * 0.6)
        for _ in range(rng.integers(4, 11)):
            start, end = np.sort(rng.uniform(-1, 1, 2)) * long
            across = rng.normal(0, 0.45) * high
            line = to_image(np.array([[start, across], [end, across + rng.normal(0, 1)]]), center, 1.0, lean)
            scrape = stroke(line, rng.uniform(0.6, 1.6), SIZE, blur_px=0.4)
            surface += rng.uniform(0.15, 0.5) * scrape * (0.4 + value_noise(rng, SIZE, 4, octaves=2))
        mask |= fill([to_image(_blob(rng, np.zeros(2), long, high), center, 1.0, lean)], SIZE) > 0.5
    return mask


def _scales(rng: np.random.Generator, surface: Gray, strip: np.ndarray) -> np.ndarray:
    """Class 4: rough patches where scale was rolled in, dark and bright flakes side by side."""
    mask = np.zeros(SIZE, bool)
    for _ in range(rng.integers(1, 3)):
        wide, high = rng.uniform(22, 55), rng.uniform(18, 34)
        outline = _blob(rng, _place(rng, strip, wide * 0.7), wide, high)
        cover = fill([outline], SIZE, blur_px=1.5)
        flakes = value_noise(rng, SIZE, 9, octaves=4, stretch=1.6)
        surface *= 1 + cover * np.clip((flakes - 0.55) * 6, -0.65, 0.8)
        mask |= fill([outline], SIZE) > 0.5
    return mask


_DEFECTS: tuple[Callable[[np.random.Generator, Gray, np.ndarray], np.ndarray], ...] = (
    _pits,
    _cracks,
    _scratches,
    _scales,
)
