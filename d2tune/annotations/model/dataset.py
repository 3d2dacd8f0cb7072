"""A dataset: images, their instances, and the findings made while reading them.

Coordinates are continuous image coordinates in pixels, x to the right and y down: pixel ``i`` covers
``[i, i + 1)``. Sizes are those of the displayed image, after its EXIF orientation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from d2tune.annotations.model.findings import Finding
from d2tune.annotations.model.ledger import LedgerRow
from d2tune.annotations.model.pixel_format import PixelFormat
from d2tune.annotations.model.types import Polygons, Rle
from d2tune.errors import DataError
from d2tune.text import counted


@dataclass(frozen=True, slots=True)
class Category:
    """A class.

    Attributes:
        id: Counts from 1.
        name: The class name.
        isthing: False for stuff such as sky or road.
        source_id: Its id in the file that it was read from, None where the format has no ids.
    """

    id: int
    name: str
    isthing: bool = True
    source_id: int | str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image.

    Attributes:
        id: Counts from 1 in the order of ``file_name``.
        file_name: Path relative to the image root, with forward slashes.
        width_px: Width as displayed, after EXIF orientation.
        height_px: Height as displayed.
        path: The file to open, absolute; None where the file is unknown.
        annotation_file: The file of its annotations, relative to the source folder.
        source_id: Its id in the annotation file, None where the format has no ids.
        pixel_format: How its file stores the pixels; None for 8-bit gray, palette and RGB, and for rasters.
    """

    id: int
    file_name: str
    width_px: int
    height_px: int
    path: Path | None = None
    annotation_file: str | None = None
    source_id: int | str | None = None
    pixel_format: PixelFormat | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One object on one image, or one region of stuff.

    Attributes:
        id: Counts from 1 over the whole dataset.
        image_id: ``Image.id``.
        category_id: ``Category.id``.
        segmentation: Polygons wherever they are exact, else an RLE of the whole image.
        bbox_xywh: ``(x, y, width, height)`` in pixels.
        area_px2: The area pycocotools gives for the mask.
        iscrowd: True only where the annotation file marks it.
        score: Confidence between 0 and 1 where the instance is a prediction.
        shapes: Indices of its shapes in the annotation file, ascending.
        part_shapes: The shape of each polygon of ``segmentation``; empty for an RLE.
        difficult: True where the annotation file marks the object as hard to recognize (Pascal VOC).
        layers: Where an RLE unites several shapes, the index and the pixels of each of them. Shapes of other instances
            may lie between them.
        is_disjoint: True where no other instance of the image has any of its pixels, as in a label image.
        is_box: True where the annotation file gives only the box around it, so that its segmentation is a rectangle.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Polygons | Rle
    bbox_xywh: tuple[float, float, float, float]
    area_px2: float
    iscrowd: bool = False
    score: float | None = None
    shapes: tuple[int, ...] = ()
    part_shapes: tuple[int, ...] = ()
    difficult: bool = False
    layers: tuple[tuple[int, Rle], ...] = ()
    is_disjoint: bool = False
    is_box: bool = False

    def coco_segmentation(self) -> list[list[float]] | dict[str, Any]:
        """The segmentation as COCO writes it: flat ``x, y`` lists, or a compressed RLE."""
        if isinstance(self.segmentation, Rle):
            return self.segmentation.to_coco()
        return [part.reshape(-1).tolist() for part in self.segmentation]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images, categories and instances of one folder or file, with the findings made while reading.

    Attributes:
        images: Ordered by ``file_name``; ids 1, 2, ...
        categories: Ordered by id, from 1.
        instances: Ordered by image, then by first shape; ids 1, 2, ...
        findings: In the order of the files.
        image_root: The folder that ``Image.file_name`` is relative to.
        ledger: The fate of every shape that was read, in the order of the files; ids are those of ``instances``.
    """

    images: tuple[Image, ...]
    categories: tuple[Category, ...]
    instances: tuple[Instance, ...]
    findings: tuple[Finding, ...] = ()
    image_root: Path | None = None
    ledger: tuple[LedgerRow, ...] = ()
    _hashes: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Category names in the order of their ids."""
        return tuple(category.name for category in self.categories)

    @property
    def has_rle(self) -> bool:
        """Whether any instance needs a run-length mask, so that the mask format must be ``bitmask``."""
        return any(isinstance(instance.segmentation, Rle) for instance in self.instances)

    def errors(self) -> tuple[Finding, ...]:
        """The findings of level ``error``."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def by_image(self) -> dict[int, list[Instance]]:
        """Instances by image id; every image has a list, empty for negatives."""
        groups: dict[int, list[Instance]] = {image.id: [] for image in self.images}
        for instance in self.instances:
            groups[instance.image_id].append(instance)
        return groups

    def subset(self, image_ids: Sequence[int]) -> Dataset:
        """The images with those ids and their instances, with new ids from 1; categories stay, the ledger is empty."""
        wanted = set(image_ids)
        kept = [image for image in self.images if image.id in wanted]
        new_id = {image.id: position for position, image in enumerate(kept, start=1)}
        instances = [instance for instance in self.instances if instance.image_id in new_id]
        return replace(
            self,
            images=tuple(replace(image, id=new_id[image.id]) for image in kept),
            instances=tuple(
                replace(instance, id=position, image_id=new_id[instance.image_id])
                for position, instance in enumerate(instances, start=1)
            ),
            ledger=(),
        )

    def source_image_ids(self) -> dict[int, int | str]:
        """The ids of the images in the file they were read from, by ``Image.id``; their own ids where it has none."""
        ids = [image.source_id for image in self.images]
        known = {image.id: image.source_id for image in self.images if image.source_id is not None}
        return known if len(set(known.values())) == len(ids) else {image.id: image.id for image in self.images}

    def source_category_ids(self) -> dict[int, int | str]:
        """The ids of the categories in the file they were read from, by ``Category.id``.

        Categories that the file does not have get the numbers after its largest. Where the file has no ids, and where
        two categories have the same id, all categories have their own ids.
        """
        known = {one.id: one.source_id for one in self.categories if one.source_id is not None}
        if not known or len(set(known.values())) < len(known):
            return {category.id: category.id for category in self.categories}
        largest = max((value for value in known.values() if isinstance(value, int)), default=0)
        added = (one.id for one in self.categories if one.id not in known)
        return known | {category_id: largest + number for number, category_id in enumerate(added, start=1)}

    def counts(self) -> dict[str, int]:
        """Number of objects per class name, in category order, zeros included and crowds excluded."""
        return self._counts(iscrowd=False)

    def crowd_counts(self) -> dict[str, int]:
        """Number of crowds per class name, in category order, zeros included."""
        return self._counts(iscrowd=True)

    def _counts(self, *, iscrowd: bool) -> dict[str, int]:
        numbers = Counter(instance.category_id for instance in self.instances if instance.iscrowd == iscrowd)
        return {category.name: numbers[category.id] for category in self.categories}

    @property
    def crowds(self) -> int:
        """Number of crowds."""
        return sum(instance.iscrowd for instance in self.instances)

    def class_pixels(self) -> tuple[int, ...] | None:
        """Pixels of each class in category order, as they were counted while reading.

        None where an instance may cover another one, so that label maps must be painted before they can be counted.
        """
        if not all(instance.is_disjoint for instance in self.instances):
            return None
        pixels: Counter[int] = Counter()
        for instance in self.instances:
            pixels[instance.category_id] += int(instance.area_px2)
        return tuple(pixels[category.id] for category in self.categories)

    def size_in_words(self) -> str:
        """``149 images, 178 instances``; where some are crowds ``149 images, 170 objects, 8 crowds``."""
        return f"{counted(len(self.images), 'image')}, {self.objects_in_words()}"

    def objects_in_words(self) -> str:
        """``178 instances``; where some are crowds ``170 objects, 8 crowds``."""
        crowds = self.crowds
        if not crowds:
            return counted(len(self.instances), "instance")
        return f"{counted(len(self.instances) - crowds, 'object')}, {counted(crowds, 'crowd')}"

    def raise_on_errors(self) -> None:
        """Raise the first error among the findings.

        Raises:
            DataError: There is an error; the message has its place and the number of further errors.
        """
        errors = self.errors()
        if not errors:
            return
        first = errors[0]
        more = "" if len(errors) == 1 else f" (and {len(errors) - 1} more: `d2tune check` lists them all)"
        is_name = first.code == "unknown_label" and first.hint
        hint = f"Did you mean {first.hint!r}?" if is_name else _sentence(first.hint)
        raise DataError(f"{first.message} [{first.code}]{more}", file=first.place(), hint=hint)

    def content_hash(self) -> str:
        """SHA-256 over what training sees: classes, images with their sizes in bytes, and instances.

        The sizes of the image files are read on every call. The instances are serialized on the first call and again
        only where a size has changed since.
        """
        head = hashlib.sha256()
        for category in self.categories:
            head.update(f"c{category.id}\t{category.name}\t{category.isthing}\n".encode("utf-8", "surrogatepass"))
        for image in self.images:
            row = f"i{image.id}\t{image.file_name}\t{image.width_px}\t{image.height_px}\t{_size_bytes(image.path)}\n"
            head.update(row.encode("utf-8", "surrogatepass"))
        key = head.hexdigest()
        if key not in self._hashes:
            for instance in self.instances:
                head.update(_hashed_row(instance))
            self._hashes.clear()
            self._hashes[key] = head.hexdigest()
        return self._hashes[key]


def _sentence(hint: str | None) -> str | None:
    """A hint with a capital letter and a full stop."""
    return f"{hint[0].upper()}{hint[1:].rstrip('.')}." if hint else None


def _size_bytes(path: Path | None) -> int:
    """The size of a regular file, -1 where there is none."""
    return path.stat().st_size if path is not None and path.is_file() else -1


def _hashed_row(instance: Instance) -> bytes:
    """An instance as ``json.dumps`` writes it; run folders hold hashes of these bytes."""
    if not isinstance(instance.segmentation, Rle):
        flat = [part.reshape(-1) for part in instance.segmentation]
        if all(part.dtype == np.float64 for part in flat):
            numbers = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
            # orjson writes the same digits as Python, but other exponents, and null for what is not finite
            if not any(form in numbers for form in (b"e", b"0.0000", b"n")):
                crowd = "true" if instance.iscrowd else "false"
                start = f"[{instance.image_id}, {instance.category_id}, {crowd}, "
                return start.encode() + numbers.replace(b",", b", ") + b"]"
    row = [instance.image_id, instance.category_id, instance.iscrowd, instance.coco_segmentation()]
    return json.dumps(row).encode()
