"""What loggers show besides plain pixels: charts with their numbers, and a gallery of images with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw

from d2tune.report.labeled_image import (
    IGNORED,
    NOTHING,
    LabeledImage,
    LabeledPrediction,
    decode,
    label_names,
)
from d2tune.report.sheets import drawing, label_overlay

_SHEET_IMAGES = 16
_PANEL_WIDTH_PX = 420
_GAP_PX = 8
_CAPTION_PX = 26
_BORDER_PX = 5


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot with its numbers.

    Attributes:
        kind: Bars have a name and a value in each row; curves a class, recall and precision; a matrix the annotated
            and the predicted class and a count.
        title: What it shows.
        columns: The names of the columns.
        rows: The values.
        pixels: The plot ``(H, W, 3)``, for loggers that draw none themselves.
    """

    kind: Literal["bars", "curves", "matrix"]
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Validation images with their annotated and predicted masks, the worst prediction first.

    Attributes:
        key: The same for galleries of the same images, whose pixels are then the same.
        class_names: The classes in the order of their labels, which begin at 1.
        rows: Each image with its prediction.
        all_images: The images of all galleries of this key, in the order of the dataset.
    """

    key: str
    class_names: tuple[str, ...]
    rows: Sequence[tuple[LabeledImage, LabeledPrediction]]
    all_images: Sequence[LabeledImage]

    def names_by_label(self) -> dict[int, str]:
        """The name of each label, but for pixels without a class."""
        return label_names(self.class_names)


def as_pixels(image: NDArray[np.uint8] | Chart | Gallery) -> NDArray[np.uint8]:
    """RGB pixels ``(H, W, 3)`` of what ``log_images`` is given."""
    if isinstance(image, Chart):
        return image.pixels
    return _sheet(image) if isinstance(image, Gallery) else image


def _sheet(gallery: Gallery) -> NDArray[np.uint8]:
    """Ground truth beside predictions of the worst images, one below the other."""
    names = gallery.names_by_label()
    palette = np.zeros((256, 3), np.uint8)
    palette[1 : len(names)] = label_overlay.colors(list(names.values())[:-1])
    panels = [_panel(image, prediction, palette) for image, prediction in gallery.rows[:_SHEET_IMAGES]]
    return np.concatenate(panels) if panels else np.full((_GAP_PX, 2 * _PANEL_WIDTH_PX, 3), 255, np.uint8)


def _panel(image: LabeledImage, prediction: LabeledPrediction, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = decode(image.jpeg)
    height = max(1, round(_PANEL_WIDTH_PX * image.height_px / image.width_px))
    sides = []
    for png in (image.truth_png, prediction.predicted_png):
        painted = _painted(pixels, decode(png), palette)
        sides.append(cv2.resize(painted, (_PANEL_WIDTH_PX, height), interpolation=cv2.INTER_AREA))
    gap = np.full((height, _GAP_PX, 3), 255, np.uint8)
    row = np.concatenate([sides[0], gap, sides[1]], axis=1)
    below = np.full((_GAP_PX, row.shape[1], 3), 255, np.uint8)
    return np.concatenate([_caption(image, prediction, row.shape[1]), row, below])


def _caption(image: LabeledImage, prediction: LabeledPrediction, width_px: int) -> NDArray[np.uint8]:
    face = drawing.font(14)
    score = "-" if prediction.score is None else f"{prediction.score:.1f}"
    words = f"score {score}   annotated {prediction.annotated}, predicted {prediction.predicted}   {image.name}"
    canvas = PilImage.new("RGB", (width_px, _CAPTION_PX), "white")
    ImageDraw.Draw(canvas).text((2, 4), drawing.shortened(words, face, width_px - 4), "black", font=face)
    return np.asarray(canvas)


def _painted(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shown = (labels != NOTHING) & (labels != IGNORED)
    painted = pixels.copy()
    painted[shown] = (0.45 * pixels[shown] + 0.55 * palette[labels[shown]]).astype(np.uint8)
    borders = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((_BORDER_PX, _BORDER_PX), np.uint8)) > 0
    painted[borders] = 255
    return painted
