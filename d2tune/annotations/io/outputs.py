"""Output files of the writers: their paths, and the protection of existing files."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Image
from d2tune.errors import DataError
from d2tune.files import write_bytes


def beside(images: Sequence[Image], folder: Path, suffix: str) -> dict[int, Path]:
    """A path for every image id: the file name below ``folder`` with another suffix.

    Where two images differ only in their suffix, both keep it before the new suffix.
    """
    stems = [str(PurePosixPath(image.file_name).with_suffix("")) for image in images]
    uses = Counter(stems)
    places = {}
    for image, stem in zip(images, stems, strict=True):
        name = (stem if uses[stem] == 1 else image.file_name) + suffix
        inside = PurePosixPath(*(step for step in PurePosixPath(name).parts if step not in ("..", "/")))
        places[image.id] = folder / inside
    return places


def refuse_existing(paths: Iterable[Path], *, force: bool) -> None:
    """Refuse to overwrite files, before anything is written.

    Raises:
        DataError: A file exists; the message names the first one.
    """
    existing = [] if force else [path for path in paths if os.path.lexists(path)]
    if existing:
        more = "" if len(existing) == 1 else f" and {len(existing) - 1} more"
        raise DataError(
            f"the file is already there{more} and is not overwritten",
            file=existing[0],
            hint="Write to another folder, or overwrite it with --force.",
        )


def png_bytes(pixels: NDArray[Any]) -> bytes:
    """A PNG of gray values ``(H, W)`` or colors ``(H, W, 3)``, both uint8."""
    from PIL import Image as PilImage

    stream = io.BytesIO()
    PilImage.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return stream.getvalue()


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    """Write `png_bytes` to a file, atomically."""
    write_bytes(path, png_bytes(pixels))
    return path
