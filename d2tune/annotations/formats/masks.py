"""Folders of mask images beside folders of photos: binary, index and color masks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import SPECIAL_LABELS, Labels
from d2tune.annotations.formats.shared.mask_files import add_region, is_mask_name, read_pixels
from d2tune.annotations.formats.shared.sources import Folders, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.io.places import Place, walk_files
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError

MASK_FOLDERS = frozenset(
    {
        *("annotation", "annotations", "gt", "groundtruth", "label", "labels", "mask", "masks"),
        *("segmentation", "segmentationclass", "semantic", "stuff"),
    }
)
"""Names of mask folders, in lower case."""

IMAGE_FOLDERS = frozenset(["image", "images", "img", "imgs", "input", "inputs", "jpegimages", "photo", "photos", "rgb"])
"""Names of photo folders, in lower case."""

_MASK_ENDINGS = ("_mask", "_label", "_labels", "_gt", "_seg", "-mask", "-label")
_COLOR_MAPS = ("class_dict.csv", "labelmap.txt", "label_colors.txt")
_NUMBERS = r"(?P<r>\d{1,3})\s*[,;\s]\s*(?P<g>\d{1,3})\s*[,;\s]\s*(?P<b>\d{1,3})"
_NAME_FIRST = re.compile(rf"\s*(?P<name>[^#\s,:;][^,:;\t]*?)\s*[,:;\s]\s*{_NUMBERS}(?!\d)")
_NAME_LAST = re.compile(rf"\s*{_NUMBERS}\s*[,:;\s]\s*(?P<name>[^\s,:;][^,:;\t]*?)\s*$")
_BLACK = (0, 0, 0)

ColorMap = dict[tuple[int, int, int], str]
"""Class names by color: red, green, blue."""


def _key(name: str) -> tuple[bool, tuple[str, ...]]:
    """Whether a file is a mask by its name, and the part of its path that its photo or mask has too."""
    path = PurePosixPath(name)
    folders = [folder.lower() for folder in path.parts[:-1]]
    stem = path.stem
    is_mask = any(folder in MASK_FOLDERS for folder in folders)
    for ending in _MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            is_mask, stem = True, stem[: -len(ending)]
            break
    shared = tuple(folder for folder in folders if folder not in MASK_FOLDERS and folder not in IMAGE_FOLDERS)
    return is_mask and is_mask_name(name), (*shared, stem)


def pairs(names: Iterable[str]) -> dict[str, str]:
    """Photos by mask: files whose paths differ only by the role of the folder or by an ending such as ``_mask``."""
    keyed = [(name, *_key(name)) for name in names if is_image_name(name)]
    photos = {key: name for name, is_mask, key in keyed if not is_mask}
    return {name: photos[key] for name, is_mask, key in keyed if is_mask and key in photos}


def has_masks(names: Iterable[str]) -> bool:
    """Whether files of a folder are photos and masks in pairs."""
    return bool(pairs(names))


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read masks beside photos.

    With ``options.class_name``, all pixels that are not 0 are that class. Else gray values and palette indices are
    positions in ``options.labels`` from 0 (put ``_background_`` first where 0 is background), and 255 is ignored;
    without labels, 0 is background and the values are the names, unless there is a ``categories.json`` of
    `semantic.write`.
    Color masks need a color map: ``options.color_map``, or in the source folder ``class_dict.csv`` (name,r,g,b),
    ``labelmap.txt`` (name:r,g,b) or ``label_colors.txt`` (r g b name). With a color map,
    palette and gray masks are read by their colors too. Each class of an image is one instance, or with
    ``options.split_components`` each of its connected components. ``options.image_root`` is the folder of the photos
    where the source has only masks.

    Raises:
        DataError: The source is not a folder, or the color map cannot be read.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError("masks are read from a folder", file=source, expected="folders of photos and of masks")
    folders = folders_of(source, options)
    names = list(walk_files(folders.root))
    masks = names if folders.root == folders.source else list(walk_files(source))
    paired = pairs(names) if masks is names else _pairs_across(masks, names)
    colors = read_color_map(options.color_map) if options.color_map else _color_map_in(source)
    stuff: list[str] = []
    if options.labels is None and options.class_name is None:
        table = next((name for name in masks if name.rsplit("/", 1)[-1] == "categories.json"), "categories.json")
        named, stuff = _own_categories(source / table)
        options = replace(options, labels=named)
    units = [_read_mask(mask, photo, folders, options, colors) for mask, photo in sorted(paired.items())]
    claimed = {*paired.values(), *(name for name in names if _key(name)[0])}
    return assemble(units + unlabeled_units(folders, options, claimed), options, root=folders.root, stuff=stuff)


def _pairs_across(masks: Iterable[str], photos: Iterable[str]) -> dict[str, str]:
    """Photos by mask, in two folders: files whose paths differ only by the role of the folder or by an ending."""
    by_key = {_key(name)[1]: name for name in photos if is_image_name(name)}
    keyed = {name: _key(name)[1] for name in masks if is_mask_name(name)}
    return {name: by_key[key] for name, key in keyed.items() if key in by_key}


def _own_categories(table: Path) -> tuple[tuple[str, ...] | None, list[str]]:
    """The classes in the order of the gray values, and the stuff among them, as `semantic.write` lists them."""
    try:
        rows = json.loads(table.read_bytes())
        names = {int(row["label"]): str(row["name"]) for row in rows}
        stuff = [str(row["name"]) for row in rows if not row["isthing"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None, []
    is_whole = sorted(names) == list(range(len(names))) and len(set(names.values())) == len(names)
    return (tuple(names[label] for label in sorted(names)), stuff) if names and is_whole else (None, [])


def _read_mask(mask: str, photo: str, folders: Folders, options: ReadOptions, colors: ColorMap) -> Unit:
    """Read one mask into a unit."""
    unit = Unit(mask)
    if measure(Place(folders.root / photo, photo), unit) is None:
        return unit
    pixels = read_pixels(folders.source / mask, unit, mode="RGB" if colors and options.class_name is None else None)
    if pixels is None:
        return unit
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., 0]
    if not colors and pixels.ndim == 3 and not np.any(pixels[..., :1] != pixels[..., :3]):
        pixels = pixels[..., 0]
    labels = Labels(options)
    if options.class_name is not None:
        filled = pixels != 0 if pixels.ndim == 2 else np.any(pixels[..., :3] != 0, axis=-1)
        if filled.any():
            add_region(filled, options.class_name, 0, unit, labels, options)
    elif not colors and _may_have_only_class(options) and (filled := _only_pixels(pixels)) is not None:
        if filled.any():
            add_region(filled, str(options.only_class), 0, unit, labels, options)
    elif pixels.ndim == 3:
        _read_colors(pixels[..., :3], unit, labels, options, colors)
    else:
        _read_values(pixels, unit, labels, options)
    return unit


def _may_have_only_class(options: ReadOptions) -> bool:
    """Whether there is an only class, and 0 does not stand for it."""
    is_first = options.background is None or tuple(options.labels or ())[:1] == (options.background,)
    return options.only_class is not None and is_first


def _only_pixels(pixels: NDArray[Any]) -> Mask | None:
    """The pixels ``(H, W)`` of an object, where a mask names no class: it has one value, or one color, beside 0.

    255 is ignored where there is another value. None where there are several values, which stand for classes.
    """
    if pixels.ndim == 3:
        filled = np.any(pixels[..., :3] != 0, axis=-1)
        colored = pixels[filled][:, :3]
        return filled if not len(colored) or not np.any(colored != colored[0]) else None
    values = [value for value in np.unique(pixels).tolist() if value != 0]
    named = [value for value in values if value != IGNORE_LABEL] or values
    return None if len(named) > 1 else pixels == (named[0] if named else IGNORE_LABEL)


def _read_values(pixels: NDArray[Any], unit: Unit, labels: Labels, options: ReadOptions) -> None:
    values = np.unique(pixels).tolist()
    if set(values) <= {0, IGNORE_LABEL} and IGNORE_LABEL in values and len(labels.names or ()) == 1 and labels.names:
        add_region(pixels == IGNORE_LABEL, labels.names[0], IGNORE_LABEL, unit, labels, options)
        return
    if values in ([0, IGNORE_LABEL], [IGNORE_LABEL]) and options.labels is None:
        hint = "name the class of the pixels that are not 0 with data.class_name or --class-name"
        unit.note("error", "no_class", "the mask has only the values 0 and 255, and its class is not named", hint=hint)
        return
    for value in values:
        if value == IGNORE_LABEL or (value == 0 and options.labels is None):
            continue
        name = _name_of(int(value), options)
        if name not in SPECIAL_LABELS:
            add_region(pixels == value, name, int(value), unit, labels, options)


def _name_of(value: int, options: ReadOptions) -> str:
    if options.labels is None:
        return str(value)
    return options.labels[value] if value < len(options.labels) else str(value)


def _read_colors(pixels: NDArray[np.uint8], unit: Unit, labels: Labels, options: ReadOptions, colors: ColorMap) -> None:
    """Add a region for each class.

    An unknown color gets the class of the nearest color, unless it fills an area; then an error is noted.
    """
    table = colors if _BLACK in colors else {_BLACK: "_background_", **colors}
    names = list(dict.fromkeys(table.values()))
    number_of = {name: number for number, name in enumerate(names)}
    known = np.array(list(table), dtype=np.int64)
    class_of = np.array([number_of[name] for name in table.values()], dtype=np.int64)
    codes = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    present, inverse = np.unique(codes, return_inverse=True)
    unknown = np.setdiff1d(_filled_with(codes) if colors else present, known @ np.array([65536, 256, 1]))
    for code in unknown.tolist():
        color = (code >> 16, (code >> 8) & 255, code & 255)
        where = f"name it in {_COLOR_MAPS[0]} in the source folder (name,r,g,b), or in a file for --color-map"
        number = int(np.searchsorted(present, code))
        unit.note("error", "unknown_label", f"the color {color} has no class; {where}", shape=number)
    if unknown.size:
        return
    classes = class_of[_nearest(present, known)][inverse].reshape(codes.shape)
    for number in np.unique(classes).tolist():
        if names[number] not in SPECIAL_LABELS and names[number].lower() not in ("background", "void"):
            add_region(classes == number, names[number], number, unit, labels, options)


def _filled_with(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values ``(K,)`` that fill a block of 3 x 3 pixels anywhere in ``(H, W)``, or all of a smaller image.

    Smoothed edges are mixtures one or two pixels wide, so their values fill no block.
    """
    height, width = (min(3, size) for size in codes.shape)
    blocks = np.lib.stride_tricks.sliding_window_view(codes, (height, width))
    same = np.ones(blocks.shape[:2], dtype=bool)
    for row in range(height):
        for column in range(width):
            same &= blocks[..., row, column] == blocks[..., 0, 0]
    filled: NDArray[np.int64] = np.unique(blocks[..., 0, 0][same])
    return filled


def _nearest(codes: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.intp]:
    """The row of ``known`` ``(K, 3)`` nearest to each color code ``(N,)``; the first of several nearest rows."""
    colors = np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], axis=1)
    best = np.zeros(len(codes), dtype=np.intp)
    least = np.full(len(codes), np.iinfo(np.int64).max)
    for number, color in enumerate(known):
        distance = np.sum((colors - color) ** 2, axis=1)
        nearer = distance < least
        best[nearer], least[nearer] = number, distance[nearer]
    return best


def read_color_map(path: Path) -> ColorMap:
    """Class names by color from a text file with a class per line: a name and three numbers from 0 to 255.

    The name is before or after the numbers, separated by commas, colons, spaces or tabs. Other lines are skipped.

    Raises:
        DataError: The file cannot be read, has no color, or has a number above 255 or a color with two names.
    """
    try:
        text, _ = decode_text(read_bytes(path))
    except (OSError, JsonError) as error:
        raise DataError(f"the color map cannot be read ({error})", file=path) from error
    table: ColorMap = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _NAME_FIRST.match(line) or _NAME_LAST.match(line)
        if match is None:
            continue
        color = (int(match["r"]), int(match["g"]), int(match["b"]))
        if max(color) > 255 or table.get(color, match["name"]) != match["name"]:
            raise DataError(
                "the color is invalid",
                file=path,
                place=f"line {number}",
                found=f"{match['name']} {color}",
                expected="three numbers from 0 to 255, and each color once",
            )
        table[color] = match["name"]
    if not table:
        raise DataError("the color map has no color", file=path, expected="lines such as: road,128,64,128")
    return table


def _color_map_in(source: Path) -> ColorMap:
    """The first color map in a folder; an empty color map where there is none."""
    path = next((source / name for name in _COLOR_MAPS if (source / name).is_file()), None)
    return {} if path is None else read_color_map(path)
