"""COCO instances JSON: one file for all images."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.parts import Part, mask_part, polygon_part, unite
from d2tune.annotations.formats.shared.sources import Folders, check_size, folders_of, measure
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch, check_rle, decode_mask, rle_area_px2, union_rles
from d2tune.annotations.geometry.polygons import PointError, check_points, rectangle_points
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.io.outputs import refuse_existing
from d2tune.annotations.io.places import walk_files
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from d2tune.files import holds, write_chunks
from d2tune.text import describe

_ROWS_AT_ONCE = 1000
_LEAST_USUAL = 1e-3


def to_coco(dataset: Dataset) -> dict[str, Any]:
    """The dataset as a COCO instances dict with ``images``, ``annotations`` and ``categories``.

    Ids count from 1, because COCO's evaluator takes 0 for "not matched". Instances of stuff are excluded; where there
    is any stuff, all categories are listed with ``isthing``. Whole numbers are written without a fraction.
    """
    return {
        "images": list(_image_rows(dataset)),
        "annotations": [row for rows, _ in _annotation_rows(dataset) for row in rows],
        "categories": _category_rows(dataset),
    }


def _image_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for image in dataset.images:
        yield {"id": image.id, "file_name": image.file_name, "width": image.width_px, "height": image.height_px}


def _category_rows(dataset: Dataset) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"id": category.id, "name": category.name} for category in dataset.categories]
    if all(category.isthing for category in dataset.categories):
        return rows
    kinds = [{"isthing": int(category.isthing)} for category in dataset.categories]
    return [row | kind for row, kind in zip(rows, kinds, strict=True)]


def _annotation_rows(dataset: Dataset) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """The annotations in blocks, each with whether orjson writes its numbers as Python does."""
    things = {category.id for category in dataset.categories if category.isthing}
    kept = (instance for instance in dataset.instances if instance.category_id in things)
    first = 1
    while block := list(itertools.islice(kept, _ROWS_AT_ONCE)):
        yield _block(block, first)
        first += len(block)


def _block(instances: Sequence[Instance], first: int) -> tuple[list[dict[str, Any]], bool]:
    """The annotations of some instances, numbered from ``first``; see `_annotation_rows`."""
    polygons = [instance.segmentation for instance in instances if not isinstance(instance.segmentation, Rle)]
    outlines = [part.reshape(-1) for parts in polygons for part in parts]
    all_boxes = np.array([instance.bbox_xywh for instance in instances], dtype=np.float64)
    lists, is_usual = _plain_lists([*outlines, *all_boxes])
    boxes = lists[len(outlines) :]
    flat = iter(lists)
    rows = []
    for number, (instance, box) in enumerate(zip(instances, boxes, strict=True), start=first):
        segmentation, area_px2 = instance.segmentation, instance.area_px2
        row: dict[str, Any] = {
            "id": number,
            "image_id": instance.image_id,
            "category_id": instance.category_id,
            "iscrowd": int(instance.iscrowd),
            "area": int(area_px2) if area_px2 == int(area_px2) else area_px2,
            "bbox": box,
            "segmentation": segmentation.to_coco()
            if isinstance(segmentation, Rle)
            else [next(flat) for _ in segmentation],
        }
        if instance.score is not None:
            row["score"] = instance.score
        if instance.difficult:
            row["difficult"] = 1
        rows.append(row)
        is_usual = is_usual and instance.score is None and not isinstance(segmentation, Rle) and area_px2 >= 1
    return rows, is_usual


def _plain_lists(arrays: Sequence[NDArray[np.float64]]) -> tuple[list[list[float | int]], bool]:
    """Arrays ``(N,)`` as lists with whole numbers as integers, and whether all others are of a usual size."""
    values = np.concatenate(arrays)
    is_whole = values == np.trunc(values)
    is_usual = bool((is_whole | (np.abs(values) >= _LEAST_USUAL)).all())
    numbers: list[float | int] = values.tolist()
    for index in np.flatnonzero(is_whole).tolist():
        numbers[index] = int(numbers[index])
    stops = np.cumsum([len(array) for array in arrays]).tolist()
    return [numbers[start:stop] for start, stop in zip([0, *stops], stops, strict=False)], is_usual


def write(dataset: Dataset, out: Path, *, force: bool = False) -> list[Path]:
    """Write the COCO instances file, a record per line; the same dataset gives the same bytes.

    Args:
        dataset: What to write.
        out: The file, where it ends in ``.json``; else a folder, which gets ``annotations.json``.
        force: Whether an existing file with other content is overwritten.

    Returns:
        The files written.

    Raises:
        DataError: A file with other content exists.
    """
    path = out if out.suffix.lower() == ".json" else out / "annotations.json"
    if not holds(path, _content(dataset)):
        refuse_existing([path], force=force)
        write_chunks(path, _content(dataset))
    return [path]


def _content(dataset: Dataset) -> Iterator[bytes]:
    """The file in pieces."""
    images, categories = _image_rows(dataset), _category_rows(dataset)
    yield b'{"images": ['
    yield from _joined(_lines(block) for block in iter(lambda: list(itertools.islice(images, _ROWS_AT_ONCE)), []))
    yield b',\n"annotations": ['
    yield from _joined(_number_lines(rows) if usual else _lines(rows) for rows, usual in _annotation_rows(dataset))
    yield b',\n"categories": ['
    yield from _joined(_lines(rows) for rows in [categories] if rows)
    yield b"}\n"


def _joined(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines between an opening bracket that is already written and a closing bracket."""
    separator = b"\n"
    for lines in blocks:
        yield separator + lines
        separator = b",\n"
    yield b"]" if separator == b"\n" else b"\n]"


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    text = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return text.encode("utf-8", errors="backslashreplace")


def _number_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """The same bytes as `_lines` for rows without text whose numbers are of a usual size, much faster.

    orjson writes the same shortest digits as Python, but other exponents, and no spaces.
    """
    lines: bytes = orjson.dumps(rows)[1:-1]
    return lines.replace(b"},{", b"}\n{").replace(b",", b", ").replace(b":", b": ").replace(b"}\n{", b"},\n{")


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
        source: JSON file, or a folder with such a file; images are looked up beside it, in ``images`` beside it or
            in its parent, and under ``options.image_root``.
        options: How to read.

    Raises:
        DataError: The source does not exist, or has not exactly one COCO file.
    """
    source = Path(source).absolute()
    path = _coco_file(source)
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
    return from_coco(value, path, unit, folders, options)


def image_folders(path: Path, folders: Folders) -> tuple[Path, ...]:
    """The folders for images of a COCO file: its own, the image root, ``images`` and its parent."""
    near = (path.parent / "images", path.parent.parent / "images", path.parent.parent)
    return (*folders.search_from(path), *near)


def _coco_file(source: Path) -> Path:
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    if source.is_file():
        return source
    paths = []
    for name in walk_files(source):
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
    classes = Classes(value.get("categories"), unit, options)
    search = image_folders(path, folders)
    units: dict[int | str, Unit] = {}
    for row in value["images"]:
        image_unit = Unit(unit.file)
        image_id = row.get("id") if isinstance(row, dict) else None
        if not isinstance(image_id, (int, str)) or isinstance(image_id, bool):
            unit.note("error", "bad_shape", f"an image needs an id, found {describe(row)}")
            continue
        if image_id in units:
            unit.note("error", "duplicate_image", f"the image id {image_id} occurs twice")
            continue
        units[image_id] = image_unit
        place = folders.finder.find(row.get("file_name"), folders=search)
        header = measure(place, image_unit)
        if header is not None:
            what = f"the entry of {place.file_name}"
            check_size(image_unit, header, row.get("width"), row.get("height"), what=what)
    for index, row in enumerate(value["annotations"]):
        _read_annotation(index, row, units, unit, classes)
    return assemble([unit, *units.values()], options, root=folders.root, names=classes.names, stuff=classes.stuff)


class Classes:
    """The categories of a COCO file under the rules for labels."""

    def __init__(self, raw: object, unit: Unit, options: ReadOptions) -> None:
        self.labels = Labels(options)
        self._name_of: dict[int | str, str] = {}
        names: list[str] = []
        self.stuff: list[str] = []
        for row in sorted(raw if isinstance(raw, list) else [], key=_category_order):
            category_id = row.get("id") if isinstance(row, dict) else None
            name = row.get("name") if isinstance(row, dict) else None
            if not isinstance(category_id, (int, str)) or not isinstance(name, str) or not name.strip():
                unit.note("error", "bad_shape", f"a category needs an id and a name, found {describe(row)}")
                continue
            if category_id in self._name_of:
                unit.note("error", "bad_shape", f"the category id {category_id} occurs twice")
                continue
            self._name_of[category_id] = name
            final, _ = self.labels.class_of(name.strip())
            if final is not None:
                names.append(final)
                self.stuff += [final] if row.get("isthing") in (0, False) else []
        self.names = self.labels.names if self.labels.names is not None else tuple(dict.fromkeys(names))

    def read(self, category_id: object, unit: Unit, index: int) -> str | None:
        """The class name of an annotation, or None with a finding."""
        raw = self._name_of.get(category_id) if isinstance(category_id, (int, str)) else None
        if raw is None:
            message = f"the category {describe(category_id)} does not exist"
            unit.note("error", "unknown_label", message, shape=index)
            return None
        name = self.labels.read(raw, unit, index)
        return None if name is None else name.label


def _category_order(row: object) -> tuple[int, int | float, str]:
    category_id = row.get("id") if isinstance(row, dict) else None
    if isinstance(category_id, int):
        return 0, category_id, ""
    return 1, 0, str(category_id)


def _read_annotation(index: int, row: object, units: dict[int | str, Unit], file: Unit, classes: Classes) -> None:
    """Read one annotation into the unit of its image."""
    if not isinstance(row, dict):
        message = f"the annotation is {describe(row)}, expected an object"
        file.note("error", "bad_shape", message, shape=index)
        return
    image_id = row.get("image_id")
    unit = units.get(image_id) if isinstance(image_id, (int, str)) else None
    if unit is None:
        has_id = image_id is not None
        message = f"the image {describe(image_id)} does not exist" if has_id else "the annotation has no image_id"
        file.note("error", "image_missing" if has_id else "bad_shape", message, shape=index)
        return
    if unit.image is None or any(finding.code.startswith("size_") for finding in unit.findings):
        unit.exclude([index])
        return
    label = classes.read(row.get("category_id"), unit, index)
    if label is None:
        return
    try:
        part = _part(row, unit, index)
    except PointError as error:
        unit.note("error", error.code, str(error), shape=index)
        return
    if part is None:
        return
    score = row.get("score")
    is_score = isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1
    unit.drafts.append(
        unite(
            label,
            [part],
            unit,
            iscrowd=row.get("iscrowd") in (1, True),
            score=float(score) if is_score else None,  # type: ignore[arg-type]
            difficult=row.get("difficult") in (1, True),
        )
    )


def _part(row: dict[str, Any], unit: Unit, index: int) -> Part | None:
    """The segmentation as a part; an annotation that has only a box becomes a rectangle."""
    segmentation = row.get("segmentation")
    if isinstance(segmentation, dict):
        return _rle_part(segmentation, unit, index)
    if segmentation:
        if not isinstance(segmentation, list):
            raise PointError(
                "bad_point", f"the segmentation is {describe(segmentation)}, expected polygons or a run-length mask"
            )
        return _polygons_part(segmentation, unit, index)
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise PointError("bad_point", f"the annotation has no segmentation, and its bbox is {describe(box)}")
    (x, y), (width, height) = check_points([box[:2], box[2:]]).tolist()
    return polygon_part(rectangle_points((x, y), (x + width, y + height)), unit, index, is_polygon=False)


def _polygons_part(segmentation: list[object], unit: Unit, index: int) -> Part | None:
    """Each flat list of x and y is a polygon; the instance is their union."""
    parts = []
    for flat in segmentation:
        if not isinstance(flat, list) or len(flat) % 2:
            raise PointError("bad_point", f"a polygon is {describe(flat)}, expected x, y, x, y, ...")
        points = check_points([flat[at : at + 2] for at in range(0, len(flat), 2)])
        part = polygon_part(points, unit, index)
        if part is not None:
            parts.append(part)
    if not parts:
        return None
    rle = union_rles([part.rle for part in parts])
    return Part(index, rle, rle_area_px2(rle), tuple(polygon for part in parts for polygon in part.polygons))


def _rle_part(segmentation: dict[str, Any], unit: Unit, index: int) -> Part | None:
    assert unit.image is not None
    raw = check_rle(segmentation, width_px=unit.image.width_px, height_px=unit.image.height_px)
    return mask_part(Patch(decode_mask(raw), 0, 0), unit, index)
