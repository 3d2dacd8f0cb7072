"""Images that are written with annotations, each at a place of its own."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from d2tune.annotations.io.output_record import PHOTO, write_own
from d2tune.annotations.model.dataset import Image
from d2tune.errors import DataError

Images = Literal["copy", "link", "none"]
"""Whether images are copied, hard-linked, or left where they are."""


def places_of(images: Sequence[Image], *, unwanted: Sequence[str] = ()) -> dict[int, PurePosixPath]:
    """A path for each image id, inside of a folder; no two of them differ by their suffix or by case alone.

    Args:
        images: The images.
        unwanted: Names of folders, in small letters, that are left away.
    """
    taken: set[str] = set()
    places = {}
    for image in images:
        path = PurePosixPath(image.file_name)
        folders = [step for step in path.parts[:-1] if step not in ("..", "/") and step.lower() not in unwanted]
        stem, number = path.stem, 1
        while str(PurePosixPath(*folders, stem)).casefold() in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(str(PurePosixPath(*folders, stem)).casefold())
        places[image.id] = PurePosixPath(*folders, stem + path.suffix)
    return places


def copies_of(images: Sequence[Image], targets: Mapping[int, Path]) -> Iterator[tuple[Path, Path]]:
    """The image files with their places, without those that are there already.

    Raises:
        DataError: The file of an image is not known.
    """
    for image in images:
        target = targets[image.id]
        if image.path is None:
            raise DataError("the file of an image is not known", file=image.file_name)
        is_there = target.is_file() and filecmp.cmp(image.path, target, shallow=False)
        if not is_there:
            yield image.path, target


def place_image(source: Path, target: Path, images: Images) -> None:
    """Copy an image file atomically and with a record, or link it.

    Raises:
        DataError: It cannot be linked.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if images == "link":
        try:
            os.link(source, target)
        except OSError as error:
            hint = "Copy the images instead: --images copy."
            raise DataError(f"the image cannot be linked ({error.strerror})", file=target, hint=hint) from error
        return
    with source.open("rb") as content, write_own(target, PHOTO) as stream:
        shutil.copyfileobj(content, stream)
