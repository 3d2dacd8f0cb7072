"""A scene under construction: its bodies, which of them hide others, and the outlines a person would draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from d2tune.samples.rendering.canvas import SUPERSAMPLE, Light, fill_mask, to_coverage

_OUTLINE_TOLERANCE_PX = 0.3
_SMALLEST_PIECE_PX = 10.0
_SMALLEST_HOLE_PX = 12.0
_MORE_THAN_HALF = 0.51  # eight of sixteen sub-pixels round to 128 of 255


@dataclass(frozen=True)
class Body:
    """One opaque body: the union of ``polygons`` (each (N, 2), pixels); ``label`` is None where it is not annotated."""

    polygons: Sequence[np.ndarray]
    label: str | None = None


@dataclass(frozen=True)
class SampleInstance:
    """The visible area of an annotated object: ``mask`` (H, W) bool, ``polygons`` the outlines of its pieces."""

    label: str
    mask: np.ndarray
    polygons: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class _PlacedBody:
    label: str
    whole_area: float
    visible: np.ndarray


class Scene:
    """A (H, W, 3) image painted from back to front, and the visible part of every annotated body in it.

    Thin things (strings, pins, glasses) and soft ones (shadows, glow) are painted without being placed: they
    cut no outline, as an annotator would not follow them.
    """

    def __init__(self, image: np.ndarray, light: Light) -> None:
        self.image = image
        self.light = light
        self._bodies: list[_PlacedBody] = []

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def side_px(self) -> int:
        """The shorter side."""
        return min(self.shape)

    def place(
        self, bodies: Sequence[Body], *, min_inside: float = 0.5, min_visible: float = 0.45
    ) -> list[np.ndarray] | None:
        """Put bodies, back to front, in front of the scene; all of them or none.

        Args:
            bodies: What to place.
            min_inside: The share of each labeled body that must lie inside the image.
            min_visible: The share of every body's first visible area that must stay in sight.

        Returns:
            The coverage, (H, W) float32, of each body to paint with; None where a body would be hidden too
            far, get a hole, or lie too far outside.
        """
        masks = [fill_mask(body.polygons, self.shape) for body in bodies]
        cut = [_PlacedBody(old.label, old.whole_area, _minus(old.visible, masks)) for old in self._bodies]
        for before, after in zip(self._bodies, cut, strict=True):
            if after.visible is not before.visible and not _still_good(after, min_visible):
                return None
        for i, body in enumerate(bodies):
            if body.label is None:
                continue
            visible = _minus(masks[i], masks[i + 1 :])
            placed = _PlacedBody(body.label, float(np.count_nonzero(visible)), visible)
            if _share_inside(body.polygons[0], self.shape) < min_inside or not _still_good(placed, min_visible):
                return None
            cut.append(placed)
        self._bodies = cut
        return [to_coverage(mask) for mask in masks]

    def closeup(self, coverage: np.ndarray, margin_px: float) -> tuple[Scene, np.ndarray, np.ndarray]:
        """A window of the image around what ``coverage`` covers, to paint there without touching the rest.

        Returns:
            A scene whose image is a view into this one, the window's top left corner (x, y) in pixels, and
            the coverage cut to the window.
        """
        left, top, width, height = cv2.boundingRect((coverage > 0).astype(np.uint8))
        margin = int(np.ceil(margin_px))
        rows = slice(max(top - margin, 0), top + height + margin)
        columns = slice(max(left - margin, 0), left + width + margin)
        offset = np.array([columns.start, rows.start], float)
        return Scene(self.image[rows, columns], self.light), offset, coverage[rows, columns]

    def instances(self) -> tuple[SampleInstance, ...]:
        """The annotated bodies, back to front."""
        return tuple(
            SampleInstance(body.label, to_coverage(body.visible) > _MORE_THAN_HALF, _outlines(body.visible))
            for body in self._bodies
        )


def _minus(mask: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """``mask`` without the others; the same array where they do not meet."""
    for other in others:
        if cv2.countNonZero(cv2.bitwise_and(mask, other)):
            mask = cv2.subtract(mask, other)
    return mask


def _still_good(body: _PlacedBody, min_visible: float) -> bool:
    area = np.count_nonzero(body.visible)
    if area < max(min_visible * body.whole_area, 6 * _SMALLEST_PIECE_PX * SUPERSAMPLE**2):
        return False
    contours, tree = cv2.findContours(body.visible, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    largest_hole = max((cv2.contourArea(c) for c, row in zip(contours, tree[0], strict=True) if row[3] >= 0), default=0)
    return largest_hole < _SMALLEST_HOLE_PX * SUPERSAMPLE**2


def _share_inside(polygon: np.ndarray, shape: tuple[int, int]) -> float:
    inside = np.count_nonzero(fill_mask([polygon], shape)) / SUPERSAMPLE**2
    return inside / max(cv2.contourArea(polygon.astype(np.float32)), 1.0)


def _outlines(visible: np.ndarray) -> tuple[np.ndarray, ...]:
    """The outer outlines, (N, 2) pixels each, largest first, without specks that a person would not draw."""
    contours, _ = cv2.findContours(visible, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = sorted(contours, key=cv2.contourArea, reverse=True)
    floor = max(_SMALLEST_PIECE_PX * SUPERSAMPLE**2, 0.01 * cv2.contourArea(contours[0]))
    outlines = []
    for i, contour in enumerate(contours):
        if i == 0 or cv2.contourArea(contour) >= floor:
            ring = cv2.approxPolyDP(contour, _OUTLINE_TOLERANCE_PX * SUPERSAMPLE, True)
            outlines.append((ring[:, 0, :] + 0.5) / SUPERSAMPLE)
    return tuple(outlines)
