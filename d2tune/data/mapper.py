"""From a Detectron2 dataset dict to the tensors the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from d2tune.data.augmentation.crops import whole_crop
from d2tune.data.augmentation.options import NO_AUGMENTATIONS, Augmentations
from d2tune.data.augmentation.pasting import CutOut, Mask, cut_outs, paste
from d2tune.data.augmentation.photometric import Photometric
from d2tune.data.batches import SampleKey
from d2tune.data.rectangles import PatchPlace, patch_place
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
        augmentations: What is varied beside size and mirroring.
        patch_px: Side of the squares that are cut out of the resized images; 0 takes whole images. Masks are then
            bitmaps, and boxes those of the visible part.
        patch_balance: Share of the squares, and of the rectangles of images that are larger than in evaluations, that
            lie around an object, each class equally often; the rest lie anywhere.
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
        augmentations: Augmentations = NO_AUGMENTATIONS,
        patch_px: int = 0,
        patch_balance: float = 0.5,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._dicts = dicts
        self._channel_order = channel_order
        self._white = white
        self._mask_format = "bitmask" if patch_px or augmentations.cuts_instances else mask_format
        self._augmentations = augmentations
        self._photometric = Photometric(augmentations, channel_order)
        self._with_instances = [number for number, one in enumerate(dicts) if any(map(_is_one, one["annotations"]))]
        self._patch_px = patch_px
        self._patch_balance = patch_balance
        self._short_side_range_px = short_side_range_px
        self._max_side_px = max_side_px
        self._cache: dict[int, _Scene] = {}
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self._dicts)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        reduced = self._reduced(key.index)
        np.random.seed(key.seed)
        scene = self._cut(key, self._resized(reduced, T.RandomFlip(), key.short_side_px))
        source, scene = self._with_pasted(key, self._dicts[key.index], scene)
        image = self._photometric(scene.image, key.seed)
        instances = _instances(scene.annotations, image.shape[:2], self._mask_format)
        if self._patch_px or self._augmentations.cuts_instances:
            instances = instances[instances.gt_masks.tensor.flatten(1).any(dim=1)]
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        sample = {
            "image": to_tensor(image),
            "instances": instances,
            "height": source["height"],
            "width": source["width"],
            "image_id": source["image_id"],
        }
        return sample if scene.labels is None else sample | self.label_targets(source, scene.labels)

    def _resized(self, reduced: _Scene, flip: T.Augmentation, short_side_px: int) -> _Scene:
        inputs = T.AugInput(reduced.image)
        size = Resize(short_side_px, self._max_side_px, "choice")
        transforms = T.AugmentationList([size, flip])(inputs)
        annotations = _mapped(reduced.annotations, transforms, inputs.image.shape[:2])
        labels = None if reduced.labels is None else transforms.apply_segmentation(reduced.labels)
        return _Scene(inputs.image, annotations, labels)

    def _cut(self, key: SampleKey, scene: _Scene) -> _Scene:
        """A rectangle that cuts no instance in a share of the images, and then a square, or what evaluations hold."""
        rng = np.random.default_rng((key.seed, 5))
        if rng.random() < self._augmentations.crop:
            scene = scene.cut(whole_crop(scene.annotations, scene.size_hw, rng=rng))
        limit_hw = self._limit_hw(key.index)
        if limit_hw is None or (self._patch_px == 0 and scene.fits(limit_hw)):
            return scene
        rng = np.random.default_rng((key.seed, 3))
        balance = self._patch_balance
        place = patch_place(scene.annotations, scene.size_hw, patch_hw=limit_hw, balance=balance, rng=rng)
        return scene.cut(place)

    def _limit_hw(self, index: int) -> tuple[int, int] | None:
        """The largest height and width of an image; None where images are not cut."""
        if self._patch_px:
            return self._patch_px, self._patch_px
        if self._augmentations.largest is None:
            return None
        source = self._dicts[index]
        short_side_px, max_side_px = self._augmentations.largest
        return resized_shape((source["height"], source["width"]), short_side_px=short_side_px, max_side_px=max_side_px)

    def _with_pasted(self, key: SampleKey, source: dict[str, Any], scene: _Scene) -> tuple[dict[str, Any], _Scene]:
        """The image with instances of a random other one in a share of the images, and the dict that goes with it."""
        rng = np.random.default_rng((key.seed, 6))
        if rng.random() >= self._augmentations.copy_paste or not self._with_instances:
            return source, scene
        given = self._cut_outs(int(rng.choice(self._with_instances)), rng)
        pasted = paste(scene.image, scene.annotations, given, rng=rng)
        added = list(zip(pasted.annotations[len(pasted.annotations) - len(pasted.masks) :], pasted.masks, strict=True))
        labels = scene.labels
        if labels is not None:
            things = [(annotation["category_id"], mask) for annotation, mask in added]
            source, labels = self.paste_labels(source, labels, things)
        return source, replace(scene, image=pasted.image, annotations=pasted.annotations, labels=labels)

    def _cut_outs(self, index: int, rng: np.random.Generator) -> list[CutOut]:
        """Instances of an image at a random size of training images, mirrored or not."""
        low, high = self._short_side_range_px
        flip = T.RandomFlip(prob=float(rng.random() < 0.5))
        scene = self._resized(self._reduced(index), flip, int(rng.integers(low, high + 1)))
        return cut_outs(scene.image, scene.annotations, rng=rng)

    def read_label_map(self, source: dict[str, Any]) -> NDArray[np.uint8] | None:
        """The label map of a dataset dict, ``(H, W)`` or ``(H, W, 3)``; None for instance tasks."""
        return None

    def label_targets(self, source: dict[str, Any], labels: NDArray[np.uint8]) -> dict[str, Any]:
        """Further fields of a sample, made from its label map at the size of the sample's image."""
        return {}

    def paste_labels(
        self, source: dict[str, Any], labels: NDArray[np.uint8], things: Sequence[tuple[int, Mask]]
    ) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """A dataset dict and its label map with pasted things, each with its class and its visible pixels."""
        return source, labels

    def _reduced(self, index: int) -> _Scene:
        if index in self._cache:
            return self._cache[index]
        source = self._dicts[index]
        image = read_image(source["file_name"], self._channel_order, white=self._white)
        check_size(image.shape[:2], (source["height"], source["width"]), source["file_name"])
        annotations = [annotation for annotation in source["annotations"] if _is_one(annotation)]
        labels = self.read_label_map(source)
        factor = self._short_side_range_px[1] / min(image.shape[:2])
        if 0 < factor < 0.9:
            height_px, width_px = (max(1, round(side * factor)) for side in image.shape[:2])
            scale = (width_px / image.shape[1], height_px / image.shape[0])
            image = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA)
            annotations = [_scaled(annotation, scale, (height_px, width_px)) for annotation in annotations]
            if labels is not None:
                labels = cv2.resize(labels, (width_px, height_px), interpolation=cv2.INTER_NEAREST_EXACT)
        reduced = _Scene(image, annotations, labels)
        if self._cached_bytes + reduced.nbytes <= self._cache_bytes:
            self._cached_bytes += reduced.nbytes
            self._cache[index] = reduced
        return reduced


@dataclass(frozen=True, slots=True)
class _Scene:
    """An image with its annotations and label map, no larger than training needs or as the network gets it."""

    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]]
    labels: NDArray[np.uint8] | None

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + (0 if self.labels is None else self.labels.nbytes)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def fits(self, limit_hw: tuple[int, int]) -> bool:
        """Whether neither side exceeds those given."""
        return self.size_hw[0] <= limit_hw[0] and self.size_hw[1] <= limit_hw[1]

    def cut(self, place: PatchPlace) -> _Scene:
        """A rectangle of the image with what is annotated in it."""
        inside = [shifted for annotation in self.annotations if (shifted := place.shifted(annotation)) is not None]
        labels = None if self.labels is None else np.ascontiguousarray(place.cut(self.labels))
        return _Scene(np.ascontiguousarray(place.cut(self.image)), inside, labels)


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


def _is_one(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is one instance and not a crowd."""
    return not annotation["iscrowd"]


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
