"""A dataset of masks in memory, such as predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from d2tune.annotations.geometry.masks import encode_mask, rle_area_px2, rle_bbox_xywh, to_rle
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.types import Mask


def dataset_of_masks(
    images: Sequence[Image],
    masks: Iterable[Sequence[tuple[int, Mask]]],
    class_names: Sequence[str],
    *,
    image_root: Path | None = None,
) -> Dataset:
    """A dataset with an instance for each mask, its segmentation a run-length mask.

    Args:
        images: The images; the dataset has them in the order of their file names, with ids from 1.
        masks: For each image any number of pairs: index of the class in ``class_names`` and pixels ``(H, W)``;
            empty masks are excluded.
        class_names: The classes in the order of their ids.
        image_root: The folder that file names are relative to.
    """
    # masks are encoded while iterating, so that only those of one image are in memory
    encoded = [
        (image, [(index, encode_mask(mask)) for index, mask in pairs])
        for image, pairs in zip(images, masks, strict=True)
    ]
    encoded.sort(key=lambda pair: pair[0].file_name)
    instances: list[Instance] = []
    for image_id, (_, pairs) in enumerate(encoded, start=1):
        for index, raw in pairs:
            area_px2 = rle_area_px2(raw)
            if area_px2:
                box = rle_bbox_xywh(raw)
                ids = len(instances) + 1, image_id, index + 1
                instances.append(Instance(*ids, to_rle(raw), box, area_px2))
    return Dataset(
        images=tuple(replace(image, id=number) for number, (image, _) in enumerate(encoded, start=1)),
        categories=tuple(Category(number, name) for number, name in enumerate(class_names, start=1)),
        instances=tuple(instances),
        image_root=image_root,
    )
