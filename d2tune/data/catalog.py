"""Registration of a ``Dataset`` with Detectron2, under a name that contains the hash of its content."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.data.label_maps import LabelFiles

Layout = Literal["contiguous", "separated"]
"""The values of a model's label maps: indices of all classes, or 0 for all things and 1 and up for the stuff."""


def register(
    dataset: Dataset, *, project: str, split: str, labels: LabelFiles | None = None, layout: Layout = "contiguous"
) -> str:
    """Register ``dataset`` and return its name, ``d2tune/<project>/<split>/<content hash>``.

    The name changes with the content, so a name never stands for two contents. Registering the same content again
    keeps the name and replaces the paths of the images. The metadata have everything that Detectron2's evaluators
    read.

    Args:
        dataset: The dataset to register.
        project: The project's name.
        split: ``train`` or ``val``.
        labels: Label maps, for semantic and panoptic tasks.
        layout: The values of the label maps that the model is trained on.
    """
    kind, content = "", dataset.content_hash()
    if labels is not None:
        # label maps also depend on the order in which overlapping shapes are painted
        task, _, content = labels.folder.name.partition("-")
        kind = f"{layout}/{task}/"
    name = f"d2tune/{project}/{split}/{kind}{content[:12]}"
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, partial(detectron2_dicts, dataset, labels=labels, layout=layout))
    MetadataCatalog.get(name).set(**_metadata(dataset, labels, layout))
    return name


def _metadata(dataset: Dataset, labels: LabelFiles | None, layout: Layout) -> dict[str, Any]:
    things = [category for category in dataset.categories if category.isthing]
    metadata: dict[str, Any] = {
        "thing_classes": [category.name for category in things],
        "thing_dataset_id_to_contiguous_id": {category.id: index for index, category in enumerate(things)},
    }
    if labels is None:
        return metadata
    stuff = [category for category in dataset.categories if not category.isthing]
    if layout == "separated":
        metadata["stuff_classes"] = ["things", *(category.name for category in stuff)]
        metadata["stuff_dataset_id_to_contiguous_id"] = {
            category.id: number for number, category in enumerate(stuff, start=1)
        }
    else:
        metadata["stuff_classes"] = [category.name for category in dataset.categories]
        listed = stuff if labels.segments else dataset.categories
        metadata["stuff_dataset_id_to_contiguous_id"] = {category.id: category.id - 1 for category in listed}
    metadata |= {"ignore_label": IGNORE_LABEL, "evaluator_type": "sem_seg"}
    if labels.segments:
        metadata |= {
            "evaluator_type": "coco_panoptic_seg",
            "label_divisor": LABEL_DIVISOR,
            "panoptic_json": str(labels.panoptic_json),
            "panoptic_root": str(labels.segments_folder),
        }
    return metadata


LABEL_DIVISOR = 1000
"""Factor of the class in the segment ids of Detectron2's Panoptic-DeepLab."""


def detectron2_dicts(
    dataset: Dataset, *, labels: LabelFiles | None = None, layout: Layout = "contiguous"
) -> list[dict[str, Any]]:
    """Detectron2's standard dicts of all images in order, including images without instances.

    Args:
        dataset: The dataset to describe.
        labels: Label maps, for semantic and panoptic tasks: they add ``sem_seg_file_name`` and, for panoptic
            tasks, ``pan_seg_file_name`` and ``segments_info`` with contiguous classes.
        layout: The values of the label maps that ``sem_seg_file_name`` names.
    """
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
            ]
            if labels is None or labels.segments
            else [],
        }
        | _label_fields(labels, layout, number)
        for number, image in enumerate(dataset.images)
    ]


def _label_fields(labels: LabelFiles | None, layout: Layout, number: int) -> dict[str, Any]:
    if labels is None:
        return {}
    files = labels.separated if layout == "separated" else labels.semantic
    fields: dict[str, Any] = {"sem_seg_file_name": str(files[number])}
    if labels.segments:
        infos = [info | {"category_id": info["category_id"] - 1} for info in labels.infos[number]]
        fields |= {"pan_seg_file_name": str(labels.segments[number]), "segments_info": infos}
    return fields


def _annotation(instance: Instance, contiguous_id: int) -> dict[str, Any]:
    return {
        "bbox": list(instance.bbox_xywh),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous_id,
        "iscrowd": int(instance.iscrowd),
        "segmentation": instance.coco_segmentation(),
    }
