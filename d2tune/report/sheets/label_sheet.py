"""A contact sheet of label maps: image, ground truth and prediction, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.files import write_bytes
from d2tune.report.sheets.cards import (
    HEADER_PX,
    INK,
    MARGIN_PX,
    SHEET_WIDTH_PX,
    Card,
    Grid,
    draw_header,
    png_bytes,
    resized,
)
from d2tune.report.sheets.drawing import font, rounded, shortened
from d2tune.report.sheets.label_overlay import color_map, colors, overlay

MAX_PANELS = 16
"""The most panels of a sheet."""

_LEGEND_CLASSES = 30
_LEGEND_TOP_PX = 112
_ROW_PX = 40
_SWATCH_PX = 26
_NAME_PX = 420
_LARGE_UP_TO = 4
_NOT_LABELED = "not labeled"


@dataclass(frozen=True)
class LabelPanel:
    """One image with its label maps, or with ready-made images in their place.

    Args:
        image_rgb: (H, W, 3) uint8.
        title: The line above, a file's name for instance.
        truth: (H, W) uint8: the place of each pixel's class, 255 for none.
        predicted: The prediction, as ``truth``.
        note: Follows the word "prediction", ``"mIoU 81"`` for instance.
        truth_rgb: (h, w, 3) uint8, shown in place of ``truth`` over the image.
        predicted_rgb: (h, w, 3) uint8, shown in place of ``predicted`` over the image.
    """

    image_rgb: np.ndarray
    title: str
    truth: np.ndarray | None = None
    predicted: np.ndarray | None = None
    note: str = ""
    truth_rgb: np.ndarray | None = None
    predicted_rgb: np.ndarray | None = None


def label_sheet(panels: Sequence[LabelPanel], *, class_names: Sequence[str], title: str, subtitle: str) -> np.ndarray:
    """Draw panels as cards below a header with a legend, (H, W, 3) uint8.

    The legend names all classes; of more than 30 only those that a label map holds.

    Raises:
        ValueError: No panel, more than :data:`MAX_PANELS`, or a panel whose arrays do not match.
    """
    if not 1 <= len(panels) <= MAX_PANELS:
        raise ValueError(f"a label sheet takes 1 to {MAX_PANELS} panels, not {len(panels)}")
    table = colors(class_names)
    columns = 1 if len(panels) <= _LARGE_UP_TO else 2
    grid = Grid([panel.image_rgb.shape[:2] for panel in panels], columns=columns, images=3)
    header = legend_header(title, subtitle, _legend(panels, class_names, table))
    return grid.sheet(header, (_card(panel, grid.size(place), table) for place, panel in enumerate(panels)))


def write_label_sheet(
    path: str | Path, panels: Sequence[LabelPanel], *, class_names: Sequence[str], title: str, subtitle: str
) -> None:
    """Write :func:`label_sheet` as a PNG file, atomically.

    Raises:
        ValueError: As :func:`label_sheet`.
        OSError: The file cannot be written.
    """
    sheet = label_sheet(panels, class_names=class_names, title=title, subtitle=subtitle)
    write_bytes(path, png_bytes(sheet))


def _card(panel: LabelPanel, size: tuple[int, int], table: np.ndarray) -> Card:
    image = resized(panel.image_rgb, size)

    def over(labels: np.ndarray | None, ready: np.ndarray | None) -> np.ndarray:
        if ready is not None:
            return resized(ready, size)
        if labels is None:
            raise ValueError(f"panel {panel.title!r} has neither a label map nor an image of it")
        if labels.shape != panel.image_rgb.shape[:2]:
            raise ValueError(f"panel {panel.title!r} has labels {labels.shape} for an image {panel.image_rgb.shape}")
        return overlay(image, cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), colors=table)

    images = (image, over(panel.truth, panel.truth_rgb), over(panel.predicted, panel.predicted_rgb))
    return Card(panel.title, images, (("image", ()), ("ground truth", ()), ("prediction", (panel.note,))))


def _legend(
    panels: Sequence[LabelPanel], class_names: Sequence[str], table: np.ndarray
) -> list[tuple[np.ndarray, str]]:
    """A swatch, (side, side, 3) uint8, and a name for each entry."""
    maps = [labels for panel in panels for labels in (panel.truth, panel.predicted) if labels is not None]
    present = set(np.unique(np.concatenate([np.unique(labels) for labels in maps])).tolist()) if maps else set()
    places = list(range(len(class_names)))
    if maps and len(class_names) > _LEGEND_CLASSES:
        places = [place for place in places if place in present]
    entries = [(swatch(table[place]), class_names[place]) for place in places]
    if IGNORE_LABEL in present:
        nothing = np.full((_SWATCH_PX, _SWATCH_PX), IGNORE_LABEL, np.uint8)
        entries.append((color_map(nothing, table), _NOT_LABELED))
    return entries


def swatch(color: np.ndarray) -> np.ndarray:
    """A square of a color ``(3,)`` for a legend, (side, side, 3) uint8."""
    return np.full((_SWATCH_PX, _SWATCH_PX, 3), color, np.uint8)


def legend_header(title: str, subtitle: str, legend: Sequence[tuple[np.ndarray, str]]) -> Image.Image:
    """Title, subtitle and the legend, swatches with their names, in as many rows as it needs."""
    face, gap = font(20), 14
    spots: list[tuple[int, int]] = []
    names = [shortened(name, face, _NAME_PX) for _, name in legend]
    left, row = MARGIN_PX, 0
    for name in names:
        width = _SWATCH_PX + gap + round(face.getlength(name))
        if left + width > SHEET_WIDTH_PX - MARGIN_PX:
            left, row = MARGIN_PX, row + 1
        spots.append((left, _LEGEND_TOP_PX + gap + row * _ROW_PX))
        left += width + 3 * gap
    height = _LEGEND_TOP_PX + (row + 1) * _ROW_PX + 2 * gap if legend else HEADER_PX
    header = draw_header(title, subtitle, height_px=height)
    pen, corners = ImageDraw.Draw(header), rounded((_SWATCH_PX, _SWATCH_PX), radius_px=6)
    for (x, y), (square, _), name in zip(spots, legend, names, strict=True):
        header.paste(Image.fromarray(square), (x, y), corners)
        pen.text((x + _SWATCH_PX + gap, y + _SWATCH_PX // 2), name, INK, face, anchor="lm")
    return header
