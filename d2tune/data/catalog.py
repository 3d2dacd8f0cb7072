"""Registering a ``Dataset`` with Detectron2, under a name that says what is in it."""

from __future__ import annotations

from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from d2tune.annotations.dataset import Dataset, Instance


def register(dataset: Dataset, *, project: str, part: str) -> str:
    """Register ``dataset`` and return its name, ``d2tune/<project>/<part>/<content hash>``.

    The name changes with the content, so registering the same content again does nothing, and no name
    ever stands for two contents.
    """
    name = f"d2tune/{project}/{part}/{dataset.content_hash()[:12]}"
    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, partial(detectron2_dicts, dataset))
    things = [category for category in dataset.categories if category.isthing]
    MetadataCatalog.get(name).set(
        thing_classes=[category.name for category in things],
        thing_dataset_id_to_contiguous_id={category.id: index for index, category in enumerate(things)},
    )
    return name


def detectron2_dicts(dataset: Dataset) -> list[dict[str, Any]]:
    """Detectron2's standard dicts, one for each image, in order; images without instances included."""
    contiguous = {
        category.id: index
        for index, category in enumerate(category for category in dataset.categories if category.isthing)
    }
    by_image = dataset.by_image()
    return [
        {
            "file_name": str(image.path),
            "image_id": image.id,
            "width": image.width_px,
            "height": image.height_px,
            "annotations": [
                _annotation(instance, contiguous[instance.category_id])
                for instance in by_image[image.id]
                if instance.category_id in contiguous
            ],
        }
        for image in dataset.images
    ]


def _annotation(instance: Instance, contiguous_id: int) -> dict[str, Any]:
    return {
        "bbox": list(instance.bbox_xywh),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous_id,
        "iscrowd": int(instance.iscrowd),
        "segmentation": instance.coco_segmentation(),
    }
