"""The mask of an object from scribbles or a box, by GrabCut (Rother et al. 2004) or random walker (Grady 2006).

Both work on a crop around the marks, scaled to a fixed size, in smoothed CIELAB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError

Method = Literal["grabcut", "random-walker"]
METHODS: tuple[Method, ...] = ("grabcut", "random-walker")

_SIDES_PX: dict[Method, int] = {"grabcut": 200, "random-walker": 128}
"""Longer side of the crop that each method works on."""

_ENCLOSED_MARGIN, _OPEN_MARGIN, _BOX_MARGIN = 0.05, 0.5, 0.25
"""Margins of the crop, as shares of the sides of the marks' bounding box."""

_NEAR = 0.75
"""In a ring, pixels whose distance to the object's scribbles is below this share of both distances begin as its own."""

_ELLIPSE, _CORE = 0.95, 0.1
"""Squared radii of the ellipses in a box that begin as the object's, and that are taken for sure."""

_NEARER = 4
"""How many times nearer, in squared distances, colors in a box are to its middle than to its outside where they are the
object's for sure."""

_MOST_COLORS = 48
"""Colors of a scribble that pixels are compared with, about."""

_BETA = 20_000.0
"""How much a step in color hinders the walker. The library's default, 130, follows distances rather than colors."""

_LEAST_SHARE = 0.3
"""An outline below this share of what GrabCut began with has collapsed."""

_ITERATIONS = 5


@dataclass(frozen=True, slots=True)
class _Marks:
    """What is known of the pixels of a scaled crop, all ``(h, w)``.

    Attributes:
        image: CIELAB uint8 ``(h, w, 3)``.
        inside: Surely the object.
        outside: Surely not.
        likely: Where the object is supposed to be.
    """

    image: NDArray[np.uint8]
    inside: Mask
    outside: Mask
    likely: Mask


@dataclass(frozen=True, slots=True)
class _Crop:
    """A region of an image and its scale.

    Attributes:
        rows: Rows of the image.
        columns: Columns of the image.
        size_px: Width and height of the scaled crop.
    """

    rows: slice
    columns: slice
    size_px: tuple[int, int]

    @property
    def is_smaller(self) -> bool:
        """Whether the scaled crop has fewer pixels than the region."""
        return bool(self.size_px[0] < self.columns.stop - self.columns.start)

    def pixels(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The scaled crop in smoothed CIELAB."""
        how = cv2.INTER_AREA if self.is_smaller else cv2.INTER_CUBIC
        scaled = cv2.resize(rgb[self.rows, self.columns], self.size_px, interpolation=how)
        smooth: NDArray[np.uint8] = cv2.cvtColor(cv2.GaussianBlur(scaled, (0, 0), 1), cv2.COLOR_RGB2LAB)
        return smooth

    def mark(self, mask: Mask) -> Mask:
        """A scaled mask, in which no pixel of a scribble is lost."""
        how, least = (cv2.INTER_AREA, 0.0) if self.is_smaller else (cv2.INTER_LINEAR, 0.4)
        return np.asarray(
            cv2.resize(mask[self.rows, self.columns].astype(np.float32), self.size_px, interpolation=how) > least
        )

    def pasted(self, mask: Mask, shape: tuple[int, int]) -> Mask:
        """The mask of the whole image."""
        whole = np.zeros(shape, dtype=bool)
        width_px = self.columns.stop - self.columns.start
        height_px = self.rows.stop - self.rows.start
        how = cv2.INTER_LINEAR if self.is_smaller else cv2.INTER_AREA
        whole[self.rows, self.columns] = (
            cv2.resize(mask.astype(np.float32), (width_px, height_px), interpolation=how) >= 0.5
        )
        return whole


def outline_scribbles(rgb: NDArray[np.uint8], inside: Mask, outside: Mask, *, method: Method = "grabcut") -> Mask:
    """The object that scribbles mark.

    Where the scribbles around it close a ring, everything beyond the ring is known to be outside.

    Args:
        rgb: The image ``(H, W, 3)``.
        inside: Pixels of scribbles on the object ``(H, W)``.
        outside: Pixels of scribbles beside it ``(H, W)``; a pixel of both is inside.
        method: ``grabcut`` or ``random-walker``.

    Returns:
        ``(H, W)``, with all of ``inside``.

    Raises:
        DataError: One of the two has no pixels.
    """
    if not inside.any() or not outside.any():
        missing = "of the background" if inside.any() else "on the object"
        raise DataError(
            f"there is no scribble {missing}",
            expected="scribbles of both",
            hint="Draw a line on the object and another around it.",
        )
    outside = outside & ~inside
    is_enclosed = _is_enclosed(inside, outside)
    margin = _ENCLOSED_MARGIN if is_enclosed else _OPEN_MARGIN
    crop = _crop(_box_xywh(inside | outside), rgb, margin, _SIDES_PX[method])
    core = crop.mark(inside)
    line = crop.mark(outside) & ~core
    beyond = _beyond(core, line)
    pixels = crop.pixels(rgb)
    if is_enclosed:
        to_core, to_outside = _distance(core), _distance(beyond | line)
        likely = to_core < _NEAR * (to_core + to_outside + 1e-6)
    else:
        likely = _color_distance(pixels, core) < _color_distance(pixels, line)
    marks = _Marks(pixels, core, beyond | line, likely)
    return crop.pasted(_solved(marks, method), rgb.shape[:2]) | inside


def outline_box(
    rgb: NDArray[np.uint8],
    box_xyxy: tuple[float, float, float, float],
    *,
    inside: Mask | None = None,
    outside: Mask | None = None,
    method: Method = "grabcut",
) -> Mask:
    """The object that fills a box.

    Args:
        rgb: The image ``(H, W, 3)``.
        box_xyxy: Left, top, right and bottom of the box.
        inside: Pixels of scribbles on the object ``(H, W)``; None where there are none. They count inside the box.
        outside: Pixels of scribbles beside the object ``(H, W)``; None where there are none.
        method: ``grabcut`` or ``random-walker``.

    Returns:
        ``(H, W)``, nothing outside of the box.

    Raises:
        DataError: The box has no pixels on the image.
    """
    height_px, width_px = rgb.shape[:2]
    left, right = (int(np.clip(round(side), 0, width_px)) for side in box_xyxy[0::2])
    top, bottom = (int(np.clip(round(side), 0, height_px)) for side in box_xyxy[1::2])
    if right - left < 2 or bottom - top < 2:
        size = f"{max(0, right - left)} x {max(0, bottom - top)} px"
        raise DataError("the box is too small", found=size, expected="2 x 2 px or more on the image")
    crop = _crop((left, top, right - left, bottom - top), rgb, _BOX_MARGIN, _SIDES_PX[method])
    scale_x = crop.size_px[0] / (crop.columns.stop - crop.columns.start)
    scale_y = crop.size_px[1] / (crop.rows.stop - crop.rows.start)
    x0, x1 = ((side - crop.columns.start) * scale_x for side in (left, right))
    y0, y1 = ((side - crop.rows.start) * scale_y for side in (top, bottom))
    rows, columns = np.mgrid[: crop.size_px[1], : crop.size_px[0]] + 0.5
    radius = ((2 * columns - x0 - x1) / (x1 - x0)) ** 2 + ((2 * rows - y0 - y1) / (y1 - y0)) ** 2
    beyond = (columns < x0) | (columns > x1) | (rows < y0) | (rows > y1)
    own, line = (np.zeros_like(beyond) if mask is None else crop.mark(mask) & ~beyond for mask in (inside, outside))
    beyond |= line & ~own
    pixels, core, likely = crop.pixels(rgb), (radius < _CORE) & ~beyond, (radius < _ELLIPSE) & ~beyond
    if own.any():
        core = own
        if beyond.any():
            likely = ~beyond & (_color_distance(pixels, own) < _color_distance(pixels, beyond))
    if method == "random-walker" and core.any() and beyond.any():
        # walkers that start at the middle alone end at the first edge
        is_near = _NEARER * _color_distance(pixels, core) < _color_distance(pixels, beyond)
        core = core | (likely & is_near)
    marks = _Marks(pixels, core, beyond, likely)
    mask = crop.pasted(_solved(marks, method), rgb.shape[:2])
    kept = np.zeros_like(mask)
    kept[top:bottom, left:right] = mask[top:bottom, left:right]
    return kept


def _crop(box_xywh: tuple[int, int, int, int], rgb: NDArray[np.uint8], margin: float, side_px: int) -> _Crop:
    """The region around a box, scaled so that its longer side has ``side_px`` pixels."""
    x, y, width, height = box_xywh
    grow_x, grow_y = int(width * margin) + 3, int(height * margin) + 3
    left, right = max(0, x - grow_x), min(rgb.shape[1], x + width + grow_x)
    top, bottom = max(0, y - grow_y), min(rgb.shape[0], y + height + grow_y)
    scale = side_px / max(right - left, bottom - top)
    size_px = max(2, round((right - left) * scale)), max(2, round((bottom - top) * scale))
    return _Crop(slice(top, bottom), slice(left, right), size_px)


def _is_enclosed(inside: Mask, line: Mask) -> bool:
    """Whether scribbles, with the borders of the image, enclose those on the object."""
    marks = inside | line
    return _box_xywh(marks | ~_beyond(inside, line)) == _box_xywh(cv2.dilate(marks.astype(np.uint8), np.ones((3, 3))))


def _box_xywh(mask: NDArray[Any]) -> tuple[int, int, int, int]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, width, height


def _beyond(inside: Mask, line: Mask) -> Mask:
    """The pixels that scribbles separate from those on the object."""
    barrier = cv2.dilate(line.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~inside
    _, regions = cv2.connectedComponents((~barrier).astype(np.uint8), connectivity=4)
    return np.asarray(~np.isin(regions, np.unique(regions[inside])) & ~barrier)


def _distance(mask: Mask) -> NDArray[np.float32]:
    """The distance of each pixel to the mask, in pixels."""
    distances: NDArray[np.float32] = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return distances


def _color_distance(pixels: NDArray[np.uint8], marked: Mask) -> NDArray[np.float32]:
    """The distance in color of each pixel ``(h, w)`` to the nearest of the marked pixels, or of some of them."""
    colors = pixels[marked].astype(np.float32)
    nearest = np.full(marked.shape, np.inf, dtype=np.float32)
    for color in colors[:: max(1, len(colors) // _MOST_COLORS)]:
        np.minimum(nearest, ((pixels - color) ** 2).sum(axis=2), out=nearest)
    return nearest


def _solved(marks: _Marks, method: Method) -> Mask:
    """The object in a scaled crop: the regions that hold its marks."""
    begun = marks.inside | (marks.likely & ~marks.outside)
    if not begun.any() or begun.all():
        return begun  # there are no colors of two sides
    mask = _grab_cut(marks) if method == "grabcut" else _random_walker(marks)
    _, regions = cv2.connectedComponents(mask.astype(np.uint8))
    held = np.unique(regions[marks.inside & mask])
    own = np.isin(regions, held[held > 0])
    return begun if own.sum() < _LEAST_SHARE * begun.sum() else own


def _grab_cut(marks: _Marks) -> Mask:
    states = np.where(marks.likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    states[marks.outside] = cv2.GC_BGD
    states[marks.inside] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # its mixtures begin with k-means, which draws at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(marks.image, states, None, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return np.asarray((states == cv2.GC_FGD) | (states == cv2.GC_PR_FGD))


def _random_walker(marks: _Marks) -> Mask:
    known = marks.inside | marks.outside
    if known.all() or not marks.inside.any() or not marks.outside.any():
        return marks.inside | (marks.likely & ~known)
    from skimage.segmentation import random_walker

    seeds = np.zeros(marks.inside.shape, dtype=np.int64)
    seeds[marks.outside] = 2
    seeds[marks.inside] = 1
    # iterative solvers end long before the walkers of this beta have spread, so that the equations are solved directly
    labels = random_walker(marks.image / 255.0, seeds, beta=_BETA, mode="bf", channel_axis=-1)
    return np.asarray(labels == 1)
