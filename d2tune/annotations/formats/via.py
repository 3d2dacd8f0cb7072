"""VGG Image Annotator: exports of version 1, and exports and projects of versions 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.normalized import corners_of, is_normalized, note_normalized, to_pixels
from d2tune.annotations.formats.shared.parts import Part, box_part, polygon_part, round_part, unite
from d2tune.annotations.formats.shared.sources import Folders, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.polygons import PointError, check_points
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError, nearest
from d2tune.text import describe

_VIA3_KINDS = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon"}
_COORDINATES = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
}


@dataclass(frozen=True, slots=True)
class Region:
    """One region of any version.

    Attributes:
        index: Its index among all regions of the file, from 0.
        kind: rect, circle, ellipse, polygon, another name, or None for a region without a position in the image.
        numbers: The numbers of its kind: x, y, width, height; cx, cy, r; cx, cy, rx, ry, theta; or ``[x, y]`` pairs.
        attributes: Region attributes by name.
    """

    index: int
    kind: object
    numbers: Any
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """One image of any version with its regions."""

    name: object
    regions: tuple[Region, ...]


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a VIA file, or every VIA file in a folder.

    Args:
        source: Folder or JSON file; images are beside the file or under ``options.image_root``.
        options: How to read; ``class_name``, ``class_attribute`` and ``pixel_offset`` are for VIA.

    Raises:
        DataError: The source does not exist, or no region has the attribute ``class_attribute``.
    """
    return read_files(source, options, suffix=".json", parse=_parse)


def read_files(
    source: Path,
    options: ReadOptions,
    *,
    suffix: str,
    parse: Callable[[Unit, Path], dict[str, Any] | None],
) -> Dataset:
    """Read a file, or every file with a suffix in a folder.

    Args:
        source: As for `read`.
        options: As for `read`.
        suffix: In lower case.
        parse: The content of a file in the form of VIA's JSON; None with a finding where it has none.

    Raises:
        DataError: As for `read`.
    """
    source = Path(source).absolute()
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    folders = folders_of(source, options)
    names = (
        [source.name]
        if source.is_file()
        else [name for name in folders.walk(skip=options.restore_dir) if name.lower().endswith(suffix)]
    )
    units: list[Unit] = []
    seen: set[str] = set()
    for name in names:
        units += _read_file(name, folders, options, seen, parse)
    if options.class_attribute is not None and seen and options.class_attribute not in seen:
        near = nearest(options.class_attribute, seen)
        raise DataError(
            "no region has this attribute",
            file=source,
            found=f"class attribute {options.class_attribute!r}",
            expected=", ".join(sorted(seen)),
            hint=f"Did you mean {near!r}?" if near else None,
        )
    claimed = [unit.image.file_name for unit in units if unit.image is not None]
    return assemble(units + unlabeled_units(folders, options, claimed), options, root=folders.root)


def is_via(value: object) -> bool:
    """Whether a parsed JSON file is a VIA annotation."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("metadata"), dict) and isinstance(value.get("file"), dict):
        return True
    entries = value.get("_via_img_metadata", value)
    if not isinstance(entries, dict) or (not entries and entries is value):
        return False
    return all(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries.values())


def _read_file(
    name: str,
    folders: Folders,
    options: ReadOptions,
    seen: set[str],
    parse: Callable[[Unit, Path], dict[str, Any] | None],
) -> list[Unit]:
    """Read a file into a unit per image; ``seen`` collects the names of region attributes."""
    unit = Unit(name)
    path = folders.source / name
    value = parse(unit, path)
    if value is None:
        return [unit]
    images = images_of(value)
    regions = [region for image in images for region in image.regions]
    seen |= {key for region in regions for key in region.attributes}
    labels = Labels(options)
    source = class_source(regions, options, labels)
    is_scaled = is_normalized(number for region in regions for number in coordinates_of(region))
    if is_scaled:
        note_normalized(unit)
    reader = _Reader(folders, options, labels, source, is_scaled)
    units = [reader.read_image(image, name, path) for image in images]
    return [unit, *units] if unit.findings else units


def _parse(unit: Unit, path: Path) -> dict[str, Any] | None:
    """The value of a JSON file; None with a finding where it is damaged or not VIA's."""
    try:
        value, is_utf8 = decode_json(read_bytes(path))
    except JsonError as error:
        unit.note("error", "bad_json", str(error), line=error.line, column=error.column)
        return None
    except OSError as error:
        unit.note("error", "bad_json", f"the file cannot be read ({error.strerror})")
        return None
    if not is_utf8:
        unit.note("warning", "not_utf8", "the file is not UTF-8; it was read as GB18030", hint="save it as UTF-8")
    if not is_via(value):
        unit.note("warning", "not_via", "the file is not a VIA annotation; skipped")
        return None
    checked: dict[str, Any] = value
    return checked


@dataclass(frozen=True, slots=True)
class ClassSource:
    """Where the classes of a file's regions come from.

    Attributes:
        attribute: The region attribute; None where it is not known.
        default: The class of regions without a value; None makes them errors.
        attributes: All attributes that have a value, for messages.
    """

    attribute: str | None
    default: str | None
    attributes: tuple[str, ...]


def class_source(regions: Sequence[Region], options: ReadOptions, labels: Labels) -> ClassSource:
    """Where the classes of a file's regions come from.

    Without ``options.class_attribute`` it is the only attribute, the only one that has values, or the only one whose
    values are among the classes. ``options.only_class`` is the class where no region names one.
    """
    values: dict[str, set[str]] = {}
    for region in regions:
        for key, value in region.attributes.items():
            values.setdefault(key, set()).update(chosen_of(value))
    named = {key: texts for key, texts in values.items() if texts}
    attribute = options.class_attribute
    if attribute is None:
        known = set(labels.names or ())
        among = [key for key, texts in named.items() if any(labels.class_of(text)[0] in known for text in texts)]
        attribute = next((keys[0] for keys in (list(values), list(named), among) if len(keys) == 1), None)
    names_classes = bool(named) if attribute is None else attribute in named
    default = options.class_name or (None if names_classes else options.only_class)
    return ClassSource(attribute, default, tuple(sorted(named)))


def chosen_of(value: object) -> list[str]:
    """The texts that an attribute's value stands for: those of the options that are set, none where it is empty."""
    if isinstance(value, dict):
        return [str(option).strip() for option, is_on in value.items() if is_on is True]
    return [] if value is None or not str(value).strip() else [str(value).strip()]


def coordinates_of(region: Region) -> Iterator[object]:
    """The coordinates of a region that has an area."""
    if region.kind in ("rect", "circle", "ellipse", "polygon") and isinstance(region.numbers, list):
        if region.kind == "rect":
            yield from corners_of(region.numbers)
            return
        for number in region.numbers if region.kind == "polygon" else [region.numbers[:4]]:
            yield from number if isinstance(number, list) else [number]


def images_of(value: dict[str, Any]) -> list[Image]:
    """The images of a parsed VIA file with their regions, unchecked."""
    return list(_images_3(value) if "metadata" in value else _images_2(value.get("_via_img_metadata", value)))


def _images_2(entries: dict[str, Any]) -> Iterator[Image]:
    """Images of versions 1 and 2: regions are a dict "0", "1", ... or a list."""
    index = 0
    for entry in entries.values():
        raw = entry["regions"]
        rows = list(raw.values()) if isinstance(raw, dict) else raw if isinstance(raw, list) else []
        regions = []
        for row in rows:
            regions.append(_region_2(index, row if isinstance(row, dict) else {}))
            index += 1
        yield Image(entry["filename"], tuple(regions))


def _region_2(index: int, row: dict[str, Any]) -> Region:
    shape = row.get("shape_attributes")
    shape = shape if isinstance(shape, dict) else {}
    attributes = row.get("region_attributes")
    kind = shape.get("name", "")
    numbers: Any
    if kind == "polygon":
        numbers = _pairs(shape.get("all_points_x"), shape.get("all_points_y"))
    else:
        numbers = [shape.get(key) for key in _COORDINATES.get(kind if isinstance(kind, str) else "", ())]
        if kind == "ellipse":
            numbers.append(shape.get("theta", 0))
    return Region(index, kind, numbers, attributes if isinstance(attributes, dict) else {})


def _pairs(x: object, y: object) -> object:
    """``[x, y]`` pairs of two lists of the same length; else a value that the check of points refuses."""
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
        return {"all_points_x": x, "all_points_y": y}
    return [list(pair) for pair in zip(x, y, strict=True)]


def _images_3(value: dict[str, Any]) -> Iterator[Image]:
    """Images of version 3: regions in ``metadata``, files through the view of each region."""
    texts = _Attributes3(value.get("attribute"))
    view = value["view"] if isinstance(value.get("view"), dict) else {}
    regions: dict[str, list[Region]] = {str(key): [] for key in view}
    for index, row in enumerate(value["metadata"].values()):
        if isinstance(row, dict):
            regions.setdefault(str(row.get("vid")), []).append(_region_3(index, row, texts))
    for key, members in regions.items():
        files = view.get(key)
        fids = files.get("fid_list") if isinstance(files, dict) else None
        entry = value["file"].get(str(fids[0])) if isinstance(fids, list) and fids else None
        yield Image(entry.get("fname") if isinstance(entry, dict) else None, tuple(members))


def _region_3(index: int, row: dict[str, Any], texts: _Attributes3) -> Region:
    xy = row.get("xy")
    attributes = texts.of(row.get("av"))
    if not isinstance(xy, list) or not xy:
        return Region(index, None, None, attributes)
    kind = _VIA3_KINDS.get(xy[0], xy[0]) if isinstance(xy[0], int) else xy[0]
    numbers: Any = xy[1:]
    if kind == "polygon":
        numbers = _pairs(numbers[0::2], numbers[1::2])
    return Region(index, kind, numbers, attributes)


class _Attributes3:
    """The attribute definitions of a version 3 project, with the texts of option ids."""

    def __init__(self, raw: object) -> None:
        self._defined = {key: row for key, row in raw.items() if isinstance(row, dict)} if isinstance(raw, dict) else {}

    def of(self, av: object) -> dict[str, Any]:
        """Attribute texts by name; several chosen options become a checkbox dict as in version 2."""
        texts: dict[str, Any] = {}
        for key, value in av.items() if isinstance(av, dict) else ():
            row = self._defined.get(str(key), {})
            options = row.get("options")
            options = options if isinstance(options, dict) else {}
            text = options.get(str(value), value)
            if str(value) not in options and isinstance(value, str) and "," in value:
                chosen = [option.strip() for option in value.split(",") if option.strip()]
                if chosen and all(option in options for option in chosen):
                    text = {str(options[option]): True for option in chosen}
            texts[str(row.get("aname", key))] = text
        return texts


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads images into units."""

    folders: Folders
    options: ReadOptions
    labels: Labels
    source: ClassSource
    is_normalized: bool = False

    def read_image(self, image: Image, file: str, path: Path) -> Unit:
        """Look up and measure the image and read its regions."""
        unit = Unit(file, image_name=str(image.name or ""))
        place = self.folders.finder.find(image.name, folders=self.folders.search_from(path))
        if measure(place, unit) is None:
            unit.exclude(region.index for region in image.regions)
            return unit
        unit.image_name = place.file_name
        for region in image.regions:
            if region.kind is None:
                message = "the entry has no position in the image; skipped"
                unit.note("info", "no_spatial_extent", message, shape=region.index)
                continue
            if region.kind not in ("rect", "circle", "ellipse", "polygon"):
                message = f"a region of type {describe(region.kind)} has no area; skipped"
                unit.note("warning", "unsupported_shape_type", message, shape=region.index)
                continue
            self._read_region(region, unit)
        return unit

    def _read_region(self, region: Region, unit: Unit) -> None:
        label = self._class_of(region, unit)
        name = None if label is None else self.labels.read(label, unit, region.index)
        if name is None:
            return
        try:
            part = self._part(region, unit)
        except PointError as error:
            unit.note("error", error.code, str(error), shape=region.index)
            return
        if part is not None:
            unit.drafts.append(unite(name.label, [part], unit))

    def _class_of(self, region: Region, unit: Unit) -> object:
        """The value of the class attribute, else the default; None, with an error, where there is neither."""
        attribute = self.source.attribute
        value = None if attribute is None else region.attributes.get(attribute)
        if isinstance(value, dict):
            chosen = chosen_of(value)
            if len(chosen) > 1:
                message = f"the attribute {attribute!r} has several options set: {', '.join(chosen)}"
                unit.note("error", "no_class", message, shape=region.index, hint="set one option")
                return None
            value = chosen[0] if chosen else None
        if value is not None and str(value).strip():
            return value
        if self.source.default is not None:
            return self.source.default
        names = ", ".join(self.source.attributes)
        message, hint = "the region has no class", "name it with --class-name, in a project with data.class_name"
        if attribute is not None:
            message = f"the attribute {attribute!r} of the region has no value"
        elif names:
            message = f"which of the attributes {names} has the class is not known"
            hint = "name it with --class-attribute, in a project with data.class_attribute"
        unit.note("error", "no_class", message, shape=region.index, hint=hint)
        return None

    def _part(self, region: Region, unit: Unit) -> Part | None:
        offset = self.options.pixel_offset
        if region.kind == "polygon":
            points = check_points(region.numbers)
            points = to_pixels(points, unit) if self.is_normalized else points
            return polygon_part(points + offset, unit, region.index)
        numbers = _numbers(region)
        if self.is_normalized:
            numbers = _scaled(numbers, unit)
        x, y = numbers[0] + offset, numbers[1] + offset
        if region.kind == "rect":
            return box_part(np.sort([[x, y], [x + numbers[2], y + numbers[3]]], axis=0), unit, region.index)
        radius_y = numbers[2] if region.kind == "circle" else numbers[3]
        theta = numbers[4] if len(numbers) > 4 else 0.0
        return round_part([x, y], numbers[2], radius_y, unit, region.index, theta_rad=math.remainder(theta, math.tau))


def _scaled(numbers: list[float], unit: Unit) -> list[float]:
    """Normalized numbers of a rectangle, circle or ellipse in pixels; the radius of a circle is one of the width."""
    assert unit.image is not None
    width_px, height_px = unit.image.size_px
    factors = (width_px, height_px, width_px, height_px, 1)
    return [number * factor for number, factor in zip(numbers, factors, strict=False)]


def _numbers(region: Region) -> list[float]:
    """The numbers of a rectangle, circle or ellipse, checked."""
    wanted = {"rect": (4, 4), "circle": (3, 3), "ellipse": (4, 5)}[str(region.kind)]
    raw = region.numbers
    if not isinstance(raw, list) or not wanted[0] <= len(raw) <= wanted[1]:
        message = f"a {region.kind} needs {wanted[0]} numbers, found {describe(raw)}"
        raise PointError("wrong_point_count", message)
    padded = check_points([[value, 0] for value in raw])
    return [float(value) for value in np.asarray(padded)[:, 0]]
