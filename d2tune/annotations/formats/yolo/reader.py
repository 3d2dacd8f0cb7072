"""Reading YOLO's label files: boxes and polygons as shares of the image."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from d2tune.annotations.formats.shared.reading import Reading, dataset_of, reading_of
from d2tune.annotations.formats.shared.sources import measure
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.yolo import layout
from d2tune.annotations.formats.yolo.description import Description, describe_folder, parse_description
from d2tune.annotations.formats.yolo.lines import read_file
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.io.places import Place
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from d2tune.text import counted


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read the label files of a folder, with the classes of its ``data.yaml``.

    A line is a class and a box (center, width, height) or a polygon; a last number more is a confidence. Label files
    are in ``labels`` in the place of ``images``, or beside the images. An image without a label file is a negative
    where others of its folder have one. Without class names the numbers are places among the labels, or the names.

    Args:
        source: The folder of the data set, of a split or of its images, or ``data.yaml``.
        options: How to read.

    Raises:
        DataError: The source does not exist, or has no label file.
    """
    source = Path(source).absolute()
    reading = reading_of(source, options)
    folders = reading.folders
    description = parse_description(source) if source.is_file() else None
    description = description or describe_folder(folders.source)
    images = _Images([name for name in folders.walk(folders.root, skip=options.restore_dir) if is_image_name(name)])
    labels = _label_files(reading, images)
    if not labels:
        raise DataError(
            "the folder contains no label files of YOLO",
            file=source,
            found=counted(len(images.names), "image"),
            expected="a text file for each image, in labels/ or beside it",
            hint=_hint(description),
        )
    reading.list_classes(name for _, name in sorted(description.names.items()))
    units: list[Unit] = []
    claimed: set[str] = set()
    for name, inner in labels.items():
        unit = read_file(name, images.place_of(inner, reading), description, reading)
        units.append(unit)
        claimed |= {unit.image.file_name} if unit.image is not None else set()
    for name in images.beside(claimed):
        unit = Unit(name)
        measure(folders.finder.existing(folders.root, name), unit)
        unit.note("info", "unlabeled_image", "the image has no label file; it is a negative")
        units.append(unit)
    return dataset_of(units, reading)


def _hint(description: Description) -> str | None:
    if description.file is None or not description.folders:
        return None
    return f"{description.file.name} names {', '.join(description.folders[:3])}: give the folder that holds them."


class _Images:
    """The images below the root, by folder and stem.

    Args:
        names: Their names, relative to the root.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)
        self._by_place: dict[tuple[str, str], list[str]] = {}
        for name in self.names:
            folder, _, base = name.rpartition("/")
            self._by_place.setdefault((folder, base.rpartition(".")[0]), []).append(name)

    def same_stem(self, folder: str, stem: str) -> list[str]:
        """The images of a folder with a stem."""
        return self._by_place.get((folder, stem), [])

    def has_image_of(self, label: str) -> bool:
        """Whether there is an image for a label file."""
        stem = label.rpartition("/")[2].rpartition(".")[0]
        return any(self.same_stem(folder, stem) for folder in layout.image_folders(label))

    def beside(self, claimed: set[str]) -> list[str]:
        """The other images of the folders that have claimed ones."""
        folders = {name.rpartition("/")[0] for name in claimed}
        return [name for name in self.names if name not in claimed and name.rpartition("/")[0] in folders]

    def place_of(self, label: str, reading: Reading) -> Place:
        """The image of a label file, which is named relative to the folder that mirrors the root."""
        finder, root = reading.folders.finder, reading.folders.root
        stem = label.rpartition("/")[2].rpartition(".")[0]
        places = list(dict.fromkeys(layout.image_folders(label)))
        for folder in places:
            matching = self.same_stem(folder, stem)
            if len(matching) == 1:
                return finder.existing(root, matching[0])
            if matching:
                problem = f"{len(matching)} images have the name of the label file: {', '.join(matching)}"
                return Place(None, matching[0], problem, "keep one of them", code="image_ambiguous")
        return finder.find(f"{stem}.jpg", folders=tuple(root / folder for folder in places))


def _label_files(reading: Reading, images: _Images) -> dict[str, str]:
    """The label files, named relative to the source, with their names relative to the folder that mirrors the root."""
    folders = reading.folders
    source = folders.source
    is_apart = folders.root != source or source.name.lower() == layout.LABELS
    labels: dict[str, str] = {}
    for name in folders.walk(skip=reading.options.restore_dir):
        if layout.is_label_name(name):
            is_inside = layout.LABELS in name.lower().split("/")[:-1]
            if images.has_image_of(name) or ((is_apart or is_inside) and not layout.is_usual_text(name)):
                labels[name] = name
    place = layout.mirrored(source, layout.IMAGES, layout.LABELS)
    if place is not None and place.is_dir():
        below = Path(os.path.relpath(place, source)).as_posix()
        inner = (name for name in folders.walk(place) if layout.is_label_name(name))
        labels |= {
            f"{below}/{name}": name for name in inner if images.has_image_of(name) or not layout.is_usual_text(name)
        }
    return labels
