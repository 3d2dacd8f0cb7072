"""A street: sky, houses, trees and a road as regions, cars and people as objects, outlined in Labelme.

As people draw them, outlines overlap: what was drawn later lies on top, and a car's outline does not cut those of the
road and the house behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from d2tune.samples.rendering.backgrounds import sky
from d2tune.samples.rendering.canvas import (
    Light,
    blend,
    box,
    cast_shadow,
    develop,
    ellipse,
    fill,
    hsv,
    linear,
    pixel_grid,
    random_light,
    smooth,
    stroke,
    value_noise,
)
from d2tune.samples.rendering.labelme_files import write_labelme_pair

THINGS = ("car", "person")
STUFF = ("road", "sky", "building", "vegetation")
CLASS_NAMES = (*THINGS, *STUFF)

_HEIGHT_PX, _WIDTH_PX = 256, 384
_SHAPE = (_HEIGHT_PX, _WIDTH_PX)
_VAL_EVERY, _VAL_AT = 5, 2
_SMALLEST_PX = 6

_CAR_SIDE = (
    (-1.0, -0.16), (-0.99, -0.42), (-0.86, -0.5), (-0.6, -0.55), (-0.34, -0.88), (0.3, -0.9), (0.58, -0.58),
    (0.9, -0.48), (1.0, -0.4), (1.0, -0.16), (0.78, -0.12), (0.74, 0.0), (0.5, 0.0), (0.46, -0.12), (-0.46, -0.12),
    (-0.5, 0.0), (-0.74, 0.0), (-0.78, -0.12),
)  # fmt: skip
_CAR_FRONT = (
    (-0.5, -0.05), (-0.52, -0.5), (-0.4, -0.62), (-0.32, -0.95), (0.32, -0.95), (0.4, -0.62), (0.52, -0.5),
    (0.5, -0.05), (0.46, 0.0), (0.32, 0.0), (0.3, -0.1), (-0.3, -0.1), (-0.32, 0.0), (-0.46, 0.0),
)  # fmt: skip


@dataclass
class _Street:
    """An image in linear light, and the outlines drawn so far: label and polygon."""

    image: np.ndarray
    light: Light
    horizon_px: float
    outlines: list[tuple[str, np.ndarray]] = field(default_factory=list)

    def draw(self, label: str, polygon: np.ndarray) -> np.ndarray:
        """Note the outline of what lies in the image, and return its coverage."""
        inside = np.clip(polygon, 0, (_WIDTH_PX, _HEIGHT_PX))
        if cv2.contourArea(inside.astype(np.float32)) >= _SMALLEST_PX:
            self.outlines.append((label, inside))
        return fill([polygon], _SHAPE)


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write ``images`` photos of 384 x 256 px beside their Labelme files; a fifth is for validation.

    Returns:
        How many images ``train`` and ``val`` have.
    """
    counts = {"train": 0, "val": 0}
    for index in range(images):
        split = "val" if index % _VAL_EVERY == _VAL_AT or (images == 2 and index == 1) else "train"
        photo, outlines = draw(np.random.default_rng([seed, index, *b"street"]))
        write_labelme_pair(folder / split / f"street_{index:04d}.jpg", photo, [(a, (b,)) for a, b in outlines])
        counts[split] += 1
    return counts


def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """A photo, (H, W, 3) uint8, and its outlines from back to front: label and (N, 2) polygon in pixels."""
    horizon_px = rng.uniform(0.4, 0.52) * _HEIGHT_PX
    light = random_light(rng, warmth=rng.uniform(0, 0.4))
    street = _Street(sky(rng, _SHAPE), light, horizon_px)
    street.outlines.append(("sky", box(0, 0, _WIDTH_PX, horizon_px + 8)))
    _add_houses(rng, street)
    _add_trees(rng, street)
    _add_ground(rng, street)
    spots = sorted(rng.uniform(0.1, 0.85, rng.integers(2, 7)))
    for depth in spots:
        add = _add_car if rng.random() < 0.55 else _add_person
        add(rng, street, depth)
    return develop(rng, street.image), street.outlines


def _add_houses(rng: np.random.Generator, street: _Street) -> None:
    left = rng.uniform(-60, 30)
    while left < _WIDTH_PX - 20:
        width = rng.uniform(55, 130)
        if rng.random() < 0.78:
            _add_house(rng, street, left, min(left + width, _WIDTH_PX + 40.0))
        left += width + rng.choice([0, 0, rng.uniform(8, 40)])


def _add_house(rng: np.random.Generator, street: _Street, left: float, right: float) -> None:
    """A front with rows of windows, under a flat or a pitched roof."""
    ground = street.horizon_px + 8
    top = ground - rng.uniform(0.45, 0.95) * street.horizon_px
    wall = box(left, top, right, ground)
    if rng.random() < 0.4:
        ridge = top - rng.uniform(10, 24)
        wall = np.array([[left, ground], [left, top], [(left + right) / 2, ridge], [right, top], [right, ground]])
    cover = street.draw("building", wall)
    tone = hsv(rng.choice([0.03, 0.07, 0.1, 0.6, 0.0]), rng.uniform(0.08, 0.5), rng.uniform(0.4, 0.85))
    rough = 0.85 + 0.2 * value_noise(rng, _SHAPE, 3, octaves=2) + 0.1 * value_noise(rng, _SHAPE, 60)
    blend(street.image, cover, (tone * (0.75 * rough)[..., None]).astype(np.float32))
    step_x, step_y = rng.uniform(15, 24), rng.uniform(18, 27)
    panes = [
        box(x, y, x + 0.5 * step_x, y + 0.6 * step_y)
        for x in np.arange(left + 6, right - 0.6 * step_x, step_x)
        for y in np.arange(top + 6, ground - 0.9 * step_y, step_y)
    ]
    if panes:
        glass = (
            hsv(0.58, rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.6))
            * (0.7 + 0.5 * value_noise(rng, _SHAPE, 30))[..., None]
        )
        blend(street.image, 0.9 * fill(panes, _SHAPE) * cover, glass.astype(np.float32))


def _add_trees(rng: np.random.Generator, street: _Street) -> None:
    for _ in range(rng.integers(1, 5)):
        radius = rng.uniform(18, 42)
        foot = np.array([rng.uniform(0, _WIDTH_PX), street.horizon_px + 9])
        middle = foot - np.array([0, rng.uniform(1.0, 1.5) * radius])
        trunk = fill([box(foot[0] - 3, middle[1], foot[0] + 3, foot[1])], _SHAPE)
        blend(street.image, trunk, linear("#3c2e22"))
        turn = np.linspace(0, 2 * np.pi, 22, endpoint=False)
        reach = radius * rng.uniform(0.82, 1.12, len(turn))
        crown = smooth(middle + reach[:, None] * np.stack([np.cos(turn), 0.95 * np.sin(turn)], 1), rounds=2)
        _paint_leaves(rng, street, street.draw("vegetation", crown))
    if rng.random() < 0.5:
        left, right = np.sort(rng.uniform(-0.2, 1.2, 2)) * _WIDTH_PX
        if right - left > 40:
            x = np.linspace(left, right, 14)
            high = street.horizon_px - rng.uniform(2, 12) - rng.uniform(0, 5, len(x))
            hedge = np.concatenate(
                [np.stack([x, high], 1), [[right, street.horizon_px + 9], [left, street.horizon_px + 9]]]
            )
            _paint_leaves(rng, street, street.draw("vegetation", hedge))


def _paint_leaves(rng: np.random.Generator, street: _Street, cover: np.ndarray) -> None:
    clumps = 0.55 * value_noise(rng, _SHAPE, 4, octaves=2) + 0.45 * value_noise(rng, _SHAPE, 16, octaves=2)
    hue = rng.uniform(0.2, 0.34)
    leaves = hsv(hue, 0.75, 0.62) * (0.1 + 1.5 * clumps**2)[..., None]
    blend(street.image, cover, leaves.astype(np.float32))


def _add_ground(rng: np.random.Generator, street: _Street) -> None:
    """A pavement, which is not outlined, and the road on it."""
    _, y = pixel_grid(_SHAPE)
    depth = np.clip((y - street.horizon_px) / (_HEIGHT_PX - street.horizon_px), 0, 1)
    paving = hsv(rng.uniform(0.06, 0.14), rng.uniform(0.05, 0.2), rng.uniform(0.6, 0.78))
    rough = 0.8 + 0.25 * value_noise(rng, _SHAPE, 2.5, octaves=2, stretch=2)
    ground = fill([box(-5, street.horizon_px + 8, _WIDTH_PX + 5, _HEIGHT_PX + 5)], _SHAPE)
    blend(street.image, ground, (paving * (0.8 * rough)[..., None]).astype(np.float32))
    far, near = street.horizon_px + rng.uniform(11, 18), _HEIGHT_PX - rng.uniform(0, 16)
    lean = rng.uniform(-60, 60)
    road = np.array(
        [[-5, far + 8 + lean / 12], [_WIDTH_PX + 5, far + 8 - lean / 12], [_WIDTH_PX + 5, near], [-5, near]]
    )
    cover = street.draw("road", road)
    asphalt = hsv(rng.uniform(0.55, 0.7), rng.uniform(0.02, 0.1), rng.uniform(0.26, 0.42))
    grain = 0.75 + 0.3 * value_noise(rng, _SHAPE, 2) + 0.2 * value_noise(rng, _SHAPE, 50, octaves=2, stretch=4)
    blend(street.image, cover, (asphalt * (grain * (0.85 + 0.3 * depth))[..., None]).astype(np.float32))
    middle = (far + near) / 2
    for x in np.arange(rng.uniform(-40, 0), _WIDTH_PX, 62):
        dash = np.array([[x, middle], [x + 34, middle], [x + 33, middle + 3.2], [x - 1, middle + 3.2]])
        blend(street.image, 0.8 * fill([dash], _SHAPE), linear("#d8d5c8"))


def _place(rng: np.random.Generator, street: _Street, depth: float) -> tuple[np.ndarray, float]:
    """Where something at ``depth`` (0 far, 1 near) stands, and how many pixels a meter is there."""
    foot_y = street.horizon_px + 16 + depth * (_HEIGHT_PX - street.horizon_px - 22)
    return np.array([rng.uniform(0.06, 0.94) * _WIDTH_PX, foot_y]), 20 + 26 * depth


def _add_car(rng: np.random.Generator, street: _Street, depth: float) -> None:
    foot, meter_px = _place(rng, street, depth)
    side = rng.random() < 0.7
    scale = meter_px * np.array([1.95, 1.65]) if side else meter_px * np.array([1.75, 1.6])
    flip = rng.choice([-1, 1])

    def at(points: object) -> np.ndarray:
        return foot + np.asarray(points, float) * scale * (flip, 1)

    outline = smooth(list(at(_CAR_SIDE if side else _CAR_FRONT)), rounds=2)
    shadow = fill([ellipse(foot, scale[0] * (1.0 if side else 0.55), scale[1] * 0.1)], _SHAPE)
    cast_shadow(street.image, shadow, (2, 1), 2.0, 0.7)
    cover = street.draw("car", outline)
    _, y = pixel_grid(_SHAPE)
    shade = np.clip(1.12 - 0.5 * (y - foot[1] + scale[1]) / scale[1], 0.45, 1.1)
    gray = rng.random() < 0.35
    paint = hsv(
        rng.choice([0.0, 0.02, 0.1, 0.3, 0.58, 0.62]), 0.05 if gray else rng.uniform(0.6, 0.95), rng.uniform(0.35, 0.9)
    )
    blend(street.image, cover, (paint * shade[..., None]).astype(np.float32))
    dark, glass = linear("#141518"), hsv(0.56, 0.25, rng.uniform(0.22, 0.5))
    if side:
        panes = [
            [[-0.5, -0.56], [-0.3, -0.8], [-0.04, -0.81], [-0.04, -0.56]],
            [[0.03, -0.56], [0.03, -0.81], [0.26, -0.82], [0.46, -0.57]],
        ]
        wheels = [ellipse(at((x, -0.15)), 0.17 * scale[0], 0.17 * scale[0]) for x in (-0.62, 0.62)]
        hubs = [ellipse(at((x, -0.15)), 0.08 * scale[0], 0.08 * scale[0]) for x in (-0.62, 0.62)]
        lamps = [at([[0.9, -0.42], [0.99, -0.38], [0.99, -0.3], [0.9, -0.32]])]
    else:
        panes = [[[-0.33, -0.62], [-0.27, -0.88], [0.27, -0.88], [0.33, -0.62]]]
        wheels = [at([[x - 0.08, -0.12], [x + 0.08, -0.12], [x + 0.08, 0.0], [x - 0.08, 0.0]]) for x in (-0.4, 0.4)]
        hubs = [at([[-0.26, -0.3], [0.26, -0.3], [0.26, -0.2], [-0.26, -0.2]])]
        lamps = [ellipse(at((x, -0.42)), 0.07 * scale[0], 0.05 * scale[0]) for x in (-0.4, 0.4)]
    blend(street.image, fill([at(pane) for pane in panes], _SHAPE) * cover, glass)
    blend(street.image, fill(wheels, _SHAPE) * cover, dark)
    blend(street.image, fill(hubs, _SHAPE) * cover, linear("#8a8d92") if side else dark)
    blend(street.image, fill(lamps, _SHAPE) * cover, linear("#fff4d8") if rng.random() < 0.5 else linear("#b01818"))


def _add_person(rng: np.random.Generator, street: _Street, depth: float) -> None:
    foot, meter_px = _place(rng, street, depth)
    tall, wide = 1.9 * meter_px * rng.uniform(0.92, 1.1), 0.95 * meter_px
    stride, arm = rng.uniform(0.04, 0.22), rng.uniform(0.2, 0.3)
    right = [
        (0.07, -0.98),
        (0.085, -0.92),
        (0.06, -0.85),
        (0.2, -0.8),
        (arm, -0.62),
        (arm, -0.46),
        (0.19, -0.45),
        (0.15, -0.6),
        (0.16, -0.42),
        (stride + 0.06, -0.03),
        (stride + 0.1, 0.0),
        (max(stride - 0.06, 0.015), 0.0),
        (0.02, -0.38),
    ]
    left = [(-x, y) for x, y in right[::-1]]
    outline = smooth(list(foot + np.array(right + left) * (wide, tall)), rounds=2)
    shadow = fill([ellipse(foot, 0.3 * wide, 0.04 * tall)], _SHAPE)
    cast_shadow(street.image, shadow, (3, 1), 2.0, 0.6)
    cover = street.draw("person", outline)
    _, y = pixel_grid(_SHAPE)
    up = (foot[1] - y) / tall
    folds = (0.75 + 0.45 * value_noise(rng, _SHAPE, 5, octaves=2))[..., None]
    coat = hsv(rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.3, 0.95)) * folds
    trousers = hsv(rng.choice([0.6, 0.62, 0.08]), rng.uniform(0.1, 0.6), rng.uniform(0.12, 0.45)) * folds
    skin = hsv(rng.uniform(0.04, 0.08), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.9))
    clothes = np.where((up > 0.44)[..., None], coat, trousers)
    body = np.where((up > 0.845)[..., None], skin, clothes).astype(np.float32)
    blend(street.image, cover, body)
    hair = stroke(foot + np.array([[-0.05, -0.965], [0.05, -0.965]]) * (wide, tall), 0.05 * tall, _SHAPE)
    blend(street.image, hair * cover, hsv(rng.uniform(0.04, 0.1), 0.5, rng.uniform(0.05, 0.45)))
