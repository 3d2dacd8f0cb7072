"""Short clips of textured objects that move, turn, grow and bend before a moving ground, as photos with outlines.

A folder holds the frames of a clip. Each object keeps its looks, and some pass behind others: what a tracker learns to
follow and is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.samples.rendering.backgrounds import any_place, planks
from d2tune.samples.rendering.canvas import hsv, value_noise
from d2tune.samples.rendering.labelme_files import write_labelme_pair

CLASS_NAMES = ("object",)
FRAMES = 10
"""Frames of a clip."""

HEIGHT_PX, WIDTH_PX = 240, 320
_SIDE_PX = 160
"""Side of the square that an object is painted in before it is moved; its radius is 1 for 64 of these pixels."""
_UNIT_PX = 64.0
_VAL_EVERY, _VAL_AT = 5, 2
_SMALLEST_PX2 = 60
_TONES = 256
"""Different textures of a process, which are rendered once each."""


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write clips of ten frames below ``folder``, as Labelme files: every fifth clip is for validation.

    Args:
        folder: The output folder.
        images: Frames in all; the last clip has what remains.
        seed: Chooses the clips.

    Returns:
        How many frames ``train`` and ``val`` have.
    """
    counts = {"train": 0, "val": 0}
    clips = max(2, -(-images // FRAMES))
    shares = [images // clips + (number < images % clips) for number in range(clips)]
    for number, frames in enumerate(shares):
        split = "val" if number % _VAL_EVERY == _VAL_AT or (clips == 2 and number == 1) else "train"
        clip = Clip(np.random.default_rng([seed, number, *b"clips"]))
        for at in range(frames):
            frame = clip.frame(at / FRAMES)
            objects = [("object", outlines) for outlines in map(_outlines, frame.masks) if outlines]
            path = folder / split / f"clip_{number:03d}" / f"frame_{at:02d}.jpg"
            write_labelme_pair(path, frame.image_rgb, objects)
            counts[split] += 1
    return counts


@dataclass(frozen=True)
class Frame:
    """A rendered frame: ``image_rgb`` (H, W, 3) uint8, and the visible (H, W) bool of each object."""

    image_rgb: NDArray[np.uint8]
    masks: tuple[NDArray[np.bool_], ...]


class Clip:
    """Two or three objects before a ground; everything moves smoothly with the time from 0 to 1.

    Args:
        rng: Source of all random numbers.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        texture = _texture(int(rng.integers(_TONES)))
        self._ground = cv2.resize(texture, None, fx=2.2, fy=2.2, interpolation=cv2.INTER_LINEAR)
        self._sway = rng.uniform(-1, 1, (2, 2)) * rng.choice([0.0, 12.0, 40.0])
        self._zoom = rng.uniform(-0.12, 0.12)
        self._actors = [_Actor(rng) for _ in range(rng.integers(2, 4))]
        self._light = rng.uniform(0.85, 1.15, 2)
        self._blur_px = rng.uniform(0.0, 1.0)
        self._noise = rng.uniform(1.0, 5.0)
        self._seed = int(rng.integers(2**31))

    def frame(self, time: float) -> Frame:
        """The frame at a time."""
        scale = 1.0 + self._zoom * time
        shift = np.array([-150.0, -120.0]) + self._sway[0] * time + self._sway[1] * np.sin(2 * np.pi * time)
        move = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        size = (WIDTH_PX, HEIGHT_PX)
        image = cv2.warpAffine(self._ground, move, size, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
        covers: list[NDArray[np.float32]] = []
        for actor in self._actors:
            look, cover = actor.seen(time)
            image += cover[..., None] * (look - image)
            covers = [other * (1 - cover) for other in covers] + [cover]
        image *= np.float32(self._light[0] + (self._light[1] - self._light[0]) * time)
        if self._blur_px > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), self._blur_px)
        rng = np.random.default_rng([self._seed, round(time * 10_000)])
        image += np.float32(self._noise) * rng.standard_normal(image.shape, dtype=np.float32)
        return Frame(np.clip(image, 0, 255).astype(np.uint8), tuple(cover > 0.5 for cover in covers))


class _Actor:
    """An object: a bending outline with a texture and patches of other textures, on a smooth path."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._look = _painted(rng)
        self._harmonics = rng.normal(0, 0.16, (4, 2)) / np.arange(1, 5)[:, None]
        self._bend = rng.normal(0, 0.10, (4, 2)) / np.arange(1, 5)[:, None]
        self._aspect = rng.uniform(0.45, 1.0)
        self._corners = int(rng.choice([0, 0, 4, 5, 7]))
        self._size = np.exp(rng.uniform(np.log(0.3), np.log(0.85)))
        self._grow = rng.uniform(-0.25, 0.25)
        self._turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.9, 0.9)
        self._start = rng.uniform([50, 40], [WIDTH_PX - 50, HEIGHT_PX - 40])
        goal = rng.uniform([50, 40], [WIDTH_PX - 50, HEIGHT_PX - 40])
        self._way = np.clip(goal - self._start, -110, 110)
        self._swing = rng.normal(0, 9, 2)

    def seen(self, time: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Its colors ``(H, W, 3)`` and coverage ``(H, W)`` in the frame at a time."""
        scale = self._size * (1 + self._grow * time)
        turn = self._turn[0] + self._turn[1] * time
        place = self._start + self._way * time + self._swing * np.sin(2 * np.pi * time)
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        move = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        move[:, 2] = place - move[:, :2] @ np.full(2, _SIDE_PX / 2)
        cover = np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
        cv2.fillPoly(cover, [np.rint(self._outline(time) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        size = (WIDTH_PX, HEIGHT_PX)
        look = cv2.warpAffine(self._look, move, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
        return look, cv2.warpAffine(cover, move, size).astype(np.float32) / 255

    def _outline(self, time: float) -> NDArray[np.float64]:
        """Its outline ``(N, 2)`` in the square that it is painted in."""
        count = self._corners or 40
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        waves = self._harmonics + self._bend * np.sin(2 * np.pi * time)
        radius = np.ones(count)
        for order, (cosine, sine) in enumerate(waves, start=1):
            radius += cosine * np.cos(order * angle) + sine * np.sin(order * angle)
        radius = np.clip(radius, 0.35, 1.2)
        points = np.stack([np.cos(angle), self._aspect * np.sin(angle)], axis=1) * radius[:, None]
        return points * _UNIT_PX + _SIDE_PX / 2


def _painted(rng: np.random.Generator) -> NDArray[np.uint8]:
    """The colors of an object, ``(160, 160, 3)``: a texture, and up to three patches of other textures."""
    look = _tinted(rng)
    for _ in range(rng.integers(0, 4)):
        patch = np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
        center = rng.uniform(0.25, 0.75, 2) * _SIDE_PX
        axes = rng.uniform(8, 46, 2)
        if rng.random() < 0.4:
            axes[0] = _SIDE_PX
        cv2.ellipse(patch, (center.tolist(), (2 * axes).tolist(), rng.uniform(0, 360)), 255, -1, cv2.LINE_AA)
        look = np.where(patch[..., None] > 127, _tinted(rng), look)
    return look


def _tinted(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of a texture in a color of its own, brighter or darker to one side."""
    texture = _texture(int(rng.integers(_TONES)))
    top, left = (int(rng.integers(side - _SIDE_PX + 1)) for side in texture.shape[:2])
    window = texture[top : top + _SIDE_PX, left : left + _SIDE_PX].astype(np.float32)
    if rng.random() < 0.6:
        window = window.mean(axis=2, keepdims=True) * (0.3 + 1.2 * rng.random(3, dtype=np.float32))
    across = np.linspace(-1, 1, _SIDE_PX, dtype=np.float32) * rng.uniform(-0.3, 0.3)
    shade = rng.uniform(0.6, 1.4) + (across if rng.random() < 0.5 else across[:, None])
    shade = shade[..., None] if shade.ndim == 2 else shade[None, :, None]
    return np.clip(window * shade, 0, 255).astype(np.uint8)


@lru_cache(maxsize=_TONES)
def _texture(number: int) -> NDArray[np.uint8]:
    """A texture ``(240, 320, 3)``: a place, a table, or noise of two colors."""
    rng = np.random.default_rng([number, *b"textures"])
    shape = (HEIGHT_PX, WIDTH_PX)
    kind = rng.random()
    if kind < 0.5:
        light = any_place(rng, shape)[0]
    elif kind < 0.6:
        light = planks(rng, shape)
    else:
        share = value_noise(rng, shape, rng.uniform(4, 60), octaves=int(rng.integers(1, 4)), stretch=rng.uniform(1, 5))
        if rng.random() < 0.5:
            share = np.clip((share - 0.5) * 6 + 0.5, 0, 1)
        low, high = (hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.1, 0.95)) for _ in range(2))
        light = low + share[..., None] * (high - low)
    texture: NDArray[np.uint8] = np.rint(255 * np.clip(light, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    return texture


def _outlines(mask: NDArray[np.bool_]) -> Sequence[NDArray[np.float64]]:
    """The outlines of a mask, ``(N, 2)`` pixels each; none where too little of it is visible."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    large = [contour for contour in contours if cv2.contourArea(contour) >= _SMALLEST_PX2]
    rings = [cv2.approxPolyDP(contour, 0.4, True)[:, 0] for contour in large]
    return [ring + 0.5 for ring in rings if len(ring) >= 3]
