"""The image of a Labelme file: where the file says, elsewhere, or inside the file as ``imageData``."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from d2tune.annotations.formats.labelme_shapes import decode_base64
from d2tune.annotations.formats.shared.sources import Folders, measure, note_missing
from d2tune.annotations.formats.shared.units import ImageDraft, Unit
from d2tune.annotations.io.images import Header, ImageError, magic_suffix, read_header
from d2tune.annotations.io.photos.pillow import open_pillow
from d2tune.annotations.io.places import Place, is_file
from d2tune.annotations.model.options import ReadOptions
from d2tune.files import write_bytes

_COMPARED_PX = 32
_LARGEST_DIFFERENCE = 8.0
"""Mean difference of gray values of two images that are the same but for their compression."""


def find_image(value: dict[str, Any], unit: Unit, path: Path, folders: Folders, options: ReadOptions) -> Header | None:
    """Look up and measure the image of a parsed file, or restore it from ``imageData``.

    An image that is elsewhere than named is used only where ``imageData``, if there is any, shows the same.
    """
    named, search = value.get("imagePath"), folders.search_from(path)
    place = folders.finder.find(named, folders=search, stem=path.stem)
    if place.path is not None and place.path.suffix.lower() == ".json":
        place = Place(None, place.file_name, f"imagePath names {place.path.name}, which is not an image")
    data = value.get("imageData")
    if not data or (place.path is not None and place.detour is None):
        return measure(place, unit)
    content = decode_base64(data)
    if place.path is not None and (content is None or _shows_the_same(place.path, content)):
        return measure(place, unit)
    if place.path is not None:
        problem = f"the image {named} does not exist, and {place.file_name} shows something else than imageData"
        place = Place(None, folders.finder.name_of(named, folders=search), problem)
    if options.restore_dir is None:
        hint = "convert with an output folder, which gets the image from imageData"
        note_missing(place, unit, str(place.problem), hint=hint)
        return None
    return _restore(content, place, unit, folders.root, options.restore_dir)


def _shows_the_same(path: Path, content: bytes) -> bool:
    """Whether two images have the same size and, but for their compression, the same pixels.

    Args:
        path: An image.
        content: The bytes of another image.

    Returns:
        True also where the second cannot be read.
    """
    try:
        inner = read_header(content)
    except ImageError:
        return True
    try:
        outer = read_header(path)
        if (outer.width_px, outer.height_px) != (inner.width_px, inner.height_px):
            return False
        written = path.read_bytes()
        return written == content or float(np.abs(_reduced(written) - _reduced(content)).mean()) <= _LARGEST_DIFFERENCE
    except Exception:  # Pillow raises a dozen kinds for damaged pixels
        return False


def _reduced(content: bytes) -> Any:
    """Gray values of a small version of an image as it is displayed."""
    from PIL import ImageOps

    with io.BytesIO(content) as stream:
        image = ImageOps.exif_transpose(open_pillow(stream)).convert("L")
    return np.asarray(image.resize((_COMPARED_PX, _COMPARED_PX), resample=4), dtype=np.float64)


def _restore(content: bytes | None, place: Place, unit: Unit, root: Path, folder: Path) -> Header | None:
    """Write an image into a folder, with the suffix that matches its first bytes."""
    suffix = None if content is None else magic_suffix(content)
    try:
        if content is None or suffix is None:
            raise ImageError("it does not contain an image")
        header = read_header(content)
    except ImageError as error:
        note_missing(place, unit, f"{place.problem}, and imageData cannot be used: {error}")
        return None
    name = _free_name(place.file_name, PurePosixPath(unit.file), suffix, root)
    target = folder / name
    try:
        if not target.is_file() or target.read_bytes() != content:
            write_bytes(target, content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the name cannot be encoded"
        message = f"{place.problem}, and its imageData cannot be written under that name ({reason})"
        note_missing(place, unit, message)
        return None
    size_px = header.width_px, header.height_px
    unit.image = ImageDraft(name.as_posix(), *size_px, target.absolute(), pixel_format=header.pixel_format)
    message = f"{place.problem}; it was restored from imageData as {name}"
    unit.note("warning", "image_restored_from_imageData", message)
    return header


def _free_name(named: str, file: PurePosixPath, suffix: str, root: Path) -> PurePosixPath:
    """The name of a restored image: that of ``imagePath``, or of the JSON file where another image has it."""
    name = PurePosixPath(named)
    if name.name in ("", ".."):
        name = file
    names = (name, file.with_suffix(suffix), file.with_name(f"{file.stem}-imageData{suffix}"))
    suffixes = {suffix, ".jpeg" if suffix == ".jpg" else suffix}
    fitting = [one if one.suffix.lower() in suffixes else one.with_suffix(suffix) for one in names]
    return next((one for one in fitting if not is_file(str(root / one))), fitting[-1])
