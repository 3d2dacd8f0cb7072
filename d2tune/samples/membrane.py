"""Cell membranes as an electron microscope shows them: gray images beside label images of 0 and 255.

The folders are those in which the images of the ISBI 2012 challenge are handed around: ``train/image/0.png`` beside
``train/label/0.png``, 0 for membranes and 255 for the cells between them.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from d2tune.annotations.io.outputs import write_png
from d2tune.samples.rendering.canvas import blurred, ellipse, fill, pixel_grid, stroke, to_image, value_noise

CLASS_NAMES = ("membrane", "cell")

_SIDE_PX = 256


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write ``images`` images of 256 x 256 px and their label images below ``folder``.

    Returns:
        How many images each split has; all are in ``train``, from which a project sets some aside.
    """
    for index in range(images):
        gray, labels = draw(np.random.default_rng([seed, index, *b"membrane"]))
        write_png(folder / "train" / "image" / f"{index}.png", gray)
        write_png(folder / "train" / "label" / f"{index}.png", labels)
    return {"train": images}


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image, (H, W) uint8, and its labels, (H, W) uint8 of 0 and 255."""
    shape = (_SIDE_PX, _SIDE_PX)
    depth_px = _depths(rng, shape)
    half_px = rng.uniform(1.2, 1.7) + 1.6 * value_noise(rng, shape, 40) ** 2
    wall = np.clip(half_px + 0.5 - depth_px, 0, 1).astype(np.float32)
    inside = np.clip((depth_px - half_px - 1) / 2, 0, 1).astype(np.float32)
    tone = 0.62 + 0.1 * value_noise(rng, shape, 60, octaves=2) + 0.05 * (value_noise(rng, shape, 3, octaves=2) - 0.5)
    for _ in range(rng.integers(10, 18)):
        _paint_mitochondrion(rng, tone, inside)
    for _ in range(rng.integers(30, 70)):
        _paint_vesicle(rng, tone, inside)
    faded = 0.75 + 0.25 * value_noise(rng, shape, 30, octaves=2)
    tone = tone + blurred(wall, 0.8) * faded * (rng.uniform(0.2, 0.28) - tone)
    grain = rng.standard_normal(shape, dtype=np.float32)
    tone = blurred(tone, 0.7) + 0.06 * (0.6 * grain + 0.8 * blurred(grain, 0.9))
    gray = np.rint(255 * np.clip(tone, 0, 1)).astype(np.uint8)
    return gray, np.where(wall > 0.5, 0, 255).astype(np.uint8)


def _depths(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Distance of every pixel to the border between its cell and the next, (H, W) float32, in pixels.

    Cells are the Voronoi regions of points of uneven density, in a plane that is bent.
    """
    x, y = pixel_grid(shape)
    bend = [
        16 * (value_noise(rng, shape, 26, octaves=2) - 0.5) + 44 * (value_noise(rng, shape, 80) - 0.5) for _ in "xy"
    ]
    spread = rng.uniform(-40, _SIDE_PX + 40, (rng.integers(85, 130), 2))
    points = spread[rng.random(len(spread)) < 0.45 + 0.55 * (np.sin(spread[:, 0] / 60) > 0)]
    stretch = rng.uniform(0.75, 1.3)
    away = np.stack([np.hypot(x + bend[0] - px, stretch * (y + bend[1] - py)) for px, py in points.astype(np.float32)])
    cell = away.argmin(axis=0)
    same = np.ones(shape, np.uint8)
    same[1:][cell[1:] != cell[:-1]] = 0
    same[:, 1:][cell[:, 1:] != cell[:, :-1]] = 0
    distances_px: np.ndarray = cv2.distanceTransform(same, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distances_px


def _paint_mitochondrion(rng: np.random.Generator, tone: np.ndarray, inside: np.ndarray) -> None:
    """A dark body with folds and a rim of its own, which is not a membrane of a cell."""
    center, size_px, angle = rng.uniform(0, _SIDE_PX, 2), rng.uniform(9, 22), rng.uniform(0, np.pi)
    if inside[int(center[1]), int(center[0])] < 0.9:
        return
    outline = to_image(ellipse((0, 0), 1.0, rng.uniform(0.55, 0.85)), center, size_px, angle)
    body = blurred(fill([outline], tone.shape), 0.8) * inside
    x, y = pixel_grid(tone.shape)
    folds = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 1.1 + 5 * value_noise(rng, tone.shape, 12))
    tone += body * (0.43 + 0.1 * folds - tone)
    rim = stroke(np.concatenate([outline, outline[:1]]), 1.3, tone.shape, blur_px=0.5) * inside
    tone += rim * (0.33 - tone)


def _paint_vesicle(rng: np.random.Generator, tone: np.ndarray, inside: np.ndarray) -> None:
    """A small ring."""
    center, radius_px = rng.uniform(0, _SIDE_PX, 2), rng.uniform(1.8, 3.2)
    ring = ellipse(center, radius_px, radius_px, points=24)
    line = stroke(np.concatenate([ring, ring[:1]]), 0.9, tone.shape, blur_px=0.4) * inside
    tone += 0.7 * line * (0.4 - tone)
