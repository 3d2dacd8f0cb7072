"""Sheets of cards: a header, and below it cards with a title and images side by side, each with a caption."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from d2tune.report.sheets.drawing import font, rounded, shortened
from d2tune.text import printable

SHEET_WIDTH_PX = 2240
MARGIN_PX = 40
HEADER_PX = 128
PAGE, CARD, INK, GRAY = (238, 240, 243), (255, 255, 255), (28, 30, 36), (104, 110, 122)

_PNG_LEVEL = 4
"""zlib's: sheets take half the time of its usual 6 to be written, and 1 to 5 % more bytes."""

_GAP_PX = 24
_PAD_PX = 18
_TITLE_BAND_PX = 44
_CAPTION_BAND_PX = 40


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file with RGB pixels (H, W, 3) uint8; equal ones give equal bytes."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", compress_level=_PNG_LEVEL)
    return png.getvalue()


@dataclass(frozen=True)
class Card:
    """The contents of a card.

    Args:
        title: The line above the images.
        images: (h, w, 3) uint8 each, in the size that :meth:`Grid.size` gives.
        captions: The name of each image, and details: the first wording that fits, else the last one shortened.
    """

    title: str
    images: Sequence[np.ndarray]
    captions: Sequence[tuple[str, Sequence[str]]]


class Grid:
    """The places of cards on a sheet, and the size of their images.

    Args:
        shapes: Height and width of the image of each card.
        columns: Cards beside each other.
        images: Images beside each other in a card.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], *, columns: int, images: int) -> None:
        self._shapes, self._columns = shapes, columns
        self._card_width = (SHEET_WIDTH_PX - 2 * MARGIN_PX - (columns - 1) * _GAP_PX) // columns
        width = (self._card_width - (images + 1) * _PAD_PX) // images
        # as high as the median of all shapes, if it is not extreme
        self._box = width, round(width * float(np.clip(np.median([high / wide for high, wide in shapes]), 0.6, 0.95)))

    def size(self, place: int) -> tuple[int, int]:
        """Width and height at which the images of a card are shown: as large as fits."""
        height, width = self._shapes[place]
        scale = min(self._box[0] / width, self._box[1] / height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def sheet(self, header: Image.Image, cards: Iterable[Card]) -> np.ndarray:
        """Draw the cards below ``header``, (H, W, 3) uint8."""
        places = range(len(self._shapes))
        rows = [places[i : i + self._columns] for i in places[:: self._columns]]
        around = _TITLE_BAND_PX + _CAPTION_BAND_PX + _PAD_PX
        heights = [max(self.size(place)[1] for place in row) + around for row in rows]
        total = header.height + sum(heights) + (len(rows) - 1) * _GAP_PX + MARGIN_PX
        sheet = Image.new("RGB", (SHEET_WIDTH_PX, total), PAGE)
        sheet.paste(header, (0, 0))
        top, contents = header.height, iter(cards)
        for row, height in zip(rows, heights, strict=True):
            for i, place in enumerate(row):
                card = self._draw(next(contents), self.size(place), (self._card_width, height))
                left = MARGIN_PX + i * (self._card_width + _GAP_PX)
                sheet.paste(card, (left, top), rounded(card.size, radius_px=12))
            top += height + _GAP_PX
        return np.array(sheet)

    def _draw(self, content: Card, size: tuple[int, int], card_size: tuple[int, int]) -> Image.Image:
        card = Image.new("RGB", card_size, CARD)
        pen, heading = ImageDraw.Draw(card), font(19, bold=True)
        title = shortened(content.title, heading, card_size[0] - 2 * _PAD_PX)
        pen.text((_PAD_PX, _TITLE_BAND_PX // 2 + 2), title, INK, heading, anchor="lm")
        room = card_size[1] - _TITLE_BAND_PX - _CAPTION_BAND_PX - _PAD_PX
        indent = (self._box[0] - size[0]) // 2
        for i, (image, (name, details)) in enumerate(zip(content.images, content.captions, strict=True)):
            left, top = _PAD_PX + i * (self._box[0] + _PAD_PX) + indent, _TITLE_BAND_PX + (room - size[1]) // 2
            card.paste(Image.fromarray(image), (left, top), rounded(size, radius_px=6))
            place = left, top + size[1] + _CAPTION_BAND_PX // 2 + 2
            _write_caption(pen, place, self._box[0] - indent, name, details)
        return card


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image at ``size`` (width, height), (h, w, 3) uint8."""
    shrinks = size[0] < image.shape[1]
    result: np.ndarray = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return result


def draw_header(title: str, subtitle: str, *, height_px: int = HEADER_PX) -> Image.Image:
    """The top of a sheet; a header higher than :data:`HEADER_PX` has space below the subtitle."""
    header = Image.new("RGB", (SHEET_WIDTH_PX, height_px), PAGE)
    pen, room = ImageDraw.Draw(header), SHEET_WIDTH_PX - 2 * MARGIN_PX
    large, small = font(38, bold=True), font(22)
    pen.text((MARGIN_PX, 50), shortened(title, large, room), INK, large, anchor="lm")
    pen.text((MARGIN_PX, 94), shortened(subtitle, small, room), GRAY, small, anchor="lm")
    return header


def _write_caption(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], room_px: int, name: str, details: Sequence[str]
) -> None:
    bold, plain = font(17, bold=True), font(17)
    name = printable(name)
    start = bold.getlength(name)
    room = room_px - start
    texts = [f" · {printable(text)}" for text in details if text]
    what = next((text for text in texts if plain.getlength(text) <= room), texts[-1] if texts else "")
    pen.text(place, name, INK, bold, anchor="lm")
    pen.text((place[0] + start, place[1]), shortened(what, plain, room), GRAY, plain, anchor="lm")
