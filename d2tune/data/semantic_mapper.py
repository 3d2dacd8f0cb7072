"""From a dataset dict to the input of a semantic model: an image with any number of channels, and its label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.data import patches
from d2tune.data.augmentation.options import NO_AUGMENTATIONS, Augmentations
from d2tune.data.augmentation.pasting import paste_class
from d2tune.data.augmentation.photometric import Photometric
from d2tune.data.batches import SampleKey
from d2tune.data.image_reader import ImageReader, Pixels
from d2tune.data.label_maps import read_label_map
from d2tune.data.mapper import check_size, resized_shape, to_tensor
from d2tune.data.rectangles import patch_place

Labels = NDArray[np.uint8]
"""``(H, W)``: class indices, 255 for ignored pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticInput:
    """The options for the training images of a semantic model.

    Attributes:
        reader: Reader of the images.
        max_side_px: Largest long side of a whole image after resizing.
        largest_short_side_px: Largest short side of the keys; 0 disables resizing.
        patch_px: Side of the patches; 0 takes whole images.
        patch_balance: Share of the patches that are chosen by class; see `PatchSampler`.
        augment: ``photo`` (mirrored left to right) or ``overhead`` (all symmetries of the square).
        augmentations: What is varied beside size and orientation: colors of photos alone.
        classes: Number of classes.
        short_side_range_px: Smallest and largest short side of the keys.
        background: The class that is not pasted into other images; None where there is none.
    """

    reader: ImageReader
    max_side_px: int
    largest_short_side_px: int
    patch_px: int
    patch_balance: float
    augment: str
    classes: int
    augmentations: Augmentations = NO_AUGMENTATIONS
    short_side_range_px: tuple[int, int] = (0, 0)
    background: int | None = None


class SemanticSamples(torch.utils.data.Dataset[dict[str, Any]]):
    """Training images by ``SampleKey``.

    Each item has ``image`` ``(C, h, w)``, uint8 for photos and else float32, ``sem_seg`` ``(h, w)`` int64 with 255
    for ignored pixels, and ``height``, ``width`` and ``image_id`` of the image. Images are kept in memory
    up to ``cache_bytes``; of larger rasters only the patches are read.

    Args:
        dicts: Dataset dicts with ``sem_seg_file_name``.
        options: The options for the images.
        cache_bytes: Memory that images may take in one process.
    """

    def __init__(self, dicts: Sequence[dict[str, Any]], options: SemanticInput, *, cache_bytes: int) -> None:
        self._dicts = dicts
        self._options = options
        self._photometric = Photometric(options.augmentations, options.reader.order)
        self._sampler: patches.PatchSampler | None = None
        self._labels: dict[int, Labels] = {}
        self._cache: dict[int, Pixels] = {}
        self._free_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        source = self._dicts[key.index]
        rng = np.random.default_rng(key.seed)
        image, labels = self._patch(key, rng) if self._options.patch_px else self._whole(key)
        image, labels = self._with_pasted(key, image, labels)
        image, labels = self._augmented(image, labels, key.seed, rng)
        labels = ignore_without_data(image, labels)
        return {
            "image": to_tensor(image),
            "sem_seg": torch.from_numpy(labels.astype(np.int64)),
            "height": source["height"],
            "width": source["width"],
            "image_id": source["image_id"],
        }

    def _augmented(self, image: Pixels, labels: Labels, seed: int, rng: np.random.Generator) -> tuple[Pixels, Labels]:
        if self._options.augment == "overhead":
            image, labels = patches.overhead(image, labels, rng)
        elif rng.random() < 0.5:
            image, labels = patches.flip_left_right(image, labels)
        if image.dtype == np.uint8 and image.shape[2] == 3:
            np.random.seed(seed)
            image = self._photometric(image, seed)
        return image, labels

    def _with_pasted(self, key: SampleKey, image: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
        """The image with the pixels of a random class of a random other one, in a share of the images."""
        rng = np.random.default_rng((key.seed, 6))
        if rng.random() >= self._options.augmentations.copy_paste:
            return image, labels
        low, high = self._options.short_side_range_px
        index, side_px, seed = (int(rng.integers(*ends)) for ends in ((len(self),), (low, high + 1), (2**31,)))
        other = SampleKey(index, side_px, seed)
        given = self._patch(other, np.random.default_rng(seed)) if self._options.patch_px else self._whole(other)
        return paste_class(image, labels, *given, background=self._options.background, rng=rng)

    def _whole(self, key: SampleKey) -> tuple[Pixels, Labels]:
        image, labels = self._image(key.index), self._labels_of(key.index)
        if not self._options.largest_short_side_px:
            return image, labels
        sides = {"short_side_px": key.short_side_px, "max_side_px": self._options.max_side_px}
        own_hw = labels.shape[0], labels.shape[1]
        size_hw = resized_shape(own_hw, **sides)
        return self._cut(key, resized(image, size_hw), resized_labels(labels, size_hw))

    def _cut(self, key: SampleKey, image: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
        """A random rectangle of an image that is larger than in evaluations, where such images are cut."""
        largest = self._options.augmentations.largest
        if largest is None:
            return image, labels
        source, rng = self._dicts[key.index], np.random.default_rng((key.seed, 3))
        own_hw = source["height"], source["width"]
        limit_hw = resized_shape(own_hw, short_side_px=largest[0], max_side_px=largest[1])
        place = patch_place([], (labels.shape[0], labels.shape[1]), patch_hw=limit_hw, balance=0.0, rng=rng)
        return place.cut(image), place.cut(labels)

    def _patch(self, key: SampleKey, rng: np.random.Generator) -> tuple[Pixels, Labels]:
        """A patch that has the side ``patch_px`` after resizing, or less where the image is smaller."""
        source, options = self._dicts[key.index], self._options
        own_hw = source["height"], source["width"]
        short_side_px = key.short_side_px if options.largest_short_side_px else 0
        resized_hw = input_size(own_hw, short_side_px=short_side_px, max_side_px=options.max_side_px)
        scale = max(resized_hw) / max(own_hw)
        side_px = max(1, round(options.patch_px / scale))
        top_px, left_px = self._sampler_of().draw(key.index, rng, patch_px=side_px)
        height_px, width_px = (min(side_px, source[name]) for name in ("height", "width"))
        labels = self._labels_of(key.index)[top_px : top_px + height_px, left_px : left_px + width_px]
        image = self._window(key.index, top_px, left_px, height_px, width_px)
        if side_px != options.patch_px:
            factor = options.patch_px / side_px
            size_hw = max(1, round(height_px * factor)), max(1, round(width_px * factor))
            image, labels = resized(image, size_hw), resized_labels(labels, size_hw)
        return image, labels

    def _sampler_of(self) -> patches.PatchSampler:
        if self._sampler is None:
            maps = [self._labels_of(index) for index in range(len(self._dicts))]
            options = self._options
            self._sampler = patches.PatchSampler(
                maps, patch_px=options.patch_px, balance=options.patch_balance, classes=options.classes
            )
        return self._sampler

    def _labels_of(self, index: int) -> Labels:
        if index not in self._labels:
            self._labels[index] = read_label_map(self._dicts[index]["sem_seg_file_name"])
        return self._labels[index]

    def _image(self, index: int) -> Pixels:
        if index in self._cache:
            return self._cache[index]
        source = self._dicts[index]
        image = self._options.reader.read(source["file_name"])
        check_size(image.shape[:2], (source["height"], source["width"]), source["file_name"])
        factor = self._options.largest_short_side_px / min(image.shape[:2])
        if not self._options.patch_px and 0 < factor < 0.9:
            image = resized(image, (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))))
        if image.nbytes <= self._free_bytes:
            self._free_bytes -= image.nbytes
            self._cache[index] = image
        return image

    def _window(self, index: int, top_px: int, left_px: int, height_px: int, width_px: int) -> Pixels:
        source, reader = self._dicts[index], self._options.reader
        fits = source["height"] * source["width"] * (reader.channels or 1) * 4 <= self._free_bytes
        if index in self._cache or fits or reader.raster is None:
            return self._image(index)[top_px : top_px + height_px, left_px : left_px + width_px]
        with reader.open(source["file_name"]) as image:
            check_size((image.height_px, image.width_px), (source["height"], source["width"]), source["file_name"])
            return image.read(top_px, left_px, height_px, width_px)


def input_size(size_hw: tuple[int, int], *, short_side_px: int, max_side_px: int) -> tuple[int, int]:
    """Height and width in pixels of the model's input for an image of ``size_hw``; short side 0: no resizing."""
    if not short_side_px:
        return size_hw
    return resized_shape(size_hw, short_side_px=short_side_px, max_side_px=max_side_px)


def semantic_sample(image: Pixels, *, short_side_px: int, max_side_px: int) -> dict[str, Any]:
    """The input of a semantic model: ``image`` ``(C, h, w)``, and the ``height`` and ``width`` of the original image.

    Args:
        image: ``(H, W, C)``.
        short_side_px: Short side after resizing; 0 disables resizing.
        max_side_px: Largest long side.
    """
    height_px, width_px = image.shape[:2]
    size_hw = input_size((height_px, width_px), short_side_px=short_side_px, max_side_px=max_side_px)
    return {"image": to_tensor(resized(image, size_hw)), "height": height_px, "width": width_px}


def ignore_without_data(image: Pixels, labels: Labels) -> Labels:
    """The labels, with 255 (ignored) where all channels of the image are NaN."""
    if image.dtype == np.uint8:
        return labels
    empty = np.isnan(image).all(axis=2)
    return np.where(empty, np.uint8(IGNORE_LABEL), labels) if empty.any() else labels


def resized(image: Pixels, size_hw: tuple[int, int]) -> Pixels:
    """The image ``(H, W, C)`` resized to ``size_hw``: by averaging areas if it becomes smaller, else bilinearly."""
    if image.shape[:2] == size_hw:
        return image
    interpolation = cv2.INTER_AREA if size_hw[0] < image.shape[0] else cv2.INTER_LINEAR
    planes = [
        cv2.resize(np.ascontiguousarray(image[:, :, channel]), size_hw[::-1], interpolation=interpolation)
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


def resized_labels(labels: Labels, size_hw: tuple[int, int]) -> Labels:
    """The labels ``(H, W)`` resized to ``size_hw`` by the nearest pixel."""
    if labels.shape == size_hw:
        return labels
    nearest: Labels = cv2.resize(np.ascontiguousarray(labels), size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return nearest
