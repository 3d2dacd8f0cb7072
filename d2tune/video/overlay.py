"""Predictions drawn on the frames of a video: fast, and without flicker.

The color of an object follows from its id and its label keeps its place at the object, so that both stay the same from
frame to frame. Everything is drawn in 8 bits within the box of an object, because a video has thousands of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.report.sheets.drawing import font, instance_colors, line_width_px, rounded, shortened
from d2tune.report.sheets.label_overlay import colors as class_colors
from d2tune.video.masks import MaskCrop

COLORS = 48
"""Number of colors of tracks; after them they begin again."""

_FILL, _CLASS_FILL = 0.32, 0.5
_LETTER_SHARE, _LETTERS_PX = 0.032, (11, 34)
_SHIFT = 4
"""Fractional bits of the points of outlines."""

Chip = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A label as an image ``(h, w, 3)``, and its opacity ``(h, w, 1)`` from 0 to 255."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectToDraw:
    """An object to draw.

    Attributes:
        mask: Its mask.
        label: The text of its label.
        track_id: Its track, which decides the color.
    """

    mask: MaskCrop
    label: str
    track_id: int


def track_color(track_id: int) -> tuple[int, int, int]:
    """The color of a track, RGB."""
    red, green, blue = _palette()[(track_id - 1) % COLORS].tolist()
    return red, green, blue


def draw_objects(image_rgb: NDArray[np.uint8], objects: Sequence[ObjectToDraw]) -> NDArray[np.uint8]:
    """The image with the masks, outlines and labels of objects.

    Args:
        image_rgb: ``(H, W, 3)``; it is not changed.
        objects: The objects.
    """
    canvas = image_rgb.copy()
    order = sorted(objects, key=lambda one: (-one.mask.area_px2, one.track_id))
    for one in order:
        _draw_mask(canvas, one.mask, track_color(one.track_id))
    size_px = int(np.clip(round(_LETTER_SHARE * float(np.sqrt(canvas.shape[0] * canvas.shape[1]))), *_LETTERS_PX))
    taken: list[tuple[int, int, int, int]] = []
    for one in sorted(order, key=lambda one: one.track_id):
        chip = _chip(one.label, track_color(one.track_id), size_px, canvas.shape[1])
        place = None if chip is None else _place(one.mask, chip[0].shape[:2], canvas.shape[:2], taken)
        if chip is not None and place is not None:
            _paste(canvas, chip, place[:2])
            taken.append(place)
    return canvas


def draw_classes(
    image_rgb: NDArray[np.uint8],
    class_ids: NDArray[np.uint8],
    class_names: Sequence[str],
    *,
    legend: Sequence[int] | None = None,
    background: int | None = None,
) -> NDArray[np.uint8]:
    """The image in the colors of the classes, with thin outlines between them and a legend.

    Args:
        image_rgb: ``(H, W, 3)``; it is not changed.
        class_ids: ``(H, W)``, indices of ``class_names``; ignored pixels (255) stay as they are.
        class_names: All classes.
        legend: The classes in the legend; None for all.
        background: The class whose pixels stay as they are, and which is not in the legend; None for none.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(class_names)] = class_colors(class_names)
    painted = table[class_ids]
    mixed = cv2.addWeighted(painted, _CLASS_FILL, image_rgb, 1 - _CLASS_FILL, 0)
    ignored = class_ids == IGNORE_LABEL
    unpainted = ignored if background is None else ignored | (class_ids == background)
    mixed[unpainted] = image_rgb[unpainted]
    edges = (cv2.morphologyEx(class_ids, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0) & ~unpainted
    mixed[edges] = painted[edges]
    shown = [place for place in (range(len(class_names)) if legend is None else legend) if place != background]
    _draw_legend(mixed, [class_names[place] for place in shown], table[shown])
    overlay: NDArray[np.uint8] = mixed
    return overlay


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    colors: NDArray[np.uint8] = instance_colors(COLORS)
    return colors


def _draw_mask(canvas: NDArray[np.uint8], mask: MaskCrop, color: tuple[int, int, int]) -> None:
    """Fill and outline a mask, in place."""
    height, width = mask.pixels.shape
    view = canvas[mask.top : mask.top + height, mask.left : mask.left + width]
    tinted = cv2.addWeighted(view, 1 - _FILL, np.full_like(view, color), _FILL, 0)
    np.copyto(view, tinted, where=mask.pixels[..., None])
    outlines, _ = cv2.findContours(
        np.ascontiguousarray(mask.pixels, np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_NONE,
        offset=(mask.left, mask.top),
    )
    smooth = [_smoothed(outline) for outline in outlines]
    wide = round(line_width_px(canvas.shape[:2]))
    dark = tuple(value // 4 for value in color)
    for tone, thickness in ((dark, wide + 2), (color, wide)):
        cv2.polylines(canvas, smooth, True, tone, thickness, cv2.LINE_AA, _SHIFT)


def _smoothed(outline: NDArray[np.int32]) -> NDArray[np.int32]:
    """An outline as fixed-point numbers, each point the mean of five, so that stairs become slopes."""
    points: NDArray[np.float64] = outline[:, 0].astype(np.float64)
    if len(points) >= 8:
        points = np.mean([np.roll(points, step, axis=0) for step in (-2, -1, 0, 1, 2)], axis=0)
    fixed: NDArray[np.int32] = np.rint(points * (1 << _SHIFT)).astype(np.int32)
    return fixed


@lru_cache(maxsize=512)
def _chip(label: str, color: tuple[int, int, int], size_px: int, width_px: int) -> Chip | None:
    """The label of an object; None where the image is too narrow for it."""
    face = font(size_px, bold=True)
    pad_x, pad_y = round(0.38 * size_px), round(0.2 * size_px)
    words = shortened(label, face, width_px - 2 * pad_x - 2)
    if not words:
        return None
    size = round(face.getlength(words)) + 2 * pad_x, sum(face.getmetrics()) + 2 * pad_y
    bright = (0.2126, 0.7152, 0.0722) @ (np.array(color) / 255) ** 2.2
    sheet = Image.new("RGB", size, color)
    ink = (20, 20, 24) if bright > 0.22 else (255, 255, 255)
    ImageDraw.Draw(sheet).text((size[0] / 2, size[1] / 2), words, fill=ink, font=face, anchor="mm")
    opacity = rounded(size, radius_px=size[1] // 4)
    return np.asarray(sheet), np.asarray(opacity)[..., None]


def _place(
    mask: MaskCrop, size: tuple[int, int], shape: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of a label: above the object, or at the next height that is free."""
    height, width = size
    limit_x, limit_y = shape[1] - width, shape[0] - height
    if limit_x < 0 or limit_y < 0:
        return None
    x = min(max(mask.left + (mask.pixels.shape[1] - width) // 2, 0), limit_x)
    above = mask.top - height - 2
    tops = [above if above >= 0 else mask.top + mask.pixels.shape[0] + 2]
    tops += [tops[0] + step * (height + 1) for step in (-1, 1, -2, 2, -3, 3, -4, 4)]
    for top in tops:
        y = min(max(top, 0), limit_y)
        place = x, y, x + width, y + height
        if not any(
            place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3]
            for other in taken
        ):
            return place
    return None


def _paste(canvas: NDArray[np.uint8], chip: Chip, place: tuple[int, int]) -> None:
    """Put a label on the image, in place."""
    pixels, opacity = chip
    view = canvas[place[1] : place[1] + pixels.shape[0], place[0] : place[0] + pixels.shape[1]]
    share = opacity.astype(np.uint16)
    view[...] = (pixels * share + view * (255 - share) + 127) // 255


def _draw_legend(canvas: NDArray[np.uint8], class_names: Sequence[str], table: NDArray[np.uint8]) -> None:
    """Names of the classes on their colors in the top left corner, as many as there is space for."""
    size_px = int(np.clip(round(_LETTER_SHARE * float(np.sqrt(canvas.shape[0] * canvas.shape[1]))), *_LETTERS_PX))
    y = margin = size_px // 3
    for name, color in zip(class_names, table.tolist(), strict=True):
        chip = _chip(name, (color[0], color[1], color[2]), size_px, canvas.shape[1] - 2 * margin)
        if chip is None or y + chip[0].shape[0] + margin > canvas.shape[0]:
            return
        _paste(canvas, chip, (margin, y))
        y += chip[0].shape[0] + 2
