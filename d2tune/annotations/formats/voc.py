"""Pascal VOC: XML boxes, and class and object masks as palette PNGs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.rle_csv import components
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.parts import mask_part, polygon_part, unite
from d2tune.annotations.formats.shared.sources import Folders, check_size, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError, check_points, rectangle_points
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.io.json_files import JsonError, read_bytes
from d2tune.annotations.io.places import ImageFinder, Place, is_file, walk_files
from d2tune.annotations.io.xml_files import XmlError, parse_xml
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError
from d2tune.text import describe

CLASS_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
"""The twenty classes of VOC; their indices in class masks count from 1."""

_CLASS_FOLDER, _OBJECT_FOLDER = "SegmentationClass", "SegmentationObject"


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read VOC XML files: a folder with all its subfolders, or one file.

    Boxes count pixels from 1 and include the last, so 1 is subtracted from the minima only. Each box becomes a
    rectangle.

    Raises:
        DataError: The source does not exist.
    """
    source = Path(source).absolute()
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    folders = folders_of(source, options)
    labels = Labels(options)
    names = (
        [source.name] if source.is_file() else [name for name in walk_files(source) if name.lower().endswith(".xml")]
    )
    units = [_read_xml(name, folders, labels) for name in names]
    return assemble(units + _unlabeled(folders, options, units), options, root=folders.root)


def _unlabeled(folders: Folders, options: ReadOptions, units: Sequence[Unit]) -> list[Unit]:
    """Units of the images without an annotation; masks are not images."""
    claimed = [unit.image.file_name for unit in units if unit.image is not None]
    claimed += [name for name in walk_files(folders.root) if _folder_in(name) is not None]
    return unlabeled_units(folders, options, claimed)


def _folder_in(name: str) -> str | None:
    """The mask folder of a file; None outside of both."""
    parts = PurePosixPath(name).parts[:-1]
    return next((folder for folder in (_CLASS_FOLDER, _OBJECT_FOLDER) if folder in parts), None)


def _read_xml(name: str, folders: Folders, labels: Labels) -> Unit:
    """Read one XML file into a unit; nothing in it can raise."""
    unit = Unit(name)
    path = folders.source / name
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
    header = measure(_find(root.findtext("filename"), path, folders), unit)
    stated = (root.findtext("size/width"), root.findtext("size/height"))
    objects = root.findall("object")
    if header is None or not check_size(unit, header, *stated, what="the file"):
        unit.exclude(range(len(objects)))
        return unit
    for index, element in enumerate(objects):
        _read_object(index, element, unit, labels)
    return unit


def _find(name: str | None, path: Path, folders: Folders) -> Place:
    """The image of an annotation by its name, else by the name of the XML file."""
    search = image_folders(path, folders)
    place = folders.finder.find(name.strip(), folders=search) if name and name.strip() else None
    if place is not None and (place.path is not None or PurePosixPath(place.file_name).suffix):
        return place
    return (
        find_by_stem(path.stem, search, folders.finder)
        or place
        or Place(None, "", f"the file does not name an image, and no image is called {path.stem}")
    )


def image_folders(path: Path, folders: Folders) -> tuple[Path, ...]:
    """The folders for images of a VOC file: JPEGImages or images beside its folder, and those near the file."""
    above = path.parent.parent
    return (folders.root / "JPEGImages", folders.root, path.parent, above / "JPEGImages", above / "images", above)


def find_by_stem(stem: str, search: Iterable[Path], finder: ImageFinder) -> Place | None:
    """The first image with the name ``stem`` and any suffix."""
    for folder in dict.fromkeys(search):
        if folder.is_dir():
            for suffix in (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff", ".webp"):
                if is_file(str(folder / f"{stem}{suffix}")):
                    return finder.find(f"{stem}{suffix}", folders=(folder,))
    return None


def _read_object(index: int, element: Element, unit: Unit, labels: Labels) -> None:
    name = labels.read(element.findtext("name") or "", unit, index)
    if name is None:
        return
    texts = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text) for text in texts if text is not None)
        corners = check_points([[left - 1, top - 1], [right, bottom]])
    except PointError as error:
        unit.note("error", error.code, str(error), shape=index)
        return
    except ValueError:
        message = f"the box is {describe(texts)}, expected four numbers"
        unit.note("error", "bad_point", message, shape=index)
        return
    if not np.all(corners[1] > corners[0]):
        unit.note("warning", "zero_area", "the box has no area; dropped", shape=index)
        return
    part = polygon_part(rectangle_points(*corners.tolist()), unit, index, is_polygon=False)
    if part is not None:
        difficult = (element.findtext("difficult") or "").strip() == "1"
        unit.drafts.append(unite(name.label, [part], unit, difficult=difficult))


def has_masks(names: Iterable[str]) -> bool:
    """Whether files of a folder are VOC class masks."""
    return any(_folder_in(name) == _CLASS_FOLDER and name.lower().endswith(".png") for name in names)


def read_masks(source: Path, options: ReadOptions) -> Dataset:
    """Read VOC masks: ``SegmentationClass/*.png`` and, for single objects, ``SegmentationObject/*.png``.

    Palette indices are VOC's classes from 1, or the positions in ``options.labels`` from 1 where those are not classes
    of VOC and no class of VOC is renamed; 0 is background and 255 is ignored. Without an object mask, each class of an
    image is one instance, or with ``options.split_components`` each of its connected components.

    Raises:
        DataError: The source is not a folder.
    """
    source = Path(source).absolute()
    if not source.is_dir():
        raise DataError("VOC masks are read from a folder", file=source, expected=f"a folder with {_CLASS_FOLDER}")
    folders = folders_of(source, options)
    names = [name for name in walk_files(source) if has_masks([name])]
    units = [_read_mask(name, folders, options) for name in names]
    return assemble(units + _unlabeled(folders, options, units), options, root=folders.root)


def _read_mask(name: str, folders: Folders, options: ReadOptions) -> Unit:
    """Read the class mask and object mask of one image into a unit."""
    unit = Unit(name)
    path = folders.source / name
    parts = PurePosixPath(name).parts
    at = parts.index(_CLASS_FOLDER)
    top = folders.source.joinpath(*parts[:at])
    search = (top / "JPEGImages", top / "images", top, folders.root)
    place = find_by_stem(path.stem, search, folders.finder)
    if measure(place or Place(None, "", f"the image {search[0] / path.stem}.* does not exist"), unit) is None:
        return unit
    classes = read_indices(path, unit)
    if classes is None:
        return unit
    labels = Labels(options)
    object_path = top.joinpath(_OBJECT_FOLDER, *parts[at + 1 :])
    if object_path.is_file():
        objects = read_indices(object_path, unit)
        if objects is not None:
            _read_objects(objects, classes, unit, labels, options)
        return unit
    for value in np.unique(classes[(classes != 0) & (classes != IGNORE_LABEL)]).tolist():
        add_region(classes == value, _class_name(value, options), value, unit, labels, options)
    return unit


def _read_objects(
    objects: NDArray[Any], classes: NDArray[Any], unit: Unit, labels: Labels, options: ReadOptions
) -> None:
    """Each object index is an instance; its class is that of most of its pixels."""
    for value in np.unique(objects[(objects != 0) & (objects != IGNORE_LABEL)]).tolist():
        mask = objects == value
        below = classes[mask]
        below = below[(below != 0) & (below != IGNORE_LABEL)]
        if not below.size:
            message = f"object {value} has no class in {_CLASS_FOLDER}"
            unit.note("error", "unknown_label", message, shape=value)
            continue
        name = _class_name(int(np.bincount(below).argmax()), options)
        whole = ReadOptions(split_components=False)
        add_region(mask, name, value, unit, labels, whole)


def _class_name(value: int, options: ReadOptions) -> str:
    skipped = ("__ignore__", "_background_", options.background)
    names = [name for name in options.labels or CLASS_NAMES if name not in skipped]
    if set(names) <= set(CLASS_NAMES) or set(options.rename) & set(CLASS_NAMES):
        names = CLASS_NAMES
    return names[value - 1] if value <= len(names) else str(value)


def add_region(mask: Mask, label: str, shape: int, unit: Unit, labels: Labels, options: ReadOptions) -> None:
    """Add the pixels ``(H, W)`` of a class as one instance, or as one for each connected component."""
    name = labels.read(label, unit, shape)
    if name is None:
        return
    for piece in components(mask) if options.split_components else [mask]:
        part = mask_part(Patch(piece, 0, 0), unit, shape)
        if part is not None:
            unit.drafts.append(unite(name.label, [part], unit))


def read_indices(path: Path, unit: Unit) -> NDArray[Any] | None:
    """The values ``(H, W)`` of a gray or palette image of the unit's size; None with an error that gives the reason."""
    pixels = read_pixels(path, unit)
    if pixels is not None and pixels.ndim != 2:
        unit.note("error", "mask_undecodable", f"{path} is a color image, expected palette or gray values")
        return None
    return pixels


def read_pixels(path: Path, unit: Unit, *, mode: str | None = None) -> NDArray[Any] | None:
    """The values of a mask, ``(H, W)`` or ``(H, W, C)``, which must have the size of the unit's image.

    Args:
        path: The image; its size is checked before it is decoded.
        unit: Takes the error that gives the reason where there is none.
        mode: Pillow's mode to convert to; None keeps the stored values, palette indices included.
    """
    from PIL import Image as PilImage

    assert unit.image is not None
    wanted = (unit.image.width_px, unit.image.height_px)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = PilImage.open(path)
        with image:
            if image.size != wanted:
                size = f"{image.width} x {image.height}"
                message = f"{path.name} has {size} px, the image {wanted[0]} x {wanted[1]}"
                unit.note("error", "size_mismatch", message)
                return None
            pixels = np.asarray(image.convert(mode) if mode else image)
    except Exception as error:  # Pillow raises a dozen kinds for broken images
        unit.note("error", "mask_undecodable", f"{path} cannot be read ({error})")
        return None
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def is_mask_name(name: str) -> bool:
    """Whether a file can be a mask image."""
    return is_image_name(name) and not name.lower().endswith((".jpg", ".jpeg"))
