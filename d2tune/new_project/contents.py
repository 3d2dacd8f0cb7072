"""What is in the annotations of a folder: images, classes, and what stops a training on them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.io.images import ImageError, is_image_name, read_header
from d2tune.annotations.io.places import walk_files
from d2tune.annotations.io.rasters import open_raster
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.findings import Finding
from d2tune.data.sources import split_source
from d2tune.errors import DataError, ProjectError
from d2tune.new_project.layout import Layout
from d2tune.new_project.naming import Naming
from d2tune.project import Project

_HEADERS_READ = 1000
_COVERED = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What was read.

    Attributes:
        train: The training split, or all images where the validation split is a fraction of them.
        val: The validation split, None where it is a fraction.
        sizes_px: Width and height of each image; of images without annotations, where no image has any, those of the
            first thousand.
        images: Images in the training split and, where it is a fraction of them, the validation split.
        are_photos: Whether the images are 8-bit gray or color images.
    """

    train: Dataset
    val: Dataset | None
    sizes_px: tuple[tuple[int, int], ...]
    images: int
    are_photos: bool

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The splits that were read."""
        return (self.train,) if self.val is None else (self.train, self.val)

    @property
    def errors(self) -> list[Finding]:
        """Findings that stop a training."""
        return [finding for dataset in self.datasets for finding in dataset.errors()]

    @property
    def is_annotated(self) -> bool:
        """Whether any image has annotations."""
        return any(dataset.instances for dataset in self.datasets)

    @property
    def short_side_px(self) -> int:
        """Median of the images' short sides."""
        return round(statistics.median(min(size) for size in self.sizes_px))

    def counts(self) -> dict[str, tuple[int, ...]]:
        """Objects of each class in each split; classes with neither objects nor crowds are not among them."""
        names = dict.fromkeys(name for dataset in self.datasets for name in dataset.class_names)
        of_splits = [dataset.counts() for dataset in self.datasets]
        table = {name: tuple(counts.get(name, 0) for counts in of_splits) for name in names}
        crowded = {name for dataset in self.datasets for name, count in dataset.crowd_counts().items() if count}
        return {name: counts for name, counts in table.items() if any(counts) or name in crowded}

    def stuff(self) -> tuple[str, ...]:
        """Classes that the annotations themselves say are stuff."""
        return tuple(
            dict.fromkeys(one.name for dataset in self.datasets for one in dataset.categories if not one.isthing)
        )

    def are_covered(self) -> bool:
        """Whether shapes cover practically all pixels of the annotated images."""
        images = [image for dataset in self.datasets for image in dataset.images]
        area_px2 = sum(image.width_px * image.height_px for image in images)
        covered_px2 = sum(instance.area_px2 for dataset in self.datasets for instance in dataset.instances)
        return covered_px2 > _COVERED * area_px2


def read_contents(layout: Layout, naming: Naming, *, scratch: Path) -> Contents:
    """Read the splits of a folder.

    Args:
        layout: Where they are.
        naming: How classes are named.
        scratch: Folder for images that exist only inside of annotation files.

    Raises:
        DataError: The annotations cannot be read, or there are no images.
        ProjectError: Shapes have no class, and none was given.
    """
    project = draft(layout, naming)
    train = _read(project, layout.train, naming, scratch)
    val = None if layout.val is None else _read(project, layout.val, naming, scratch)
    datasets = [dataset for dataset in (train, val) if dataset is not None]
    errors = [finding for dataset in datasets for finding in dataset.errors()]
    unnamed = next((finding for finding in errors if finding.code == "no_class"), None)
    if unnamed is not None:
        raise ProjectError(
            f"{unnamed.message} (`{unnamed.file}`)",
            file=layout.root,
            hint="Name its class with --classes NAME, or the VIA attribute that holds it with --class-attribute.",
        )
    sizes = [(image.width_px, image.height_px) for dataset in datasets for image in dataset.images]
    names: list[str] = []
    if not sizes:
        names = [name for name in walk_files(layout.root / layout.train) if is_image_name(name)]
        sizes = _image_sizes(layout.root / layout.train, names)
    if not sizes:
        refuse_errors(layout, errors)
        raise DataError("no image can be read", file=layout.root, hint="d2tune check FOLDER lists what is wrong.")
    images = len(train.images) or len(names)
    return Contents(train=train, val=val, sizes_px=tuple(sizes), images=images, are_photos=_are_photos(layout, train))


def refuse_errors(layout: Layout, errors: Sequence[Finding]) -> None:
    """Stop where errors leave nothing that a project could be made of.

    Raises:
        DataError: The first of them.
    """
    if errors:
        hint = f"`d2tune check {layout.root}` lists all {len(errors)} errors." if errors[1:] else None
        raise DataError(f"{errors[0].place()}: {errors[0].message}", file=layout.root, hint=hint)


def draft(layout: Layout, naming: Naming) -> Project:
    """A project that reads the data with all classes that occur."""
    data = layout.data_keys() | naming.data_keys()
    if layout.pair is not None:
        data["label_images"] = {**data["label_images"], "values": naming.values}
    task = "semantic" if layout.format == "label_images" else "instance"
    return Project.model_validate({"name": "new", "task": task, "data": data})


def _read(project: Project, name: str, naming: Naming, scratch: Path) -> Dataset:
    source, options = split_source(project, name, naming.classes or None, restore_dir=scratch)
    return read_dataset(source, format=project.data.format, options=options)


def _are_photos(layout: Layout, train: Dataset) -> bool:
    path = train.images[0].path if layout.format == "label_images" and train.images else None
    if path is None:
        return True
    with open_raster(path) as raster:
        return raster.dtype == "uint8" and raster.channels in (1, 3)


def _image_sizes(folder: Path, names: Iterable[str]) -> list[tuple[int, int]]:
    """Width and height of images in a folder, of the first thousand."""
    sizes = []
    for name in itertools.islice(names, _HEADERS_READ):
        try:
            header = read_header(folder / name)
        except (ImageError, OSError):
            continue
        sizes.append((header.width_px, header.height_px))
    return sizes
