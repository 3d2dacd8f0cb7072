"""Drawing in linear light: noise, coverage masks, shading, and the step from light to a photo's bytes.

Images are (H, W, 3) float32 arrays of linear light, 1.0 being white paper; coordinates are pixels,
continuous, pixel i covering [i, i + 1). Nothing here depends on the number of threads.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

SUPERSAMPLE = 4
"""Sub-pixels per pixel and axis in masks."""

_SHIFT_BITS = 4

Point: TypeAlias = Sequence[float] | np.ndarray
"""An x and a y, in pixels unless stated otherwise."""


@dataclass(frozen=True)
class Light:
    """Where the light comes from: unit vector ``direction`` (x right, y down, z to the viewer), linear colors (3,)."""

    direction: np.ndarray
    color: np.ndarray
    ambient: np.ndarray


def linear(hex_color: str) -> np.ndarray:
    """A color like ``"#c03020"`` as linear light, (3,) float32."""
    values = [int(hex_color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.array(values, np.float32) ** 2.2


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """A color by hue, saturation and value (each 0 to 1, hue taken modulo 1) as linear light, (3,) float32."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return np.array(rgb, np.float32) ** 2.2


def random_light(rng: np.random.Generator, *, warmth: float = 0.0) -> Light:
    """A light from above, left or right; ``warmth`` shifts its color from daylight (0) to a lamp (1)."""
    direction = np.array([rng.uniform(-0.75, 0.75), rng.uniform(-0.85, -0.35), rng.uniform(0.55, 0.95)], np.float32)
    tint = np.array([1 + 0.12 * warmth, 1.0, 1 - 0.22 * warmth], np.float32)
    sky = np.array([1 - 0.05 * (1 - warmth), 1.0, 1 + 0.1 * (1 - warmth)], np.float32)
    strength = rng.uniform(0.75, 1.0)
    return Light(direction / np.linalg.norm(direction), strength * tint, rng.uniform(0.26, 0.4) * sky)


def value_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell_px: float, *, octaves: int = 1, stretch: float = 1.0
) -> np.ndarray:
    """Smooth noise, (H, W) float32 in 0 to 1: random values on a grid of ``cell_px``, joined by cubic curves.

    Each further octave has half the cell and half the weight; ``stretch`` widens the cells horizontally.
    """
    height, width = shape
    total, weight, weights = np.zeros(shape, np.float32), 1.0, 0.0
    for octave in range(octaves):
        cell_y = max(cell_px / 2**octave, 1.0)
        cell_x = max(cell_px * stretch / 2**octave, 1.0)
        rows, cols = int(np.ceil(height / cell_y)) + 3, int(np.ceil(width / cell_x)) + 3
        cells = rng.random((rows, cols), dtype=np.float32)
        big = cv2.resize(cells, (round(cols * cell_x), round(rows * cell_y)), interpolation=cv2.INTER_CUBIC)
        top, left = int(cell_y), int(cell_x)
        total += weight * big[top : top + height, left : left + width]
        weights += weight
        weight *= 0.5
    result: np.ndarray = np.clip(total / weights, 0.0, 1.0)
    return result


def pixel_grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The x and y of every pixel's center, each (H, W) float32."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return x + 0.5, y + 0.5


def local_grid(shape: tuple[int, int], center: Point, size_px: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel's place in an object's own frame (see :func:`to_image`), each (H, W) float32."""
    x, y = pixel_grid(shape)
    x, y = (x - center[0]) / size_px, (y - center[1]) / size_px
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def to_image(points: np.ndarray, center: Point, size_px: float, angle: float) -> np.ndarray:
    """(N, 2) points of an object's own frame, turned by ``angle`` radians, scaled and moved into the image."""
    cos, sin = np.cos(angle), np.sin(angle)
    result: np.ndarray = points @ np.array([[cos, sin], [-sin, cos]]) * size_px + np.asarray(center, float)
    return result


def ellipse(center: Point, radius_x: float, radius_y: float, *, points: int = 72) -> np.ndarray:
    """An ellipse as a (points, 2) polygon."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([center[0] + radius_x * np.cos(turn), center[1] + radius_y * np.sin(turn)], axis=1)


def box(left: float, top: float, right: float, bottom: float, *, radius: float = 0.0) -> np.ndarray:
    """A rectangle as a polygon, its corners rounded by ``radius``."""
    if radius <= 0:
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)
    quarter = np.linspace(0, np.pi / 2, 7)
    corners = [
        (right - radius, bottom - radius, 0.0),
        (left + radius, bottom - radius, np.pi / 2),
        (left + radius, top + radius, np.pi),
        (right - radius, top + radius, 1.5 * np.pi),
    ]
    arcs = [
        np.stack([x + radius * np.cos(quarter + start), y + radius * np.sin(quarter + start)], 1)
        for x, y, start in corners
    ]
    return np.concatenate(arcs)


def smooth(points: Sequence[Point], *, rounds: int = 3) -> np.ndarray:
    """A closed polygon with its corners cut ``rounds`` times (Chaikin 1974), which tends to a smooth curve."""
    ring = np.asarray(points, float)
    for _ in range(rounds):
        after = np.roll(ring, -1, axis=0)
        ring = np.stack([0.75 * ring + 0.25 * after, 0.25 * ring + 0.75 * after], axis=1).reshape(-1, 2)
    return ring


def curve(start: Point, bend: Point, end: Point, *, points: int = 24) -> np.ndarray:
    """A quadratic Bezier curve as (points, 2)."""
    t = np.linspace(0, 1, points)[:, None]
    first, middle, last = (np.asarray(p, float) for p in (start, bend, end))
    result: np.ndarray = (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last
    return result


def fill_mask(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The union of polygons as a (H * SUPERSAMPLE, W * SUPERSAMPLE) uint8 mask of 0 and 255."""
    mask = np.zeros((shape[0] * SUPERSAMPLE, shape[1] * SUPERSAMPLE), np.uint8)
    _fill_into(mask, polygons)
    return mask


def to_coverage(mask: np.ndarray) -> np.ndarray:
    """The covered share of every pixel, (H, W) float32, of a mask of :func:`fill_mask`."""
    size = (mask.shape[1] // SUPERSAMPLE, mask.shape[0] // SUPERSAMPLE)
    result: np.ndarray = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return result


def fill(polygons: Sequence[np.ndarray], shape: tuple[int, int], *, blur_px: float = 0.0) -> np.ndarray:
    """The coverage of the union of polygons, (H, W) float32, with edges softened by ``blur_px``."""
    spread = np.concatenate(polygons)
    return _rastered(lambda mask, offset: _fill_into(mask, [p - offset for p in polygons]), spread, 1.0, shape, blur_px)


def stroke(points: np.ndarray, width_px: float, shape: tuple[int, int], *, blur_px: float = 0.0) -> np.ndarray:
    """The coverage of an open line, (H, W) float32."""
    thickness = max(1, round(width_px * SUPERSAMPLE))

    def draw(mask: np.ndarray, offset: np.ndarray) -> None:
        cv2.polylines(mask, [_fixed_point(points - offset)], False, 255, thickness, shift=_SHIFT_BITS)

    return _rastered(draw, points, width_px + 1, shape, blur_px)


def ribbon(points: np.ndarray, width_px: float) -> np.ndarray:
    """The outline of a line of constant width, as a polygon."""
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) * width_px / 2
    return np.concatenate([points + side, (points - side)[::-1]])


def text(
    words: str, center: Point, height_px: float, angle: float, shape: tuple[int, int], *, bold: int = 2
) -> np.ndarray:
    """The coverage of a line of text turned about its center, (H, W) float32."""
    (width, height), base = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 1.0, bold)
    sheet = np.zeros((height + base + 8, width + 8), np.uint8)
    cv2.putText(sheet, words, (4, height + 4), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, bold, cv2.LINE_AA)
    scale = height_px / height
    sheet = cv2.GaussianBlur(sheet, (0, 0), max(0.3, 0.35 / scale))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    middle = np.array([4 + width / 2, 4 + height / 2])
    turn = np.array([[cos, -sin], [sin, cos]])
    shift = np.asarray(center, float) - 0.5 - turn @ middle
    placed = cv2.warpAffine(sheet, np.column_stack([turn, shift]), (shape[1], shape[0]))
    result: np.ndarray = placed.astype(np.float32) / 255
    return result


def blurred(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """The image through a Gaussian blur; unchanged where ``sigma_px`` is below 0.05."""
    return image if sigma_px < 0.05 else cv2.GaussianBlur(image, (0, 0), sigma_px)


def blend(image: np.ndarray, coverage: np.ndarray, color: np.ndarray) -> None:
    """Paint ``color``, (3,) or (H, W, 3), over ``image`` in place, with ``coverage`` as its opacity."""
    left, top, width, height = cv2.boundingRect((coverage > 0).astype(np.uint8))
    window = slice(top, top + height), slice(left, left + width)
    view = image[window]
    view += coverage[window][..., None] * ((color[window] if color.ndim == 3 else color) - view)


def cast_shadow(image: np.ndarray, coverage: np.ndarray, offset_px: Point, blur_px: float, strength: float) -> None:
    """Darken ``image`` in place by the soft, shifted shadow of ``coverage``."""
    move = np.array([[1, 0, offset_px[0]], [0, 1, offset_px[1]]], np.float32)
    shifted = cv2.warpAffine(coverage, move, coverage.shape[::-1])
    image *= 1 - strength * blurred(shifted, blur_px)[..., None]


def dome_normals(outline: np.ndarray, center: Point, shape: tuple[int, int]) -> np.ndarray:
    """Surface normals of a body as round as a ball over a star-shaped outline, (H, W, 3) float32.

    Along each ray from the center the height falls as on a sphere that meets the outline at the rim.
    """
    x, y = pixel_grid(shape)
    x, y = x - center[0], y - center[1]
    rim = outline - np.asarray(center)
    rim_angle, rim_radius = np.arctan2(rim[:, 1], rim[:, 0]), np.hypot(rim[:, 0], rim[:, 1])
    order = np.argsort(rim_angle)
    table = np.interp(np.linspace(-np.pi, np.pi, 1024), rim_angle[order], rim_radius[order], period=2 * np.pi)
    index = ((np.arctan2(y, x) + np.pi) * (1023 / (2 * np.pi))).astype(np.int32)
    across = np.minimum(np.hypot(x, y) / table[index].astype(np.float32), 0.999)
    away = np.maximum(np.hypot(x, y), 1e-3)
    return np.stack([across * x / away, across * y / away, np.sqrt(1 - across**2)], axis=-1)


def bump(normals: np.ndarray, height_map: np.ndarray, depth: float) -> np.ndarray:
    """Normals tilted by the slope of a (H, W) height map times ``depth``."""
    tilted = normals.copy()
    tilted[..., 0] -= depth * cv2.Sobel(height_map, cv2.CV_32F, 1, 0, scale=0.125)
    tilted[..., 1] -= depth * cv2.Sobel(height_map, cv2.CV_32F, 0, 1, scale=0.125)
    result: np.ndarray = tilted / np.linalg.norm(tilted, axis=-1, keepdims=True)
    return result


def lit(normals: np.ndarray, albedo: np.ndarray, light: Light, *, wrap: float = 0.15) -> np.ndarray:
    """Matt shading (Lambert, its terminator softened by ``wrap``), (H, W, 3): ``albedo`` is (3,) or (H, W, 3)."""
    facing = np.clip((normals @ light.direction + wrap) / (1 + wrap), 0, 1)[..., None]
    upward = (0.75 - 0.25 * normals[..., 1])[..., None]
    result: np.ndarray = albedo * (facing * light.color + upward * light.ambient)
    return result


def glint(normals: np.ndarray, light: Light, *, sharpness: float) -> np.ndarray:
    """The mirror-like highlight (Blinn 1977), (H, W) float32."""
    half = light.direction + np.array([0, 0, 1], np.float32)
    result: np.ndarray = np.clip(normals @ (half / np.linalg.norm(half)), 0, 1) ** sharpness
    return result


def develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What a camera makes of linear light: lens blur, fall-off, exposure, photon and read noise; (H, W, 3) uint8."""
    height, width = image.shape[:2]
    x, y = pixel_grid((height, width))
    radius = np.hypot((x - width / 2) / width, (y - height / 2) / height)
    falloff = 1 - rng.uniform(0.15, 0.55) * radius**2
    exposed = blurred(image, rng.uniform(0.35, 0.75)) * falloff[..., None]
    exposed *= rng.uniform(0.9, 1.12) * rng.uniform(0.96, 1.04, 3).astype(np.float32)
    grain = rng.standard_normal(exposed.shape, dtype=np.float32)
    grain = 0.75 * grain + 0.5 * blurred(grain, 0.8)
    noise = rng.uniform(0.004, 0.012)
    exposed = np.maximum(exposed, 0)
    exposed += grain * (noise * np.sqrt(exposed) + 0.25 * noise * exposed + 0.0006)
    shoulder = np.where(exposed > 0.7, 0.7 + 0.3 * (1 - np.exp(-(exposed - 0.7) / 0.3)), np.maximum(exposed, 0))
    result: np.ndarray = np.rint(255 * shoulder ** (1 / 2.2)).astype(np.uint8)
    return result


def _fill_into(mask: np.ndarray, polygons: Sequence[np.ndarray]) -> None:
    for polygon in polygons:
        cv2.fillPoly(mask, [_fixed_point(polygon)], 255, shift=_SHIFT_BITS)


def _rastered(
    draw: Callable[[np.ndarray, np.ndarray], None],
    points: np.ndarray,
    margin_px: float,
    shape: tuple[int, int],
    blur_px: float,
) -> np.ndarray:
    """The coverage of what ``draw`` paints into a mask just large enough for ``points``, whose origin it gets."""
    margin_px += 4 * blur_px
    limits = np.array(shape[::-1])
    start = np.clip(np.floor(points.min(axis=0) - margin_px), 0, limits).astype(int)
    end = np.clip(np.ceil(points.max(axis=0) + margin_px), 0, limits).astype(int)
    coverage = np.zeros(shape, np.float32)
    if np.all(end > start):
        mask = np.zeros(((end - start) * SUPERSAMPLE)[::-1], np.uint8)
        draw(mask, start)
        coverage[start[1] : end[1], start[0] : end[0]] = blurred(to_coverage(mask), blur_px)
    return coverage


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Continuous pixels as OpenCV's fixed-point indices of sub-pixel centers."""
    scaled = (np.asarray(points, float) * SUPERSAMPLE - 0.5) * 2**_SHIFT_BITS
    result: np.ndarray = np.rint(np.clip(scaled, -(2**28), 2**28)).astype(np.int32)
    return result
