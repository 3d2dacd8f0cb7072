"""One picture that shows what a model finds: up to 16 photos, ground truth beside prediction."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from d2tune.files import write_bytes
from d2tune.report.drawing import draw_instances, font, instance_colours, rounded, shortened

__all__ = ["MAX_PANELS", "Panel", "contact_sheet", "draw_instances", "write_contact_sheet"]

MAX_PANELS = 16
"""How many panels a sheet takes."""

_SHEET_WIDTH_PX = 2240
_MARGIN_PX = 40
_GAP_PX = 24
_PAD_PX = 18
_TITLE_BAND_PX = 44
_CAPTION_BAND_PX = 40
_HEADER_PX = 128
_MATCH_IOU = 0.5
_PAGE, _CARD, _INK, _GREY = (238, 240, 243), (255, 255, 255), (28, 30, 36), (104, 110, 122)


@dataclass(frozen=True)
class Panel:
    """One photo with what is in it and what was found.

    Args:
        image_rgb: (H, W, 3) uint8.
        title: The line above, a file's name for instance.
        truth_masks: (T, H, W) bool.
        truth_labels: T class names.
        predicted_masks: (P, H, W) bool.
        predicted_labels: P class names.
        predicted_scores: P confidences.
    """

    image_rgb: np.ndarray
    title: str
    truth_masks: np.ndarray
    truth_labels: Sequence[str]
    predicted_masks: np.ndarray
    predicted_labels: Sequence[str]
    predicted_scores: Sequence[float]


def contact_sheet(panels: Sequence[Panel], *, title: str, subtitle: str) -> np.ndarray:
    """Draw panels as cards below a header, (H, W, 3) uint8; a prediction has the colour of the truth it meets.

    Raises:
        ValueError: No panel, more than :data:`MAX_PANELS`, or a panel whose parts do not belong together.
    """
    if not 1 <= len(panels) <= MAX_PANELS:
        raise ValueError(f"a contact sheet takes 1 to {MAX_PANELS} panels, not {len(panels)}")
    columns = 1 if len(panels) == 1 else 2 if len(panels) <= 8 else 3
    card_width = (_SHEET_WIDTH_PX - 2 * _MARGIN_PX - (columns - 1) * _GAP_PX) // columns
    box_width = (card_width - 3 * _PAD_PX) // 2
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    box = (box_width, _box_height(panels, box_width))
    heights = [max(_photo_size(panel, box)[1] for panel in row) for row in rows]
    card_heights = [height + _TITLE_BAND_PX + _CAPTION_BAND_PX + _PAD_PX for height in heights]
    total = _HEADER_PX + sum(card_heights) + (len(rows) - 1) * _GAP_PX + _MARGIN_PX
    sheet = Image.new("RGB", (_SHEET_WIDTH_PX, total), _PAGE)
    _write_header(sheet, title, subtitle)
    top = _HEADER_PX
    for row, card_height in zip(rows, card_heights, strict=True):
        for i, panel in enumerate(row):
            card = _draw_card(panel, (card_width, card_height), box)
            shape = rounded(card.size, radius_px=12)
            sheet.paste(card, (_MARGIN_PX + i * (card_width + _GAP_PX), top), shape)
        top += card_height + _GAP_PX
    return np.array(sheet)


def write_contact_sheet(path: str | Path, panels: Sequence[Panel], *, title: str, subtitle: str) -> None:
    """Write :func:`contact_sheet` as a PNG file, atomically.

    Raises:
        ValueError: As :func:`contact_sheet`.
        OSError: The file cannot be written.
    """
    png = io.BytesIO()
    Image.fromarray(contact_sheet(panels, title=title, subtitle=subtitle)).save(png, "PNG")
    write_bytes(path, png.getvalue())


def paired_colours(truth_masks: np.ndarray, predicted_masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (T, 3) and (P, 3) uint8 in which each truth and the prediction that overlaps it best are alike.

    Pairs are one to one, best first, from an intersection over union of 0.5; all other colours occur once.
    """
    ious = _mask_ious(truth_masks, predicted_masks)
    truths, predictions = ious.shape
    partner = np.full(predictions, -1)
    while ious.size and ious.max() >= _MATCH_IOU:
        truth, prediction = np.unravel_index(ious.argmax(), ious.shape)
        partner[prediction] = truth
        ious[truth, :] = ious[:, prediction] = -1
    alone = partner < 0
    partner[alone] = truths + np.arange(alone.sum())
    colours = instance_colours(truths + int(alone.sum()))
    return colours[:truths], colours[partner]


def _mask_ious(truth_masks: np.ndarray, predicted_masks: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, (T, P) float64."""
    if not len(truth_masks) or not len(predicted_masks):
        return np.zeros((len(truth_masks), len(predicted_masks)))
    truth = np.asarray(truth_masks, bool).reshape(len(truth_masks), -1).astype(np.float32)
    predicted = np.asarray(predicted_masks, bool).reshape(len(predicted_masks), -1).astype(np.float32)
    common = (truth @ predicted.T).astype(float)
    union = truth.sum(axis=1, dtype=float)[:, None] + predicted.sum(axis=1, dtype=float)[None, :] - common
    ious: np.ndarray = common / np.maximum(union, 1.0)
    return ious


def _box_height(panels: Sequence[Panel], box_width: int) -> int:
    """How high photos may be: so that the middle one of all shapes, if not extreme, fills its box."""
    shapes = [panel.image_rgb.shape[0] / panel.image_rgb.shape[1] for panel in panels]
    return round(box_width * float(np.clip(np.median(shapes), 0.6, 0.95)))


def _photo_size(panel: Panel, box: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a photo is shown: as large as fits into a box (width, height)."""
    height, width = panel.image_rgb.shape[:2]
    scale = min(box[0] / width, box[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(panel: Panel, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photo, truth masks and predicted masks at ``size`` (width, height)."""
    shrinks = size[0] < panel.image_rgb.shape[1]
    photo = cv2.resize(panel.image_rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)

    def fit(masks: np.ndarray) -> np.ndarray:
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        fitted = [cv2.resize(np.asarray(m, np.uint8) * 255, size, interpolation=way) >= 128 for m in masks]
        return np.stack(fitted) if fitted else np.zeros((0, size[1], size[0]), bool)

    return photo, fit(panel.truth_masks), fit(panel.predicted_masks)


def _draw_card(panel: Panel, card_size: tuple[int, int], box: tuple[int, int]) -> Image.Image:
    """One panel: its title, the two pictures, and what each is, below it."""
    size = _photo_size(panel, box)
    photo, truth_masks, predicted_masks = _resized(panel, size)
    truth_colours, predicted_colours = paired_colours(panel.truth_masks, panel.predicted_masks)
    pictures = (
        draw_instances(photo, truth_masks, panel.truth_labels, colors=truth_colours),
        draw_instances(
            photo, predicted_masks, panel.predicted_labels, scores=panel.predicted_scores, colors=predicted_colours
        ),
    )
    captions = (
        ("ground truth", panel.truth_labels, "nothing labelled"),
        ("prediction", panel.predicted_labels, "nothing found"),
    )
    card = Image.new("RGB", card_size, _CARD)
    pen = ImageDraw.Draw(card)
    heading = font(19, bold=True)
    middle = _TITLE_BAND_PX // 2 + 2
    pen.text((_PAD_PX, middle), shortened(panel.title, heading, card_size[0] - 2 * _PAD_PX), _INK, heading, anchor="lm")
    room = card_size[1] - _TITLE_BAND_PX - _CAPTION_BAND_PX - _PAD_PX
    for i, (picture, (name, labels, nothing)) in enumerate(zip(pictures, captions, strict=True)):
        indent = (box[0] - size[0]) // 2
        left, top = _PAD_PX + i * (box[0] + _PAD_PX) + indent, _TITLE_BAND_PX + (room - size[1]) // 2
        card.paste(Image.fromarray(picture), (left, top), rounded(size, radius_px=6))
        place = left, top + size[1] + _CAPTION_BAND_PX // 2 + 2
        _write_caption(pen, place, box[0] - indent, name, labels, nothing)
    return card


def _counted(labels: Sequence[str]) -> str:
    """How many of what: ``"3 balloons"``, ``"2 crystals, 1 connector"``; "" for none."""
    return ", ".join(f"{n} {label if n == 1 else _plural(label)}" for label, n in Counter(labels).most_common())


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1].lower() not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _write_caption(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], room_px: int, name: str, labels: Sequence[str], nothing: str
) -> None:
    """What a picture shows, and how many of what; only how many where that is too long."""
    bold, plain = font(17, bold=True), font(17)
    start = bold.getlength(name)
    what = f" · {_counted(labels) or nothing}"
    if plain.getlength(what) > room_px - start:
        what = f" · {len(labels)} objects"
    pen.text(place, name, _INK, bold, anchor="lm")
    pen.text((place[0] + start, place[1]), shortened(what, plain, room_px - start), _GREY, plain, anchor="lm")


def _write_header(sheet: Image.Image, title: str, subtitle: str) -> None:
    pen = ImageDraw.Draw(sheet)
    room = sheet.width - 2 * _MARGIN_PX
    large, small = font(38, bold=True), font(22)
    pen.text((_MARGIN_PX, 50), shortened(title, large, room), _INK, large, anchor="lm")
    pen.text((_MARGIN_PX, 94), shortened(subtitle, small, room), _GREY, small, anchor="lm")
