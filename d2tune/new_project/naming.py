"""Names of classes, where annotations hold numbers or nothing in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2tune.annotations.formats import masks
from d2tune.annotations.formats.label_images import value_counts
from d2tune.annotations.formats.rle_csv import PRESETS
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.io.places import walk_files
from d2tune.annotations.io.rasters import is_raster_name, open_raster
from d2tune.errors import DataError, ProjectError
from d2tune.new_project.layout import COLOR_MAPS, Layout
from d2tune.text import counted

BACKGROUND = "background"
"""The class of pixels that no shape covers, unless the annotations have a class of that name."""

IGNORED = "null"
"""Stands in the place of a class for a label value whose pixels are ignored."""

_BINARY = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What must be known of the classes before the annotations are read.

    Attributes:
        classes: In the order of their ids; empty takes the labels.
        values: Class name by value of label images, None for pixels that are ignored.
        class_name: Class of shapes without a class.
        class_attribute: VIA region attribute that holds the class.
        is_complete: Whether every pixel has a class or is ignored by its value.
    """

    classes: tuple[str, ...] = ()
    values: dict[int, str | None] = field(default_factory=dict)
    class_name: str | None = None
    class_attribute: str | None = None
    is_complete: bool = False

    def data_keys(self) -> dict[str, Any]:
        """The keys of a project's data section."""
        keys = {"class_name": self.class_name, "class_attribute": self.class_attribute}
        return {key: value for key, value in keys.items() if value is not None}


def name_classes(layout: Layout, given: Sequence[str], *, class_attribute: str | None = None) -> Naming:
    """Give names to what has none in the annotations.

    Args:
        layout: Where the annotations are.
        given: Class names in order; of label images in the order of their values, see `IGNORED`.
        class_attribute: VIA region attribute that holds the class.

    Raises:
        ProjectError: The classes have no names, and none or too few were given.
    """
    classes = tuple(name for name in given if name != IGNORED)
    foreground = [name for name in classes if name.lower() != BACKGROUND]
    if layout.format == "label_images":
        return _by_value(_values(layout), given, layout.root)
    if layout.format == "masks" and not _has_color_map(layout):
        return _by_mask_value(_values(layout), given, layout.root)
    if layout.csv_preset and not PRESETS[layout.csv_preset].has_classes and len(foreground) != 1:
        table = layout.root / layout.train
        raise ProjectError("the run-length CSV has no class names", file=table, hint="Name the class: --classes car")
    class_name = foreground[0] if len(foreground) == 1 and layout.format in ("rle", "via", "via-csv") else None
    return Naming(classes=classes, class_name=class_name, class_attribute=class_attribute)


def _folders(layout: Layout) -> list[Path]:
    """The folders of the splits, the root where they are lists."""
    names = {name for name in (layout.train, layout.val) if name is not None}
    return sorted({layout.root / name if (layout.root / name).is_dir() else layout.root for name in names})


def _has_color_map(layout: Layout) -> bool:
    folders = {layout.root, *_folders(layout)}
    return any((folder / name).is_file() for folder in folders for name in COLOR_MAPS) or any(
        name.rsplit("/", 1)[-1] == "categories.json" for folder in folders for name in walk_files(folder)
    )


def _values(layout: Layout) -> list[int]:
    """The values in all label images, ascending; color images have none."""
    files: list[Path] = []
    for folder in _folders(layout):
        if layout.pair is not None:
            labels = folder / layout.pair[1]
            files += [labels / name for name in walk_files(labels) if is_raster_name(name)]
        else:
            files += [folder / name for name in masks.pairs(walk_files(folder))]
    values: set[int] = set()
    for path in tqdm(files, desc="reading label images", unit=" images", disable=None, leave=False):
        values |= set(_values_of(path))
    return sorted(values)


def _values_of(path: Path) -> Iterable[int]:
    """The values of a label image; none where it is a color image or cannot be read, which its reader reports."""
    try:
        with open_raster(path, indices=True) as raster:
            if raster.stored_dtype.kind not in "biu":
                return ()
            pixels = raster.read_stored()
    except DataError:
        return ()
    if pixels.shape[2] > 1 and (pixels[..., :3] != pixels[..., :1]).any():
        return ()
    return value_counts(pixels[..., 0])


def _by_value(values: Sequence[int], given: Sequence[str], root: Path) -> Naming:
    """A class for each value: all of them, all but 255, or all but 255 and the background 0.

    Raises:
        ProjectError: There are not as many names.
    """
    named = [value for value in values if value != _BINARY] if len(values) > 2 else list(values)
    if len(given) == len(named):
        table = dict(zip(named, given, strict=True))
    elif len(given) == len(values):
        table = dict(zip(values, given, strict=True))
    elif named[:1] == [0] and len(given) == len(named) - 1 and given:
        table = dict(zip(named, (BACKGROUND, *given), strict=True))
    else:
        raise _unnamed(root, values, given, expected=f"{len(named)} class names, in the order of the values")
    full: dict[int, str | None] = {value: None if name == IGNORED else name for value, name in table.items()}
    full |= {value: None for value in values if value not in full}
    classes = tuple(dict.fromkeys(name for name in full.values() if name is not None))
    return Naming(classes=classes, values=dict(sorted(full.items())), is_complete=True)


def _by_mask_value(values: Sequence[int], given: Sequence[str], root: Path) -> Naming:
    """Names of masks beside images: one class where there is one value beside 0, else one for each value from 0 on.

    Raises:
        ProjectError: There are not as many names.
    """
    above = [value for value in values if value != 0]
    foreground = [name for name in given if name.lower() != BACKGROUND]
    if not values:
        return Naming(classes=tuple(given))
    if len(above) == 1 and len(foreground) == 1:
        return Naming(classes=tuple(foreground), class_name=foreground[0])
    count = max((value for value in above if value != IGNORE_LABEL), default=0) + 1
    names = (BACKGROUND, *given) if len(given) == count - 1 else tuple(given)
    if len(names) != count or len(above) == 1:
        expected = "one class name" if len(above) == 1 else f"{count} class names, for the values from 0 to {count - 1}"
        raise _unnamed(root, values, given, expected=expected)
    return Naming(classes=names, is_complete=True)


def _unnamed(root: Path, values: Sequence[int], given: Sequence[str], *, expected: str) -> ProjectError:
    listed = ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")
    return ProjectError(
        f"the label images hold the values {listed} and no class names",
        file=root,
        found=counted(len(given), "name") if given else None,
        expected=expected,
        hint=f"Name them: --classes A,B; {IGNORED} ignores a value.",
    )
