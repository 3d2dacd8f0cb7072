"""Folders of mask pictures beside folders of photos: binary, index and colour masks."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.dataset import Dataset, ReadOptions
from d2tune.annotations.images import Place, is_image_name, walk_files
from d2tune.annotations.reading import (
    SPECIAL_LABELS,
    Folders,
    Labels,
    Unit,
    assemble,
    folders_of,
    measure,
    unlabeled_units,
)
from d2tune.annotations.voc import VOID, add_region, is_mask_name, read_pixels
from d2tune.errors import DataError

MASK_FOLDERS = frozenset(
    {
        *("annotation", "annotations", "gt", "groundtruth", "label", "labels", "mask", "masks"),
        *("segmentation", "segmentationclass", "semantic", "stuff"),
    }
)
"""Names of folders that hold masks, in lower case."""

IMAGE_FOLDERS = frozenset(["image", "images", "img", "imgs", "input", "inputs", "jpegimages", "photo", "photos", "rgb"])
"""Names of folders that hold photos, in lower case."""

_MASK_ENDINGS = ("_mask", "_label", "_labels", "_gt", "_seg", "-mask", "-label")
_COLOUR_TABLES = ("class_dict.csv", "labelmap.txt", "label_colors.txt")


def _key(name: str) -> tuple[bool, tuple[str, ...]]:
    """Whether a file is a mask by its name, and what it shares with its photo or mask."""
    path = PurePosixPath(name)
    folders = [part.lower() for part in path.parts[:-1]]
    stem = path.stem
    is_mask = any(folder in MASK_FOLDERS for folder in folders)
    for ending in _MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            is_mask, stem = True, stem[: -len(ending)]
            break
    shared = tuple(folder for folder in folders if folder not in MASK_FOLDERS and folder not in IMAGE_FOLDERS)
    return is_mask and is_mask_name(name), (*shared, stem)


def pairs(names: Iterable[str]) -> dict[str, str]:
    """Photos by mask: files whose paths differ by the folder's role or an ending such as ``_mask`` alone."""
    keyed = [(name, *_key(name)) for name in names if is_image_name(name)]
    photos = {key: name for name, is_mask, key in keyed if not is_mask}
    return {name: photos[key] for name, is_mask, key in keyed if is_mask and key in photos}


def has_masks(names: Iterable[str]) -> bool:
    """Whether files of a folder are photos and masks in pairs."""
    return bool(pairs(names))


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read masks beside photos.

    With ``options.class_name``, whatever is not 0 is that class. Else grey values and palette indices are places in
    ``options.labels`` from 0 (put ``_background_`` first where 0 is background), 255 being void; without labels, 0 is
    background and the values are the names. Colour masks need a table in the source folder: ``class_dict.csv``
    (name,r,g,b) or ``labelmap.txt`` (name:r,g,b). Each class of a picture is one instance, or with
    ``options.split_components`` each of its connected parts.

    Raises:
        DataError: The source is no folder.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError("masks are read from a folder", file=source, expected="folders of photos and of masks")
    folders = folders_of(source, options)
    names = list(walk_files(folders.root))
    paired = pairs(names)
    colours = _colour_table(source)
    units = [_read_mask(mask, photo, folders, options, colours) for mask, photo in sorted(paired.items())]
    claimed = {*paired, *paired.values(), *(name for name in names if _key(name)[0])}
    return assemble(units + unlabeled_units(folders, options, claimed), options, root=folders.root)


def _read_mask(
    mask: str, photo: str, folders: Folders, options: ReadOptions, colours: dict[tuple[int, ...], str]
) -> Unit:
    """Read one mask into a unit."""
    unit = Unit(mask)
    if measure(Place(folders.root / photo, photo), unit) is None:
        return unit
    pixels = read_pixels(folders.root / mask, unit)
    if pixels is None:
        return unit
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and not np.any(pixels[..., :1] != pixels[..., :3]):
        pixels = pixels[..., 0]
    labels = Labels(options)
    if options.class_name is not None:
        filled = pixels != 0 if pixels.ndim == 2 else np.any(pixels[..., :3] != 0, axis=-1)
        if filled.any():
            add_region(filled, options.class_name, 0, unit, labels, options)
    elif pixels.ndim == 3:
        _read_colours(pixels[..., :3], unit, labels, options, colours)
    else:
        _read_values(pixels, unit, labels, options)
    return unit


def _read_values(pixels: NDArray[Any], unit: Unit, labels: Labels, options: ReadOptions) -> None:
    values = np.unique(pixels).tolist()
    if set(values) <= {0, VOID} and VOID in values and len(labels.names or ()) == 1 and labels.names:
        add_region(pixels == VOID, labels.names[0], VOID, unit, labels, options)
        return
    if values in ([0, VOID], [VOID]) and options.labels is None:
        hint = "name the class of the pixels that are set with --class-name"
        unit.note("error", "no_class", "the mask holds 0 and 255 alone and names no class", hint=hint)
        return
    for value in values:
        if value == VOID or (value == 0 and options.labels is None):
            continue
        name = _name_of(int(value), options)
        if name not in SPECIAL_LABELS:
            add_region(pixels == value, name, int(value), unit, labels, options)


def _name_of(value: int, options: ReadOptions) -> str:
    if options.labels is None:
        return str(value)
    return options.labels[value] if value < len(options.labels) else str(value)


def _read_colours(
    pixels: NDArray[Any], unit: Unit, labels: Labels, options: ReadOptions, colours: dict[tuple[int, ...], str]
) -> None:
    wide = pixels.astype(np.int64)
    codes = wide[..., 0] * 65536 + wide[..., 1] * 256 + wide[..., 2]
    for number, code in enumerate(np.unique(codes).tolist()):
        colour = (code >> 16, (code >> 8) & 255, code & 255)
        name = colours.get(colour)
        if name is None and colour == (0, 0, 0):
            continue
        if name is None:
            hint = f"name it in {_COLOUR_TABLES[0]} in the source folder, with the columns name,r,g,b"
            unit.note("error", "unknown_label", f"the colour {colour} names no class", shape=number, hint=hint)
            continue
        if name not in SPECIAL_LABELS and name.lower() not in ("background", "void"):
            add_region(codes == code, name, number, unit, labels, options)


def _colour_table(source: Path) -> dict[tuple[int, ...], str]:
    """Class names by colour, from the first table that lies in the folder."""
    path = next((source / name for name in _COLOUR_TABLES if (source / name).is_file()), None)
    if path is None:
        return {}
    table: dict[tuple[int, ...], str] = {}
    for row in csv.reader(path.read_text("utf-8-sig", errors="replace").replace(":", ",").splitlines()):
        cells = [cell.strip() for cell in row]
        if len(cells) >= 4 and all(cell.isdigit() for cell in cells[1:4]):
            table[tuple(int(cell) for cell in cells[1:4])] = cells[0]
    return table
