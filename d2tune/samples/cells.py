"""White blood cells on a stained smear: photos beside label images of background, cytoplasm and nucleus.

Labels have the values that public sets of white blood cells use: 0 for the background, to which red cells count, 128
for the cytoplasm and 255 for the nucleus.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from d2tune.annotations.io.outputs import write_png
from d2tune.samples.rendering.canvas import (
    blend,
    blurred,
    develop,
    ellipse,
    fill,
    hsv,
    local_grid,
    smooth,
    to_image,
    value_noise,
)

CLASS_NAMES = ("background", "cytoplasm", "nucleus")

_SIDE_PX = 192
_VAL_EVERY, _VAL_AT = 5, 2


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write ``images`` photos of 192 x 192 px and their label images below ``folder``: a fifth is for validation.

    Returns:
        How many images ``train`` and ``val`` have.
    """
    counts = {"train": 0, "val": 0}
    for index in range(images):
        split = "val" if index % _VAL_EVERY == _VAL_AT or (images == 2 and index == 1) else "train"
        photo, labels = draw(np.random.default_rng([seed, index, *b"cells"]))
        write_png(folder / split / "images" / f"smear_{index:04d}.png", photo)
        write_png(folder / split / "labels" / f"smear_{index:04d}.png", labels)
        counts[split] += 1
    return counts


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A photo, (H, W, 3) uint8, and its labels, (H, W) uint8 of 0, 128 and 255."""
    shape = (_SIDE_PX, _SIDE_PX)
    paper = hsv(rng.uniform(0.02, 0.16), rng.uniform(0.03, 0.12), rng.uniform(0.86, 0.95))
    image = (paper * (0.93 + 0.1 * value_noise(rng, shape, 70, octaves=3))[..., None]).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    radius_px = rng.uniform(15, 20)
    stain = rng.uniform(0.97, 1.01)
    for _ in range(rng.integers(14, 30)):
        _paint_red(rng, image, rng.uniform(-5, _SIDE_PX + 5, 2), radius_px * rng.uniform(0.88, 1.1), stain)
    spots: list[np.ndarray] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])):
        spot = rng.uniform(0.16, 0.84, 2) * _SIDE_PX
        if all(np.hypot(*(spot - other)) > 3.4 * radius_px for other in spots):
            spots.append(spot)
            _paint_white(rng, image, labels, spot, radius_px * rng.uniform(1.3, 1.75))
    for _ in range(rng.integers(0, 6)):
        _paint_platelet(rng, image)
    return develop(rng, 0.86 * image), labels


def _paint_red(rng: np.random.Generator, image: np.ndarray, spot: np.ndarray, radius_px: float, stain: float) -> None:
    """A red cell, paler in its middle."""
    angle = rng.uniform(0, np.pi)
    flat = rng.uniform(0.85, 1.0)
    cover = fill([to_image(ellipse((0, 0), 1, flat), spot, radius_px, angle)], image.shape[:2], blur_px=0.7)
    u, v = local_grid((_SIDE_PX, _SIDE_PX), spot, radius_px, angle)
    dent = np.exp(-((np.hypot(u, v / flat) / 0.5) ** 2))
    color = hsv(stain, rng.uniform(0.28, 0.42), rng.uniform(0.82, 0.9))
    thick = (0.85 * cover * (1 - 0.6 * dent))[..., None]
    image *= 1 - thick + thick * color


def _paint_white(
    rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, spot: np.ndarray, radius_px: float
) -> None:
    """A white cell: a cytoplasm with grains around a nucleus of one to four lobes."""
    shape = labels.shape
    body = _blob(rng, spot, radius_px, wobble=0.06)
    cover = fill([body], shape)
    lobes = _nucleus(rng, spot, radius_px)
    core = fill(lobes, shape) * (cover > 0.5)
    kind = rng.random()
    tone = hsv(rng.uniform(0.66, 0.78), rng.uniform(0.14, 0.34), rng.uniform(0.78, 0.9))
    grains = value_noise(rng, shape, 2.2)
    if kind < 0.45:
        tone = tone + 0.35 * (grains > 0.62)[..., None] * (hsv(rng.choice([0.9, 0.98]), 0.5, 0.7) - tone)
    blend(image, blurred(cover, 0.7), (tone * (0.92 + 0.16 * grains)[..., None]).astype(np.float32))
    chromatin = value_noise(rng, shape, 5, octaves=3)[..., None]
    dark = hsv(rng.uniform(0.71, 0.78), rng.uniform(0.6, 0.8), rng.uniform(0.42, 0.58))
    blend(image, blurred(core.astype(np.float32), 0.6), (dark * (0.7 + 0.75 * chromatin)).astype(np.float32))
    labels[cover > 0.5] = 128
    labels[core > 0.5] = 255


def _nucleus(rng: np.random.Generator, spot: np.ndarray, radius_px: float) -> list[np.ndarray]:
    """The outlines of a nucleus' lobes, which touch."""
    lobes = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.2, 0.25, 0.15]))
    if lobes == 1:
        away = rng.uniform(0, 0.12) * radius_px
        turn = rng.uniform(0, 2 * np.pi)
        center = spot + away * np.array([np.cos(turn), np.sin(turn)])
        return [_blob(rng, center, radius_px * rng.uniform(0.62, 0.8), wobble=0.1)]
    start, step = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.4)
    size_px = radius_px * (0.5 - 0.045 * lobes)
    turns = start + step * np.arange(lobes)
    centers = spot + 0.46 * radius_px * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return [_blob(rng, center, size_px * rng.uniform(0.9, 1.15), wobble=0.08) for center in centers]


def _blob(rng: np.random.Generator, center: np.ndarray, radius_px: float, *, wobble: float) -> np.ndarray:
    """A round outline with bumps, (N, 2)."""
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radius = radius_px * (1 + wobble * rng.uniform(-1, 1, len(turn)))
    return smooth(center + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1))


def _paint_platelet(rng: np.random.Generator, image: np.ndarray) -> None:
    """A crumb with the nucleus' color, too small for one."""
    spot = rng.uniform(0, _SIDE_PX, 2)
    cover = fill([_blob(rng, spot, rng.uniform(2.5, 4.5), wobble=0.2)], image.shape[:2], blur_px=0.8)
    blend(image, 0.7 * cover, hsv(rng.uniform(0.74, 0.82), 0.45, 0.6))
