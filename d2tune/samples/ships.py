"""Ships seen from above, laid out as Airbus's ship detection data: at sea, in harbors, among clouds and waves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from d2tune.samples.rendering.canvas import (
    blend,
    blurred,
    box,
    cast_shadow,
    develop,
    fill,
    hsv,
    pixel_grid,
    to_image,
    value_noise,
)
from d2tune.samples.rendering.csv_sample import Drawing, Layout, hex_name, write_csv_sample

CLASS_NAMES = ("background", "ship")
SIDE_PX = 256
"""Side of an image, a third of Airbus's."""

_SHAPE = (SIDE_PX, SIDE_PX)
_LAYOUT = Layout("airbus", "train_ship_segmentations_v2.csv", "train_v2", "test_v2", ("ship",))
_TEST_EVERY, _TEST_AT = 10, 9
_EMPTY_SHARE = 0.4
_LEAST_PX = 12
_COUNTS = (0.5, 0.22, 0.12, 0.08, 0.08)
_SUN = (0.7, 0.9)  # how far shadows fall to the right and down, in units of a thing's height


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write ``train_v2/*.jpg``, ``train_ship_segmentations_v2.csv`` and ``test_v2/*.jpg``, each tenth one of the test.

    Returns:
        How many images each split has.
    """
    return write_csv_sample(
        folder,
        _LAYOUT,
        lambda index: _draw(index, seed),
        images=images,
        name_of=lambda index: f"{hex_name('ships', index, 9)}.jpg",
        is_test=lambda index: index % _TEST_EVERY == _TEST_AT,
    )


def _draw(index: int, seed: int) -> Drawing:
    rng = np.random.default_rng([seed, index, *b"ships"])
    image = _sea(rng)
    land = _coast(rng, image) if rng.random() < 0.4 else np.zeros(_SHAPE, np.float32)
    cloud = _add_clouds(rng, image) if rng.random() < 0.35 else np.zeros(_SHAPE, np.float32)
    water = (1 - land) * (1 - cloud)
    taken = cv2.dilate((water < 0.9).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    masks: list[tuple[int, np.ndarray]] = []
    wanted = 0 if rng.random() < _EMPTY_SHARE else 1 + int(rng.choice(len(_COUNTS), p=_COUNTS))
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(12 * wanted):
        if len(masks) == wanted:
            break
        hull, length, angle = _some_hull(rng, heading)
        cover = fill([hull], _SHAPE)
        mask = cover > 0.5
        if mask.sum() >= _LEAST_PX and not (cv2.dilate(cover, np.ones((5, 5))) > 0.05)[taken].any():
            _paint_ship(rng, image, water, hull, length, angle)
            masks.append((0, mask))
            taken |= cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    return develop(rng, image), masks


def _sea(rng: np.random.Generator) -> np.ndarray:
    """Water with waves that run one way, foam here and there, sometimes the sun's glitter."""
    depth = value_noise(rng, _SHAPE, 170, octaves=3)
    water = hsv(rng.uniform(0.47, 0.6), rng.uniform(0.35, 0.75), rng.uniform(0.22, 0.48))
    image = water * (0.75 + 0.5 * depth)[..., None]
    waves = value_noise(rng, _SHAPE, rng.uniform(2.5, 6), octaves=3, stretch=rng.uniform(1.5, 4))
    turn = cv2.getRotationMatrix2D((SIDE_PX / 2, SIDE_PX / 2), rng.uniform(0, 180), 1.42)
    waves = cv2.warpAffine(waves, turn, _SHAPE, borderMode=cv2.BORDER_REFLECT)
    strength = rng.uniform(0.1, 0.55)
    image *= (1 - strength / 2 + strength * waves)[..., None]
    if rng.random() < 0.3:
        caps = np.clip((waves - rng.uniform(0.72, 0.8)) * 9, 0, 1) * (value_noise(rng, _SHAPE, 30) > 0.55)
        blend(image, (0.5 * caps).astype(np.float32), np.full(3, 0.5, np.float32))
    if rng.random() < 0.15:
        x, y = pixel_grid(_SHAPE)
        along = (x * np.cos(turn[0, 1]) + y) / SIDE_PX
        image += (0.18 * np.exp(-(((along - rng.uniform(0.2, 1.2)) / 0.4) ** 2)))[..., None] * np.float32(1)
    return np.ascontiguousarray(image, np.float32)


def _coast(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Paint land along one side, natural or built up with piers; where it lies, (H, W)."""
    x, y = pixel_grid(_SHAPE)
    angle = rng.uniform(0, 2 * np.pi)
    inland = ((x - 128) * np.cos(angle) + (y - 128) * np.sin(angle)) / 128 - rng.uniform(0.25, 0.8)
    if rng.random() < 0.5:
        land = blurred((inland > 0).astype(np.float32), 0.6)
        for _ in range(rng.integers(1, 4)):
            _add_pier(rng, land, angle)
    else:
        land = np.clip((inland + 0.9 * (value_noise(rng, _SHAPE, 70, octaves=5) - 0.5)) * 40, 0, 1).astype(np.float32)
        shallow = blurred(land, 7) * (1 - land)
        blend(image, 0.5 * shallow, hsv(0.47, 0.4, 0.55))
        surf = np.clip(blurred(land, 1.6) * 4, 0, 1) * (1 - land) * value_noise(rng, _SHAPE, 9, octaves=2)
        blend(image, 0.8 * surf, np.full(3, 0.6, np.float32))
    patches = value_noise(rng, _SHAPE, 26, octaves=4)[..., None]
    ground = hsv(rng.uniform(0.08, 0.14), 0.25, 0.55) * (1 - patches) + hsv(rng.uniform(0.2, 0.33), 0.5, 0.32) * patches
    blend(
        image,
        land,
        (1.3 * ground * (0.6 + 0.8 * value_noise(rng, _SHAPE, 4, octaves=2))[..., None]).astype(np.float32),
    )
    if rng.random() < 0.6:
        _add_houses(rng, image, land, angle)
    return land


def _add_pier(rng: np.random.Generator, land: np.ndarray, angle: float) -> None:
    start = rng.uniform(20, SIDE_PX - 20, 2)
    long, wide = rng.uniform(30, 90), rng.uniform(4, 11)
    outline = to_image(box(-long, -wide / 2, long, wide / 2), start, 1.0, angle + rng.choice([0.0, np.pi / 2]))
    middle = np.clip(start.astype(int), 0, SIDE_PX - 1)
    near = cv2.dilate(land, np.ones((61, 61)))[middle[1], middle[0]] > 0.5
    if near:
        np.maximum(land, fill([outline], _SHAPE), out=land)


def _add_houses(rng: np.random.Generator, image: np.ndarray, land: np.ndarray, angle: float) -> None:
    for _ in range(rng.integers(10, 60)):
        spot = rng.uniform(4, SIDE_PX - 4, 2)
        if land[int(spot[1]), int(spot[0])] < 0.99:
            continue
        size = rng.uniform(3, 11, 2)
        roof = fill([to_image(box(-size[0], -size[1], size[0], size[1]) / 2, spot, 1.0, angle)], _SHAPE) * (land > 0.9)
        cast_shadow(image, roof, (2 * _SUN[0], 2 * _SUN[1]), 0.5, 0.5)
        blend(image, roof, hsv(rng.choice([0.03, 0.1, 0.6]), rng.uniform(0, 0.4), rng.uniform(0.4, 0.95)))


def _add_clouds(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Paint clouds and their shadows; how thick they are, (H, W)."""
    veil = np.clip((value_noise(rng, _SHAPE, 60, octaves=4) - rng.uniform(0.55, 0.68)) * 5, 0, 1)
    shifted = np.roll(veil, (14, 10), (0, 1))
    image *= 1 - 0.4 * blurred(shifted, 2)[..., None]
    cloud: np.ndarray = (rng.uniform(0.6, 0.95) * blurred(veil, 1.0)).astype(np.float32)
    blend(image, cloud, np.full(3, 0.85, np.float32))
    return cloud


def _some_hull(rng: np.random.Generator, heading: float) -> tuple[np.ndarray, float, float]:
    """The outline of a ship, its length in pixels and its heading; large ones are rarer than small ones."""
    length = float(np.clip(rng.lognormal(3.3, 0.55), 9, 120))
    angle = heading + (rng.normal(0, 0.1) if rng.random() < 0.4 else rng.uniform(0, 2 * np.pi))
    slim = rng.uniform(0.15, 0.24) if length > 40 else rng.uniform(0.22, 0.36)
    bow = rng.uniform(0.1, 0.3)
    stern = rng.uniform(0.75, 1.0)
    side = [
        (0.5, 0.0),
        (0.5 - 0.45 * bow, 0.32),
        (0.5 - bow, 0.47),
        (0.0, 0.5),
        (-0.4, 0.48),
        (-0.5, 0.5 * stern * 0.9),
    ]
    along = np.array([*side, *[(x, -y) for x, y in reversed(side)]]) * [1.0, slim]
    spot = rng.uniform(0.0, SIDE_PX, 2)
    return to_image(along, spot, length, angle), length, angle


def _paint_ship(
    rng: np.random.Generator, image: np.ndarray, water: np.ndarray, hull: np.ndarray, length: float, angle: float
) -> None:
    cover = fill([hull], _SHAPE)
    if rng.random() < 0.55:
        blend(image, water * _wake(rng, hull, length, angle), np.full(3, 0.6, np.float32))
    cast_shadow(image, cover, (0.05 * length * _SUN[0], 0.05 * length * _SUN[1]), 0.8, 0.45)
    middle = hull.mean(axis=0)
    gray = rng.uniform(0.45, 0.95)
    hue, depth = rng.choice([0.02, 0.58, 0.1]), rng.choice([0.08, 0.55], p=[0.7, 0.3])
    blend(image, cover, 1.1 * hsv(hue, depth, gray))
    wide = 2 * np.abs(hull - middle).max() if length < 15 else length * 0.2
    inner = middle + 0.82 * (hull - middle)
    if length > 18:
        blend(image, 0.6 * fill([inner], _SHAPE), 1.05 * hsv(rng.random(), depth, rng.uniform(0.25, 0.8)))
    if length > 30 and rng.random() < 0.7:
        for place in np.arange(-0.22, 0.32, rng.uniform(0.07, 0.13)):
            cargo = box(place - 0.035, -0.055, place + 0.035, 0.055)
            tone = hsv(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.3, 0.9))
            blend(image, 0.9 * fill([to_image(cargo, middle, length, angle)], _SHAPE), tone)
    house = to_image(box(-0.42, -0.32 * wide / length, -0.3, 0.32 * wide / length), middle, length, angle)
    roof = fill([house], _SHAPE) * (cover > 0.4)
    cast_shadow(image, roof * 1.0, (0.04 * length * _SUN[0], 0.04 * length * _SUN[1]), 0.5, 0.35)
    blend(image, roof, np.full(3, 1.0, np.float32))


def _wake(rng: np.random.Generator, hull: np.ndarray, length: float, angle: float) -> np.ndarray:
    """The foam behind a ship, (H, W): a trail and two arms that open."""
    long = rng.uniform(0.8, 3.0)
    middle = hull.mean(axis=0)
    x, y = pixel_grid(_SHAPE)
    u = ((x - middle[0]) * np.cos(angle) + (y - middle[1]) * np.sin(angle)) / length
    v = ((y - middle[1]) * np.cos(angle) - (x - middle[0]) * np.sin(angle)) / length
    behind = np.clip(-u - 0.35, 0, None)
    trail = np.exp(-((v / (0.07 + 0.05 * behind)) ** 2)) * np.exp(-behind / long * 1.6) * (u < -0.38)
    arms = (
        np.exp(-(((np.abs(v) - 0.12 - 0.22 * (behind + 0.2)) / 0.035) ** 2)) * np.exp(-behind / long * 2.5) * (u < 0.1)
    )
    foam = (0.65 * trail + 0.3 * arms) * (0.5 + 0.8 * value_noise(rng, _SHAPE, 4, octaves=2))
    result: np.ndarray = np.clip(foam, 0, 0.8).astype(np.float32)
    return result
