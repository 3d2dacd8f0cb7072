"""Random positions of training patches, and random flips and turns, for any number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL

_TRIES = 64
_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True, slots=True)
class _RowCounts:
    """The number of pixels of each class in the rows of a label map.

    Attributes:
        classes: The classes that occur, in ascending order.
        until_row: ``(len(classes), H)``: pixels of the class in this row and all rows above.
    """

    classes: NDArray[np.intp]
    until_row: NDArray[np.int64]


class PatchSampler:
    """Draws random positions of patches so that rare classes occur as often as common classes.

    For each label map, the pixels of each class that occurs are counted row by row: 8 bytes per row and class, 3 MB
    for 20,000 rows and 20 classes. A random pixel is chosen with these counts and a single row of the map, so the time
    of a draw does not depend on the size of the image.

    Args:
        label_maps: Each ``(H, W)``: class indices, 255 for ignored pixels. They are not copied.
        patch_px: Side of a patch.
        balance: Share of the patches, from 0 to 1, that contain a random pixel of a random class. All classes of the
            image have the same probability.
        classes: Number of classes.

    Raises:
        ValueError: A label map has a value that is not a class index.
    """

    def __init__(self, label_maps: Sequence[NDArray[np.uint8]], *, patch_px: int, balance: float, classes: int) -> None:
        self._maps = list(label_maps)
        self._patch_px = patch_px
        self._balance = balance
        self._indices = [_count_rows(labels, classes) for labels in self._maps]

    def draw(self, index: int, rng: np.random.Generator, *, patch_px: int | None = None) -> tuple[int, int]:
        """Draw the position of a patch.

        With the probability ``balance``, a class of the image is drawn, then a pixel of this class, then a patch that
        contains the pixel. Otherwise any position is drawn; a position without labeled pixels is drawn again, and
        after 64 of these a patch around a random labeled pixel is taken. Only in an image without labels a patch has
        no labeled pixels.

        Args:
            index: Index of the label map.
            rng: Source of all random numbers.
            patch_px: Side of this patch; None takes that of the sampler.

        Returns:
            Top row and left column. The patch does not extend beyond the image; they are 0 where the image is smaller
            than the patch.
        """
        labels, classes = self._maps[index], self._indices[index]
        side_px = self._patch_px if patch_px is None else patch_px
        room = max(0, labels.shape[0] - side_px), max(0, labels.shape[1] - side_px)
        has_labels = len(classes.classes) > 0
        if has_labels and rng.random() < self._balance:
            chosen = int(rng.integers(len(classes.classes)))
            return _patch_around(_random_pixel(labels, classes, chosen, rng), room, side_px, rng)
        for _ in range(_TRIES):
            top, left = int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
            if not has_labels or np.any(labels[top : top + side_px, left : left + side_px] != IGNORE_LABEL):
                return top, left
        sizes = classes.until_row[:, -1]
        chosen = int(np.searchsorted(np.cumsum(sizes), rng.integers(sizes.sum()), side="right"))
        return _patch_around(_random_pixel(labels, classes, chosen, rng), room, side_px, rng)


def _count_rows(labels: NDArray[np.uint8], classes: int) -> _RowCounts:
    height, width = labels.shape
    per_row = np.zeros((height, 256), dtype=np.int64)
    rows = max(1, _BLOCK_VALUES // width)
    for top in range(0, height, rows):
        block = labels[top : top + rows].astype(np.int64)
        block += np.arange(len(block))[:, None] * 256
        per_row[top : top + rows] = np.bincount(block.reshape(-1), minlength=len(block) * 256).reshape(-1, 256)
    present = np.flatnonzero(per_row.any(axis=0))
    present = present[present != IGNORE_LABEL]
    if present.size and present[-1] >= classes:
        raise ValueError(f"a label map has the value {present[-1]}; class indices are 0 to {classes - 1}")
    return _RowCounts(present, np.cumsum(per_row[:, present], axis=0).T.copy())


def _random_pixel(
    labels: NDArray[np.uint8], counts: _RowCounts, chosen: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Row and column of a random pixel of a class; all pixels have the same probability."""
    until_row = counts.until_row[chosen]
    number = int(rng.integers(until_row[-1]))
    row = int(np.searchsorted(until_row, number, side="right"))
    before = int(until_row[row - 1]) if row else 0
    return row, int(np.flatnonzero(labels[row] == counts.classes[chosen])[number - before])


def _patch_around(
    pixel: tuple[int, int], room: tuple[int, int], side_px: int, rng: np.random.Generator
) -> tuple[int, int]:
    """The top left corner of a random patch that contains a pixel; all positions have the same probability."""
    top, left = (
        int(rng.integers(max(0, at - side_px + 1), min(at, most) + 1)) for at, most in zip(pixel, room, strict=True)
    )
    return top, left


def overhead(image: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Apply one of the eight symmetries of the square, chosen at random, to an image that was taken from above.

    Args:
        image: ``(h, w, C)``.
        labels: ``(h, w)``, transformed with the image.
        rng: Source of the random choice.
    """
    symmetry = int(rng.integers(8))
    quarters, is_mirrored = symmetry % 4, symmetry >= 4
    if is_mirrored:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.rot90(image, quarters).copy(), np.rot90(labels, quarters).copy()


def flip_left_right(image: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mirror an image ``(h, w, C)`` and its labels ``(h, w)`` at the vertical axis; returns copies."""
    # numpy reports a view of one column as contiguous even with negative strides, which torch does not accept
    return image[:, ::-1].copy(), labels[:, ::-1].copy()
