"""Rendered clips of moving objects with their masks, and the detections of a noisy stand-in for a detector.

Some objects cross each other, some pass behind a wall, some leave the image and return within the second that tracks
wait, and one returns after three seconds, which no tracker without a memory of looks can know. Everything follows from
the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

WIDTH, HEIGHT, FRAME_RATE = 640, 360, 25
WALL = (300, 130, 344, 300)
"""Left, top, right and bottom of the wall."""

MISSED, FALSE_PER_FRAME = 0.1, 0.2
LEAST_VISIBLE = 0.1
"""Objects of which less is visible do not count."""


@dataclass(frozen=True)
class Actor:
    """An object of a clip: an ellipse, a rectangle or a bean on a path of way points, linear in between."""

    shape: str
    size_px: float
    color: tuple[int, int, int]
    times: tuple[float, ...]
    points: tuple[tuple[float, float], ...]

    @property
    def area_px2(self) -> float:
        """Its area where nothing hides it."""
        wide, high = self.size_px, self.size_px * (0.62 if self.shape != "bean" else 0.8)
        return wide * high * {"rectangle": 1.0, "ellipse": np.pi / 4, "bean": 0.61}[self.shape]

    def place(self, time_s: float) -> tuple[float, float]:
        """Center at a time, in pixels."""
        xs, ys = zip(*self.points, strict=True)
        return float(np.interp(time_s, self.times, xs)), float(np.interp(time_s, self.times, ys))

    def mask(self, time_s: float) -> NDArray[np.bool_]:
        """Its whole mask ``(H, W)``."""
        x, y = self.place(time_s)
        wide, high = self.size_px / 2, self.size_px / 2 * (0.62 if self.shape != "bean" else 0.8)
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        center = (round(16 * x), round(16 * y))
        if self.shape == "rectangle":
            corners = np.array([(-wide, -high), (wide, -high), (wide, high), (-wide, high)])
            cv2.fillPoly(canvas, [np.rint(16 * (corners + np.array([x, y]))).astype(np.int32)], 1, shift=4)
        else:
            cv2.ellipse(canvas, center, (round(16 * wide), round(16 * high)), 0, 0, 360, 1, -1, shift=4)
        if self.shape == "bean":
            bite = (round(16 * x), round(16 * (y + high)))
            cv2.ellipse(canvas, bite, (round(8 * wide), round(12 * high)), 0, 0, 360, 0, -1, shift=4)
        return canvas.astype(bool)


def cast(seed: int) -> list[Actor]:
    """The objects of a clip of 12 seconds, the nearest ones last."""
    random = np.random.default_rng(seed)
    shapes = ("ellipse", "rectangle", "bean")

    def actor(times: list[float], points: list[tuple[float, float]], size_px: float) -> Actor:
        color = tuple(int(value) for value in random.integers(60, 250, 3))
        jitter = [(x + random.uniform(-8, 8), y + random.uniform(-8, 8)) for x, y in points]
        return Actor(str(random.choice(shapes)), size_px, color, tuple(times), tuple(jitter))  # type: ignore[arg-type]

    def size() -> float:
        return float(random.uniform(44, 84))

    row = [60, 120, 180, 240, 300]
    crossing = [
        actor([0, 12], [(40, row[1]), (600, row[1] + 60)], size()),
        actor([0, 12], [(600, row[1] + 30), (40, row[1] + 20)], size()),
        actor([0, 6, 12], [(80, row[4]), (420, row[3]), (560, row[0])], size()),
        actor([0, 6, 12], [(560, row[3]), (200, row[4] + 10), (60, row[2])], size()),
    ]
    # behind the wall: 44 px at 110 px/s hide all of a small object for about half a second
    hidden = [actor([0, 2, 8, 12], [(100, row[2] + 20), (120, row[2] + 20), (560, row[2]), (590, row[2])], 30)]
    # out of the image for 0.4 to 0.9 s, and back on the same way
    out = [
        actor([0, 3, 3.8, 7, 12], [(60, row[0] - 15), (620, row[0] - 10), (620, row[0] - 10), (90, 50), (90, 200)], 52),
        actor([0, 4, 4.35, 4.7, 9, 12], [(300, 60), (570, 310), (690, 330), (570, 320), (180, 310), (120, 330)], 56),
        actor([0, 2, 2.3, 2.6, 6, 12], [(200, 290), (44, 330), (-62, 345), (40, 330), (250, 325), (330, 60)], 60),
    ]
    late = [actor([0, 2, 3, 6, 7, 12], [(520, 60), (560, 150), (760, 170), (760, 170), (570, 150), (420, 120)], 64)]
    coming = [actor([0, 5, 12], [(-80, 240), (-80, 240), (560, 220)], size())]
    return [*hidden, *crossing, *out, *late, *coming]


def visible_masks(actors: list[Actor], time_s: float) -> list[NDArray[np.bool_]]:
    """The visible mask ``(H, W)`` of each object, empty where it hardly is; see `LEAST_VISIBLE`.

    The first object is behind the wall, the others are before it, each before those that precede it.
    """
    wholes = [actor.mask(time_s) for actor in actors]
    layers = [wholes[0], _wall(), *wholes[1:]]
    free = np.ones((HEIGHT, WIDTH), bool)
    visible = []
    for whole in reversed(layers):
        visible.append(whole & free)
        free &= ~whole
    visible = visible[::-1]
    del visible[1]
    least = [LEAST_VISIBLE * actor.area_px2 for actor in actors]
    return [mask if np.count_nonzero(mask) >= few else mask & False for mask, few in zip(visible, least, strict=True)]


def render(actors: list[Actor], masks: list[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """A frame ``(H, W, 3)`` RGB with the visible masks of objects."""
    image = _ground().copy()
    for actor, mask in zip(actors, masks, strict=True):
        image[mask] = actor.color
    return image


@lru_cache(maxsize=1)
def _wall() -> NDArray[np.bool_]:
    wall = np.zeros((HEIGHT, WIDTH), bool)
    wall[WALL[1] : WALL[3], WALL[0] : WALL[2]] = True
    return wall


@lru_cache(maxsize=1)
def _ground() -> NDArray[np.uint8]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ground = np.repeat((150 + 18 * np.sin(x / 61) + 14 * np.cos(y / 37))[..., None], 3, axis=2).astype(np.uint8)
    ground[_wall()] = (92, 84, 78)
    return ground


def detect(
    actors: list[Actor], masks: list[NDArray[np.bool_]], random: np.random.Generator
) -> tuple[list[NDArray[np.bool_]], list[float]]:
    """Masks and scores that a detector might give for a frame: some missing, shifted, false, and low where hidden."""
    detected: list[NDArray[np.bool_]] = []
    scores: list[float] = []
    for actor, mask in zip(actors, masks, strict=True):
        if not mask.any() or random.random() < MISSED:
            continue
        share = min(1.0, float(mask.sum()) / actor.area_px2)
        x, y = random.normal(0, 0.03 * actor.size_px, 2)
        moved = cv2.warpAffine(mask.astype(np.uint8), np.array([[1.0, 0, x], [0, 1.0, y]]), (WIDTH, HEIGHT))
        kernel = np.ones((3, 3), np.uint8)
        changed = (cv2.erode, cv2.dilate, lambda image, _: image)[int(random.integers(3))](moved, kernel)
        score = float(np.clip(0.95 * share + random.normal(0, 0.05), 0.02, 0.99))
        if changed.any():
            detected.append(changed.astype(bool))
            scores.append(score)
    for _ in range(int(random.poisson(FALSE_PER_FRAME))):
        canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
        center = (int(random.integers(WIDTH)), int(random.integers(HEIGHT)))
        axes = (int(random.integers(8, 30)), int(random.integers(8, 30)))
        detected.append(cv2.ellipse(canvas, center, axes, 0, 0, 360, 1, -1).astype(bool))
        scores.append(float(random.uniform(0.1, 0.7)))
    return detected, scores


def rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask ``(H, W)``."""
    encoded = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def rendered_frames(seed: int, *, seconds: float = 12.0) -> list[dict[str, Any]]:
    """The frames of a clip: time, ids and masks of the visible objects, and detections; masks as run lengths."""
    actors = cast(seed)
    random = np.random.default_rng([seed, 1])
    frames = []
    for number in range(round(seconds * FRAME_RATE)):
        masks = visible_masks(actors, number / FRAME_RATE)
        detected, scores = detect(actors, masks, random)
        frames.append(
            {
                "time_s": number / FRAME_RATE,
                "size": [HEIGHT, WIDTH],
                "object_ids": [one for one, mask in enumerate(masks, start=1) if mask.any()],
                "objects": [rle(mask) for mask in masks if mask.any()],
                "detections": [
                    {"segmentation": rle(mask), "score": score, "class_id": 0}
                    for mask, score in zip(detected, scores, strict=True)
                ],
            }
        )
    return frames
