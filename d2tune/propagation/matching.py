"""Which frame of a clip a Labelme file belongs to: by its path, its names, or by what its image shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.labelme_shapes import decode_base64
from d2tune.annotations.io.photos.reading import read_photo, read_photo_content
from d2tune.errors import DataError
from d2tune.propagation.clip import Clip, reduced
from d2tune.propagation.references import check_size, read_labelme
from d2tune.text import describe

_LARGEST_DIFFERENCE = 4.0
"""Mean difference of gray values of two copies of a frame, as JPEG and PNG for instance."""


def match_files(files: Sequence[Path], clip: Clip) -> list[tuple[Path, int]]:
    """The frame of each Labelme file.

    A frame is named by ``imagePath``, or has the name of the file. Frames of a video were named by whatever tool
    wrote them, so that there the image of the file is compared with the frames first.

    Raises:
        DataError: A file cannot be read, is of another size, belongs to no frame, or two belong to the same one.
    """
    owners: dict[int, Path] = {}
    small: list[NDArray[np.float32]] = []
    matched = []
    for path in files:
        content = read_labelme(path)
        check_size(path, content, clip)
        index = _by_path(path, content, clip)
        if index is None and clip.is_video:
            index = _by_image(path, content, clip, small)
        if index is None:
            index = _by_name(path, content, clip)
        if index is None:
            index = _by_image(path, content, clip, small)
        if index is None:
            raise DataError(
                "the file belongs to no frame of the clip",
                file=path,
                place="imagePath",
                found=describe(content.get("imagePath")),
                expected=f"the name of a frame, {clip.name(0)} to {clip.name(len(clip) - 1)}",
            )
        if index in owners:
            raise DataError(
                f"two files belong to the frame {clip.name(index)}", file=path, found=str(owners[index]),
                hint="Remove one of them.",
            )  # fmt: skip
        owners[index] = path
        matched.append((path, index))
    return matched


def _named(path: Path, content: dict[str, Any]) -> Path | None:
    """The path that a Labelme file names, in the folder of the file."""
    name = content.get("imagePath")
    if not isinstance(name, str) or not name.strip():
        return None
    return path.parent / name.replace("\\", "/")


def _by_path(path: Path, content: dict[str, Any], clip: Clip) -> int | None:
    """The frame whose file the Labelme file names."""
    named = _named(path, content)
    if named is None or not named.is_file():
        return None
    real = named.resolve()
    return next((index for index, frame in enumerate(clip.paths) if frame.resolve() == real), None)


def _by_name(path: Path, content: dict[str, Any], clip: Clip) -> int | None:
    """The only frame with the name in ``imagePath``, else the only one with the name of the Labelme file."""
    named = content.get("imagePath")
    name = PurePosixPath(named.replace("\\", "/")).name if isinstance(named, str) else ""
    for wanted in (
        [index for index, frame in enumerate(clip.paths) if frame.name == name],
        [index for index, frame in enumerate(clip.paths) if path.stem in (frame.stem, frame.name)],
    ):
        if len(wanted) == 1:
            return wanted[0]
    return None


def _by_image(path: Path, content: dict[str, Any], clip: Clip, small: list[NDArray[np.float32]]) -> int | None:
    """The frame that shows what the image of a Labelme file shows.

    Args:
        path: The Labelme file.
        content: Its content.
        clip: The clip.
        small: Small versions of the frames, which are made when they are first needed.
    """
    image = _image_of(path, content, clip.white)
    if image is None or image.shape[:2] != (clip.height_px, clip.width_px):
        return None
    if not small:
        small += [clip.reduced(index).astype(np.float32) for index in range(len(clip))]
    wanted = reduced(image).astype(np.float32)
    differences = [float(np.abs(wanted - frame).mean()) for frame in small]
    best = int(np.argmin(differences))
    return best if differences[best] <= _LARGEST_DIFFERENCE else None


def _image_of(path: Path, content: dict[str, Any], white: float | None) -> NDArray[np.uint8] | None:
    """The image of a Labelme file, beside it or inside it; None where there is none that can be read."""
    named = _named(path, content)
    try:
        if named is not None and named.is_file():
            return read_photo(named, white=white)
        data = decode_base64(content.get("imageData"))
        return None if data is None else read_photo_content(data, white=white)
    except DataError:
        return None
