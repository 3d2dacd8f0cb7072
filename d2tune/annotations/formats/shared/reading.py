"""Reading the annotation files of a folder, or one file, into a dataset: what the readers of tools have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.objects import note_boxes
from d2tune.annotations.formats.shared.shapes import Shape, add_shapes
from d2tune.annotations.formats.shared.sources import Folders, check_size, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from d2tune.text import describe


@dataclass(frozen=True, slots=True)
class Reading:
    """What the files of a source are read with.

    Attributes:
        folders: The folders of the source.
        labels: The rules for labels.
        options: How to read.
        classes: Takes the class names that files list, in their order.
        read: Takes the files that are of the format.
    """

    folders: Folders
    labels: Labels
    options: ReadOptions
    classes: dict[str, None] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)

    def list_classes(self, names: Iterable[object]) -> None:
        """Take class names in the order of a file, under the rules for labels."""
        for name in names:
            label = self.labels.class_of(str(name).strip())[0] if str(name).strip() else None
            if label is not None:
                self.classes.setdefault(label)

    def path(self, name: str) -> Path:
        """The path of an annotation file."""
        return self.folders.source / name


def read_source(
    source: Path,
    options: ReadOptions,
    read_file: Callable[[str, Reading], list[Unit]],
    *,
    title: str,
    suffix: str = ".json",
) -> Dataset:
    """Read a file, or all files with a suffix in a folder and its subfolders.

    Classes are in the order in which files list them; others follow in the order of their names.

    Args:
        source: Folder or file.
        options: How to read.
        read_file: Reads a file, named relative to the source, into a unit for each image; it adds files of the format
            to ``Reading.read``.
        title: The format in words.
        suffix: Of its files, in lower case.

    Raises:
        DataError: The source does not exist, or no file is of the format or damaged.
    """
    reading = reading_of(source, options)
    folders = reading.folders
    names = (
        [Path(source).name]
        if Path(source).is_file()
        else [name for name in folders.walk(skip=options.restore_dir) if name.lower().endswith(suffix)]
    )
    units = [unit for name in names for unit in read_file(name, reading)]
    if not reading.read and not any(unit.is_bad for unit in units):
        kind = "file" if Path(source).is_file() else "folder"
        raise DataError(
            f"the {kind} contains no annotations of the format {title}",
            file=source,
            found=f"{len(names)} {suffix} files",
            hint="Leave --format out, so that the format is recognized.",
        )
    return dataset_of(units, reading)


def reading_of(source: Path, options: ReadOptions) -> Reading:
    """What a source is read with.

    Raises:
        DataError: It does not exist.
    """
    source = Path(source).absolute()
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    return Reading(folders_of(source, options), Labels(options), options)


def dataset_of(units: list[Unit], reading: Reading, *, claimed: Iterable[str] = ()) -> Dataset:
    """The dataset of units, with units for the images that have no annotation.

    Args:
        units: In the order of the files.
        reading: What they were read with.
        claimed: Images that are accounted for beside those of the units.
    """
    options, folders = reading.options, reading.folders
    boxes = next((unit for unit in units for draft in unit.drafts if draft.is_box), None)
    if boxes is not None:
        note_boxes(units, boxes)
    known = {unit.image.file_name for unit in units if unit.image is not None} | set(claimed)
    names: tuple[str, ...] | None = None
    if reading.classes and reading.labels.names is None:
        names = (*reading.classes, *sorted({label for unit in units for label in unit.labels} - set(reading.classes)))
    return assemble(units + unlabeled_units(folders, options, known), options, root=folders.root, names=names)


def load_json(name: str, reading: Reading, is_format: Callable[[object], bool], title: str) -> tuple[Unit, Any]:
    """The unit of a JSON file and its value; None with a finding where it is damaged or of another format."""
    unit = Unit(name)
    try:
        value, is_utf8 = decode_json(read_bytes(reading.path(name)))
    except JsonError as error:
        unit.note("error", "bad_json", str(error), line=error.line, column=error.column)
        return unit, None
    except OSError as error:
        unit.note("error", "bad_json", f"the file cannot be read ({error.strerror})")
        return unit, None
    if not is_utf8:
        unit.note("warning", "not_utf8", "the file is not UTF-8; it was read as GB18030", hint="save it as UTF-8")
    if not is_format(value):
        unit.note("warning", "not_this_format", f"the file is not an annotation of the format {title}; skipped")
        return unit, None
    reading.read.append(name)
    return unit, value


def objects_in(value: object, unit: Unit, what: str) -> list[dict[str, Any]]:
    """The objects in a list of a file, an empty one for each entry that is none; an error is noted for other values.

    Args:
        value: The list, unchecked; None has no entries.
        unit: Takes the error.
        what: What the list has, in words.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        unit.note("error", "bad_shape", f"the {what} are {describe(value)}, expected a list")
        return []
    return [row if isinstance(row, dict) else {} for row in value]


def place_image(
    unit: Unit,
    name: object,
    reading: Reading,
    *,
    folders: Sequence[Path] = (),
    stem: str | None = None,
    size_px: tuple[object, object] = (None, None),
    source_id: object = None,
    without_suffix: bool = False,
) -> bool:
    """Look up and measure the image of a unit; False, with an error, where it is missing or has another size.

    Args:
        unit: The unit, whose file is the annotation file.
        name: What the file has for the image.
        reading: What the file is read with.
        folders: Folders to look in first.
        stem: The name of the annotation file without suffix, where the file belongs to one image.
        size_px: Width and height that the file states, unchecked.
        source_id: The id of the image in the file.
        without_suffix: Whether the name has no suffix.
    """
    search = tuple(dict.fromkeys((*folders, *reading.folders.search_from(reading.path(unit.file)))))
    place = reading.folders.finder.find(name, folders=search, stem=stem, without_suffix=without_suffix)
    header = measure(place, unit)
    if unit.image is not None and isinstance(source_id, (int, str)) and not isinstance(source_id, bool):
        unit.image.source_id = source_id
    if stem is None:
        unit.image_name = place.file_name or str(name)
    return header is not None and check_size(unit, header, *size_px, what="the file")


def read_shapes(shapes: Sequence[Shape], unit: Unit, reading: Reading, *, is_placed: bool, first: int = 0) -> None:
    """`add_shapes` of an image; where it is not placed, its shapes are excluded for that reason."""
    if is_placed:
        add_shapes(shapes, unit, reading.labels, reading.options, first=first)
    else:
        unit.exclude(range(first, first + len(shapes)))
