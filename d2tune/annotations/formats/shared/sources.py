"""The folders that a reader reads, and the images that annotation files name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotations.formats.shared.units import ImageDraft, Unit
from d2tune.annotations.io.images import Header, ImageError, is_image_name, read_header
from d2tune.annotations.io.places import ImageFinder, Place, walk_files
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError


def measure(place: Place, unit: Unit, *, shape: int | None = None, line: int | None = None) -> Header | None:
    """Read the header of an image and make it the unit's image.

    Returns:
        The header, or None with an error that gives the reason.
    """
    if place.path is None:
        unit.note("error", "image_missing", str(place.problem), hint=place.hint, shape=shape, line=line)
        return None
    try:
        header = read_header(place.path)
    except ImageError as error:
        unit.note("error", "image_unreadable", f"{place.path}: {error}", shape=shape, line=line)
        return None
    size_px = header.width_px, header.height_px
    unit.image = ImageDraft(place.file_name, *size_px, place.path, pixel_format=header.pixel_format)
    return header


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


def folders_of(source: Path, options: ReadOptions) -> Folders:
    """The folders for a source that is a folder or a file."""
    source = Path(source).absolute()
    folder = source if source.is_dir() else source.parent
    root = folder if options.image_root is None else Path(options.image_root).absolute()
    if not root.is_dir():
        raise DataError("the image root is not a folder", file=root, hint="Name the folder that holds the images.")
    return Folders(folder, root, ImageFinder(root, allow_outside=options.allow_outside))


def unlabeled_units(folders: Folders, options: ReadOptions, claimed: Iterable[str]) -> list[Unit]:
    """A unit for every image under the image root that no annotation file names.

    Args:
        folders: The folders of the source.
        options: ``include_unlabeled`` makes the images negatives; else they are only reported.
        claimed: File names in annotation files, relative to the image root.
    """
    known = set(claimed)
    units = []
    for name in walk_files(folders.root, skip=options.restore_dir):
        if not is_image_name(name) or name in known:
            continue
        unit = Unit(name)
        if options.include_unlabeled:
            measure(Place(folders.root / name, name), unit)
            unit.note("info", "unlabeled_image", "the image has no annotation; it is a negative")
        else:
            unit.note("info", "unlabeled_image", "the image has no annotation; it is excluded")
        units.append(unit)
    return units
