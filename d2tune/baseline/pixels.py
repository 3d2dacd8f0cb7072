"""The pixels of a project's images as classical methods take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.image_reader import ImageReader, Pixels
from d2tune.data.label_maps import label_files, read_label_map

_CONTEXT_PX = 3.0
"""Standard deviation of the blur that gives a pixel something of its neighbors."""

_GRAY_RANGE = 3.0
"""Standard deviations around the mean that become the gray values of images that are not photos."""

_LEAST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Some images of a split with their label maps.

    Attributes:
        dataset: The split.
        reader: Reads its images.
        chosen: Indices of the images.
        background: The class of the pixels that no shape covers; None where the data name one, or ignore them.
        n_classes: Number of classes, with the background.
    """

    dataset: Dataset
    reader: ImageReader
    chosen: tuple[int, ...]
    background: int | None
    n_classes: int

    def __iter__(self) -> Iterator[tuple[Pixels, NDArray[np.uint8]]]:
        """Pixels ``(H, W, C)`` and class indices ``(H, W)`` of each image, 255 where ignored."""
        labels = label_files(self.dataset).semantic
        for index in self.chosen:
            truth = read_label_map(labels[index])
            if self.background is not None:
                truth = np.where(truth == 255, np.uint8(self.background), truth)
            yield shown(self.reader, str(self.dataset.images[index].path)), truth


def shown(reader: ImageReader, path: str) -> Pixels:
    """The pixels ``(H, W, C)`` of an image, photos in RGB."""
    return reader.shown(reader.read(path))


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Mean and standard deviation of each channel over training images, for images that are not photos.

    Attributes:
        mean: ``(C,)``.
        std: ``(C,)``.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def gray(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Gray values ``(H, W)``: those of photos, or the mean of the standardized channels."""
        if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
            return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
        if pixels.dtype == np.uint8 and pixels.shape[2] == 1:
            return np.ascontiguousarray(pixels[:, :, 0])
        standard = self._standardized(pixels).mean(axis=2)
        return np.asarray(np.clip((standard + _GRAY_RANGE) * (255 / (2 * _GRAY_RANGE)), 0, 255), dtype=np.uint8)

    def features(self, pixels: Pixels) -> NDArray[np.float64]:
        """Values ``(H, W, D)`` of each pixel: color in CIELAB, or channels, and the same blurred."""
        if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
            values = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(np.float64)
        elif pixels.dtype == np.uint8 and pixels.shape[2] == 1:
            values = pixels.astype(np.float64)
        else:
            return self._standardized(pixels)
        blurred = cv2.GaussianBlur(values, (0, 0), _CONTEXT_PX).reshape(values.shape)
        return np.concatenate([values, blurred], axis=2)

    def _standardized(self, pixels: Pixels) -> NDArray[np.float64]:
        """Channels with mean 0 and standard deviation 1; 0 where there are no data."""
        return np.nan_to_num((pixels.astype(np.float64) - self.mean) / self.std)


def measure(images: TrainingImages) -> Scaling:
    """The scaling of training images."""
    sums: list[NDArray[np.float64]] = []
    for pixels, _ in images:
        values = pixels.reshape(-1, pixels.shape[2]).astype(np.float64)
        is_known = np.isfinite(values)
        known = np.where(is_known, values, 0.0)
        sums.append(np.stack([is_known.sum(axis=0), known.sum(axis=0), (known**2).sum(axis=0)]))
    count, total, squares = np.sum(sums, axis=0)
    mean = total / np.maximum(count, 1)
    variance = np.maximum(squares / np.maximum(count, 1) - mean**2, 0)
    return Scaling(mean, np.sqrt(variance) + _LEAST_SPREAD)


def sample_rows(
    images: TrainingImages, scaling: Scaling, *, most: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Labeled pixels drawn at random, the same number of each image.

    Returns:
        Features ``(N, D)`` and classes ``(N,)``.
    """
    random = np.random.default_rng(seed)
    each = max(1, most // max(1, len(images.chosen)))
    rows, classes = [], []
    for pixels, truth in images:
        places = np.flatnonzero(truth.reshape(-1) < images.n_classes)
        if not len(places):
            continue
        picked = random.choice(places, size=min(each, len(places)), replace=False)
        values = scaling.features(pixels)
        rows.append(values.reshape(-1, values.shape[2])[picked])
        classes.append(truth.reshape(-1)[picked].astype(np.int64))
    return np.concatenate(rows), np.concatenate(classes)


def choose(has_objects: Sequence[bool], *, most: int, seed: int) -> tuple[int, ...]:
    """Indices of at most ``most`` images, drawn at random, in ascending order.

    Where objects are rare, three of four are images that have some.

    Args:
        has_objects: Whether each image has objects; all are False where that is not known.
        most: Number of images.
        seed: Of the draw.
    """
    order: list[int] = np.random.default_rng(seed).permutation(len(has_objects)).tolist()
    first = [at for at in order if has_objects[at]][: most * 3 // 4]
    taken = set(first)
    return tuple(sorted((first + [at for at in order if at not in taken])[:most]))
