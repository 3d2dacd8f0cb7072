"""Counts and sizes of one or several checked datasets, for the check page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Dataset, Image, Instance
from d2tune.annotations.model.findings import Finding
from d2tune.project import Project

SMALL_PX, MEDIUM_PX = 32.0, 96.0
"""COCO's borders between small, medium and large objects: the square root of the area in pixels."""

FEW_INSTANCES = 20
"""A class with fewer instances is called scarce."""

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_SPLIT_ORDER = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a training does with the data, as far as the page speaks of it.

    Attributes:
        short_side_px: To which images are resized; None where they keep their size.
        project: Name of the project that says so; None takes the defaults.
        has_objects: Whether objects are distinguished; else there are regions, and what counts is their pixels.
    """

    short_side_px: int | None = 640
    project: str | None = None
    has_objects: bool = True

    @classmethod
    def of(cls, project: Project) -> Setting:
        """The setting of a project."""
        size = project.train.image_size
        return cls(
            short_side_px=size if isinstance(size, int) else None,
            project=project.name,
            has_objects=project.traits.has_objects,
        )

    @property
    def noun(self) -> str:
        """One of the things that are counted: an instance, or a region."""
        return "instance" if self.has_objects else "region"

    @property
    def thing(self) -> str:
        """The same in sentences about its size."""
        return "object" if self.has_objects else "region"


@dataclass(frozen=True, slots=True)
class Checked:
    """One source that was read.

    Attributes:
        source: The folder or file that was read.
        dataset: Its images and instances.
        findings: Its findings, with the levels that apply.
        split: Name of the split that all its images belong to, such as ``train``; empty where none is known.
        splits: The splits that it is divided into, by name; empty where it is not divided.
    """

    source: Path
    dataset: Dataset
    findings: tuple[Finding, ...]
    split: str = ""
    splits: Mapping[str, Dataset] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An image with its objects.

    Attributes:
        image: The image; its id counts over all sources.
        instances: Its objects, without crowds.
        labels: Class names of the objects, in their order.
        split: Name of its split; empty where it has none.
        crowds: Its crowds, with their class names.
    """

    image: Image
    instances: tuple[Instance, ...]
    labels: tuple[str, ...]
    split: str
    crowds: tuple[tuple[Instance, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The instances of one class; sizes are square roots of areas, None where it has no instance.

    Attributes:
        name: The class.
        images: Images with at least one instance.
        instances: Instances.
        share: Fraction of all instances; of all labeled pixels where there are regions.
        by_split: Instances in each split, in the order of `Survey.splits`.
        smallest_px: Size of the smallest instance.
        median_px: Median size.
        largest_px: Size of the largest instance.
    """

    name: str
    images: int
    instances: int
    share: float
    by_split: tuple[int, ...]
    smallest_px: float | None
    median_px: float | None
    largest_px: float | None


@dataclass(frozen=True)
class Survey:
    """Everything that was read, counted over all sources.

    Attributes:
        checked: The sources.
        entries: All images, in the order of the sources and file names.
        class_names: All classes, those of the first source first.
        splits: Names of the splits that are known, train before val before test.
        setting: What a training does with them.
    """

    checked: tuple[Checked, ...]
    entries: tuple[ImageEntry, ...]
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    setting: Setting = Setting()

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all sources."""
        return tuple(finding for one in self.checked for finding in one.findings)

    def level(self, level: str) -> int:
        """How many findings have a level."""
        return sum(finding.level == level for finding in self.findings)

    @cached_property
    def crowds(self) -> int:
        """How many crowds there are."""
        return sum(len(entry.crowds) for entry in self.entries)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class of every instance."""
        return tuple(label for entry in self.entries for label in entry.labels)

    @cached_property
    def sizes_px(self) -> NDArray[np.float64]:
        """Square root of the area of every instance, ``(I,)``."""
        areas = [one.area_px2 for entry in self.entries for one in entry.instances]
        return np.sqrt(np.array(areas, dtype=np.float64))

    @cached_property
    def image_sizes_px(self) -> NDArray[np.float64]:
        """Width and height of every image, ``(N, 2)``."""
        sizes = [(entry.image.width_px, entry.image.height_px) for entry in self.entries]
        return np.array(sizes, dtype=np.float64).reshape(-1, 2)

    @cached_property
    def objects_per_image(self) -> NDArray[np.int64]:
        """How many instances every image has, ``(N,)``."""
        return np.array([len(entry.instances) for entry in self.entries], dtype=np.int64)

    @cached_property
    def image_sizes_of_instances_px(self) -> NDArray[np.float64]:
        """Width and height of the image of every instance, ``(I, 2)``."""
        return np.repeat(self.image_sizes_px, self.objects_per_image, axis=0)

    @cached_property
    def relative_sizes(self) -> NDArray[np.float64]:
        """Square root of the share of its image that every instance covers, from 0 to 1, ``(I,)``."""
        ratios: NDArray[np.float64] = self.sizes_px / np.sqrt(np.prod(self.image_sizes_of_instances_px, axis=1))
        return ratios

    @cached_property
    def boxes_xywh(self) -> NDArray[np.float64]:
        """Boxes of all instances in pixels, ``(I, 4)``."""
        boxes = [one.bbox_xywh for entry in self.entries for one in entry.instances]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)

    @cached_property
    def aspect_ratios(self) -> NDArray[np.float64]:
        """Width divided by height of every instance's box, ``(I,)``."""
        boxes = self.boxes_xywh
        ratios: NDArray[np.float64] = np.maximum(boxes[:, 2], 1e-3) / np.maximum(boxes[:, 3], 1e-3)
        return ratios

    @cached_property
    def class_rows(self) -> tuple[ClassRow, ...]:
        """One row for each class, the most frequent first."""
        instances = Counter(self.labels)
        images = Counter(label for entry in self.entries for label in set(entry.labels))
        by_split = Counter((entry.split, label) for entry in self.entries for label in entry.labels)
        index = {name: number for number, name in enumerate(self.class_names)}
        numbers = np.array([index[label] for label in self.labels], dtype=np.int64)
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers, minlength=len(self.class_names)))
        groups = np.split(self.sizes_px[order], ends[:-1]) if len(self.class_names) else []
        weights = [float(len(sizes) if self.setting.has_objects else (sizes**2).sum()) for sizes in groups]
        rows = []
        for name, sizes, weight in zip(self.class_names, groups, weights, strict=True):
            some = len(sizes) > 0
            rows.append(
                ClassRow(
                    name,
                    images[name],
                    instances[name],
                    weight / max(1.0, sum(weights)),
                    tuple(by_split[split, name] for split in self.splits),
                    float(sizes.min()) if some else None,
                    float(np.median(sizes)) if some else None,
                    float(sizes.max()) if some else None,
                )
            )
        return tuple(sorted(rows, key=lambda row: (-row.share, -row.instances)))


def survey(
    checked: Sequence[Checked], *, split_of: Mapping[str, str] | None = None, setting: Setting | None = None
) -> Survey:
    """Count over all sources.

    Args:
        checked: The sources, each read once.
        split_of: Split by ``Image.file_name``, for sources of several splits; None looks for top-level folders called
            train, val (or valid, validation) and test.
        setting: What a training does with them; None takes the defaults, with regions where no two instances can
            have a pixel in common, as in label images.
    """
    entries: list[ImageEntry] = []
    for one in checked:
        groups = one.dataset.by_image()
        names = {category.id: category.name for category in one.dataset.categories}
        folders = {image.file_name: name for name, of_split in one.splits.items() for image in of_split.images}
        folders = folders or (folder_splits(one.dataset.images) if split_of is None else dict(split_of))
        for image in one.dataset.images:
            instances = tuple(instance for instance in groups[image.id] if not instance.iscrowd)
            crowds = tuple((one, names[one.category_id]) for one in groups[image.id] if one.iscrowd)
            labels = tuple(names[instance.category_id] for instance in instances)
            split = one.split or folders.get(image.file_name, "")
            entries.append(ImageEntry(replace(image, id=len(entries) + 1), instances, labels, split, crowds))
    class_names = tuple(dict.fromkeys(name for one in checked for name in one.dataset.class_names))
    seen = {entry.split for entry in entries} | {one.split for one in checked}
    splits = sorted(seen - {""}, key=lambda split: (_SPLIT_ORDER.index(split) if split in _SPLIT_ORDER else 9, split))
    if setting is None:
        everything = [one for entry in entries for one in entry.instances]
        setting = Setting(has_objects=not everything or not all(one.is_disjoint for one in everything))
    return Survey(tuple(checked), tuple(entries), class_names, tuple(splits), setting)


def folder_splits(images: Sequence[Image]) -> dict[str, str]:
    """Split by file name, where top-level folders have the names of at least two splits."""
    splits = {}
    for image in images:
        folder, slash, _ = image.file_name.partition("/")
        split = _SPLIT_NAMES.get(folder.casefold())
        if slash and split:
            splits[image.file_name] = split
    return splits if len(set(splits.values())) > 1 else {}
