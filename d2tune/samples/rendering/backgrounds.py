"""Backgrounds: skies, parks, walls, table tops and lights at night, as linear light."""

from __future__ import annotations

import numpy as np

from d2tune.samples.rendering.canvas import blend, blurred, box, ellipse, fill, hsv, linear, pixel_grid, value_noise

Shape = tuple[int, int]


def _mix(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    result: np.ndarray = (low + share[..., None] * (high - low)).astype(np.float32)
    return result


def _step(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 below ``start``, 1 above ``end``, smooth between."""
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def sky(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A blue or hazy sky with clouds, often over tree tops."""
    _, y = pixel_grid(shape)
    down = y / shape[0]
    zenith = hsv(rng.uniform(0.56, 0.62), rng.uniform(0.55, 0.85), rng.uniform(0.6, 0.85))
    horizon = hsv(rng.uniform(0.53, 0.6), rng.uniform(0.1, 0.3), rng.uniform(0.85, 0.97))
    image = _mix(zenith, horizon, down**0.8)
    cloud = value_noise(rng, shape, shape[0] / 2.5, octaves=5, stretch=1.8)
    wisps = _step(cloud, rng.uniform(0.42, 0.52), 0.75)
    relief = value_noise(rng, shape, shape[0] / 6, octaves=4, stretch=1.5)
    blend(image, 0.85 * wisps, (0.62 + 0.35 * relief)[..., None] * np.array([1, 1, 1.02], np.float32))
    if rng.random() < 0.6:
        edge = shape[0] * rng.uniform(0.72, 0.92)
        crowns = edge - shape[0] * 0.16 * value_noise(rng, shape, shape[1] / 7, octaves=5)
        leaves = value_noise(rng, shape, 9, octaves=3)[..., None] * hsv(rng.uniform(0.22, 0.33), 0.6, 0.5)
        blend(image, blurred(_step(y - crowns, -2, 2), rng.uniform(0.8, 2.5)), 0.25 * leaves + 0.01)
    return image


def park(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A lawn before trees that are out of focus."""
    _, y = pixel_grid(shape)
    edge = shape[0] * rng.uniform(0.4, 0.7)
    hue = rng.uniform(0.2, 0.3)
    trees = _mix(hsv(hue + 0.06, 0.75, 0.16), hsv(hue, 0.6, 0.62), value_noise(rng, shape, 60, octaves=4) ** 1.6)
    gaps = _step(value_noise(rng, shape, 45, octaves=3), 0.6, 0.85) * _step(edge - y, 0, shape[0] * 0.4)
    blend(trees, gaps, hsv(0.17, 0.12, 0.95))
    image = blurred(trees, rng.uniform(3, 7))
    for _ in range(rng.integers(0, 4)):
        x = rng.uniform(0, shape[1])
        trunk = fill([box(x, 0, x + rng.uniform(6, 22), edge + 3)], shape, blur_px=rng.uniform(2, 4))
        blend(image, 0.8 * trunk, linear("#3a2c22"))
    blades = 0.6 * value_noise(rng, shape, 4, octaves=2, stretch=0.6) + 0.4 * value_noise(rng, shape, 70, octaves=3)
    lawn = _mix(hsv(hue + 0.02, 0.8, 0.3), hsv(hue - 0.02, 0.7, 0.78), blades**1.4)
    depth = np.clip((y - edge) / (shape[0] - edge), 0, 1)
    near = _step(depth, 0.1, 0.8)
    lawn = lawn * near[..., None] + blurred(lawn, 2.5) * (1 - near[..., None])
    blend(image, _step(y - edge, -3, 5), lawn * (0.75 + 0.35 * depth[..., None]))
    return image


def wall(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A plastered wall with uneven light, sometimes curtains, a frame or a wooden top before it."""
    x, y = pixel_grid(shape)
    base = hsv(rng.uniform(0, 1), rng.uniform(0.04, 0.3), rng.uniform(0.55, 0.92))
    angle, center = rng.uniform(-0.6, 0.6), rng.uniform(0.1, 0.9)
    along = (x / shape[1] - center) * np.cos(angle) + (y / shape[0] - 0.3) * np.sin(angle)
    lamp = 0.5 + 0.6 * np.exp(-((along / rng.uniform(0.3, 0.7)) ** 2))
    rough = 0.9 + 0.12 * value_noise(rng, shape, 3, octaves=2) + 0.1 * value_noise(rng, shape, 90, octaves=3)
    image = (base * (lamp * rough)[..., None]).astype(np.float32)
    if rng.random() < 0.45:
        _hang_curtain(rng, image, x, shape)
    if rng.random() < 0.4:
        _hang_frame(rng, image, shape)
    image = blurred(image, rng.uniform(0.5, 2.0))
    if rng.random() < 0.5:
        top = shape[0] * rng.uniform(0.72, 0.88)
        table = planks(rng, shape) * 0.9
        front = _step(y - top, -1.5, 1.5)
        blend(image, 0.35 * np.exp(-(((y - top) / 14) ** 2)) * (1 - front), np.zeros(3, np.float32))
        blend(image, front, blurred(table, 0.8))
    return image


def _hang_curtain(rng: np.random.Generator, image: np.ndarray, x: np.ndarray, shape: Shape) -> None:
    folds = np.zeros(shape, np.float32)
    for _ in range(4):
        sway = value_noise(rng, shape, shape[0] / 2) * 1.5
        folds += np.sin(x * 2 * np.pi / rng.uniform(18, 60) + rng.uniform(0, 6) + sway)
    cloth = hsv(rng.uniform(0, 1), rng.uniform(0.15, 0.55), rng.uniform(0.45, 0.8))
    edge = shape[1] * rng.uniform(0.2, 0.45)
    side = _step(edge - x + 4 * folds, -2, 2) if rng.random() < 0.5 else _step(x - shape[1] + edge + 4 * folds, -2, 2)
    blend(image, side, cloth * np.clip(0.75 + 0.14 * folds, 0.2, 1.3)[..., None])


def _hang_frame(rng: np.random.Generator, image: np.ndarray, shape: Shape) -> None:
    width, height = rng.uniform(0.15, 0.35, 2) * min(shape)
    left, top = rng.uniform(0, shape[1] - width), rng.uniform(0.02, 0.35) * shape[0]
    outer, inner = (
        fill([box(left + m, top + m, left + width - m, top + height - m)], shape) for m in (0.0, width * 0.09)
    )
    blend(image, 0.4 * blurred(outer, 5), np.zeros(3, np.float32))
    blend(image, outer, hsv(rng.uniform(0.05, 0.12), 0.5, rng.uniform(0.15, 0.7)))
    scene = _mix(hsv(rng.random(), 0.5, 0.3), hsv(rng.random(), 0.35, 0.85), value_noise(rng, shape, 25, octaves=4))
    blend(image, inner, scene)


def bricks(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A brick wall in slanting light."""
    x, y = pixel_grid(shape)
    x = x + 2 * value_noise(rng, shape, 15, octaves=2)
    y = y + 2 * value_noise(rng, shape, 15, octaves=2)
    course = rng.uniform(14, 26)
    length = course * rng.uniform(2.1, 2.8)
    row = np.floor(y / course).astype(int)
    column = np.floor(x / length + 0.5 * (row % 2)).astype(int)
    palette = rng.uniform(0.6, 1.2, (97,)).astype(np.float32)[(row * 31 + column * 17) % 97]
    across, down = (x / length + 0.5 * (row % 2)) % 1 * length, y % course
    edge = np.minimum(np.minimum(across, length - across), np.minimum(down, course - down))
    joint = 1 - _step(edge, 0.8, 2.2)
    clay = hsv(rng.uniform(0.0, 0.07), rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.75))
    grit = 0.65 + 0.7 * value_noise(rng, shape, 5, octaves=3)
    image = (clay * (palette * grit)[..., None]).astype(np.float32)
    blend(image, joint, hsv(0.1, 0.1, 0.55) * grit[..., None])
    shade = 0.6 + 0.6 * value_noise(rng, shape, shape[1] / 1.5, octaves=2)
    return blurred(image * shade[..., None], rng.uniform(0.6, 2.2))


def planks(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A wooden table top."""
    _, y = pixel_grid(shape)
    board = rng.uniform(35, 75)
    row = np.floor(y / board).astype(int)
    grain = value_noise(rng, shape, 7, octaves=4, stretch=12)
    rings = np.sin(18 * value_noise(rng, shape, 40, octaves=2, stretch=6) + 3 * row)
    tone = 0.62 + 0.4 * grain + 0.08 * rings + rng.uniform(-0.12, 0.12, 60).astype(np.float32)[row % 60]
    gap = 1 - _step(np.minimum(y % board, board - y % board), 0.3, 1.6)
    wood = hsv(rng.uniform(0.055, 0.1), rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.8))
    light = 0.7 + 0.5 * value_noise(rng, shape, shape[1])
    result: np.ndarray = (wood * (tone * (1 - 0.6 * gap) * light)[..., None]).astype(np.float32)
    return result


def night(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """A street after dark, its lamps out of focus."""
    image = _mix(hsv(0.62, 0.5, 0.12), hsv(0.08, 0.5, 0.38), value_noise(rng, shape, 120, octaves=3))
    for _ in range(rng.integers(14, 34)):
        radius = rng.uniform(3, 13)
        spot = ellipse((rng.uniform(0, shape[1]), shape[0] * rng.uniform(0.05, 0.8)), radius, radius)
        disc = fill([spot], shape)
        ring = np.clip(disc - 0.35 * blurred(disc, radius / 2.5), 0, 1)
        hue = rng.choice([0.08, 0.11, 0.0, 0.55, 0.33], p=[0.4, 0.25, 0.15, 0.12, 0.08])
        image += (rng.uniform(0.08, 0.4) * blurred(ring, 0.8))[..., None] * hsv(hue, rng.uniform(0.3, 0.8), 1.0)
    return blurred(image, 0.8)


def any_place(rng: np.random.Generator, shape: Shape) -> tuple[np.ndarray, float]:
    """One of the places, and how warm its light is (0 day, 1 lamp)."""
    makers = [(sky, 0.1), (park, 0.2), (wall, 0.6), (bricks, 0.3), (night, 0.9)]
    make, warmth = makers[rng.choice(len(makers), p=[0.2, 0.27, 0.3, 0.15, 0.08])]
    return make(rng, shape), warmth
