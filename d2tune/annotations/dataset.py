"""The one noun of this room: a set of images, the instances drawn on them, and what was noticed on the way.

Coordinates are continuous image coordinates in pixels, x to the right and y down: pixel ``i`` covers
``[i, i + 1)``. Sizes are those of the picture as it is shown, after its EXIF orientation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.ledger import LedgerRow
from d2tune.annotations.rasters import RasterOptions
from d2tune.errors import DataError

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something noticed while reading, as data.

    Attributes:
        level: ``error`` (nothing may be written), ``warning`` or ``info``.
        code: What it is, one of the codes listed in ``docs/findings.md``.
        file: The annotation file, relative to the source folder, with forward slashes.
        message: One sentence a person understands.
        shape: Index of the shape in the file, from 0.
        line: Line in the file, from 1.
        column: Column in the line, from 1.
        hint: What was probably meant, or what to do.
        also: Other shapes or files that take part.
    """

    level: Level
    code: str
    file: str
    message: str
    shape: int | None = None
    line: int | None = None
    column: int | None = None
    hint: str | None = None
    also: tuple[int | str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dict; keys without a value are left out, but for ``shape``, which may be null."""
        row: dict[str, Any] = {
            "level": self.level,
            "code": self.code,
            "file": self.file,
            "shape": self.shape,
            "message": self.message,
        }
        optional = {"line": self.line, "column": self.column, "hint": self.hint, "also": list(self.also) or None}
        return row | {key: value for key, value in optional.items() if value is not None}

    def place(self) -> str:
        """``file``, with the shape or line where there is one."""
        if self.shape is not None:
            return f"{self.file}: shape {self.shape}"
        if self.line is not None:
            column = "" if self.column is None else f", column {self.column}"
            return f"{self.file}: line {self.line}{column}"
        return self.file


@dataclass(frozen=True, slots=True)
class Category:
    """A class. ``id`` counts from 1; ``isthing`` is False for stuff such as sky or road."""

    id: int
    name: str
    isthing: bool = True


@dataclass(frozen=True, slots=True)
class Image:
    """A picture.

    Attributes:
        id: Counts from 1 in the order of ``file_name``.
        file_name: Path relative to the image root, with forward slashes.
        width_px: Width as shown, after EXIF orientation.
        height_px: Height as shown.
        path: The file to open, absolute; None where only predictions or figures are known.
        annotation_file: The file the annotations came from, relative to the source folder.
    """

    id: int
    file_name: str
    width_px: int
    height_px: int
    path: Path | None = None
    annotation_file: str | None = None


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO's compressed run-length encoding of a whole-image mask, column-major.

    Attributes:
        height_px: Height of the mask.
        width_px: Width of the mask.
        counts: pycocotools' compressed counts, ASCII.
    """

    height_px: int
    width_px: int
    counts: str

    def to_coco(self) -> dict[str, Any]:
        """``{"size": [height, width], "counts": str}``."""
        return {"size": [self.height_px, self.width_px], "counts": self.counts}


Polygons = tuple[NDArray[np.float64], ...]
"""The parts of one instance, each a closed polygon of shape ``(V, 2)`` without a repeated last point."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One object on one image, or one region of stuff.

    Attributes:
        id: Counts from 1 over the whole dataset.
        image_id: ``Image.id``.
        category_id: ``Category.id``.
        segmentation: Polygons wherever they are exact, else an RLE of the whole image.
        bbox_xywh: ``(x, y, width, height)`` in pixels.
        area_px: The area pycocotools gives for the mask.
        iscrowd: True only where the annotator said so.
        score: Confidence between 0 and 1 where the instance is a prediction.
        shapes: Indices of the shapes in the annotation file that make it up, ascending.
        part_shapes: The shape that each polygon of ``segmentation`` comes from; empty for an RLE.
        difficult: True where the annotator marked the object as hard to recognise (Pascal VOC).
        layers: Where an RLE unites several shapes, what each of them adds: its index and its pixels. Other objects
            may have been drawn between them.
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Polygons | Rle
    bbox_xywh: tuple[float, float, float, float]
    area_px: float
    iscrowd: bool = False
    score: float | None = None
    shapes: tuple[int, ...] = ()
    part_shapes: tuple[int, ...] = ()
    difficult: bool = False
    layers: tuple[tuple[int, Rle], ...] = ()

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
        ledger: What became of every shape that was read, in the order of the files; ids are those of ``instances``.
    """

    images: tuple[Image, ...]
    categories: tuple[Category, ...]
    instances: tuple[Instance, ...]
    findings: tuple[Finding, ...] = ()
    image_root: Path | None = None
    ledger: tuple[LedgerRow, ...] = ()

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
        """The images with those ids and their instances, ids counted anew from 1; categories stay, the ledger goes."""
        wanted = set(image_ids)
        kept = [image for image in self.images if image.id in wanted]
        new_id = {image.id: position for position, image in enumerate(kept, start=1)}
        instances = [one for one in self.instances if one.image_id in new_id]
        return replace(
            self,
            images=tuple(replace(image, id=new_id[image.id]) for image in kept),
            instances=tuple(
                replace(one, id=position, image_id=new_id[one.image_id])
                for position, one in enumerate(instances, start=1)
            ),
            ledger=(),
        )

    def counts(self) -> dict[str, int]:
        """Number of instances per class name, in category order, zeros included."""
        seen = Counter(instance.category_id for instance in self.instances)
        return {category.name: seen[category.id] for category in self.categories}

    def size_in_words(self) -> str:
        """``149 images, 178 instances``."""
        counts = ((len(self.images), "image"), (len(self.instances), "instance"))
        return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)

    def raise_on_errors(self) -> None:
        """Stop where a finding is an error.

        Raises:
            DataError: Names the first error's place, and how many more there are.
        """
        errors = self.errors()
        if not errors:
            return
        first = errors[0]
        more = "" if len(errors) == 1 else f" (and {len(errors) - 1} more: `d2tune check` lists them all)"
        hint = f"Did you mean {first.hint!r}?" if first.code == "unknown_label" and first.hint else None
        raise DataError(f"{first.message} [{first.code}]{more}", file=first.place(), hint=hint)

    def content_hash(self) -> str:
        """SHA-256 over what training sees: classes, images with their sizes in bytes, and instances."""
        digest = hashlib.sha256()
        for category in self.categories:
            digest.update(f"c{category.id}\t{category.name}\t{category.isthing}\n".encode("utf-8", "surrogatepass"))
        for image in self.images:
            size_bytes = image.path.stat().st_size if image.path is not None and image.path.is_file() else -1
            row = f"i{image.id}\t{image.file_name}\t{image.width_px}\t{image.height_px}\t{size_bytes}\n"
            digest.update(row.encode("utf-8", "surrogatepass"))
        for instance in self.instances:
            row = json.dumps([instance.image_id, instance.category_id, instance.iscrowd, instance.coco_segmentation()])
            digest.update(row.encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelImageOptions:
    """How pictures and label pictures lie beside one another, see `label_images`.

    Attributes:
        images: Folder of the pictures within the source.
        labels: Folder of the label pictures within the source.
        values: Class name by label value; None leaves those pixels out. Empty: values are places in the classes.
        raster: How pictures of many channels are read.
    """

    images: str = "images"
    labels: str = "labels"
    values: Mapping[int, str | None] = field(default_factory=dict)
    raster: RasterOptions = field(default_factory=RasterOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a person may say about how annotations are to be read; one object for every reader.

    Attributes:
        labels: Class names in order of their ids; None takes the sorted labels that occur.
        background: The one of the labels that stands for the pixels that no shape covers; VOC's indices pass it over.
        image_root: Folder that holds the pictures; None means the source folder.
        stuff: Names of the classes that are stuff; all others are things.
        class_name: Class of shapes that carry none (VIA).
        class_attribute: VIA region attribute that holds the class.
        nested_groups: What a part inside another part of its group is: united with it, or a hole.
        instance_suffix: ``strip`` reads ``person-1`` as an instance of ``person``.
        pixel_offset: Added to every VIA coordinate, in pixels.
        preset: Name of a run-length CSV dialect: carvana, airbus, severstal.
        colour_map: File that says which colour of a mask is which class; None looks for one in the source folder.
        split_components: One instance per connected component (run-length CSV and mask images).
        allow_outside: Whether a picture's path may leave the data root.
        restore_dir: Where pictures that exist only as ``imageData`` are written; None refuses them.
        skip_bad: Leave out files with errors instead of reporting errors; the findings become warnings.
        no_predictions: Leave out shapes whose flag ``prediction`` is true.
        rename: New class names by the label drawn; None as the new name leaves the label out.
        image_list: File that lists the pictures to keep, see `lists`; None keeps all.
        include_unlabeled: Whether pictures without an annotation are negatives, rather than left out.
        label_images: Where pictures and label pictures lie and what their values mean; None takes the defaults.
        workers: Processes that read Labelme files; None takes more than one where there is enough to read. The result
            is the same with any number.
    """

    labels: Sequence[str] | None = None
    background: str | None = None
    image_root: Path | None = None
    stuff: Sequence[str] = ()
    class_name: str | None = None
    class_attribute: str | None = None
    nested_groups: Literal["union", "hole"] = "union"
    instance_suffix: Literal["keep", "strip"] = "keep"
    pixel_offset: float = 0.0
    preset: str | None = None
    colour_map: Path | None = None
    split_components: bool = False
    allow_outside: bool = False
    restore_dir: Path | None = None
    skip_bad: bool = False
    no_predictions: bool = False
    rename: dict[str, str | None] = field(default_factory=dict)
    image_list: Path | None = None
    include_unlabeled: bool = False
    label_images: LabelImageOptions | None = None
    workers: int | None = None
