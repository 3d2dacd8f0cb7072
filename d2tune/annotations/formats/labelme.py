"""Labelme JSON, versions 2 to 7: one file per image."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from d2tune.annotations.formats.labelme_images import find_image
from d2tune.annotations.formats.labelme_outlines import Outlines as Outlines
from d2tune.annotations.formats.labelme_polygons import FileOutlines, plain_parts
from d2tune.annotations.formats.labelme_shapes import area_type, in_pixels, is_line_type, read_shape, written_shape
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import SPECIAL_LABELS, Labels, Name
from d2tune.annotations.formats.shared.parts import Part, unite
from d2tune.annotations.formats.shared.signatures import is_labelme_list
from d2tune.annotations.formats.shared.sources import Folders, check_size, folders_of, unlabeled_units
from d2tune.annotations.formats.shared.units import ImageDraft, Unit
from d2tune.annotations.io.images import ImageError, is_image_name, read_header
from d2tune.annotations.io.json_files import DEPTH_LIMIT, JsonError, decode_json, is_nested_deeper, read_bytes
from d2tune.annotations.io.outputs import beside, refuse_existing, write_output_json
from d2tune.annotations.io.workers import no_collections, ordered_map, worker_count
from d2tune.annotations.model.dataset import Dataset, Image, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from d2tune.text import describe

VERSION = "6.3.0"
"""The Labelme version whose format is written."""

_VERTICES_AT_ONCE = 20_000


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a folder of Labelme files, or one file.

    Args:
        source: Folder, searched with all its subfolders, or JSON file.
        options: How to read.

    Returns:
        The dataset; errors in files are among its findings.

    Raises:
        DataError: The source does not exist.
    """
    source = Path(source).absolute()
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    folders = folders_of(source, options)
    labels = Labels(options)
    names = (
        [source.name]
        if source.is_file()
        else [name for name in folders.walk(skip=options.restore_dir) if name.lower().endswith(".json")]
    )
    read_some = functools.partial(_read_files, folders=folders, labels=labels, options=options)
    workers = worker_count(options.workers, len(names))
    with no_collections():
        units = ordered_map(read_some, names, workers=workers, label="reading", unit=" files")
        if source.is_dir():
            claimed = {unit.image.file_name for unit in units if unit.image is not None}
            bad = {Path(unit.file).with_suffix("") for unit in units if unit.is_bad}
            if bad:
                claimed |= {name for name in folders.walk(folders.root) if Path(name).with_suffix("") in bad}
            units += unlabeled_units(folders, options, claimed)
        return assemble(units, options, root=folders.root)


def is_labelme(value: object) -> bool:
    """Whether a parsed JSON file is a Labelme annotation."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("shapes"), list)
        and not ("images" in value and "annotations" in value)
    )


def _read_files(names: Sequence[str], *, folders: Folders, labels: Labels, options: ReadOptions) -> list[Unit]:
    """Read JSON files into units; the polygons of a few files are checked together."""
    units: list[Unit] = []
    opened: list[tuple[Unit, list[object]]] = []
    vertices = 0
    for name in names:
        for unit, shapes in _open_file(name, folders, options):
            units.append(unit)
            opened.append((unit, shapes))
            vertices += _vertex_count(shapes)
        if vertices >= _VERTICES_AT_ONCE:
            _read_shapes_of(opened, labels, options)
            opened, vertices = [], 0
    _read_shapes_of(opened, labels, options)
    return units


def _open_file(name: str, folders: Folders, options: ReadOptions) -> list[tuple[Unit, list[object]]]:
    """The unit of a JSON file and its shapes, which are not read yet; nothing in the file can raise.

    A file with a list of the contents of Labelme files has a unit for each of them.
    """
    unit = Unit(name)
    path = folders.source / name
    try:
        value, is_utf8 = decode_json(read_bytes(path))
    except JsonError as error:
        unit.note("error", "bad_json", str(error), line=error.line, column=error.column)
        _claim_sibling(unit, path, folders)
        return [(unit, [])]
    except OSError as error:
        unit.note("error", "bad_json", f"the file cannot be read ({error.strerror})")
        return [(unit, [])]
    if not is_utf8:
        unit.note("warning", "not_utf8", "the file is not UTF-8; it was read as GB18030", hint="save it as UTF-8")
    if is_labelme(value):
        return [(unit, _open_image(value, unit, path, folders, options))]
    if not is_labelme_list(value):
        unit.note("warning", "not_labelme", "the file is not a Labelme annotation; skipped")
        return [(unit, [])]
    members = [(Unit(name, image_name=_image_name(member)), member) for member in value]
    opened = [(one, _open_image(member, one, path, folders, options)) for one, member in members]
    return [(unit, []), *opened] if unit.findings else opened


def _image_name(value: object) -> str:
    name = value.get("imagePath") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _open_image(value: Any, unit: Unit, path: Path, folders: Folders, options: ReadOptions) -> list[object]:
    """The shapes of an image, which becomes that of the unit; none, with a finding, where it cannot be used."""
    if not is_labelme(value):
        unit.note(
            "warning", "not_labelme", f"an entry of the list is {describe(value)}, which is not Labelme's; skipped"
        )
        return []
    if _is_too_deep(value):
        unit.note("error", "bad_json", f"the file is nested more than {DEPTH_LIMIT} levels deep")
        return []
    header = find_image(value, unit, path, folders, options)
    size = value.get("imageWidth"), value.get("imageHeight")
    if header is not None and check_size(unit, header, *size, what="the file"):
        shapes: list[object] = value["shapes"]
        return shapes
    unit.exclude(range(len(value["shapes"])))
    return []


def _vertex_count(shapes: list[object]) -> int:
    """The approximate number of vertices of some shapes, which bounds the memory."""
    outlines = (shape.get("points") for shape in shapes if isinstance(shape, dict))
    return sum(len(points) for points in outlines if isinstance(points, list))


def _read_shapes_of(opened: Sequence[tuple[Unit, list[object]]], labels: Labels, options: ReadOptions) -> None:
    """Read the shapes of several files, the plain polygons of all of them at once."""
    filled = [
        (unit, unit.image, in_pixels(shapes, unit)) for unit, shapes in opened if unit.image is not None and shapes
    ]
    outlines = [
        FileOutlines(
            {index: shape.get("points") for index, shape in enumerate(shapes) if _is_polygon(shape)}, *image.size_px
        )
        for _, image, shapes in filled
    ]
    for (unit, _, shapes), plain in zip(filled, plain_parts(outlines), strict=True):
        _read_shapes(shapes, plain, unit, labels, options)


def _is_too_deep(value: dict[str, Any]) -> bool:
    """Whether a value that is written back unchanged is nested too deep for the JSON writer."""
    shapes = [shape for shape in value["shapes"] if isinstance(shape, dict)]
    members = (
        member
        for row in (value, *shapes)
        for key, member in row.items()
        if key not in ("shapes", "points") and isinstance(member, (dict, list)) and member
    )
    unchecked = (shape.get("points") for shape in shapes if _is_skipped(shape))
    return any(is_nested_deeper(member, DEPTH_LIMIT) for member in itertools.chain(members, unchecked))


def _claim_sibling(unit: Unit, path: Path, folders: Folders) -> None:
    """Make the image beside a file that cannot be parsed the unit's image, so that the number of images is right."""
    for sibling in sorted(path.parent.glob(f"{_escaped(path.stem)}.*")):
        file_name = folders.finder.file_name(str(sibling))
        if is_image_name(sibling.name) and file_name is not None:
            try:
                header = read_header(sibling)
            except ImageError:
                continue
            size_px = header.width_px, header.height_px
            unit.image = ImageDraft(file_name, *size_px, sibling, pixel_format=header.pixel_format)
            return


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@dataclass(slots=True, eq=False)
class _Group:
    """The parts of one instance."""

    label: str
    parts: list[Part]
    iscrowd: bool = False
    score: float | None = None
    difficult: bool = False


def _read_shapes(
    shapes: list[object], plain: Mapping[int, Part], unit: Unit, labels: Labels, options: ReadOptions
) -> None:
    """Read the shapes of a file, except those read before, and join those of one group to one instance.

    Args:
        shapes: The shapes.
        plain: The parts of those read before, by index.
        unit: Takes the instances and findings.
        labels: The rules for labels.
        options: How to read.
    """
    groups: dict[tuple[object, ...], _Group] = {}
    for index, shape in enumerate(shapes):
        if not isinstance(shape, dict):
            message = f"the shape is {describe(shape)}, expected an object"
            unit.note("error", "bad_shape", message, shape=index)
            continue
        flags = shape.get("flags")
        flags = flags if isinstance(flags, dict) else {}
        if options.no_predictions and flags.get("prediction") is True:
            unit.excluded[index] = "flagged as a prediction"
            continue
        kind = area_type(shape.get("shape_type")) or _stand_in_type(shape, unit, index, options)
        name = labels.read(shape.get("label"), unit, index) if kind is not None else None
        if name is None:
            continue
        group_id = _group_id(shape.get("group_id"), unit, index)
        part = plain.get(index) or read_shape(shape, unit, index, kind=kind)
        if part is None:
            continue
        key = _group_key(name, group_id, index)
        group = groups.setdefault(key, _Group(name.label, []))
        group.parts.append(part)
        group.iscrowd |= flags.get("iscrowd") is True
        group.difficult |= shape.get("difficult") is True
        group.score = _score(shape) if group.score is None else group.score
    for group in groups.values():
        nested = options.nested_groups
        marks = {"iscrowd": group.iscrowd, "difficult": group.difficult}
        draft = unite(group.label, group.parts, unit, nested=nested, score=group.score, **marks)
        if draft.area_px2:
            unit.drafts.append(draft)
            continue
        for index in draft.shapes:
            unit.note("warning", "rasterizes_empty", "the holes of the group cover all of it; dropped", shape=index)


def _is_polygon(shape: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(shape, dict) and shape.get("shape_type") in ("polygon", None)


def _group_key(name: Name, group_id: int | str | None, index: int) -> tuple[object, ...]:
    if group_id is not None:
        return name.label, "group", group_id
    if name.number is not None:
        return name.label, "number", name.number
    return name.label, "shape", index


def _stand_in_type(shape: dict[str, Any], unit: Unit, index: int, options: ReadOptions) -> str | None:
    """``polygon`` for a shape of unknown type that is read as one; None, with a finding, for any other shape."""
    kind, label, points = (shape.get(key) for key in ("shape_type", "label", "points"))
    if isinstance(label, str) and label.strip() in SPECIAL_LABELS:
        unit.note("info", "ignored_label", f"the label {label.strip()!r} is ignored", shape=index)
        return None
    if is_line_type(kind):
        message = f"a shape of type {describe(kind)} has no area; skipped"
        unit.note("warning", "unsupported_shape_type", message, shape=index)
        return None
    count = len(points) if isinstance(points, list) else 0
    if count < 3:
        message = f"the type {describe(kind)} of a shape with {count} points is unknown; skipped"
        unit.note("warning", "unsupported_shape_type", message, shape=index)
        return None
    if options.unknown_shapes == "polygon":
        message = f"the type {describe(kind)} is unknown; the shape is read as a polygon of its {count} points"
        unit.note("warning", "unknown_shape_type", message, shape=index)
        return "polygon"
    hint = "read such shapes as polygons with data.unknown_shapes: polygon or --unknown-shapes polygon"
    message = f"the type {describe(kind)} of a shape with {count} points is unknown; skipped"
    unit.note("warning", "unknown_shape_type", message, shape=index, hint=hint)
    return None


def _group_id(raw: object, unit: Unit, index: int) -> int | str | None:
    """The group's number; values of other types are converted, with a warning."""
    if raw is None or (isinstance(raw, int) and not isinstance(raw, bool)):
        return raw
    group_id = _read_group_id(raw)
    message = f"the group_id is {describe(raw)}, expected a whole number; it is read as {group_id!r}"
    unit.note("warning", "group_id_not_int", message, shape=index)
    return group_id


def _read_group_id(raw: object) -> int | str | None:
    """A value as a whole number where it is one, else as text; None for a value that is neither."""
    if isinstance(raw, (bool, float)):
        return int(raw) if math.isfinite(raw) and raw == int(raw) else str(raw)
    if not isinstance(raw, str) or not raw.strip():
        return None
    try:
        return int(raw)
    except ValueError:
        return raw.strip()


def _score(shape: dict[str, Any]) -> float | None:
    score = shape.get("score")
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        return None
    return float(score)


def write(
    dataset: Dataset,
    out: Path,
    *,
    originals: Path | None = None,
    tolerance_px: float = 1.0,
    min_area_px2: float | None = None,
    force: bool = False,
) -> list[Path]:
    """Write one Labelme file per image, with the keys and types that Labelme writes.

    Outlines along pixel edges, as traced from masks, are simplified so that they can be edited. Instances with a score
    are predictions: their outlines are simplified too, the flag ``prediction`` is set, and the score is written to
    ``description`` and to the key ``score``. The parts of an instance share a group_id; an instance with holes is
    written as a mask.

    Args:
        dataset: What to write.
        out: The folder; files keep the subfolders of their images in it, or of their original files.
        originals: The folder that ``Image.annotation_file`` is relative to. The shapes of such a Labelme file are
            written unchanged, with all their keys: those of the instances, and those that are not used for training.
            Only shapes excluded by an option (a label renamed to nothing, predictions) are not written.
        tolerance_px: How far the outline of a mask or of a prediction may move.
        min_area_px2: Smaller regions of masks are excluded, see `labelme_outlines.new_shapes`.
        force: Whether files that an earlier conversion wrote are replaced; others never are.

    Returns:
        The files written.

    Raises:
        DataError: A file is already there.
    """
    uses = Counter(image.annotation_file for image in dataset.images)
    # A file with several images is not a Labelme file.
    folders = {image.id: originals if uses[image.annotation_file] == 1 else None for image in dataset.images}
    places = _places(dataset.images, out, folders)
    refuse_existing(places.values(), force=force)
    groups = dataset.by_image()
    names = {category.id: category.name for category in dataset.categories}
    idle = _idle_shapes(dataset)
    outlines = Outlines(tolerance_px, min_area_px2)
    for image in dataset.images:
        original = _original(image, folders[image.id])
        kept = idle.get(image.annotation_file or "", frozenset())
        shapes = _shapes_of(groups[image.id], names, original.get("shapes", []), kept, outlines)
        write_output_json(places[image.id], _finite(_top_level(image, places[image.id], original, shapes)))
    outlines.log()
    return list(places.values())


def file_content(
    dataset: Dataset, place: Path, *, tolerance_px: float = 1.0, outlines: Outlines | None = None
) -> dict[str, Any]:
    """The content of a new Labelme file with the predictions of one image, as `write` writes it.

    Args:
        dataset: One image with its instances; those without a score are regions of a label map.
        place: Where the file will be; ``imagePath`` is relative to its folder where the image has a path.
        tolerance_px: As in `write`.
        outlines: Makes the shapes in the place of ``tolerance_px``, and counts the excluded regions.
    """
    (image,) = dataset.images
    names = {category.id: category.name for category in dataset.categories}
    instances = [one if one.score is not None else replace(one, is_disjoint=True) for one in dataset.instances]
    shapes = _shapes_of(instances, names, [], frozenset(), outlines or Outlines(tolerance_px))
    content: dict[str, Any] = _finite(_top_level(image, place, {}, shapes))
    return content


def _places(images: Sequence[Image], out: Path, originals: Mapping[int, Path | None]) -> dict[int, Path]:
    """The file of every image: at the relative path of its original file, else at that of its image."""
    places = beside(images, out, ".json")
    mirrored = {
        image.id: beside([replace(image, file_name=image.annotation_file)], out, ".json")[image.id]
        for image in images
        if image.annotation_file is not None and _original(image, originals[image.id])
    }
    merged = places | mirrored
    return merged if len(set(merged.values())) == len(merged) else places


def _idle_shapes(dataset: Dataset) -> dict[str, frozenset[int]]:
    """The shapes of every file that were dropped, but not excluded by an option."""
    idle: dict[str, set[int]] = {}
    for row in dataset.ledger:
        if row.fate == "dropped" and row.shape is not None and row.codes and "ignored_label" not in row.codes:
            idle.setdefault(row.file, set()).add(row.shape)
    return {file: frozenset(shapes) for file, shapes in idle.items()}


def _original(image: Image, folder: Path | None) -> dict[str, Any]:
    """The content of the Labelme file of an image, empty where it has none."""
    if folder is None or image.annotation_file is None:
        return {}
    try:
        value, _ = decode_json(read_bytes(folder / image.annotation_file))
    except (OSError, JsonError):
        return {}
    return value if is_labelme(value) else {}


def image_path_at(image: Path, place: Path) -> str:
    """The path of an image in a Labelme file, relative to the folder of the file.

    Args:
        image: The image.
        place: The Labelme file.
    """
    try:
        return os.path.relpath(image, place.absolute().parent).replace(os.sep, "/")
    except ValueError:  # another drive
        return image.as_posix()


def _top_level(image: Image, path: Path, original: dict[str, Any], shapes: list[dict[str, Any]]) -> dict[str, Any]:
    photo = image.file_name if image.path is None else image_path_at(image.path, path)
    flags = original.get("flags")
    return original | {
        "version": VERSION,
        "flags": flags if isinstance(flags, dict) else {},
        "shapes": shapes,
        "imagePath": photo,
        "imageData": None,
        "imageHeight": image.height_px,
        "imageWidth": image.width_px,
    }


def _shapes_of(
    instances: list[Instance], names: dict[int, str], originals: list[Any], idle: frozenset[int], outlines: Outlines
) -> list[dict[str, Any]]:
    """The shapes of one image: those of the original file in their order, then new ones.

    Args:
        instances: The instances of the image.
        names: Class names by category id.
        originals: The shapes of the original file.
        idle: Indices of those that belong to no instance and are kept.
        outlines: Makes the new shapes.
    """
    taken = [raw.get("group_id") for raw in originals if isinstance(raw, dict)]
    fresh = itertools.count(max((group_id for group_id in taken if type(group_id) is int), default=-1) + 1)
    kept = {
        index: raw
        for index, raw in enumerate(originals)
        if isinstance(raw, dict) and (index in idle or _is_skipped(raw))
    }
    shapes: list[dict[str, Any]] = []
    for instance in instances:
        label = names[instance.category_id]
        if instance.shapes and all(index < len(originals) for index in instance.shapes):
            parts = [originals[index] | {"label": label} for index in instance.shapes]
            kept |= dict(zip(instance.shapes, _grouped(parts, fresh), strict=True))
        else:
            shapes += _grouped([_complete(new) for new in outlines.shapes_of(instance, label)], fresh)
    return [_complete(kept[index]) for index in sorted(kept) if kept[index].get("points")] + shapes


def _is_skipped(raw: dict[str, Any]) -> bool:
    """Whether a shape is not used for training because of its type or label: lines, points, ignored labels."""
    label = raw.get("label")
    is_area = area_type(raw.get("shape_type")) is not None
    return not is_area or (isinstance(label, str) and label.strip() in SPECIAL_LABELS)


def _grouped(parts: list[dict[str, Any]], fresh: Iterator[int]) -> list[dict[str, Any]]:
    """The parts, with a new group where there are several without one."""
    if len(parts) < 2 or any(type(part.get("group_id")) is int for part in parts):
        return parts
    group_id = next(fresh)
    return [part | {"group_id": group_id} for part in parts]


def _complete(raw: dict[str, Any]) -> dict[str, Any]:
    """A shape with all keys that Labelme requires, in types that it accepts; values of those types stay unchanged."""
    shape: dict[str, Any] = {"label": "", "points": [], "group_id": None, "description": "", "mask": None} | raw
    shape |= written_shape(raw)
    shape["flags"] = _flags(raw)
    for key in ("label", "description"):
        if not isinstance(shape[key], str):
            shape[key] = "" if shape[key] is None else str(shape[key])
    if shape["group_id"] is not None and type(shape["group_id"]) is not int:
        group_id = _read_group_id(shape["group_id"])
        shape["group_id"] = group_id if isinstance(group_id, int) else None
    return shape


def _flags(raw: Mapping[str, Any]) -> dict[str, bool]:
    """The flags of a shape; Labelme accepts only true and false."""
    flags = raw.get("flags")
    return {key: bool(value) for key, value in flags.items()} if isinstance(flags, dict) else {}


def _finite(value: Any) -> Any:
    """The value with null in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
