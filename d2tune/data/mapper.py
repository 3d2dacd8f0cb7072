"""From a Detectron2 dataset dict to the tensors the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.io.photos.reading import read_photo
from d2tune.data.batches import SampleKey
from d2tune.data.instance_patches import patch_place
from d2tune.errors import DataError

CACHE_BYTES = 1 << 30
"""Memory for decoded training images, in all processes that load them together."""

LEAST_SIDE_PX = 16
"""Smallest side of resized images, which only images of 1:33 and more extreme shapes would fall below.

Panoptic-DeepLab looks for up to 200 centers and fails where an image has fewer pixels.
"""


def read_image(path: str, channel_order: str, *, white: float | None = None) -> NDArray[np.uint8]:
    """Read a photo as displayed, in the channel order of a model.

    Args:
        path: An image file.
        channel_order: ``RGB`` or ``BGR``.
        white: See `read_photo`.

    Returns:
        ``(H, W, 3)``.

    Raises:
        DataError: See `read_photo`.
    """
    image = read_photo(Path(path), white=white)
    return image[:, :, ::-1] if channel_order == "BGR" else image


def check_size(size_hw: tuple[int, ...], annotated_hw: tuple[int, int], file: str | Path) -> None:
    """Check that an image has the size of its annotations.

    Args:
        size_hw: Height and width of the image, in pixels.
        annotated_hw: Height and width when its annotations were read.
        file: The image file.

    Raises:
        DataError: The sizes differ.
    """
    if size_hw != annotated_hw:
        raise DataError(
            "the size of the image has changed since its annotations were read",
            file=file,
            found=f"{size_hw[1]} x {size_hw[0]} px",
            expected=f"{annotated_hw[1]} x {annotated_hw[0]} px",
        )


def to_tensor(image: NDArray[Any]) -> torch.Tensor:
    """The image ``(H, W, C)`` as a tensor ``(C, H, W)``; read-only arrays are copied, because torch warns of them."""
    return torch.from_numpy(np.require(image.transpose(2, 0, 1), requirements=["C", "W"]))


class TrainingSamples(torch.utils.data.Dataset[dict[str, Any]]):
    """Training images by ``SampleKey``.

    Each item has ``image`` ``(3, H, W)`` uint8, ``instances`` with ``gt_boxes``, ``gt_classes`` and
    ``gt_masks`` (without crowds), ``height``, ``width`` and ``image_id``. Images larger than
    training needs are reduced once and kept in memory up to ``cache_bytes``.

    Args:
        dicts: Detectron2's dataset dicts.
        channel_order: ``RGB`` or ``BGR``.
        white: The value of 16-bit images that becomes 255; None takes that of each file.
        mask_format: ``polygon`` or ``bitmask``.
        short_side_range_px: Smallest and largest short side of the keys.
        max_side_px: Largest long side of a training image.
        color_jitter: Share of images whose colors are varied.
        patch_px: Side of the squares that are cut out of the resized images; 0 takes whole images. Masks are then
            bitmaps, and boxes those of the visible part.
        patch_balance: Share of the squares that lie around an object, each class equally often; the rest lie anywhere.
        cache_bytes: Memory that decoded images may take in one process.
    """

    def __init__(
        self,
        dicts: Sequence[dict[str, Any]],
        *,
        channel_order: str,
        white: float | None = None,
        mask_format: str,
        short_side_range_px: tuple[int, int],
        max_side_px: int,
        color_jitter: float,
        patch_px: int = 0,
        patch_balance: float = 0.5,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._dicts = dicts
        self._channel_order = channel_order
        self._white = white
        self._mask_format = "bitmask" if patch_px else mask_format
        self._patch_px = patch_px
        self._patch_balance = patch_balance
        self._largest_short_side_px = short_side_range_px[1]
        self._max_side_px = max_side_px
        self._color = T.RandomApply(ColorJitter(), prob=color_jitter)
        self._cache: dict[int, _Reduced] = {}
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        reduced = self._reduced(key.index)
        np.random.seed(key.seed)
        size = Resize(key.short_side_px, self._max_side_px, "choice")
        if self._patch_px:
            return self._patch(key, reduced, size)
        inputs = T.AugInput(reduced.image)
        transforms = T.AugmentationList([size, T.RandomFlip(), self._color])(inputs)
        shape = inputs.image.shape[:2]
        mapped = _mapped(reduced.annotations, transforms, shape)
        labels = None if reduced.labels is None else transforms.apply_segmentation(reduced.labels)
        return self._sample(key, inputs.image, _instances(mapped, shape, self._mask_format), labels)

    def _sample(
        self, key: SampleKey, image: NDArray[np.uint8], instances: Any, labels: NDArray[np.uint8] | None
    ) -> dict[str, Any]:
        source = self._dicts[key.index]
        sample = {
            "image": to_tensor(image),
            "instances": instances,
            "height": source["height"],
            "width": source["width"],
            "image_id": source["image_id"],
        }
        return sample if labels is None else sample | self.label_targets(source, labels)

    def _patch(self, key: SampleKey, reduced: _Reduced, size: T.Augmentation) -> dict[str, Any]:
        """A square of the resized image, smaller only where the image is."""
        inputs = T.AugInput(reduced.image)
        transforms = T.AugmentationList([size, T.RandomFlip()])(inputs)
        shape = inputs.image.shape[:2]
        mapped = _mapped(reduced.annotations, transforms, shape)
        rng = np.random.default_rng((key.seed, 3))
        place = patch_place(mapped, shape, patch_px=self._patch_px, balance=self._patch_balance, rng=rng)
        color = T.AugInput(np.ascontiguousarray(place.cut(inputs.image)))
        self._color(color)
        visible = [shifted for annotation in mapped if (shifted := place.shifted(annotation)) is not None]
        instances = _instances(visible, color.image.shape[:2], self._mask_format)
        instances = instances[instances.gt_masks.tensor.flatten(1).any(dim=1)]
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        labels = None
        if reduced.labels is not None:
            labels = np.ascontiguousarray(place.cut(transforms.apply_segmentation(reduced.labels)))
        return self._sample(key, color.image, instances, labels)

    def read_label_map(self, source: dict[str, Any]) -> NDArray[np.uint8] | None:
        """The label map of a dataset dict, ``(H, W)`` or ``(H, W, 3)``; None for instance tasks."""
        return None

    def label_targets(self, source: dict[str, Any], labels: NDArray[np.uint8]) -> dict[str, Any]:
        """Further fields of a sample, made from its label map at the size of the sample's image."""
        return {}

    def _reduced(self, index: int) -> _Reduced:
        if index in self._cache:
            return self._cache[index]
        source = self._dicts[index]
        image = read_image(source["file_name"], self._channel_order, white=self._white)
        check_size(image.shape[:2], (source["height"], source["width"]), source["file_name"])
        annotations = [annotation for annotation in source["annotations"] if not annotation["iscrowd"]]
        labels = self.read_label_map(source)
        factor = self._largest_short_side_px / min(image.shape[:2])
        if 0 < factor < 0.9:
            height_px, width_px = (max(1, round(side * factor)) for side in image.shape[:2])
            scale = (width_px / image.shape[1], height_px / image.shape[0])
            image = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA)
            annotations = [_scaled(annotation, scale, (height_px, width_px)) for annotation in annotations]
            if labels is not None:
                labels = cv2.resize(labels, (width_px, height_px), interpolation=cv2.INTER_NEAREST_EXACT)
        reduced = _Reduced(image, annotations, labels)
        if self._cached_bytes + reduced.nbytes <= self._cache_bytes:
            self._cached_bytes += reduced.nbytes
            self._cache[index] = reduced
        return reduced


@dataclass(frozen=True, slots=True)
class _Reduced:
    """An image with its annotations and label map, no larger than training needs."""

    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]]
    labels: NDArray[np.uint8] | None

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + (0 if self.labels is None else self.labels.nbytes)


def resized_shape(size_hw: tuple[int, int], *, short_side_px: int, max_side_px: int) -> tuple[int, int]:
    """Height and width of an image after Detectron2's ResizeShortestEdge; see `Resize`."""
    height_px, width_px = T.ResizeShortestEdge.get_output_shape(*size_hw, short_side_px, max_side_px)
    least_px = min(LEAST_SIDE_PX, short_side_px)
    return max(least_px, height_px), max(least_px, width_px)


class Resize(T.ResizeShortestEdge):  # type: ignore[misc]  # Detectron2 has no types
    """Detectron2's ResizeShortestEdge, with a least short side: it rounds that of 3000 x 2 px to 0."""

    def get_transform(self, image: NDArray[Any]) -> T.Transform:
        """The transform of an image ``(H, W, C)``."""
        transform = super().get_transform(image)
        if not isinstance(transform, T.ResizeTransform):
            return transform
        least_px = min(LEAST_SIDE_PX, *self.short_edge_length)
        if min(transform.new_h, transform.new_w) >= least_px:
            return transform
        sides = max(least_px, transform.new_h), max(least_px, transform.new_w)
        return T.ResizeTransform(transform.h, transform.w, *sides, transform.interp)


class ColorJitter(T.Augmentation):  # type: ignore[misc]  # Detectron2 has no types
    """Changes brightness, contrast and saturation, each by a random factor between 0.7 and 1.3."""

    def __init__(self) -> None:
        super().__init__()
        self._jitters = [T.RandomBrightness(0.7, 1.3), T.RandomContrast(0.7, 1.3), T.RandomSaturation(0.7, 1.3)]

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        return T.AugmentationList(self._jitters)(aug_input)


def _copied(annotation: dict[str, Any]) -> dict[str, Any]:
    """The annotation with a copy of its polygons, because Detectron2 changes polygons in place."""
    segmentation = annotation["segmentation"]
    fresh = [np.array(polygon) for polygon in segmentation] if isinstance(segmentation, list) else segmentation
    return {**annotation, "segmentation": fresh}


def _mapped(
    annotations: Sequence[dict[str, Any]], transforms: T.Transform, shape: tuple[int, int]
) -> list[dict[str, Any]]:
    """The annotations of an image as those of the transformed image, whose height and width are ``shape``."""
    return [
        _with_writable_mask(detection_utils.transform_instance_annotations(_copied(annotation), transforms, shape))
        for annotation in annotations
    ]


def _with_writable_mask(annotation: dict[str, Any]) -> dict[str, Any]:
    """The annotation with a mask that torch accepts without a warning; PIL gives Detectron2 read-only arrays."""
    mask = annotation["segmentation"]
    return (
        {**annotation, "segmentation": np.require(mask, requirements="W")}
        if isinstance(mask, np.ndarray)
        else annotation
    )


def _scaled(annotation: dict[str, Any], scale_xy: tuple[float, float], size_hw: tuple[int, int]) -> dict[str, Any]:
    factors = np.asarray(scale_xy)
    bbox = (np.asarray(annotation["bbox"]).reshape(2, 2) * factors).reshape(-1).tolist()
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        scaled: Any = [(np.asarray(polygon).reshape(-1, 2) * factors).reshape(-1) for polygon in segmentation]
    else:
        mask = mask_utils.decode({**segmentation, "counts": segmentation["counts"].encode()})
        small = cv2.resize(mask, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_AREA)
        scaled = mask_utils.encode(np.asfortranarray(small))
        scaled["counts"] = scaled["counts"].decode()
    return {**annotation, "bbox": bbox, "segmentation": scaled}


def _instances(annotations: list[dict[str, Any]], shape: tuple[int, int], mask_format: str) -> Any:
    instances = detection_utils.annotations_to_instances(annotations, shape, mask_format=mask_format)
    if not instances.has("gt_masks"):
        from detectron2.structures import BitMasks, PolygonMasks

        empty = BitMasks(torch.empty((0, *shape))) if mask_format == "bitmask" else PolygonMasks([])
        instances.gt_masks = empty
    return detection_utils.filter_empty_instances(instances)


def inference_sample(image: NDArray[np.uint8], *, short_side_px: int, max_side_px: int) -> dict[str, Any]:
    """The input of a Detectron2 model: the resized ``image`` ``(3, h, w)``, and the image's ``height`` and ``width``.

    Args:
        image: ``(H, W, 3)`` in the model's channel order.
        short_side_px: Short side after resizing.
        max_side_px: Largest long side.
    """
    transform = Resize(short_side_px, max_side_px).get_transform(image)
    resized = transform.apply_image(np.ascontiguousarray(image))
    height_px, width_px = image.shape[:2]
    return {"image": to_tensor(resized), "height": height_px, "width": width_px}
