"""Where patches are cut out of images, and how they are flipped and turned, for any number of channels."""

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
class _Index:
    """Where the classes of a label map are.

    Attributes:
        classes: Those that occur, ascending.
        until_row: ``(len(classes), H)``: pixels of the class in this row and all above it.
    """

    classes: NDArray[np.intp]
    until_row: NDArray[np.int64]


class PatchSampler:
    """Draws places of patches so that rare classes are seen as often as common ones.

    Of each label map, the pixels of each class that occurs are counted row by row: 8 bytes a row and class, 3 MB for
    20,000 rows and 20 classes. A pixel is found from these counts and one row of the map, so a draw takes as long in a
    large image as in a small one.

    Args:
        label_maps: Each ``(H, W)``: places of classes, 255 where pixels are left out. They are kept, not copied.
        patch_px: Side of a patch.
        balance: Share of the patches that are drawn around a pixel of a class that is drawn first, each class of the
            image as often as any other.
        classes: How many classes there are.

    Raises:
        ValueError: A label map holds a value that is no class.
    """

    def __init__(self, label_maps: Sequence[NDArray[np.uint8]], *, patch_px: int, balance: float, classes: int) -> None:
        self._maps = list(label_maps)
        self._patch_px = patch_px
        self._balance = balance
        self._indices = [_index(labels, classes) for labels in self._maps]

    def draw(self, index: int, rng: np.random.Generator, *, patch_px: int | None = None) -> tuple[int, int]:
        """Draw the place of a patch in the image of that number.

        With the probability ``balance``, a class of the image is drawn, then one of its pixels, and the patch is put
        anywhere around it. Else the patch lies anywhere; places without a labeled pixel are drawn again, and after 64
        of them the patch is put around any labeled pixel. Only in an image without labels a patch has none.

        Args:
            index: Number of the label map.
            rng: All that is drawn comes from it.
            patch_px: Side of this patch, where it is not the sampler's.

        Returns:
            Top row and left column. The patch does not leave the image; where that is too small, they are 0.
        """
        labels, classes = self._maps[index], self._indices[index]
        side_px = self._patch_px if patch_px is None else patch_px
        room = max(0, labels.shape[0] - side_px), max(0, labels.shape[1] - side_px)
        has_labels = len(classes.classes) > 0
        if has_labels and rng.random() < self._balance:
            chosen = int(rng.integers(len(classes.classes)))
            return _around(_pixel_of(labels, classes, chosen, rng), room, side_px, rng)
        for _ in range(_TRIES):
            top, left = int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
            if not has_labels or np.any(labels[top : top + side_px, left : left + side_px] != IGNORE_LABEL):
                return top, left
        sizes = classes.until_row[:, -1]
        chosen = int(np.searchsorted(np.cumsum(sizes), rng.integers(sizes.sum()), side="right"))
        return _around(_pixel_of(labels, classes, chosen, rng), room, side_px, rng)


def _index(labels: NDArray[np.uint8], classes: int) -> _Index:
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
        raise ValueError(f"a label map holds {present[-1]}, which is none of the {classes} classes")
    return _Index(present, np.cumsum(per_row[:, present], axis=0).T.copy())


def _pixel_of(labels: NDArray[np.uint8], index: _Index, chosen: int, rng: np.random.Generator) -> tuple[int, int]:
    """Row and column of a pixel of a class, each as likely as any other."""
    until_row = index.until_row[chosen]
    number = int(rng.integers(until_row[-1]))
    row = int(np.searchsorted(until_row, number, side="right"))
    before = int(until_row[row - 1]) if row else 0
    return row, int(np.flatnonzero(labels[row] == index.classes[chosen])[number - before])


def _around(pixel: tuple[int, int], room: tuple[int, int], side_px: int, rng: np.random.Generator) -> tuple[int, int]:
    """The top left corner of a patch that holds a pixel, any such place as likely as any other."""
    top, left = (
        int(rng.integers(max(0, at - side_px + 1), min(at, most) + 1)) for at, most in zip(pixel, room, strict=True)
    )
    return top, left


def overhead(image: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Turn and mirror an image seen from above into one of the eight symmetries of the square, drawn at random.

    Args:
        image: ``(h, w, C)``.
        labels: ``(h, w)``, moved alike.
        rng: Which symmetry comes from it.
    """
    symmetry = int(rng.integers(8))
    quarters, is_mirrored = symmetry % 4, symmetry >= 4
    if is_mirrored:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.rot90(image, quarters).copy(), np.rot90(labels, quarters).copy()


def flip_left_right(image: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mirror an image ``(h, w, C)`` and its labels ``(h, w)`` at the vertical axis."""
    # numpy calls a view of one column contiguous whatever its strides are, and torch takes no negative ones
    return image[:, ::-1].copy(), labels[:, ::-1].copy()
