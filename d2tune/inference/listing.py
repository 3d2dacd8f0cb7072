"""The images of folders, without those that d2tune wrote; it imports no networks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from d2tune.annotations.io.output_record import ANNOTATIONS, DRAWING, EVALUATION, PREDICTIONS, OwnFiles, is_drawing_name
from d2tune.annotations.io.places import walk_files
from d2tune.annotations.io.rasters import is_raster_name
from d2tune.annotations.io.suffixes import IMAGE_SUFFIXES, is_image_name, unreadable_hint_of
from d2tune.errors import DataError

logger = logging.getLogger(__name__)

_NOT_PREDICTED_ON = {ANNOTATIONS, PREDICTIONS, DRAWING, EVALUATION}
"""Kinds of files in a folder of images that d2tune wrote and that are not images to predict on."""


def find_images(source: Path, *, skip: Path | None = None) -> tuple[Path, list[Path]]:
    """The image files of a folder and its subfolders, in the order of their paths; a file stands for itself.

    Hidden files and folders, label images that d2tune wrote, and predictions are skipped.

    Args:
        source: A file or a folder.
        skip: An output folder, which is skipped where it is inside ``source``.

    Returns:
        The folder that names are relative to, and the image files.

    Raises:
        DataError: The source does not exist, or the folder has no image files.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("the image or folder does not exist", file=source)
    files = _files_below(source, skip)
    images = [path for path in files if is_image_name(path.name)]
    unreadable = unreadable_hint_of(path.name for path in files)
    if not images:
        expected = f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
        raise DataError("the folder has no images", file=source, found=unreadable, expected=expected)
    if unreadable is not None:
        logger.warning("%s: %s", source, unreadable)
    return source, images


def find_rasters(source: Path, *, stacked: bool, skip: Path | None = None) -> tuple[Path, list[Path]]:
    """The rasters of a folder and its subfolders, in the order of their paths: files, or folders of stacked files.

    Hidden files and folders, and what `d2tune predict` wrote, are skipped.

    Args:
        source: A file or a folder.
        stacked: Whether the channels of an image are the files of a folder.
        skip: See `find_images`.

    Returns:
        The folder that names are relative to, and the rasters.

    Raises:
        DataError: The source does not exist, or the folder has no rasters.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("the image or folder does not exist", file=source)
    images = [path for path in _files_below(source, skip) if is_raster_name(path.name)]
    if not images:
        raise DataError("the folder has no images", file=source, expected="photos, TIFFs, .npy or .npz files")
    if not stacked:
        return source, images
    folders = sorted({path.parent for path in images})
    return (source.parent, folders) if folders == [source] else (source, folders)


def is_predicted_on() -> Callable[[Path], bool]:
    """A function that says whether a path is that of an image or a raster that d2tune did not write."""
    own = OwnFiles()

    def is_wanted(path: Path) -> bool:
        is_image = is_raster_name(path.name) and not is_drawing_name(path.name)
        return is_image and not own.kinds(path) & _NOT_PREDICTED_ON

    return is_wanted


def _files_below(source: Path, skip: Path | None) -> list[Path]:
    """The files below a folder that are not hidden, and that d2tune did not write as something else than images."""
    own = OwnFiles()
    paths = [source / name for name in walk_files(source, skip=skip)]
    return sorted(path for path in paths if not own.kinds(path) & _NOT_PREDICTED_ON)
