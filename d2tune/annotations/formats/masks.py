"""Folders of mask images beside folders of photos: binary, index and color masks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.mask_pairs import IMAGE_FOLDERS as IMAGE_FOLDERS
from d2tune.annotations.formats.mask_pairs import MASK_FOLDERS as MASK_FOLDERS
from d2tune.annotations.formats.mask_pairs import Matches, match_across, match_in, nearest_photos
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.color_maps import (
    COLOR_MAPS,
    ColorMap,
    classify,
    color_map_in,
    is_no_class,
    read_color_map,
)
from d2tune.annotations.formats.shared.labels import SPECIAL_LABELS, Labels
from d2tune.annotations.formats.shared.mask_files import LOSSY_SUFFIXES, add_region, has_palette, read_pixels
from d2tune.annotations.formats.shared.sources import Folders, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.soft_masks import cut_at_half, without_alpha
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError

_COLORS_OF_A_MASK = 16
_WIDE = 65535
"""The value of objects in binary masks of 16 bits."""

_LISTED = 20


def pairs(names: Iterable[str]) -> dict[str, str]:
    """Photos by mask: files whose paths differ only by the role of the folder or by an ending such as ``_mask``."""
    return {mask: photo for photo, masks in match_in(names).masks_of.items() for mask in masks}


def has_masks(names: Iterable[str]) -> bool:
    """Whether files of a folder are photos and masks."""
    return match_in(names).is_evident


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read masks beside photos, see `mask_pairs` for their names.

    With ``options.class_name``, all pixels that are not 0 are that class. Where a mask has one value beside 0 (255 is
    ignored where there is another), these pixels are ``options.only_class``. Else gray values and palette indices are
    positions in ``options.labels`` from 0 (put ``_background_`` first where 0 is background), and 255 is ignored;
    without labels, 0 is background and the values are the names, unless there is a ``categories.json`` of
    `semantic.write`. Binary masks with a fringe are cut at half of their maximum, see `soft_masks`.
    Color masks need a color map: ``options.color_map``, or in the source folder ``class_dict.csv`` (name,r,g,b),
    ``labelmap.txt`` (name:r,g,b) or ``label_colors.txt`` (r g b name). With a color map,
    palette and gray masks are read by their colors too. Each class of a mask is one instance, or with
    ``options.split_components`` each of its connected components. ``options.image_root`` is the folder of the photos
    where the source has only masks.

    Raises:
        DataError: The source is not a folder or has no masks, or the color map cannot be read.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError("masks are read from a folder", file=source, expected="folders of photos and of masks")
    folders = folders_of(source, options)
    colors = read_color_map(options.color_map) if options.color_map else color_map_in(source)
    names = list(folders.walk(folders.root))
    files = names if folders.root == folders.source else list(folders.walk(skip=folders.root))
    matches = match_in(names) if files is names else match_across(files, names)
    if not (matches.masks_of or matches.lonely or matches.ambiguous):
        raise _no_masks(source, names)
    stuff: list[str] = []
    if options.labels is None and options.class_name is None:
        table = next((name for name in files if name.rsplit("/", 1)[-1] == "categories.json"), "categories.json")
        named, stuff = _own_categories(source / table)
        options = replace(options, labels=named)
    reading = _Reading(folders, options, colors, Labels(options), matches)
    units = [reading.read(photo, masks) for photo, masks in sorted(matches.masks_of.items(), key=lambda pair: pair[1])]
    reading.note_other_values()
    claimed = {*matches.masks_of, *matches.lonely, *matches.ambiguous, *matches.skipped}
    claimed |= {name for some in (*matches.masks_of.values(), *matches.rivals.values()) for name in some}
    claimed |= {name for some in matches.ambiguous.values() for name in some}
    units += _unmatched(matches, [name for name in names if is_image_name(name) and name not in claimed], options)
    return assemble(units + unlabeled_units(folders, options, claimed), options, root=folders.root, stuff=stuff)


def _no_masks(source: Path, names: Iterable[str]) -> DataError:
    images = [name for name in names if is_image_name(name)]
    return DataError(
        "the folder has no masks",
        file=source,
        found=f"{len(images)} images, such as {images[0]}" if images else "no images",
        expected="folders such as images/ and masks/, or files such as a.jpg and a_mask.png",
        hint="Name the folder of the images with --image-root where the source has the masks.",
    )


def _unmatched(matches: Matches, photos: Sequence[str], options: ReadOptions) -> list[Unit]:
    """Units with the errors of masks without a photo, or with several."""
    units = []
    if matches.lonely and not (options.shared_labels and matches.masks_of):
        first, count = matches.lonely[0], len(matches.lonely)
        near = ", ".join(nearest_photos(first, photos))
        message = (
            f"{count} masks have no image of their name, the first is {first}"
            if count > 1
            else (f"the mask {first} has no image of its name")
        )
        message += f"; the images with the nearest names are {near}" if near else "; there are no images without a mask"
        unit = Unit(first)
        also, hint = tuple(matches.lonely[1:_LISTED]), "give masks the names of their images, or remove them"
        unit.note("error", "image_missing", message, also=also, hint=hint)
        units.append(unit)
    for mask, several in matches.ambiguous.items():
        unit = Unit(mask)
        message = f"several images have the name of the mask: {', '.join(several)}"
        unit.note("error", "image_ambiguous", message, hint="keep one of them")
        units.append(unit)
    return units


def _own_categories(table: Path) -> tuple[tuple[str, ...] | None, list[str]]:
    """The classes in the order of the gray values, and the stuff among them, as this package lists them.

    Values that are not listed, as between those of Cityscapes, are ignored.
    """
    try:
        rows = json.loads(table.read_bytes())
        names = {int(row["label"]): str(row["name"]) for row in rows}
        stuff = [str(row["name"]) for row in rows if not row["isthing"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None, []
    is_valid = bool(names) and min(names) == 0 and max(names) < IGNORE_LABEL and len(set(names.values())) == len(names)
    return (tuple(names.get(label, "__ignore__") for label in range(max(names) + 1)), stuff) if is_valid else (None, [])


@dataclass(slots=True, eq=False)
class _Reading:
    """What masks are read with.

    Attributes:
        folders: The folders of the source.
        options: How to read.
        colors: The color map; empty where there is none.
        labels: The rules for labels.
        matches: The masks by photo.
        only_values: Units by the value that was read as the only class.
    """

    folders: Folders
    options: ReadOptions
    colors: ColorMap
    labels: Labels
    matches: Matches
    only_values: dict[int, list[Unit]] = field(default_factory=dict)

    def read(self, photo: str, masks: Sequence[str]) -> Unit:
        """The masks of a photo as a unit: one, or one for each object."""
        unit = Unit(masks[0])
        if measure(self.folders.finder.existing(self.folders.root, photo), unit) is None:
            return unit
        if rivals := self.matches.rivals.get(photo):
            message = f"the image {photo} has another mask, {rivals[0]}"
            unit.note("error", "duplicate_image", message, also=tuple(rivals), hint="keep one of the two")
            return unit
        for number, mask in enumerate(masks):
            self._read_mask(mask, number if len(masks) > 1 else None, unit)
        return unit

    def _read_mask(self, mask: str, number: int | None, unit: Unit) -> None:
        path, by_color = self.folders.source / mask, bool(self.colors) and self.options.class_name is None
        if mask.lower().endswith(LOSSY_SUFFIXES):
            message = f"{path.name} is a JPEG, whose compression changes the values of a mask, expected PNG"
            hint = "save the masks as PNG from their source"
            unit.note("error", "mask_undecodable", message, shape=number, hint=hint)
            return
        pixels = read_pixels(path, unit, mode="RGBA" if by_color else None, shape=number)
        if pixels is None:
            return
        soft = 0.0
        if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
            is_cut_out = not by_color and _color_count(pixels) > _COLORS_OF_A_MASK
            pixels, soft = without_alpha(pixels[..., -1:].repeat(2, axis=2) if is_cut_out else pixels)
        if not by_color and pixels.ndim == 3 and not np.any(pixels[..., :1] != pixels[..., :3]):
            pixels = pixels[..., 0]
        if not by_color:
            pixels, share = self._binary(pixels, path)
            soft = max(soft, share)
        if soft:
            message = f"{path.name} is binary but for {soft:.1%} of its pixels, which lie between; it was cut at half"
            unit.note("warning", "mask_not_binary", message, shape=number)
        self._add(pixels, number, unit)

    def _binary(self, pixels: NDArray[Any], path: Path) -> tuple[NDArray[Any], float]:
        """The mask cut at half of its maximum, and the share of pixels between, where it is binary but for a fringe."""
        if pixels.ndim == 2 and len(self.options.labels or ()) > 1 and self.options.class_name is None:
            named = len(self.options.labels or ())
            if ((pixels < named) | (pixels == IGNORE_LABEL)).all():
                return pixels, 0.0
        gray = pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)
        cut = cut_at_half(gray)
        if cut is None or has_palette(path):
            return pixels, 0.0
        filled, share = cut
        if pixels.ndim == 2:
            return np.where(filled, gray.max(), 0), share
        strongest = pixels[..., :3][gray == gray.max()][0]
        return np.where(filled[..., None], strongest, 0).astype(pixels.dtype), share

    def _add(self, pixels: NDArray[Any], number: int | None, unit: Unit) -> None:
        """Add the instances of a mask without fringes."""
        options = self.options
        shape = 0 if number is None else number
        if options.class_name is not None:
            filled = pixels != 0 if pixels.ndim == 2 else np.any(pixels[..., :3] != 0, axis=-1)
            if filled.any():
                add_region(filled, options.class_name, shape, unit, self.labels, options)
            return
        if not self.colors and _may_have_only_class(options):
            only = _only_value(pixels)
            if only is not None:
                if only:
                    self.only_values.setdefault(only, []).append(unit)
                    filled = pixels == only if pixels.ndim == 2 else np.any(pixels[..., :3] != 0, axis=-1)
                    add_region(filled, str(options.only_class), shape, unit, self.labels, options)
                return
        if pixels.ndim == 3:
            self._add_colors(pixels[..., :3], number, unit)
        else:
            self._add_values(pixels, number, unit)

    def note_other_values(self) -> None:
        """Note an error for masks whose only value is not that of the other masks: values that differ name classes."""
        counts = Counter({value: len(units) for value, units in self.only_values.items() if value != IGNORE_LABEL})
        if len(counts) < 2:
            return
        usual = counts.most_common(1)[0][0]
        for value in counts:
            for unit in self.only_values[value] if value != usual else ():
                message = f"the mask has the value {value}, most masks have {usual}; values that differ name classes"
                hint = "name the class of each value in the classes, or the one of all with data.class_name"
                unit.note("error", "unknown_label", message, hint=hint)

    def _add_values(self, pixels: NDArray[Any], number: int | None, unit: Unit) -> None:
        options, names = self.options, self.labels.names or ()
        values = np.unique(pixels).tolist()
        if set(values) <= {0, IGNORE_LABEL} and IGNORE_LABEL in values and len(names) == 1:
            shape = IGNORE_LABEL if number is None else number
            add_region(pixels == IGNORE_LABEL, names[0], shape, unit, self.labels, options)
            return
        if set(values) - {0} in ({IGNORE_LABEL}, {_WIDE}) and options.labels is None:
            if not any(finding.code == "no_class" for finding in unit.findings):
                hint = "name the class of the pixels that are not 0 with data.class_name or --class-name"
                message = f"the mask has only the values 0 and {values[-1]}, and its class is not named"
                unit.note("error", "no_class", message, hint=hint)
            return
        for value in values:
            if value == IGNORE_LABEL or (value == 0 and options.labels is None):
                continue
            name = _name_of(int(value), options)
            if name not in SPECIAL_LABELS:
                shape = int(value) if number is None else number
                add_region(pixels == value, name, shape, unit, self.labels, options)

    def _add_colors(self, pixels: NDArray[np.uint8], number: int | None, unit: Unit) -> None:
        """Add a region for each class of a color mask, or errors for colors without a class."""
        result = classify(pixels, self.colors, exact=not self.colors)
        for place, (color, _) in result.unknown.items():
            where = f"name it in {COLOR_MAPS[0]} in the source folder (name,r,g,b), in a file for --color-map"
            where += ", or name one class for all colors with --class-name"
            message = f"the color {color} has no class; {where}"
            unit.note("error", "unknown_label", message, shape=place if number is None else number)
        if result.unknown:
            return
        for value in np.unique(result.classes).tolist():
            if not is_no_class(result.names[value]):
                shape = value if number is None else number
                add_region(result.classes == value, result.names[value], shape, unit, self.labels, self.options)


def _color_count(pixels: NDArray[Any]) -> int:
    """The number of colors of a mask with transparency ``(H, W, C)`` where it is at least half opaque."""
    opaque = pixels[..., -1].astype(np.int64) * 2 > np.iinfo(pixels.dtype).max
    return len(np.unique(pixels[..., :-1][opaque], axis=0))


def _may_have_only_class(options: ReadOptions) -> bool:
    """Whether there is an only class, and 0 does not stand for it."""
    is_first = options.background is None or tuple(options.labels or ())[:1] == (options.background,)
    return options.only_class is not None and is_first


def _only_value(pixels: NDArray[Any]) -> int | None:
    """The value of an object, where a mask names no class: it has one value, or one color, beside 0.

    255 is ignored where there is another value, and stands for a color. 0 where the mask is empty, None where there are
    several values, which stand for classes.
    """
    if pixels.ndim == 3:
        colored = pixels[np.any(pixels[..., :3] != 0, axis=-1)][:, :3]
        return None if np.any(colored != colored[:1]) else IGNORE_LABEL if len(colored) else 0
    values = [int(value) for value in np.unique(pixels).tolist() if value != 0]
    named = [value for value in values if value != IGNORE_LABEL] or values
    return None if len(named) > 1 else named[0] if named else 0


def _name_of(value: int, options: ReadOptions) -> str:
    """The class of a value: its place in the labels from 0; after 0, where the labels are one class."""
    labels = options.labels
    if labels is None:
        return str(value)
    if len(labels) == 1 and options.only_class is not None:
        labels = ("_background_", *labels)
    return labels[value] if 0 <= value < len(labels) else str(value)
