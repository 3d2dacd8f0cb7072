"""Cars on a turntable in a photo studio, sixteen views of each, laid out as Carvana's image masking data.

A car is a body lofted over a side view, with wheels, windows, lights and mirrors, seen through one camera that goes
round it. Lengths are meters: x from the rear to the front, y to the car's left, z up from the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from d2tune.samples.rendering.canvas import (
    SUPERSAMPLE,
    blend,
    develop,
    ellipse,
    fill,
    hsv,
    linear,
    pixel_grid,
    value_noise,
)
from d2tune.samples.rendering.csv_sample import Drawing, Layout, hex_name, write_csv_sample

CLASS_NAMES = ("background", "car")
VIEWS = 16
SIZE = (214, 320)
"""Height and width in pixels, a sixth of Carvana's."""

_LAYOUT = Layout("carvana", "train_masks.csv", "train", "test", ("car",))
_TEST_EVERY, _TEST_AT = 6, 5
_STATIONS = 72
_SECTION = (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.2, 3.6, 4.0, 4.5, 5.0)

# Share of the length from the rear, height above the floor: the line of the roof, by kind of car.
_ROOFS = {
    "sedan": ((0, 0.72), (0.015, 0.95), (0.16, 1.03), (0.32, 1.38), (0.46, 1.45), (0.58, 1.41), (0.73, 1.0)),
    "hatchback": ((0, 0.7), (0.012, 0.98), (0.1, 1.36), (0.3, 1.49), (0.46, 1.51), (0.56, 1.46), (0.73, 1.03)),
    "suv": ((0, 0.8), (0.012, 1.1), (0.07, 1.6), (0.2, 1.72), (0.46, 1.75), (0.57, 1.7), (0.71, 1.2)),
    "van": ((0, 0.75), (0.01, 1.1), (0.04, 1.66), (0.15, 1.78), (0.56, 1.78), (0.66, 1.7), (0.84, 1.13)),
    "coupe": ((0, 0.7), (0.015, 0.9), (0.12, 0.97), (0.36, 1.3), (0.47, 1.34), (0.55, 1.31), (0.71, 0.95)),
    "pickup": ((0, 0.8), (0.008, 1.08), (0.33, 1.08), (0.36, 1.6), (0.42, 1.72), (0.58, 1.68), (0.7, 1.18)),
}
_LENGTHS = {"sedan": 4.7, "hatchback": 4.1, "suv": 4.6, "van": 4.9, "coupe": 4.5, "pickup": 5.4}


@dataclass(frozen=True)
class _Car:
    kind: str
    length: float
    half_width: float
    paint: np.ndarray
    gloss: float
    wheel_radius: float
    spokes: int
    rim: np.ndarray


@dataclass(frozen=True)
class _Camera:
    eye: np.ndarray
    axes: np.ndarray
    focal_px: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Places (..., 3) in meters as pixels (..., 2)."""
        seen = (np.asarray(points, float) - self.eye) @ self.axes.T
        flat = seen[..., :2] / seen[..., 2:] * self.focal_px
        result: np.ndarray = flat + np.array([SIZE[1] / 2, 0.53 * SIZE[0]])
        return result


class _Sheet:
    """What is painted of the car, at `SUPERSAMPLE` times the size: linear light, and which sub-pixels are hit."""

    def __init__(self, camera: _Camera) -> None:
        self.camera = camera
        self.light = np.zeros((SIZE[0] * SUPERSAMPLE, SIZE[1] * SUPERSAMPLE, 3), np.float32)
        self.hit = np.zeros(self.light.shape[:2], np.uint8)

    def paint(self, corners: np.ndarray, color: np.ndarray, *, hull: bool = False) -> None:
        """Fill the outline through ``corners`` (N, 3), or the convex hull of them."""
        flat = self.camera.project(corners) * SUPERSAMPLE
        if hull:
            flat = cv2.convexHull(flat.astype(np.float32))[:, 0]
        places = [np.rint((flat - 0.5) * 16).astype(np.int32)]
        cv2.fillPoly(self.light, places, [float(value) for value in color], shift=4)
        cv2.fillPoly(self.hit, places, 255, shift=4)


def write(folder: Path, *, images: int, seed: int) -> dict[str, int]:
    """Write ``train/*.jpg``, ``train_masks.csv`` and ``test/*.jpg``; every sixth car is one of the test.

    Returns:
        How many images each split has.
    """
    return write_csv_sample(
        folder,
        _LAYOUT,
        lambda index: _draw(index, seed),
        images=images,
        name_of=lambda index: f"{hex_name('carvana', index // VIEWS, 12)}_{index % VIEWS + 1:02d}.jpg",
        is_test=lambda index: index // VIEWS % _TEST_EVERY == _TEST_AT,
    )


def _draw(index: int, seed: int) -> Drawing:
    number, view = divmod(index, VIEWS)
    car = _some_car(np.random.default_rng([seed, number, *b"carvana"]))
    rng = np.random.default_rng([seed, index, *b"carvana view"])
    camera = _camera(2 * np.pi * (view + rng.normal(0, 0.06)) / VIEWS, rng)
    image = _studio(rng, camera, car)
    sheet = _Sheet(camera)
    _paint_car(sheet, car)
    size = (SIZE[1], SIZE[0])
    coverage = cv2.resize(sheet.hit, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    light = cv2.resize(sheet.light, size, interpolation=cv2.INTER_AREA) / np.maximum(coverage, 1e-3)[..., None]
    blend(image, coverage, light)
    return develop(rng, image), [(0, coverage > 0.5)]


def _some_car(rng: np.random.Generator) -> _Car:
    kind = str(rng.choice(list(_ROOFS), p=[0.34, 0.2, 0.22, 0.08, 0.08, 0.08]))
    gray = rng.choice([0.9, 0.62, 0.3, 0.16, 0.08])
    paint = hsv(rng.uniform(0.5, 0.7), 0.06, gray) if rng.random() < 0.65 else _colored(rng)
    return _Car(
        kind,
        _LENGTHS[kind] * rng.uniform(0.96, 1.04),
        rng.uniform(0.87, 0.95),
        paint,
        rng.uniform(0.35, 0.7),
        rng.uniform(0.31, 0.35) * (1.12 if kind in ("suv", "pickup") else 1.0),
        int(rng.choice([5, 7, 10])),
        hsv(0.6, 0.04, rng.choice([0.85, 0.6, 0.25])),
    )


def _colored(rng: np.random.Generator) -> np.ndarray:
    return hsv(
        rng.choice([0.0, 0.6, 0.58, 0.1, 0.35]) + rng.normal(0, 0.01), rng.uniform(0.6, 0.9), rng.uniform(0.3, 0.8)
    )


def _camera(angle: float, rng: np.random.Generator) -> _Camera:
    eye = np.array([9.5 * np.cos(angle), 9.5 * np.sin(angle), 2.1 + rng.normal(0, 0.05)])
    forward = np.array([0, 0, 0.62]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    axes = np.stack([right, -np.cross(right, forward), forward])
    return _Camera(eye, axes, SIZE[1] * rng.uniform(1.28, 1.36))


def _studio(rng: np.random.Generator, camera: _Camera, car: _Car) -> np.ndarray:
    """A pale wall that turns into the floor, a turntable, strips of light, and the car's soft shadow."""
    x, y = pixel_grid(SIZE)
    tone = rng.uniform(0.55, 0.75)
    wall = tone * (1.0 - 0.25 * np.abs(x / SIZE[1] - rng.uniform(0.4, 0.6)))
    image = wall[..., None] * np.array([1.0, 1.0, 1.02], np.float32)
    far = camera.project(camera.axes[2] * [5.5, 5.5, 0])[1]
    floor = 1 / (1 + np.exp(-(y - far) / 4))
    tiles = 0.93 + 0.14 * value_noise(rng, SIZE, 40, octaves=3, stretch=3)
    shade = tone * (0.72 + 0.2 * (y - far) / SIZE[0])
    blend(image, floor, (shade * tiles)[..., None] * np.array([1, 0.99, 0.97], np.float32))
    _hang_lamps(rng, image, far)
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    rims = [np.stack([r * np.cos(turn), r * np.sin(turn), 0 * turn], 1) for r in (3.3, 3.24)]
    blend(image, 0.5 * fill([camera.project(rims[0])], SIZE), linear("#5d5c5a"))
    inside = fill([camera.project(rims[1])], SIZE)
    blend(image, inside, (0.92 * shade * tiles)[..., None] * np.ones(3, np.float32))
    half = car.length / 2
    print_ = np.array([[-half, -0.95, 0], [half, -0.95, 0], [half, 0.95, 0], [-half, 0.95, 0]])
    for grown, blur_px, strength in ((1.12, 6, 0.45), (0.96, 2, 0.75)):
        image *= 1 - strength * fill([camera.project(grown * print_)], SIZE, blur_px=blur_px)[..., None]
    return np.ascontiguousarray(image, np.float32)


def _hang_lamps(rng: np.random.Generator, image: np.ndarray, far: float) -> None:
    for side in (-1, 1):
        if rng.random() < 0.6:
            middle = SIZE[1] * (0.5 + side * rng.uniform(0.36, 0.47))
            wide = rng.uniform(6, 14)
            stand = np.array([[middle - 1, 0], [middle + 1, 0], [middle + 1, far + 6], [middle - 1, far + 6]])
            lamp = ellipse((middle, rng.uniform(0.08, 0.3) * far), wide, 1.6 * wide)
            blend(image, 0.8 * fill([stand], SIZE), linear("#2b2b2d"))
            blend(image, fill([lamp], SIZE, blur_px=1), np.full(3, 1.1, np.float32))
    dark = fill([np.array([[0, 0], [SIZE[1], 0], [SIZE[1], 5], [0, 5]])], SIZE, blur_px=3)
    blend(image, 0.7 * rng.random() * dark, np.full(3, 0.03, np.float32))


def _paint_car(sheet: _Sheet, car: _Car) -> None:
    eye = sheet.camera.eye
    sides = sorted((-1, 1), key=lambda side: side * eye[1])
    for side in sides:
        for x in _axles(car):
            _paint_tyre(sheet, car, x, side)
    _paint_mirror(sheet, car, sides[0])
    _paint_body(sheet, car)
    if abs(eye[1]) > 1.0:
        for x in _axles(car):
            _paint_wheel(sheet, car, x, sides[1])
    _paint_end(sheet, car, 1 if eye[0] > 0 else -1)
    _paint_mirror(sheet, car, sides[1])


def _axles(car: _Car) -> tuple[float, float]:
    return -0.29 * car.length, 0.32 * car.length


def _roof(car: _Car, share: np.ndarray) -> np.ndarray:
    """The height of the car's top at shares of its length."""
    bonnet = _ROOFS[car.kind][-1][1]
    falling = ((0.88, 0.92 * bonnet), (0.965, 0.8 * bonnet), (0.99, 0.68 * bonnet), (1.0, 0.55 * bonnet))
    height = np.interp(share, *np.array([*_ROOFS[car.kind], *falling]).T)
    kernel = np.array([1, 2, 3, 2, 1]) / 9
    result: np.ndarray = np.convolve(np.pad(height, 2, mode="edge"), kernel, "valid")
    return result


def _body(car: _Car) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (S, M, 3) of the body's left half, S stations by M points from the sill to the middle of the roof.

    Also how high the cabin rises above the belt line, and the slope of the roof, (S,) each.
    """
    ends = np.linspace(-1, 1, _STATIONS)
    share = 0.5 + 0.5 * np.sign(ends) * (1 - (1 - np.abs(ends)) ** 1.3)
    top = _roof(car, share)
    waist = _ROOFS[car.kind][-1][1] - 0.06
    belt = np.minimum(waist - 0.03 * share, top - 0.03)
    width = car.half_width * (1 - 0.16 * np.abs(2 * share - 1) ** 5 - 0.05 * share**3)
    cabin = np.clip((top - belt) / 0.45, 0, 1)
    up = width * (0.96 - 0.2 * cabin)
    bottom = 0.2 + 0.16 * np.abs(2 * share - 1) ** 8
    middle = np.minimum(0.55, 0.5 * (bottom + belt))
    knots = [
        (0.94 * width, bottom),
        (0.99 * width, 0.5 * (bottom + middle)),
        (width, middle),
        (0.97 * width, belt),
        (up, top - 0.05 - 0.03 * cabin),
        (0 * width, top + 0.02),
    ]
    y, z = (np.stack(values, 1) for values in zip(*knots, strict=True))
    at = np.array(_SECTION)
    below = np.minimum(at.astype(int), len(knots) - 2)
    fraction = at - below
    y = y[:, below] * (1 - fraction) + y[:, below + 1] * fraction
    z = z[:, below] * (1 - fraction) + z[:, below + 1] * fraction
    y[:, -2] = 0.62 * y[:, -3]
    z[:, -2] = z[:, -1] - 0.012
    x = np.broadcast_to(((share - 0.5) * car.length)[:, None], y.shape)
    return np.stack([x, y, z], -1), cabin, np.gradient(top, share * car.length)


def _paint_body(sheet: _Sheet, car: _Car) -> None:
    grid, cabin, slope = _body(car)
    quads, tones = [], []
    for side in (1, -1):
        half = grid * [1, side, 1]
        corners = np.stack([half[:-1, :-1], half[1:, :-1], half[1:, 1:], half[:-1, 1:]], 2)
        normal = -side * np.cross(corners[:, :, 1] - corners[:, :, 3], corners[:, :, 2] - corners[:, :, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        color = _shade(car, normal, corners.mean(2), sheet.camera.eye, _materials(car, cabin, slope, corners))
        quads.append(corners.reshape(-1, 4, 3))
        tones.append(np.concatenate([color, normal], -1).reshape(-1, 6))
    for end in (0, -1):
        outline = np.concatenate([grid[end], (grid[end] * [1, -1, 1])[::-1]])
        facing = np.array([-1.0 if end == 0 else 1.0, 0, 0.15])
        color = _shade(car, facing, outline.mean(0), sheet.camera.eye, np.array(0))
        if facing[0] * (sheet.camera.eye[0] - outline[0, 0]) > 0:
            sheet.paint(outline, color)
    corners, tone = np.concatenate(quads), np.concatenate(tones)
    away = corners.mean(1) - sheet.camera.eye
    seen = np.flatnonzero(np.einsum("nk,nk->n", away, tone[:, 3:]) < 0)
    for i in seen[np.argsort(-np.linalg.norm(away[seen], axis=1), kind="stable")]:
        sheet.paint(corners[i], tone[i, :3])


def _materials(car: _Car, cabin: np.ndarray, slope: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """What each quad (S - 1, M - 1) is made of: 0 paint, 1 glass, 2 black plastic."""
    made = np.zeros(corners.shape[:2], int)
    at = np.array(_SECTION[:-1])
    share = corners[:, 0, 0, 0] / car.length + 0.5
    made[:, at < 0.5] = 2
    windows = (cabin[:-1] > 0.55) & (share > (0.4 if car.kind == "pickup" else 0.14))
    pillars = np.abs(share - 0.45) < 0.011
    made[np.ix_(windows & ~pillars, (at >= 3.2) & (at < 4))] = 1
    screens = (np.abs(slope[:-1]) > 0.32) & (cabin[:-1] > 0.12) & (cabin[:-1] < 0.97)
    made[np.ix_(screens & (share > 0.03), at >= 4)] = 1
    return made


def _shade(car: _Car, normal: np.ndarray, place: np.ndarray, eye: np.ndarray, made: np.ndarray) -> np.ndarray:
    """The light (..., 3) that surfaces send to the eye: their color under a bright ceiling, and what they mirror."""
    view = place - eye
    view = view / np.linalg.norm(view, axis=-1, keepdims=True)
    facing = np.sum(view * normal, -1, keepdims=True)
    mirror = (view - 2 * facing * normal)[..., 2]
    room = 0.28 + 0.75 / (1 + np.exp(-(mirror - 0.3) / 0.06)) - 0.2 * np.exp(-((mirror / 0.09) ** 2))
    fresnel = 0.08 + 0.9 * (1 - np.clip(-facing, 0, 1)) ** 4
    albedo = np.stack([car.paint, linear("#12161a"), linear("#1b1b1c")])[made]
    shine = np.array([car.gloss, 0.9, 0.15])[made][..., None]
    lamp = 0.5 + 0.42 * normal[..., 2:] + 0.08 * np.abs(normal[..., 1:2])
    result: np.ndarray = albedo * lamp * 1.05 + shine * fresnel * room[..., None] * 0.75
    return result


def _ring(x: float, y: float, radius: float, points: int = 40) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + radius * np.cos(turn), np.full(points, y), radius * np.sin(turn)], 1)


def _paint_tyre(sheet: _Sheet, car: _Car, x: float, side: int) -> None:
    outer = _ring(x, side * (car.half_width - 0.02), car.wheel_radius)
    inner = _ring(x, side * (car.half_width - 0.26), car.wheel_radius)
    up = np.array([0, 0, car.wheel_radius])
    sheet.paint(np.concatenate([outer, inner]) + up, linear("#151515"), hull=True)


def _paint_wheel(sheet: _Sheet, car: _Car, x: float, side: int) -> None:
    y, radius = side * (car.half_width + 0.005), car.wheel_radius
    up = np.array([0, 0, radius])
    arch = _ring(x, y, 1.16 * radius)
    sheet.paint(np.maximum(arch + up, [-9, -9, 0.2]), linear("#0a0a0b"))
    sheet.paint(_ring(x, y, radius) + up, linear("#1d1d1e"))
    sheet.paint(_ring(x, y, 0.7 * radius) + up, 0.75 * car.rim)
    for spoke in range(car.spokes):
        turn = 2 * np.pi * (spoke + 0.5 + np.array([-0.22, 0.22, 0.1, -0.1])) / car.spokes
        out = radius * np.array([0.64, 0.64, 0.2, 0.2])
        gap = np.stack([x + out * np.cos(turn), np.full(4, y), radius + out * np.sin(turn)], 1)
        sheet.paint(gap, linear("#1a1a1c"))


def _paint_mirror(sheet: _Sheet, car: _Car, side: int) -> None:
    waist = _ROOFS[car.kind][-1][1]
    middle = np.array([0.15 * car.length, side * (car.half_width + 0.08), waist + 0.05])
    signs = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
    tilt = np.where(signs[:, :1] > 0, [[1, 0.6, 0.7]], [[1, 1, 1]])
    sheet.paint(middle + signs * tilt * [0.07, 0.1, 0.07], 0.7 * car.paint + 0.02, hull=True)


def _paint_end(sheet: _Sheet, car: _Car, end: int) -> None:
    """Lights, number plate and grille of the end that is seen."""
    waist = _ROOFS[car.kind][-1][1]
    x = end * (car.length / 2 + 0.004)
    front = end > 0
    high = (0.58 if front else 0.74) * waist

    def panel(left: float, right: float, low: float, top: float, back: float = 0.0) -> np.ndarray:
        inner, outer = x, x - end * back
        return np.array(
            [[inner, left, low], [outer, right, low + 0.02], [outer, right, top], [inner, left, top - 0.02]]
        )

    if front:
        sheet.paint(panel(-0.42, 0.42, 0.36, 0.5), linear("#101112"))
        sheet.paint(panel(-0.4, 0.4, high - 0.08, high + 0.02), linear("#1a1b1c"))
    else:
        sheet.paint(panel(-0.6, 0.6, 0.36, 0.44), linear("#18191a"))
    lamp = np.array([0.85, 0.88, 0.9]) if front else np.array([0.45, 0.02, 0.02])
    for side in (-1, 1):
        sheet.paint(panel(side * 0.47, side * 0.8 * car.half_width, high - 0.07, high + 0.06, 0.02), lamp)
    plate = 0.44 if front else 0.58 * waist
    sheet.paint(panel(-0.24, 0.24, plate - 0.05, plate + 0.06), np.array([0.75, 0.75, 0.72]))
