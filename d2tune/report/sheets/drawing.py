"""Instances drawn over an image: outline, translucent fill, and a chip with class and score for each."""

from __future__ import annotations

import colorsys
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from d2tune.errors import MachineError
from d2tune.text import printable

Rect = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first column and row outside."""

_PALETTE = (
    (255, 59, 92), (0, 176, 255), (255, 196, 0), (0, 200, 83), (190, 90, 255), (255, 122, 0),
    (0, 214, 201), (255, 105, 200), (160, 210, 0), (84, 110, 255), (214, 130, 70), (120, 220, 140),
)  # fmt: skip
LETTER_SHARE = 0.034
"""The largest height of the letters of chips, as a share of the square root of the image's area."""

_FILL_OPACITY = 0.26
_CASING_OPACITY = 0.45
_SIDES_PER_LINE = 12
"""Outlines are at most this share of the side of a usual mask wide, so that small objects stay visible."""


class Face(Protocol):
    """Measures the width of text: a font at one size."""

    def getlength(self, text: str, /) -> float: ...


@dataclass(frozen=True, slots=True, eq=False)
class PlacedMask:
    """A mask within its box, which takes a fraction of the memory of a mask of the whole image.

    Attributes:
        left_px: Column of its first pixel in the image.
        top_px: Row of its first pixel in the image.
        mask: (h, w) bool, as small as its pixels allow; (0, 0) for a mask without pixels.
    """

    left_px: int
    top_px: int
    mask: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> PlacedMask:
        """The part with pixels of a mask (H, W) of the whole image."""
        left, top, width, height = cv2.boundingRect(np.asarray(mask, np.uint8))
        return cls(left, top, np.asarray(mask[top : top + height, left : left + width], bool))

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        return self.left_px, self.top_px, self.mask.shape[1], self.mask.shape[0]


Masks = np.ndarray | Sequence[np.ndarray] | Sequence[PlacedMask]
"""Masks of the whole image, each (H, W) bool, or within their boxes."""


def instance_colors(count: int) -> np.ndarray:
    """``count`` distinguishable colors, (count, 3) uint8 RGB; the first ones do not change with ``count``."""
    colors = list(_PALETTE[:count])
    for i in range(len(colors), count):
        hue, value = (0.08 + i * 0.61803) % 1.0, (1.0, 0.78)[i % 2]
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6)[i // 2 % 2], value)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return np.array(colors, np.uint8).reshape(count, 3)


def line_width_px(shape: tuple[int, int]) -> float:
    """How wide outlines are drawn in an image of ``shape`` (height, width)."""
    return max(2.0, 0.0044 * float(np.sqrt(shape[0] * shape[1])))


def draw_instances(
    image_rgb: np.ndarray,
    masks: Masks,
    labels: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    colors: np.ndarray | Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Draw instances over an image.

    Lines and letters grow with the image, lines not beyond a twelfth of a usual mask. Chips neither overlap nor extend
    beyond the image; where not all fit, the smallest instances have none.

    Args:
        image_rgb: (H, W, 3) uint8; it is not changed.
        masks: (N, H, W) bool, or N masks within their boxes.
        labels: N class names.
        scores: N confidences, written with two decimals; None writes the class alone.
        colors: (N, 3) RGB, 0 to 255; None takes :func:`instance_colors`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: The shapes of the arguments do not match.
    """
    count = len(labels)
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(f"image_rgb must be (H, W, 3) uint8, not {image_rgb.shape} {image_rgb.dtype}")
    if isinstance(masks, np.ndarray) and count and masks.shape != (count, *image_rgb.shape[:2]):
        raise ValueError(f"masks are {masks.shape}, but there are {count} labels and the image is {image_rgb.shape}")
    if len(masks) < count:
        raise ValueError(f"{len(masks)} masks for {count} labels")
    if scores is not None and len(scores) != count:
        raise ValueError(f"{len(scores)} scores for {count} labels")
    palette = instance_colors(count) if colors is None else np.asarray(colors, np.uint8).reshape(-1, 3)
    if len(palette) != count:
        raise ValueError(f"{len(palette)} colors for {count} labels")
    canvas = image_rgb.astype(np.float32)
    placed = _placed(masks)[:count]
    order = np.argsort([-np.count_nonzero(one.mask) for one in placed], kind="stable")
    sides_px = [float(np.sqrt(np.count_nonzero(one.mask))) for one in placed if one.mask.any()]
    width_px = min(line_width_px(image_rgb.shape[:2]), max(2.0, float(np.median(sides_px or [0.0])) / _SIDES_PER_LINE))
    for i in order:
        _draw_mask(canvas, placed[i], palette[i].astype(np.float32), width_px)
    outlined = np.rint(canvas, out=canvas).astype(np.uint8)
    texts = list(labels) if scores is None else [f"{a} {b:.2f}" for a, b in zip(labels, scores, strict=True)]
    return draw_chips(outlined, [placed[i] for i in order], [texts[i] for i in order], palette[order])


@lru_cache(maxsize=64)
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as it comes with matplotlib.

    Raises:
        MachineError: matplotlib is not installed.
    """
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise MachineError("images need the font that comes with matplotlib", hint="Run: pip install matplotlib")
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size_px)


def shortened(words: str, face: Face, room_px: float) -> str:
    """``words``, with its middle replaced by an ellipsis where it is wider than ``room_px``; "" where nothing fits.

    Line ends and control characters, which cannot be measured, are written out.
    """
    words = printable(words)
    if face.getlength(words) <= room_px:
        return words
    for keep in range(len(words) - 1, 0, -1):
        tail = keep // 2
        short = words[: keep - tail] + "…" + words[len(words) - tail :]
        if face.getlength(short) <= room_px:
            return short
    return ""


def _placed(masks: Masks) -> list[PlacedMask]:
    return [mask if isinstance(mask, PlacedMask) else PlacedMask.of(mask) for mask in masks]


def _draw_mask(canvas: np.ndarray, placed: PlacedMask, color: np.ndarray, width_px: float) -> None:
    """Fill and outline one mask on a float image, in place."""
    if not placed.mask.size:
        return
    margin = int(np.ceil(width_px)) + 3
    left, top, width, height = placed.box_xywh
    padded = np.zeros((height + 2 * margin, width + 2 * margin), np.uint8)
    padded[margin:-margin, margin:-margin] = placed.mask
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    depth_px = cv2.GaussianBlur(np.where(padded, inside - 0.5, 0.5 - outside), (0, 0), 0.7)
    line = np.clip(width_px / 2 + 0.5 - np.abs(depth_px), 0, 1)
    casing = _CASING_OPACITY * np.clip(width_px / 2 + 1.5 - np.abs(depth_px), 0, 1)
    full_height, full_width = canvas.shape[:2]
    rows = slice(max(top - margin, 0), min(top + height + margin, full_height))
    columns = slice(max(left - margin, 0), min(left + width + margin, full_width))
    crop = (
        slice(rows.start - top + margin, rows.stop - top + margin),
        slice(columns.start - left + margin, columns.stop - left + margin),
    )
    view = canvas[rows, columns]
    for opacity, tone in ((_FILL_OPACITY * padded, color), (casing, np.zeros(3, np.float32)), (line, color)):
        view += opacity[crop][..., None].astype(np.float32) * (tone - view)


def draw_chips(
    image_rgb: np.ndarray,
    masks: Masks,
    texts: Sequence[str],
    colors: np.ndarray,
    *,
    largest_share: float = LETTER_SHARE,
) -> np.ndarray:
    """The image with a chip for each mask, (H, W, 3) uint8; see :func:`place_chips`."""
    height, width = image_rgb.shape[:2]
    sheet = Image.fromarray(image_rgb)
    for chip, text, color, size_px in place_chips(masks, texts, colors, (height, width), largest_share=largest_share):
        _paint_chip(sheet, chip, text, color, font(size_px, bold=True))
    return np.array(sheet)


def place_chips(
    masks: Masks,
    texts: Sequence[str],
    colors: np.ndarray,
    shape: tuple[int, int],
    *,
    largest_share: float = LETTER_SHARE,
) -> list[tuple[Rect, str, tuple[int, int, int], int]]:
    """The place of each label: its rectangle, the text that fits, its color and the size of its letters in pixels.

    Letters are at most ``largest_share`` of the image's side (the root of its area) high. They shrink until all
    chips fit beside or on their instances; at the smallest size, instances without space get no chip.
    """
    placed = _placed(masks)
    boxes = [one.box_xywh for one in placed]
    largest = int(np.clip(round(largest_share * float(np.sqrt(shape[0] * shape[1]))), 9, 40))
    chips: list[tuple[Rect, str, tuple[int, int, int], int]] = []
    cover = cv2.integral(_union(placed, shape)) if placed else np.zeros((1, 1), np.int32)
    for size_px in sorted({largest, max(largest * 4 // 5, 8), max(largest * 3 // 5, 8)}, reverse=True):
        chips, face = [], font(size_px, bold=True)
        pad_x, pad_y = round(0.38 * size_px), round(0.2 * size_px)
        for box, text, color in zip(boxes, texts, colors, strict=True):
            words = shortened(text, face, shape[1] - 2 * pad_x - 2)
            size = (round(face.getlength(words)) + 2 * pad_x, sum(face.getmetrics()) + 2 * pad_y)
            place = _free_place(box, size, [chip[0] for chip in chips], cover) if words and box[2] else None
            if place is not None:
                chips.append((place, words, (int(color[0]), int(color[1]), int(color[2])), size_px))
        if len(chips) == len(texts):
            break
    return chips


def _union(placed: Sequence[PlacedMask], shape: tuple[int, int]) -> np.ndarray:
    """The pixels of any of the masks, (H, W) uint8."""
    union = np.zeros(shape, np.uint8)
    for one in placed:
        left, top, width, height = one.box_xywh
        union[top : top + height, left : left + width] |= one.mask
    return union


def _free_place(box: Sequence[int], size: tuple[int, int], taken: Sequence[Rect], cover: np.ndarray) -> Rect | None:
    """The rectangle for a chip of ``size`` that meets no other chip and hides little; ``cover`` is the masks' integral.

    Large instances have their chip on their top edge, small ones beside them, crowded ones where there is space.
    """
    left, top, wide, high = box
    width, height = size
    limit_x, limit_y = cover.shape[1] - 1 - width, cover.shape[0] - 1 - height
    if limit_x < 0 or limit_y < 0:
        return None
    x, y = left + (wide - width) // 2, top + (high - height) // 2
    above, below = top - height - 1, top + high + 1
    wishes = [(x, above), (left, above), (x, below), (left + wide + 1, y), (left - width - 1, y), (left, below)]
    if wide * high > 10 * width * height:
        wishes.insert(0, (x, top - height // 2))
    best, best_cost = None, np.inf
    for rank, wish in enumerate(wishes):
        rect = _inside(wish, size, (limit_x, limit_y))
        moved = abs(rect[0] - wish[0]) / width + abs(rect[1] - wish[1]) / height
        hidden = cover[rect[3], rect[2]] - cover[rect[1], rect[2]] - cover[rect[3], rect[0]] + cover[rect[1], rect[0]]
        cost = 0.12 * rank + 0.5 * moved + hidden / (width * height)
        if cost < best_cost and not any(_overlap(rect, other) for other in taken):
            best, best_cost = rect, cost
    if best is not None:
        return best
    reach = max(high, wide) // 2 + 2 * height
    around = [(x + dx, y + dy) for dx in range(-reach, reach + 1, 6) for dy in range(-reach, reach + 1, 6)]
    around.sort(key=lambda place: (place[0] - x) ** 2 + (place[1] - y) ** 2)
    rects = (_inside(place, size, (limit_x, limit_y)) for place in around)
    return next((rect for rect in rects if not any(_overlap(rect, other) for other in taken)), None)


def _inside(place: tuple[int, int], size: tuple[int, int], limit: tuple[int, int]) -> Rect:
    x, y = min(max(place[0], 0), limit[0]), min(max(place[1], 0), limit[1])
    return x, y, x + size[0], y + size[1]


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] + 1 and b[0] < a[2] + 1 and a[1] < b[3] + 1 and b[1] < a[3] + 1


def _paint_chip(
    sheet: Image.Image, rect: Rect, text: str, color: tuple[int, int, int], face: ImageFont.FreeTypeFont
) -> None:
    left, top, right, bottom = rect
    sheet.paste(color, (left, top), rounded((right - left, bottom - top), radius_px=(bottom - top) // 4))
    bright = (0.2126, 0.7152, 0.0722) @ (np.array(color) / 255) ** 2.2
    ink = (20, 20, 24) if bright > 0.22 else (255, 255, 255)
    ImageDraw.Draw(sheet).text(((left + right) / 2, (top + bottom) / 2), text, fill=ink, font=face, anchor="mm")


def rounded(size: tuple[int, int], *, radius_px: int) -> Image.Image:
    """An antialiased mask, mode L, of a rectangle of ``size`` (width, height) with round corners."""
    scale = 4
    mask = Image.new("L", (size[0] * scale, size[1] * scale), 0)
    corners = (0, 0, size[0] * scale - 1, size[1] * scale - 1)
    ImageDraw.Draw(mask).rounded_rectangle(corners, radius=radius_px * scale, fill=255)
    return mask.resize(size, Image.Resampling.BOX)
