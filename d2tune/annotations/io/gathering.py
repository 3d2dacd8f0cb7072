"""Images of a conversion that are written with the annotations, because some exist only inside annotation files."""

from __future__ import annotations

import filecmp
import itertools
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from d2tune.annotations.io.output_record import PHOTO, write_own
from d2tune.annotations.model.dataset import Dataset, Image

logger = logging.getLogger(__name__)


def gather(
    dataset: Dataset, scratch: Path, folder: Path, *, subfolder: str = "", with_all: bool = True
) -> tuple[Dataset, dict[Path, Path]]:
    """The dataset with the final paths of its images, where some of them are temporary files.

    No file that exists is replaced, and no two images get the same file: an image whose name is taken gets a number.

    Args:
        dataset: The annotations.
        scratch: The folder of the temporary files.
        folder: The folder that the images are named relative to afterwards.
        subfolder: The folder in it for the images, where another split has names of its own.
        with_all: Whether the other images are copied there too, so that one folder holds all of them.

    Returns:
        The dataset, unchanged without temporary files, and the files to be copied by their targets.
    """
    restored = [image for image in dataset.images if _is_in(image, scratch)]
    if not restored:
        return dataset, {}
    folder = folder.absolute()
    moved = dataset.images if with_all else restored
    places = dict(_places(moved, folder, subfolder))
    copies = {
        path: image.path
        for image, path in ((image, places[image.id]) for image in moved if image.id in places)
        if image.path is not None and image.path != path and not path.exists()
    }
    if len(copies) > len(restored):
        logger.warning(
            "images that exist only inside annotation files: %d; all %d images are written to %s, so that one folder "
            "holds them",
            len(restored),
            len(places),
            folder / subfolder,
        )
    images = tuple(
        replace(image, file_name=places[image.id].relative_to(folder).as_posix(), path=places[image.id])
        if image.id in places
        else image
        for image in dataset.images
    )
    return replace(dataset, images=images, image_root=folder if with_all else dataset.image_root), copies


def copy_files(copies: Mapping[Path, Path]) -> list[Path]:
    """Copy files to new places, each atomically and recorded; returns the places."""
    for target, source in copies.items():
        with source.open("rb") as content, write_own(target, PHOTO) as stream:
            shutil.copyfileobj(content, stream)
    return list(copies)


def _is_in(image: Image, folder: Path) -> bool:
    return image.path is not None and image.path.is_relative_to(folder)


def _places(images: tuple[Image, ...] | list[Image], folder: Path, subfolder: str) -> Iterator[tuple[int, Path]]:
    """A file for each image that has one: of its own, with the image's content or not existing yet."""
    taken: set[Path] = set()
    for image in images:
        if image.path is None:
            continue
        steps = (step for step in PurePosixPath(image.file_name).parts if step not in ("..", "/"))
        path = next(one for one in _names(folder.joinpath(subfolder, *steps)) if _is_free(one, image.path, taken))
        taken.add(path)
        yield image.id, path


def _names(path: Path) -> Iterator[Path]:
    """A path, and the same with numbers from 2."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")


def _is_free(path: Path, source: Path, taken: set[Path]) -> bool:
    """Whether a path is not taken, and has the content of a source or nothing."""
    if path in taken:
        return False
    if not os.path.lexists(path):
        return True
    return path.is_file() and (path == source or filecmp.cmp(path, source, shallow=False))
