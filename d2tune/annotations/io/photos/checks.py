"""The one definition of a whole photo, for check, conversion of projects and training."""

# ruff: noqa: PTH123

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from d2tune.annotations.io.photos.pillow import ImageError, open_pillow
from d2tune.annotations.io.photos.reading import read_photo, read_values, reading_photo
from d2tune.annotations.io.photos.whole import has_whole_structure, refuse_cut_png, refuse_missing_pixels

_REDUCTION = 8


def check_photo(path: Path, *, deep: bool) -> None:
    """Check that a photo can be read as a whole.

    Args:
        path: The file.
        deep: Also decode it: JPEGs at an eighth of their size, which reads all of the file; the rows of PNGs are
            inflated and counted; others are read. Without it, JPEG, PNG, TIFF and WebP files must reach the end that
            their structure states, and other files are read.

    Raises:
        DataError: It is cut off or damaged.
    """
    with reading_photo(path), open(path, "rb") as stream:
        is_whole = has_whole_structure(stream, os.fstat(stream.fileno()).st_size)
        if is_whole is False:
            raise ImageError("the file is cut off")
        if is_whole and not deep:
            return
        stream.seek(0)
        start = stream.read(4)
        if start.startswith(b"\xff\xd8\xff"):
            _decode_small(stream)
            return
        if start == b"\x89PNG":
            refuse_cut_png(stream)
            return
    if read_values(path) is None:
        read_photo(path)


def _decode_small(stream: BinaryIO) -> None:
    stream.seek(0)
    with open_pillow(stream) as image:
        image.draft(image.mode, (max(1, image.width // _REDUCTION), max(1, image.height // _REDUCTION)))
        image.load()
        refuse_missing_pixels(image, stream)
