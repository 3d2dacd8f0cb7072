"""Pascal VOC: XML files of objects, and class and object masks as palette or color PNGs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.color_maps import (
    ColorMap,
    classify,
    color_map_in,
    is_no_class,
    read_color_map,
    voc_color,
)
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.mask_files import add_region
from d2tune.annotations.formats.shared.mask_files import read_pixels as read_pixels
from d2tune.annotations.formats.shared.sources import Folders, check_size, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.voc_normalized import scale_normalized
from d2tune.annotations.formats.voc_objects import Reading, read_object
from d2tune.annotations.io.json_files import JsonError, read_bytes
from d2tune.annotations.io.places import Place
from d2tune.annotations.io.xml_files import XmlError, parse_xml
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError

CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
"""The twenty classes of VOC; their indices in class masks count from 1."""

_VOC_COLORS: ColorMap = {voc_color(index): name for index, name in enumerate(CLASS_NAMES, start=1)}

_CLASS_FOLDER, _OBJECT_FOLDER = "SegmentationClass", "SegmentationObject"
_BORDER_COLOR = (224, 224, 192)
"""The color of index 255 in VOC's palette: borders of objects, which have no class."""


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read VOC XML files: a folder with all its subfolders, or one file.

    The polygons of an object win over its box; see `voc_objects.read_object`.

    Raises:
        DataError: The source does not exist.
    """
    source = Path(source).absolute()
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    folders = folders_of(source, options)
    reading = Reading(Labels(options), options, folders)
    names = [source.name] if source.is_file() else [name for name in folders.walk() if name.lower().endswith(".xml")]
    units = [_read_xml(name, reading) for name in names]
    masks = [
        path.relative_to(folders.root).as_posix() for path in reading.mask_files if path.is_relative_to(folders.root)
    ]
    return assemble(units + _unlabeled(folders, options, units, masks), options, root=folders.root)


def _unlabeled(folders: Folders, options: ReadOptions, units: Sequence[Unit], masks: Iterable[str] = ()) -> list[Unit]:
    """Units of the images without an annotation; masks are not images."""
    claimed = [unit.image.file_name for unit in units if unit.image is not None]
    claimed += [*masks, *(name for name in folders.walk(folders.root) if _folder_in(name) is not None)]
    return unlabeled_units(folders, options, claimed)


def _folder_in(name: str) -> str | None:
    """The mask folder of a file; None outside of both."""
    parts = PurePosixPath(name).parts[:-1]
    return next((folder for folder in (_CLASS_FOLDER, _OBJECT_FOLDER) if folder in parts), None)


def _read_xml(name: str, reading: Reading) -> Unit:
    """Read one XML file into a unit; nothing in it can raise."""
    unit = Unit(name)
    path = reading.folders.source / name
    try:
        root = parse_xml(read_bytes(path))
    except XmlError as error:
        unit.note("error", "bad_xml", str(error), line=error.line, column=error.column)
        return unit
    except (OSError, JsonError) as error:
        unit.note("error", "bad_xml", f"the file cannot be read ({error})")
        return unit
    if root.tag != "annotation":
        unit.note("warning", "not_voc", f"the file contains <{root.tag[:40]}>, which is not a VOC annotation; skipped")
        return unit
    header = measure(_find(root.findtext("filename"), root.findtext("folder"), path, reading.folders), unit)
    keys = ("size/width", "size/height") if root.find("size") is not None else ("imagesize/ncols", "imagesize/nrows")
    stated = (root.findtext(keys[0]), root.findtext(keys[1]))
    objects = root.findall("object")
    if header is None or not check_size(unit, header, *stated, what="the file"):
        unit.exclude(range(len(objects)))
        return unit
    scale_normalized(objects, unit)
    for index, element in enumerate(objects):
        read_object(index, element, unit, reading)
    return unit


def _find(name: str | None, folder: str | None, path: Path, folders: Folders) -> Place:
    """The image of an annotation by its name, else by the name of the XML file."""
    search = image_folders(path, folders)
    if folder and folder.strip():  # of LabelMe: Images/FOLDER beside Annotations/FOLDER
        search += (folders.root / "Images" / folder.strip(),)
    return folders.finder.find((name or "").strip(), folders=search, stem=path.stem, without_suffix=True)


def image_folders(path: Path, folders: Folders) -> tuple[Path, ...]:
    """The folders for images of a VOC file: JPEGImages or images beside its folder, and those near the file."""
    above = path.parent.parent
    return (folders.root / "JPEGImages", folders.root, path.parent, above / "JPEGImages", above / "images", above)


def has_masks(names: Iterable[str]) -> bool:
    """Whether files of a folder are VOC class masks."""
    return any(_folder_in(name) == _CLASS_FOLDER and name.lower().endswith(".png") for name in names)


def read_masks(source: Path, options: ReadOptions) -> Dataset:
    """Read VOC masks: ``SegmentationClass/*.png`` and, for single objects, ``SegmentationObject/*.png``.

    Palette indices are VOC's classes from 1, or the positions in ``options.labels`` from 1 where those are not classes
    of VOC and no class of VOC is renamed; 0 is background and 255 is ignored. With a color map (``options.color_map``,
    or ``labelmap.txt`` beside the folder, as CVAT writes it), classes are read by their colors, and indices are
    positions in the color map. Each value or color of an object mask is an object. Without an object mask, each class
    of an image is one instance, or with ``options.split_components`` each of its connected components.

    Raises:
        DataError: The source is not a folder, or the color map cannot be read.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError("VOC masks are read from a folder", file=source, expected=f"a folder with {_CLASS_FOLDER}")
    folders = folders_of(source, options)
    names = [name for name in folders.walk() if has_masks([name])]
    maps: dict[Path, ColorMap] = {}
    units = [_read_mask(name, folders, options, maps) for name in names]
    return assemble(units + _unlabeled(folders, options, units), options, root=folders.root)


def _read_mask(name: str, folders: Folders, options: ReadOptions, maps: dict[Path, ColorMap]) -> Unit:
    """Read the class mask and object mask of one image into a unit; ``maps`` keeps color maps by folder."""
    unit = Unit(name)
    path = folders.source / name
    parts = PurePosixPath(name).parts
    at = parts.index(_CLASS_FOLDER)
    top = folders.source.joinpath(*parts[:at])
    search = (top / "JPEGImages", top / "images", top, folders.root)
    if measure(folders.finder.find(path.stem, folders=search, without_suffix=True), unit) is None:
        return unit
    if top not in maps:
        maps[top] = read_color_map(options.color_map) if options.color_map else color_map_in(top, folders.source)
    classes = _read_classes(path, unit, maps[top], options)
    if classes is None:
        return unit
    labels = Labels(options)
    object_path = top.joinpath(_OBJECT_FOLDER, *parts[at + 1 :])
    if object_path.is_file():
        objects = read_pixels(object_path, unit)
        if objects is not None:
            _read_objects(_numbered(objects), classes, unit, labels, options)
        return unit
    for value in np.unique(classes.values[classes.values != 0]).tolist():
        add_region(classes.values == value, classes.name_of(value), value, unit, labels, options)
    return unit


@dataclass(frozen=True, slots=True, eq=False)
class _Classes:
    """The classes of a mask: a value for each pixel ``(H, W)``, 0 without a class, and the name of each value."""

    values: NDArray[Any]
    name_of: Callable[[int], str]


def _read_classes(path: Path, unit: Unit, colors: ColorMap, options: ReadOptions) -> _Classes | None:
    """The classes of a class mask; None with an error that gives the reason."""
    pixels = read_pixels(path, unit)
    if pixels is None:
        return None
    if pixels.ndim == 2 and not colors:
        return _Classes(np.where(pixels == IGNORE_LABEL, 0, pixels), lambda value: _class_name(value, options))
    shown = pixels[..., :3] if pixels.ndim == 3 else read_pixels(path, unit, mode="RGB")
    assert shown is not None
    table = {_BORDER_COLOR: "_background_"} | (colors or _VOC_COLORS)
    classified = classify(shown, table, exact=pixels.ndim == 2 or not colors)
    if not colors and len(np.unique(classified.classes)) == 1:
        hint = "add labelmap.txt beside the folder (name:r,g,b a line), or a file with --color-map"
        message = f"{path} is a color image without a color of VOC, expected palette or gray values"
        unit.note("error", "mask_undecodable", message, hint=hint)
        return None
    if classified.unknown and pixels.ndim == 2:
        names = list(colors.values())
        indices = np.where(pixels == IGNORE_LABEL, 0, pixels)
        if indices.max() < len(names):
            empty = [index for index, name in enumerate(names) if is_no_class(name)]
            return _Classes(np.where(np.isin(indices, empty), 0, indices), lambda value: names[value])
    if classified.unknown:
        listed = ", ".join(f"{color} ({count} px)" for color, count in list(classified.unknown.values())[:5])
        hint = "name them in labelmap.txt beside the folder (name:r,g,b a line), or in a file for --color-map"
        message = f"{path.name} has colors without a class: {listed}"
        unit.note("error", "mask_undecodable", message, hint=hint)
        return None
    nothing = classified.names.index("_background_")
    return _Classes(
        np.where(classified.classes == nothing, 0, classified.classes + 1), lambda value: classified.names[value - 1]
    )


def _numbered(pixels: NDArray[Any]) -> NDArray[Any]:
    """The number of each pixel's object ``(H, W)``, 0 without an object; colors are numbered in their order."""
    if pixels.ndim == 2:
        return np.where(pixels == IGNORE_LABEL, 0, pixels)
    codes = pixels[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
    codes[codes == np.array(_BORDER_COLOR) @ np.array([65536, 256, 1])] = 0
    present, inverse = np.unique(codes, return_inverse=True)
    first = 0 if present[0] == 0 else 1
    numbers: NDArray[Any] = inverse.reshape(codes.shape) + first
    return numbers


def _read_objects(objects: NDArray[Any], classes: _Classes, unit: Unit, labels: Labels, options: ReadOptions) -> None:
    """Each object index is an instance; its class is that of most of its pixels."""
    whole = replace(options, split_components=False)
    for value in np.unique(objects[objects != 0]).tolist():
        mask = objects == value
        below = classes.values[mask]
        below = below[below != 0]
        if not below.size:
            message = f"object {value} has no class in {_CLASS_FOLDER}"
            unit.note("error", "unknown_label", message, shape=value)
            continue
        add_region(mask, classes.name_of(int(np.bincount(below).argmax())), value, unit, labels, whole)


def _class_name(value: int, options: ReadOptions) -> str:
    skipped = ("__ignore__", "_background_", options.background)
    names = [name for name in options.labels or CLASS_NAMES if name not in skipped]
    if set(names) <= set(CLASS_NAMES) or set(options.rename) & set(CLASS_NAMES):
        names = CLASS_NAMES
    return names[value - 1] if value <= len(names) else str(value)
