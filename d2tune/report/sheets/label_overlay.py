"""Label maps as images: class colors over an image, maps of their own, and segments of a panoptic result."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.report.sheets.drawing import draw_chips, instance_colors

_BACKGROUNDS = frozenset({"background", "_background_", "void", "nothing", "none", "other"})
_SUBDUED = (108, 114, 124)
_FILL_OPACITY = 0.5
_HATCH_OPACITY = 0.4
_DARK = 24
_SHADES = ((0.0, 1.0, 1.0), (0.03, 0.65, 1.0), (-0.03, 1.0, 0.72), (0.05, 0.9, 0.86), (-0.055, 0.55, 0.92))
_STRETCH_PERCENT = (2.0, 98.0)
_MEASURED_PIXELS = 250_000


def colors(class_names: Sequence[str]) -> np.ndarray:
    """A color for each class, (K, 3) uint8 RGB: distinguishable, and gray for a class named background.

    The color of a class depends only on the classes before it.
    """
    table = np.empty((len(class_names), 3), np.uint8)
    quiet = np.array([name.strip().casefold() in _BACKGROUNDS for name in class_names], bool)
    table[quiet] = _SUBDUED
    table[~quiet] = _far_apart(int(np.count_nonzero(~quiet)))
    return table


def overlay(
    image_rgb: np.ndarray,
    labels: np.ndarray,
    *,
    colors: np.ndarray,
    alpha: float = _FILL_OPACITY,
    background: int | None = None,
) -> np.ndarray:
    """Class colors over an image, with thin contours; ignored pixels are hatched.

    Args:
        image_rgb: (H, W, 3) uint8; it is not changed.
        labels: (H, W) uint8: the place of each pixel's class, 255 for none.
        colors: (K, 3) uint8.
        alpha: Opacity of the colors between contours, 0 to 1.
        background: The place of the class whose pixels stay as they are; None for none.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: The shapes do not match, or a label is neither a class nor 255.
    """
    if image_rgb.shape != (*labels.shape, 3) or image_rgb.dtype != np.uint8:
        raise ValueError(f"an image {image_rgb.shape} {image_rgb.dtype} does not match labels {labels.shape}")
    return _painted(image_rgb, _places(labels, len(colors)), colors, alpha, background)


def color_map(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A label map in the colors of its classes, (H, W, 3) uint8; ignored pixels are hatched gray.

    Args:
        labels: (H, W) uint8: the place of each pixel's class, 255 for none.
        colors: (K, 3) uint8.

    Raises:
        ValueError: A label is neither a class nor 255.
    """
    places = _places(labels, len(colors))
    paper = np.full((*labels.shape, 3), 205, np.uint8)
    painted = np.concatenate([colors, paper[:1, 0]])[places]
    return _hatched(painted.astype(np.float32), places < 0)


def segment_overlay(
    image_rgb: np.ndarray,
    ids: np.ndarray,
    segments: Iterable[tuple[int, int, bool]],
    class_names: Sequence[str],
) -> np.ndarray:
    """A panoptic result over its image: stuff in the colors of its classes, each thing in a shade of its own.

    Things carry their class on a chip as long as there is space; the legend names regions of stuff.

    Args:
        image_rgb: (H, W, 3) uint8; it is not changed.
        ids: (H, W) int32: the segment of each pixel; pixels of no segment are hatched.
        segments: Id, place of the class, and whether it is a thing, of each segment.
        class_names: Names of all classes.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: The image and the ids differ in size.
    """
    if image_rgb.shape != (*ids.shape, 3) or image_rgb.dtype != np.uint8:
        raise ValueError(f"an image {image_rgb.shape} {image_rgb.dtype} does not match segments {ids.shape}")
    table, segments = colors(class_names), list(segments)
    places = np.full(ids.shape, -1, np.int32)
    tones = np.empty((len(segments), 3), np.uint8)
    things, seen = [], [0] * len(class_names)
    for place, (segment_id, class_place, isthing) in enumerate(segments):
        mask = ids == segment_id
        places[mask] = place
        tones[place] = _shade(table[class_place], seen[class_place]) if isthing else table[class_place]
        seen[class_place] += isthing
        if isthing and mask.any():
            things.append((mask, class_names[class_place], tones[place]))
    painted = _painted(image_rgb, places, tones, _FILL_OPACITY)
    things.sort(key=lambda thing: -np.count_nonzero(thing[0]))
    masks, texts, chips = zip(*things, strict=True) if things else ((), (), ())
    return draw_chips(painted, masks, texts, np.array(chips, np.uint8).reshape(-1, 3), largest_share=0.026)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """A view of a raster with any number of channels, (H, W, 3) uint8.

    One or two channels give gray, their mean; three or four their first three as red, green and blue; more the means
    of their first, middle and last third, so that a series shows changes over time. All but 8-bit images are stretched
    so that the dimmest and brightest 2 % of a color saturate. Pixels without data (NaN) are dark.

    Args:
        image: (H, W, C) of any type.

    Raises:
        ValueError: The array is not (H, W, C) with at least one channel.
    """
    if image.ndim != 3 or not image.shape[2]:
        raise ValueError(f"an image must be (H, W, C), not {image.shape}")
    channels = image.shape[2]
    if image.dtype == np.uint8 and channels in (1, 3, 4):
        return np.ascontiguousarray(np.repeat(image, 3, axis=2) if channels == 1 else image[..., :3])
    if channels in (3, 4):
        groups = [slice(i, i + 1) for i in range(3)]
    elif channels < 3:
        groups = [slice(0, channels)]
    else:
        ends = [round(i * channels / 3) for i in range(4)]
        groups = [slice(start, end) for start, end in pairwise(ends)]
    shown = [_stretched(image[..., group]) for group in groups]
    return np.stack(shown if len(shown) == 3 else shown * 3, axis=2)


def _stretched(channels: np.ndarray) -> np.ndarray:
    """The mean of channels, (H, W) uint8 from 24 up, with 24 also where none has data."""
    values = np.asarray(channels, np.float32)
    known = np.isfinite(values)
    count = known.sum(axis=2)
    mean = np.where(known, values, 0).sum(axis=2) / np.maximum(count, 1)
    there = mean[count > 0]
    if not there.size:
        return np.full(mean.shape, _DARK, np.uint8)
    low, high = np.percentile(there[:: max(1, there.size // _MEASURED_PIXELS)], _STRETCH_PERCENT)
    share = np.clip((mean - low) / (high - low), 0, 1) if high > low else np.full(mean.shape, 0.5)
    result: np.ndarray = np.where(count > 0, _DARK + share * (255 - _DARK), _DARK).astype(np.uint8)
    return result


def _places(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels as int32 with -1 for ignored pixels."""
    places = labels.astype(np.int32)
    places[labels == IGNORE_LABEL] = -1
    if places.max(initial=-1) >= classes:
        raise ValueError(f"label {places.max()} is outside the {classes} classes")
    return places


def _painted(
    image_rgb: np.ndarray, places: np.ndarray, table: np.ndarray, alpha: float, background: int | None = None
) -> np.ndarray:
    """The image under the colors (N, 3) of ``places`` (H, W), -1 for none, with contours of full color."""
    rows = np.concatenate([table.astype(np.float32), np.zeros((1, 3), np.float32)])
    shares = np.append(np.full(len(table), alpha, np.float32), np.float32(0))
    is_painted = np.append(np.ones(len(table), bool), False)
    if background is not None:
        shares[background], is_painted[background] = 0, False
    opacity = shares[places]
    opacity[_contours(places) & is_painted[places]] = 1.0
    canvas = image_rgb.astype(np.float32)
    canvas += opacity[..., None] * (rows[places] - canvas)
    return _hatched(canvas, places < 0)


def _contours(places: np.ndarray) -> np.ndarray:
    """Where a pixel's neighborhood, as wide as a thin line in an image of this size, holds another region."""
    edge = np.zeros(places.shape, np.uint8)
    across, down = places[:, 1:] != places[:, :-1], places[1:] != places[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    wide = int(0.0016 * float(np.sqrt(places.size)))
    return cv2.dilate(edge, np.ones((2 * wide - 1,) * 2, np.uint8)).astype(bool) if wide > 1 else edge.astype(bool)


def _hatched(canvas: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Diagonal lines over ignored pixels, (H, W, 3) uint8."""
    if where.any():
        period = max(6, round(0.018 * float(np.sqrt(where.size))))
        y, x = np.ogrid[: where.shape[0], : where.shape[1]]
        line = where & ((x + y) % period < max(1, period // 5))
        canvas[line] += _HATCH_OPACITY * (245 - canvas[line])
        dark = where & ((x + y - max(1, period // 5)) % period < max(1, period // 5))
        canvas[dark] *= 1 - 0.7 * _HATCH_OPACITY
    result: np.ndarray = np.rint(canvas).astype(np.uint8)
    return result


def _shade(color: np.ndarray, turn: int) -> np.ndarray:
    """One of five shades of a color, the first the color itself."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(float(channel) / 255 for channel in color))
    by_hue, by_saturation, by_value = _SHADES[turn % len(_SHADES)]
    rgb = colorsys.hsv_to_rgb((hue + by_hue) % 1, saturation * by_saturation, value * by_value)
    shade: np.ndarray = np.rint(255 * np.array(rgb)).astype(np.uint8)
    return shade


@lru_cache(maxsize=32)
def _far_apart(count: int) -> np.ndarray:
    """The colors of instances, and then each time the one farthest from all before it as CIE Lab sees them."""
    first = instance_colors(12)
    steps = [(h / 36, s, v) for h in range(36) for s in (0.4, 0.65, 1.0) for v in (0.4, 0.55, 0.7, 0.85, 1.0)]
    pool = np.rint(255 * np.array([colorsys.hsv_to_rgb(*step) for step in steps])).astype(np.uint8)
    chosen = list(first[:count])
    gaps = np.min([_differences(pool, color) for color in first], axis=0)
    while len(chosen) < count:
        chosen.append(pool[gaps.argmax()])
        gaps = np.minimum(gaps, _differences(pool, chosen[-1]))
    return np.array(chosen, np.uint8).reshape(count, 3)


def _differences(pool: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Distance of each color, (N, 3), from one, in CIE Lab (CIE 1976)."""
    both = np.concatenate([pool, color[None]])[None].astype(np.float32) / 255
    lab = cv2.cvtColor(both, cv2.COLOR_RGB2LAB)[0]
    result: np.ndarray = np.linalg.norm(lab[:-1] - lab[-1], axis=1)
    return result
