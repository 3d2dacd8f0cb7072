"""Reading COCO instances JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from d2tune.annotations.formats.coco.classes import Classes
from d2tune.annotations.formats.coco.ids import ById
from d2tune.annotations.formats.coco.loose import Loose, read_flag, read_id, read_number
from d2tune.annotations.formats.coco.segmentations import Segmentations, is_nothing
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.coco_layout import image_folders, with_layout
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.normalized import corners_of, is_normalized, note_normalized
from d2tune.annotations.formats.shared.objects import note_boxes
from d2tune.annotations.formats.shared.parts import unite
from d2tune.annotations.formats.shared.sources import Folders, check_size, folders_of, measure
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.polygons import PointError
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from d2tune.text import describe


def is_coco(value: object) -> bool:
    """Whether a parsed JSON file is a COCO instances file."""
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        return False
    rows = value.get("annotations")
    return isinstance(rows, list) and not any(isinstance(row, dict) and "segments_info" in row for row in rows[:1])


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a COCO instances file, or the one in a folder.

    Categories keep the order of their ids; categories, images and annotations get new ids from 1.

    Args:
        source: JSON file, or a folder with such a file; images are looked up beside it, under ``options.image_root``,
            and in the folders of `shared.coco_layout`.
        options: How to read.

    Raises:
        DataError: The source does not exist, or has not exactly one COCO file.
    """
    source = Path(source).absolute()
    path = _coco_file(source, options)
    folders = folders_of(source, options)
    name = path.relative_to(folders.source).as_posix()
    unit = Unit(name)
    try:
        value, is_utf8 = decode_json(read_bytes(path))
    except JsonError as error:
        unit.note("error", "bad_json", str(error), line=error.line, column=error.column)
        return assemble([unit], options, root=folders.root, names=Labels(options).names)
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", file=path) from error
    if not is_coco(value):
        raise DataError("the file is not a COCO instances file", file=path, expected="lists `images` and `annotations`")
    if not is_utf8:
        unit.note("warning", "not_utf8", "the file is not UTF-8; it was read as GB18030", hint="save it as UTF-8")
    return from_coco(value, path, unit, with_layout(folders, path, value["images"], options), options)


def _coco_file(source: Path, options: ReadOptions) -> Path:
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    if source.is_file():
        return source
    paths = []
    for name in folders_of(source, options).walk():
        if name.lower().endswith(".json"):
            try:
                if is_coco(decode_json(read_bytes(source / name))[0]):
                    paths.append(source / name)
            except (JsonError, OSError):
                continue
    if len(paths) != 1:
        names = ", ".join(path.relative_to(source).as_posix() for path in paths[:5])
        raise DataError(
            "the folder must contain exactly one COCO instances file",
            file=source,
            found=names or "none",
            hint="Give the path of the file.",
        )
    return paths[0]


def from_coco(value: Mapping[str, Any], path: Path, unit: Unit, folders: Folders, options: ReadOptions) -> Dataset:
    """Read a parsed COCO instances dict with full validation.

    Args:
        value: The dict, with the lists ``images``, ``annotations`` and ``categories``.
        path: Its file.
        unit: Takes the findings that belong to no image.
        folders: Where images are looked up.
        options: How to read.
    """
    loose = Loose()
    rows = value["annotations"]
    used = (row.get("category_id") for row in rows if isinstance(row, dict))
    classes = Classes(value.get("categories"), unit, options, loose, used=lambda: used)
    images, units = read_images(value["images"], path, unit, folders, loose)
    is_scaled = is_normalized(number for row in rows for number in coordinates_of(row))
    reader = _Reader(unit, images, classes, Segmentations(loose, is_scaled), loose)
    for index, row in enumerate(rows):
        reader.read(index, row)
    if is_scaled:
        note_normalized(unit)
    loose.note(unit)
    note_boxes([unit, *units], unit)
    return assemble(
        [unit, *units],
        options,
        root=folders.root,
        names=classes.names,
        stuff=classes.stuff,
        category_ids=classes.ids,
    )


def read_images(rows: object, path: Path, file: Unit, folders: Folders, loose: Loose) -> tuple[ById[Unit], list[Unit]]:
    """A unit for each image, by its id and in order."""
    images: ById[Unit] = ById("images", loose)
    units: list[Unit] = []
    search = image_folders(path, folders)
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        image_id = read_id(row.get("id")) if isinstance(row, dict) else None
        if not isinstance(row, dict) or image_id is None:
            file.note("error", "bad_shape", f"an image needs an id, found {describe(row)}")
            continue
        if image_id in images:
            file.note("error", "duplicate_image", f"the image id {image_id} occurs twice")
            continue
        unit = Unit(file.file)
        units.append(unit)
        images.add(row["id"], unit, index)
        find_image(row, unit, folders, search)
        if unit.image is not None:
            unit.image.source_id = image_id
    return images, units


def find_image(row: Mapping[str, Any], unit: Unit, folders: Folders, search: tuple[Path, ...]) -> bool:
    """Look up and measure the image of a row of ``images``; False, with an error, where that fails.

    LVIS has no ``file_name``; the last parts of its ``coco_url`` are the folder and the name of the image.
    """
    name = row.get("file_name")
    names = [name] if name not in (None, "") else _names_in_url(row.get("coco_url"))
    unit.image_name = next((str(one) for one in names if one), "")
    places = (folders.finder.find(one, folders=search) for one in names)
    first = next(places)
    if first.path is None or first.detour is not None:
        first = next((one for one in places if one.path is not None and one.detour is None), first)
    header = measure(first, unit)
    if header is None:
        return False
    unit.image_name = first.file_name
    return check_size(unit, header, row.get("width"), row.get("height"), what=f"the entry of {first.file_name}")


def _names_in_url(url: object) -> list[object]:
    if not isinstance(url, str) or not url.strip("/ "):
        return [None]
    parts = PurePosixPath(unquote(urlsplit(url).path)).parts[-2:]
    return ["/".join(parts), parts[-1]]


def coordinates_of(row: object) -> Iterator[object]:
    """The coordinates of an annotation's polygons, of its box where it has no segmentation, none of a mask."""
    segmentation = row.get("segmentation") if isinstance(row, dict) else None
    if isinstance(segmentation, list) and not is_nothing(segmentation):
        nested = [segmentation]
        while nested:
            for value in nested.pop():
                if isinstance(value, list):
                    nested.append(value)
                elif not isinstance(value, dict):
                    yield value
    elif isinstance(row, dict) and is_nothing(segmentation) and isinstance(row.get("bbox"), list):
        yield from corners_of(row["bbox"])


def flag_of(row: Mapping[str, Any], key: str, unit: Unit, index: int, loose: Loose) -> bool:
    """A flag of an annotation or a segment; False, with an error, where it is neither 0 nor 1."""
    value = row.get(key)
    if value is None or value == 0 or value == 1:
        return bool(value == 1)
    flag = read_flag(value)
    if flag is None:
        unit.note("error", "bad_shape", f"{key} is {describe(value)}, expected 0 or 1", shape=index)
        return False
    loose.add(f"the {key} of annotations", value, read_as=str(int(flag)), row=index, kind="")
    return flag


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads annotations into the units of their images."""

    file: Unit
    images: ById[Unit]
    classes: Classes
    segmentations: Segmentations
    loose: Loose

    def read(self, index: int, row: object) -> None:
        """Read one annotation into the unit of its image."""
        if not isinstance(row, dict):
            message = f"the annotation is {describe(row)}, expected an object"
            self.file.note("error", "bad_shape", message, shape=index)
            return
        unit = self._unit_of(index, row)
        if unit is None:
            return
        if unit.image is None or any(finding.code.startswith("size_") for finding in unit.findings):
            unit.exclude([index])
            return
        label = self.classes.read(row.get("category_id"), unit, index)
        if label is None:
            return
        try:
            part = self.segmentations.read(row, unit, index)
        except PointError as error:
            unit.note("error", error.code, str(error), shape=index)
            return
        iscrowd = flag_of(row, "iscrowd", unit, index, self.loose)
        difficult = flag_of(row, "difficult", unit, index, self.loose)
        if part is not None:
            score = self._score(row, index)
            unit.drafts.append(unite(label, [part], unit, iscrowd=iscrowd, score=score, difficult=difficult))

    def _unit_of(self, index: int, row: dict[str, Any]) -> Unit | None:
        image_id = row.get("image_id")
        unit = self.images.get(image_id, key="image_id", index=index)
        if unit is None:
            has_id = image_id is not None
            message = f"the image {describe(image_id)} does not exist" if has_id else "the annotation has no image_id"
            self.file.note("error", "image_missing" if has_id else "bad_shape", message, shape=index)
        return unit

    def _score(self, row: dict[str, Any], index: int) -> float | None:
        score = read_number(row.get("score"))
        if isinstance(row.get("score"), str) and score is not None:
            self.loose.add("the score of annotations", row["score"], read_as=str(score), row=index, kind="")
        return float(score) if score is not None and 0 <= score <= 1 else None
