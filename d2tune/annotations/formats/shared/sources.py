"""The folders that a reader reads, and the images that annotation files name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.shared.units import ImageDraft, Unit
from d2tune.annotations.io.images import Header, ImageError, is_image_name, read_header
from d2tune.annotations.io.lookup.walking import Walk
from d2tune.annotations.io.places import LINK_HINT, ImageFinder, Place
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError

_DETOUR_HINT = "check that it is the image that was annotated, and correct the path in the annotation file"


def measure(place: Place, unit: Unit, *, shape: int | None = None, line: int | None = None) -> Header | None:
    """Read the header of an image and make it the unit's image.

    An image that is not at the path named is a warning.

    Returns:
        The header, or None with an error that gives the reason.
    """
    if place.path is None:
        note_missing(place, unit, str(place.problem), hint=place.hint, shape=shape, line=line)
        return None
    try:
        header = read_header(place.path)
    except ImageError as error:
        unit.note("error", "image_unreadable", f"{place.path}: {error}", shape=shape, line=line)
        return None
    size_px = header.width_px, header.height_px
    is_detour = place.detour is not None
    unit.image = ImageDraft(
        place.file_name, *size_px, place.path, pixel_format=header.pixel_format, is_detour=is_detour
    )
    if place.detour is not None:
        unit.note("warning", "image_found_elsewhere", place.detour, hint=_DETOUR_HINT, shape=shape, line=line)
    return header


def note_missing(place: Place, unit: Unit, message: str, **where: Any) -> None:
    """Note the error of an image that was not found; ``where`` takes the other fields of the finding."""
    if place.code == "image_ambiguous":
        unit.note("error", "image_ambiguous", message, **where)
    else:
        unit.note("error", "image_missing", message, **where)


def check_size(unit: Unit, header: Header, width_px: object, height_px: object, *, what: str) -> bool:
    """Whether the size that an annotation file states is the image's, or none is stated; else an error is noted."""
    sizes = [_whole(width_px), _whole(height_px)]
    stated = (sizes[0], sizes[1])
    if not all(stated) or stated == (header.width_px, header.height_px):
        return True
    shown = f"{header.width_px} x {header.height_px}"
    if header.swapped and stated == (header.height_px, header.width_px):
        message = (
            f"{what} states {stated[0]} x {stated[1]} px, the image is displayed as {shown}: its EXIF orientation "
            f"{header.orientation} rotates it, and the shapes belong to the unrotated image"
        )
        unit.note("error", "size_swapped_exif", message, hint="annotate the image as it is displayed")
    else:
        message = f"{what} states {stated[0]} x {stated[1]} px, the image has {shown}"
        unit.note("error", "size_mismatch", message, hint="find the image that was annotated")
    return False


def _whole(value: object) -> int | None:
    """A positive whole number, also where the file has it as a decimal or as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
        return int(number) if number >= 1 and number == int(number) else None
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of a source.

    Attributes:
        source: The folder that annotation files are named relative to, absolute.
        root: The folder that images are named relative to, absolute.
        finder: Looks images up below the root.
    """

    source: Path
    root: Path
    finder: ImageFinder

    def search_from(self, annotation: Path) -> tuple[Path, ...]:
        """The folders to look for an image in: that of the annotation file, then the image root."""
        return tuple(dict.fromkeys((annotation.parent, self.root)))

    def walk(self, folder: Path | None = None, *, skip: Path | None = None) -> Walk:
        """The files below a folder, by default the source, under the rule for links."""
        return self.finder.walk(self.source if folder is None else folder, skip=skip)


def folders_of(source: Path, options: ReadOptions) -> Folders:
    """The folders for a source that is a folder or a file.

    Images may lie below the image root, beside the annotations and below ``options.data_root``.
    """
    source = Path(source).absolute()
    folder = source if source.is_dir() else source.parent
    root = folder if options.image_root is None else Path(options.image_root).absolute()
    if not root.is_dir():
        raise DataError("the image root is not a folder", file=root, hint="Name the folder that holds the images.")
    return Folders(folder, root, finder_of(root, options, limits=(folder,)))


def finder_of(root: Path, options: ReadOptions, *, limits: Iterable[Path]) -> ImageFinder:
    """The finder of images below a root, ``options.data_root`` and further folders."""
    data_root = () if options.data_root is None else (options.data_root,)
    return ImageFinder(
        root,
        allow_outside=options.allow_outside,
        follow_links=options.follow_links,
        limits=(*limits, *data_root),
        skip=options.restore_dir,
    )


def walk_of(source: Path, options: ReadOptions) -> Walk:
    """The files below a folder under the rule for links that its readers have."""
    return finder_of(source, options, limits=()).walk(source, skip=options.restore_dir)


def link_problem(walk: Walk) -> str | None:
    """The links to folders that a finished walk did not follow, in words; None where there are none."""
    if not walk.refused:
        return None
    name, target = walk.refused[0]
    more = f", and {len(walk.refused) - 1} more such links" if walk.refused[1:] else ""
    return f"{name}, a link to {target}, which is outside the data root and not followed{more}"


def unlabeled_units(folders: Folders, options: ReadOptions, claimed: Iterable[str]) -> list[Unit]:
    """A unit for every image under the image root that no annotation file names.

    Args:
        folders: The folders of the source.
        options: ``include_unlabeled`` makes the images negatives; else they are only reported.
        claimed: File names in annotation files, relative to the image root.
    """
    known = set(claimed)
    units = []
    walk = folders.walk(folders.root, skip=options.restore_dir)
    names = [name for name in walk if is_image_name(name) and name not in known]
    if walk.has_links:
        real = {os.path.realpath(folders.root / name) for name in known}
        names = [name for name in names if os.path.realpath(folders.root / name) not in real]
    for name in names:
        unit = Unit(name)
        if options.include_unlabeled:
            measure(folders.finder.existing(folders.root, name), unit)
            unit.note("info", "unlabeled_image", "the image has no annotation; it is a negative")
        else:
            unit.note("info", "unlabeled_image", "the image has no annotation; it is excluded")
        units.append(unit)
    return units + [_refused_link(name, target) for name, target in folders.finder.refused_links().items()]


def _refused_link(name: str, target: str) -> Unit:
    """A unit that names a link to a folder that was not followed."""
    unit = Unit(name)
    message = f"the folder is a link to {target}, outside the data root, and is not followed"
    unit.note("warning", "link_not_followed", message, hint=LINK_HINT)
    return unit
