"""Training pairs of a Siamese tracker: an object as exemplar, and a search image that shows it again or does not."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from d2tune.annotations.geometry.masks import decode_mask, encode_mask
from d2tune.annotations.io.photos.reading import read_photo_of
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.types import RawRle
from d2tune.data.batches import SampleKey
from d2tune.data.mapper import check_size, to_tensor
from d2tune.data.tracking_crops import EXEMPLAR_PX, SEARCH_PX, ObjectBox, Square, box_of, mean_color
from d2tune.data.tracking_sequences import Track, instance_mask, tracks_of
from d2tune.samples.clips import Clip

_LEAST_PX2 = 20
"""Objects with fewer pixels are not trained on."""

_EXEMPLAR_SHIFT_PX, _EXEMPLAR_SCALE = 4, 0.05
_LARGEST_TURN, _LARGEST_STRETCH = 0.25, 0.1
"""Turn in radians, and stretch, of a search image that is made of the image of its exemplar."""

_BLURRED, _GRAY = 0.18, 0.25


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How pairs are made.

    Attributes:
        channel_order: ``RGB`` or ``BGR``.
        short_side_px: Images are reduced to this short side.
        rendered: Share of the pairs from rendered clips.
        negatives: Share of the pairs that show two objects.
        shift_px: Most pixels that the object is away from the center of a search image.
        scale: How much its size differs at most, as a share.
        color_jitter: Share of the images whose colors are varied.
        are_frames: Whether the images of a folder are the frames of a video.
    """

    channel_order: str
    short_side_px: int
    rendered: float
    negatives: float
    shift_px: int
    scale: float
    color_jitter: float
    are_frames: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """An object in an image: ``pixels`` (H, W, 3) RGB, and its mask."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Reduced:
    """An image no larger than training needs, with the masks of its instances by their places in the dataset."""

    pixels: NDArray[np.uint8]
    masks: dict[int, RawRle]


class TrackingPairs(torch.utils.data.Dataset[dict[str, Any]]):
    """Pairs by ``SampleKey``, each of an object of the image of the key, or from a rendered clip.

    An item has ``exemplar`` ``(3, 127, 127)`` uint8, ``image`` ``(3, 255, 255)`` uint8, the ``mask`` ``(255, 255)``
    bool of the object in the image, and its ``box`` ``(4)`` as center and size in pixel indices; in a pair of two
    objects the mask is empty and the box has no elements. Both images of a pair are of one video where the data are
    videos; otherwise of one photo, the second one moved, turned and stretched.

    Args:
        dataset: The training split.
        options: How pairs are made.
        cache_bytes: Memory that images may take in one process.
    """

    def __init__(self, dataset: Dataset, options: PairOptions, *, cache_bytes: int) -> None:
        self._dataset = dataset
        self._options = options
        tracks = tracks_of(dataset, are_frames=options.are_frames)
        self._of_image: dict[int, list[tuple[Track, int]]] = defaultdict(list)
        for track in tracks:
            for at, one in enumerate(track):
                self._of_image[one.image].append((track, at))
        self._with_objects = sorted(self._of_image)
        self._cache: dict[int, _Reduced] = {}
        self._cached_bytes, self._cache_bytes = 0, cache_bytes

    def __len__(self) -> int:
        return len(self._dataset.images)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        rng = np.random.default_rng(key.seed)
        pair = None
        if rng.random() >= self._options.rendered:
            pair = self._annotated_pair(key.index, rng)
        is_one_image = pair is not None and pair[0] is pair[1]
        first, second = pair or _rendered_pair(rng)
        is_negative = rng.random() < self._options.negatives
        if is_negative:
            second = self._other(rng) or second
        return self._sample(first, second, rng, is_negative=is_negative, is_one_image=is_one_image)

    def _annotated_pair(self, index: int, rng: np.random.Generator) -> tuple[_Seen, _Seen] | None:
        """An object of an image, twice or in another frame; None where it has none that is large enough."""
        choices = self._of_image.get(index, [])
        if not choices:
            return None
        track, at = choices[int(rng.integers(len(choices)))]
        first = self._seen(track, at)
        other = int(rng.integers(len(track)))
        second = first if other == at else self._seen(track, other)
        return (first, second) if first is not None and second is not None else None

    def _other(self, rng: np.random.Generator) -> _Seen | None:
        """An object of another pair."""
        if rng.random() < self._options.rendered or not self._with_objects:
            return _rendered_pair(rng)[1]
        index = self._with_objects[int(rng.integers(len(self._with_objects)))]
        pair = self._annotated_pair(index, rng)
        return None if pair is None else pair[1]

    def _seen(self, track: Track, at: int) -> _Seen | None:
        one = track[at]
        reduced = self._reduced(one.image)
        mask = decode_mask(reduced.masks[one.instance])
        return _Seen(reduced.pixels, mask) if np.count_nonzero(mask) >= _LEAST_PX2 else None

    def _reduced(self, index: int) -> _Reduced:
        if index in self._cache:
            return self._cache[index]
        image = self._dataset.images[index]
        pixels = read_photo_of(image)
        check_size(pixels.shape[:2], (image.height_px, image.width_px), image.path or image.file_name)
        factor = min(1.0, self._options.short_side_px / min(pixels.shape[:2]))
        size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
        masks = {}
        for track, at in self._of_image[index]:
            place = track[at].instance
            mask = instance_mask(self._dataset.instances[place], image).view(np.uint8)
            masks[place] = encode_mask(cv2.resize(mask * 255, size, interpolation=cv2.INTER_AREA) > 127)
        reduced = _Reduced(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), masks)
        if self._cached_bytes + reduced.pixels.nbytes <= self._cache_bytes:
            self._cached_bytes += reduced.pixels.nbytes
            self._cache[index] = reduced
        return reduced

    def _sample(
        self, first: _Seen, second: _Seen, rng: np.random.Generator, *, is_negative: bool, is_one_image: bool
    ) -> dict[str, Any]:
        options = self._options
        boxes = _box(first.mask), _box(second.mask)
        near = _jittered(Square.around(boxes[0], side_px=EXEMPLAR_PX), rng, _EXEMPLAR_SHIFT_PX, _EXEMPLAR_SCALE)
        square = _jittered(Square.around(boxes[1], side_px=SEARCH_PX), rng, options.shift_px, options.scale)
        if is_one_image:
            stretch = math.exp(rng.uniform(-_LARGEST_STRETCH, _LARGEST_STRETCH))
            scale = (square.scale[0] * stretch, square.scale[1] / stretch)
            square = replace(square, scale=scale, turn=rng.uniform(-_LARGEST_TURN, _LARGEST_TURN))
        exemplar = near.cut(first.pixels, mean_color(first.pixels))
        image = square.cut(second.pixels, mean_color(second.pixels))
        mask = square.cut_mask(second.mask)
        if is_negative:
            mask = np.zeros_like(mask)
        if rng.random() < 0.5:
            exemplar, image, mask = exemplar[:, ::-1], image[:, ::-1], np.ascontiguousarray(mask[:, ::-1])
        box = box_of(mask)
        indices = [] if box is None else [box.x - 0.5, box.y - 0.5, box.width_px, box.height_px]
        exemplar, image = _colored([exemplar, image], rng, options.color_jitter)
        if options.channel_order == "BGR":
            exemplar, image = exemplar[:, :, ::-1], image[:, :, ::-1]
        return {
            "exemplar": to_tensor(exemplar),
            "image": to_tensor(image),
            "mask": torch.from_numpy(mask),
            "box": torch.tensor(indices, dtype=torch.float32),
        }


def _box(mask: NDArray[np.bool_]) -> ObjectBox:
    box = box_of(mask)
    assert box is not None  # objects without pixels are not chosen
    return box


def _jittered(square: Square, rng: np.random.Generator, shift_px: float, scale: float) -> Square:
    """A square with its object away from the center and of another size."""
    factor = 1 + rng.uniform(-scale, scale)
    x, y = rng.uniform(-shift_px, shift_px, 2) / (square.scale[0] * factor)
    changed = (square.scale[0] * factor, square.scale[1] * factor)
    return replace(square, x=square.x + x, y=square.y + y, scale=changed)


def _colored(images: list[NDArray[np.uint8]], rng: np.random.Generator, share: float) -> list[NDArray[np.uint8]]:
    """Both images with colors of their own, sometimes both gray, sometimes the second one blurred."""
    changed = []
    for image in images:
        values = image.astype(np.float32)
        if rng.random() < share:
            gray = values.mean(axis=2, keepdims=True)
            values = gray + rng.uniform(0.7, 1.3) * (values - gray)
            mean = float(values.mean())
            values = rng.uniform(0.7, 1.3) * (mean + rng.uniform(0.7, 1.3) * (values - mean))
        changed.append(values)
    if rng.random() < _GRAY:
        changed = [np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2) for values in changed]
    if rng.random() < _BLURRED:
        changed[1] = cv2.GaussianBlur(np.ascontiguousarray(changed[1]), (0, 0), rng.uniform(0.7, 3.0))
    return [np.clip(values, 0, 255).astype(np.uint8) for values in changed]


def _rendered_pair(rng: np.random.Generator) -> tuple[_Seen, _Seen]:
    """An object of a rendered clip at two times, at which it can be seen."""
    while True:
        clip = Clip(rng)
        first, second = (clip.frame(time) for time in rng.uniform(0, 1, 2))
        visible = [
            at
            for at, masks in enumerate(zip(first.masks, second.masks, strict=True))
            if min(map(np.count_nonzero, masks)) >= 4 * _LEAST_PX2
        ]
        if visible:
            at = visible[int(rng.integers(len(visible)))]
            return _Seen(first.image_rgb, first.masks[at]), _Seen(second.image_rgb, second.masks[at])
