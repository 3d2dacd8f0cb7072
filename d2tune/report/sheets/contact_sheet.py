"""A contact sheet: up to 16 images, ground truth beside prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from d2tune.files import write_bytes
from d2tune.report.sheets.cards import Card, Grid, draw_header, png_bytes, resized
from d2tune.report.sheets.drawing import draw_instances, instance_colors
from d2tune.text import counted

__all__ = ["MAX_PANELS", "Panel", "contact_sheet", "draw_instances", "write_contact_sheet"]

MAX_PANELS = 16
"""The most panels of a sheet."""

_MATCH_IOU = 0.5


@dataclass(frozen=True)
class Panel:
    """One image with its ground truth and its predictions.

    Args:
        image_rgb: (H, W, 3) uint8.
        title: The line above, a file's name for instance.
        truth_masks: (T, H, W) bool.
        truth_labels: T class names.
        predicted_masks: (P, H, W) bool.
        predicted_labels: P class names.
        predicted_scores: P confidences.
        truth_crowds: T flags, whether the ground truth is a crowd; empty where none is.
    """

    image_rgb: np.ndarray
    title: str
    truth_masks: np.ndarray
    truth_labels: Sequence[str]
    predicted_masks: np.ndarray
    predicted_labels: Sequence[str]
    predicted_scores: Sequence[float]
    truth_crowds: Sequence[bool] = ()


def contact_sheet(panels: Sequence[Panel], *, title: str, subtitle: str) -> np.ndarray:
    """Draw panels as cards below a header, (H, W, 3) uint8; a prediction has the color of the ground truth it matches.

    Raises:
        ValueError: No panel, more than :data:`MAX_PANELS`, or a panel whose arrays do not match.
    """
    if not 1 <= len(panels) <= MAX_PANELS:
        raise ValueError(f"a contact sheet takes 1 to {MAX_PANELS} panels, not {len(panels)}")
    columns = 1 if len(panels) == 1 else 2 if len(panels) <= 8 else 3
    grid = Grid([panel.image_rgb.shape[:2] for panel in panels], columns=columns, images=2)
    cards = (_card(panel, grid.size(place)) for place, panel in enumerate(panels))
    return grid.sheet(draw_header(title, subtitle), cards)


def write_contact_sheet(path: str | Path, panels: Sequence[Panel], *, title: str, subtitle: str) -> None:
    """Write :func:`contact_sheet` as a PNG file, atomically.

    Raises:
        ValueError: As :func:`contact_sheet`.
        OSError: The file cannot be written.
    """
    write_bytes(path, png_bytes(contact_sheet(panels, title=title, subtitle=subtitle)))


def paired_colors(truth_masks: np.ndarray, predicted_masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colors (T, 3) and (P, 3) uint8; each ground truth and the prediction that overlaps it best have the same color.

    Pairs are one to one, best first, from an intersection over union of 0.5; all other colors occur once.
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
    colors = instance_colors(truths + int(alone.sum()))
    return colors[:truths], colors[partner]


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


def _card(panel: Panel, size: tuple[int, int]) -> Card:
    """One panel at ``size`` (width, height): the two images with their captions."""

    def fit(masks: np.ndarray) -> np.ndarray:
        way = cv2.INTER_AREA if size[0] < panel.image_rgb.shape[1] else cv2.INTER_LINEAR
        fitted = [cv2.resize(np.asarray(m, np.uint8) * 255, size, interpolation=way) >= 128 for m in masks]
        return np.stack(fitted) if fitted else np.zeros((0, size[1], size[0]), bool)

    image = resized(panel.image_rgb, size)
    truth_colors, predicted_colors = paired_colors(panel.truth_masks, panel.predicted_masks)
    crowds = panel.truth_crowds or [False] * len(panel.truth_labels)
    named = [f"{label} (crowd)" if crowd else label for label, crowd in zip(panel.truth_labels, crowds, strict=True)]
    truth = draw_instances(image, fit(panel.truth_masks), named, colors=truth_colors)
    predicted = draw_instances(
        image,
        fit(panel.predicted_masks),
        panel.predicted_labels,
        scores=panel.predicted_scores,
        colors=predicted_colors,
    )
    captions = (
        ("ground truth", _counted(panel.truth_labels, "no annotations", crowds)),
        ("prediction", _counted(panel.predicted_labels, "no predictions")),
    )
    return Card(panel.title, (truth, predicted), captions)


def _counted(labels: Sequence[str], nothing: str, crowds: Sequence[bool] = ()) -> tuple[str, str]:
    """The counts by class, ``"3 balloons"`` or ``"2 crystals, 1 connector"``, and their sum; crowds apart."""
    if any(crowds):
        of_objects, total = _counted([label for label, crowd in zip(labels, crowds, strict=True) if not crowd], "")
        apart = counted(sum(crowds), "crowd")
        return ", ".join(filter(None, (of_objects, apart))), f"{total}, {apart}"
    counts = ", ".join(f"{n} {label if n == 1 else _plural(label)}" for label, n in Counter(labels).most_common())
    return counts or nothing, counted(len(labels), "object")


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1].lower() not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
