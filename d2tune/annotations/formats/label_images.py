"""Label images whose values are classes, beside images of any number of channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import SPECIAL_LABELS, Labels
from d2tune.annotations.formats.shared.sources import Folders, folders_of
from d2tune.annotations.formats.shared.units import Draft, ImageDraft, Unit
from d2tune.annotations.geometry.masks import encode_mask, rle_bbox_xywh, to_rle
from d2tune.annotations.io.rasters import is_raster_name, open_raster
from d2tune.annotations.io.suffixes import JPEG_SUFFIXES
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import LabelImageOptions, ReadOptions
from d2tune.errors import DataError, nearest
from d2tune.text import counted

_BLOCK_VALUES = 1 << 22
_ARRAY_HINT = "of an array with three axes, the shorter one of the first and the last is taken for the channels"


@dataclass(frozen=True, slots=True)
class _Pair:
    """An image and its label, by their paths without suffix, each relative to its own folder.

    Attributes:
        images: Exactly one, unless there is an error.
        label: None where it is missing.
    """

    images: tuple[str, ...]
    label: str | None


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read label images: ``images/a.tif`` and ``labels/a.png``, with any suffixes.

    An image is what `rasters.open_raster` reads: a photo, an array, a TIFF, or a folder of files with the name of its
    label. Labels are PNG, TIFF or NumPy files with one channel of whole numbers, or palette images by their indices.
    ``options.label_images.values`` has the class of each value, None for ignored pixels; without it, values are
    positions in ``options.labels``, and 255 is ignored. The no-data value of a TIFF is ignored where it is not a
    class. Each class of an image is one run-length instance.

    ``options.image_root`` is the folder of the images where the source has only labels.

    Raises:
        DataError: A folder is missing, the values have no names, or a name is not one of the classes.
    """
    own = options.label_images or LabelImageOptions()
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError("label images are read from a folder", file=source, expected=f"{own.images}/ and {own.labels}/")
    folders = folders_of(source, options)
    images = source / own.images if options.image_root is None else folders.root
    for folder, key in ((images, "images"), (source / own.labels, "labels")):
        if not folder.is_dir():
            hint = f"Name it with data.label_images.{key}."
            raise DataError(f"the folder of {key} does not exist", file=folder, hint=hint)
    labels = Labels(options)
    names = _class_names(options, own, labels)
    units, channels = [], {}
    pairs = list(_pairs(images, source / own.labels, own, folders))
    if options.shared_labels and any(pair.images for pair in pairs):
        pairs = [pair for pair in pairs if pair.images]
    for pair in _with_progress(pairs):
        unit, count = _read_pair(pair, images, folders, options, own, labels)
        units.append(unit)
        if count is not None:
            channels[len(units) - 1] = count
    _note_channels(units, channels)
    _note_all_ignored([units[place] for place in channels if units[place].image is not None])
    return assemble(units, options, root=folders.root, names=names)


def _class_names(options: ReadOptions, own: LabelImageOptions, labels: Labels) -> tuple[str, ...] | None:
    """Class names in the order of the values; None where ``options.labels`` has them."""
    if labels.names is None and not own.values:
        raise DataError(
            "the label values have no names",
            place="data.label_images",
            hint="Name the classes with --labels, or in the project with `classes` or data.label_images.values.",
        )
    in_order = [name for _, name in sorted(own.values.items()) if name is not None]
    classes = [name for name in (labels.class_of(label.strip())[0] for label in in_order) if name is not None]
    unknown = next((name for name in classes if labels.names is not None and name not in labels.names), None)
    if unknown is not None:
        near = nearest(unknown, labels.names or ())
        raise DataError(
            "the class of a label value does not exist",
            place="data.label_images.values",
            found=repr(unknown),
            expected=", ".join(labels.names or ()),
            hint=f"Did you mean {near!r}?" if near else None,
        )
    return tuple(dict.fromkeys(classes)) if labels.names is None else None


def _key(name: str) -> str:
    """A path without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def _pairs(images: Path, label_folder: Path, own: LabelImageOptions, folders: Folders) -> Iterator[_Pair]:
    """Images and labels whose paths differ only in the suffix, in the order of the paths."""
    inside = label_folder.is_relative_to(images) and label_folder != images
    prefix = label_folder.relative_to(images).as_posix() + "/" if inside else None
    names = [name for name in folders.walk(images) if is_raster_name(name)]
    names = [name for name in names if prefix is None or not name.startswith(prefix)]
    labels = [name for name in folders.walk(label_folder) if is_raster_name(name)]
    by_key: dict[str, tuple[list[str], list[str]]] = {}
    for name, key in _image_keys(names, {_key(label) for label in labels}, is_stack=bool(own.raster.stack)):
        by_key.setdefault(key, ([], []))[0].append(name)
    for label in labels:
        by_key.setdefault(_key(label), ([], []))[1].append(label)
    for _, (same_images, same_labels) in sorted(by_key.items()):
        yield from (_Pair(tuple(same_images), label) for label in same_labels)
        if not same_labels:
            yield from (_Pair((image,), None) for image in same_images)


def _image_keys(names: Sequence[str], labels: set[str], *, is_stack: bool) -> Iterator[tuple[str, str]]:
    """Each image with the path of its label without suffix.

    A folder is an image where a label has its name. Where any folder is an image or files are stacked, all folders are
    images, except those with the name of a folder of labels.
    """
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(str(PurePosixPath(name).parent), []).append(name)
    holds_labels = {str(PurePosixPath(label).parent) for label in labels}
    is_stack = is_stack or any(folder in labels for folder in by_folder)
    for folder, files in by_folder.items():
        if folder in labels or (is_stack and folder != "." and folder not in holds_labels):
            yield folder, folder
        else:
            yield from ((name, _key(name)) for name in files)


def _read_pair(
    pair: _Pair, images: Path, folders: Folders, options: ReadOptions, own: LabelImageOptions, labels: Labels
) -> tuple[Unit, int | None]:
    """Read the header of an image and its label; returns the number of channels where both can be read."""
    base = images.relative_to(folders.root)
    shown = (base / pair.images[0]).as_posix() if pair.images else None
    label = None if pair.label is None else (PurePosixPath(own.labels) / pair.label).as_posix()
    unit = Unit(label or shown or "")
    if shown is None:
        message = f"the image {images / _key(str(pair.label))}.* does not exist"
        unit.note("error", "image_missing", message, hint="add the image, or delete the label")
        return unit, None
    if len(pair.images) > 1:
        message = f"several images have this name: {', '.join(sorted(pair.images))}"
        unit.note("error", "duplicate_image", message, hint="keep one of them")
        return unit, None
    if label is None and not options.include_unlabeled:
        hint = "label it, remove it, or exclude it with data.skip_bad or --skip-bad"
        unit.note("error", "label_missing", f"the image has no label in {own.labels}", hint=hint)
        return unit, None
    try:
        with open_raster(folders.root / shown, own.raster) as raster:
            unit.image = ImageDraft(shown, raster.width_px, raster.height_px, folders.root / shown)
            channels = raster.channels
    except DataError as error:
        unit.note("error", "image_unreadable", error.one_line())
        return unit, None
    if label is None:
        unit.note("info", "unlabeled_image", "the image has no label; it is a negative")
        return unit, None
    pixels, nodata = _label_pixels(folders.source / label, unit)
    if pixels is None:
        return unit, None
    _add_classes(pixels, nodata, unit, labels, _value_names(options, own))
    return unit, channels


def _label_pixels(path: Path, unit: Unit) -> tuple[NDArray[Any] | None, float | None]:
    """The values ``(H, W)`` of a label and its no-data value; None with an error that gives the reason."""
    assert unit.image is not None
    if path.suffix.lower() in JPEG_SUFFIXES:
        hint = "save the label as PNG from its source"
        unit.note("error", "mask_undecodable", "a JPEG changes the values of a label, expected PNG", hint=hint)
        return None, None
    try:
        with open_raster(path, indices=True) as raster:
            size_px = (raster.width_px, raster.height_px)
            problem = None
            if raster.channels != 1:
                problem = f"the label has {raster.channels} channels, expected one"
            elif raster.stored_dtype.kind not in "biu":
                problem = f"the label holds {raster.stored_dtype} values, expected whole numbers"
            if problem is not None:
                unit.note("error", "mask_undecodable", problem, hint="save the label as one channel of class values")
            elif size_px != unit.image.size_px:
                size, wanted = (f"{width} x {height}" for width, height in (size_px, unit.image.size_px))
                is_array = unit.image.file_name.lower().endswith((".npy", ".npz"))
                message = f"the label has {size} px, {unit.image.file_name} has {wanted}"
                unit.note("error", "size_mismatch", message, hint=_ARRAY_HINT if is_array else None)
            else:
                return raster.read_stored()[..., 0], raster.nodata
    except DataError as error:
        unit.note("error", "mask_undecodable", error.one_line())
    return None, None


def _value_names(options: ReadOptions, own: LabelImageOptions) -> Mapping[int, str | None]:
    """Class name by label value; None for ignored values."""
    if own.values:
        return own.values
    return {IGNORE_LABEL: None} | {
        value: None if name in SPECIAL_LABELS else name for value, name in enumerate(options.labels or ())
    }


def _add_classes(
    pixels: NDArray[Any], nodata: float | None, unit: Unit, labels: Labels, names: Mapping[int, str | None]
) -> None:
    """Add an instance for each class in a label, or an error with its unknown values."""
    counts = value_counts(pixels)
    unknown = {value: count for value, count in counts.items() if value not in names and value != nodata}
    if unknown:
        listed = ", ".join(f"{value} ({count} px)" for value, count in sorted(unknown.items())[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        known = ", ".join(str(value) for value in sorted(names)[:20]) + (", ..." if len(names) > 20 else "")
        hint = "add them to the classes, or ignore them with `VALUE: null` in data.label_images.values"
        message = f"the label has values without a class: {listed}{more}, expected {known}"
        unit.note("error", "unknown_label_value", message, hint=hint)
        unit.exclude(sorted(unknown))
        return
    values: dict[str, list[int]] = {}
    for value in sorted(counts):
        label_name = names.get(value)
        name = None if label_name is None else labels.read(label_name, unit, value)
        if name is not None:
            values.setdefault(name.label, []).append(value)
    pixels = np.asfortranarray(pixels)  # run-length masks go down the columns
    for label, members in values.items():
        mask = pixels == members[0]
        for value in members[1:]:
            mask |= pixels == value
        rle = encode_mask(mask)
        box, area_px2 = rle_bbox_xywh(rle), float(sum(counts[value] for value in members))
        unit.drafts.append(Draft(label, tuple(members), to_rle(rle), box, area_px2, is_disjoint=True))


def value_counts(pixels: NDArray[Any]) -> dict[int, int]:
    """The number of pixels of each value of a label ``(H, W)``, counted in blocks of rows."""
    counts: Counter[int] = Counter()
    rows = max(1, _BLOCK_VALUES // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        block = pixels[top : top + rows].reshape(-1)
        if block.dtype == np.uint8:
            numbers = np.bincount(block, minlength=256)
            values = np.flatnonzero(numbers)
            numbers = numbers[values]
        else:
            values, numbers = np.unique(block, return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return {int(value): count for value, count in counts.items()}


def _note_channels(units: Sequence[Unit], channels: Mapping[int, int]) -> None:
    """Note an error for images whose number of channels is not that of most images: a network takes one number."""
    if len(set(channels.values())) < 2:
        return
    usual = Counter(channels.values()).most_common(1)[0][0]
    example = next(units[place].image for place, count in channels.items() if count == usual)
    assert example is not None
    for place, count in channels.items():
        if count != usual:
            image = units[place].image
            assert image is not None
            message = f"{image.file_name} has {counted(count, 'channel')}, "
            message += f"most images such as {example.file_name} have {usual}"
            hint = "add the missing channels, or name the channels to use with data.label_images.channels"
            units[place].note("error", "channels_differ", message, hint=hint)


def _note_all_ignored(units: Sequence[Unit]) -> None:
    """Note an error for images without a labeled pixel; where no image has one, the values may be wrong."""
    empty = [unit for unit in units if not unit.drafts and not unit.is_bad]
    for unit in empty:
        message = "all pixels of the label are ignored; the image has no labeled pixels"
        hint = "label it, remove it, or exclude it with data.skip_bad or --skip-bad"
        unit.note("error", "all_left_out", message, hint=hint)
    if empty and len(empty) == len(units):
        message = "all pixels of all labels are ignored; no image has labeled pixels"
        empty[0].note("error", "nothing_labeled", message)


def _with_progress(pairs: Sequence[_Pair]) -> Iterable[_Pair]:
    from tqdm import tqdm

    bar: Iterable[_Pair] = tqdm(pairs, "reading labels", leave=False, unit=" images", delay=2, disable=None)
    return bar
