"""Predicted label maps as the CSV that a competition takes."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats import rle_csv
from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.formats.rle_csv import PRESETS
from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError
from d2tune.files import write_chunks

_SPOOLED_BYTES = 1 << 22
"""Rows that wait in memory; more of them wait in a temporary file."""


def instances_of_map(
    labels: NDArray[Any], *, classes: Sequence[str], background: str | None, split: bool
) -> list[tuple[int, Mask]]:
    """What a label map shows, as masks.

    Args:
        labels: Places of the classes ``(H, W)``, whole numbers; 255 is no class.
        classes: All classes in the order of their ids.
        background: The class that is left out; None leaves out none.
        split: Whether each connected part is a mask of its own; pixels that touch at a side or a corner belong
            together.

    Returns:
        Place of the class and pixels ``(H, W)``, by class, parts from the top down.

    Raises:
        DataError: The map holds a number that is no class.
    """
    found: list[tuple[int, Mask]] = []
    for place in np.unique(labels).tolist():
        if place == IGNORE_LABEL:
            continue
        if place >= len(classes):
            raise DataError(
                "the map holds a number that is no class",
                found=str(place),
                expected=f"0 to {len(classes) - 1}, or {IGNORE_LABEL}",
            )
        if classes[place] != background:
            mask = labels == place
            found += [(place, part) for part in (rle_csv.components(mask) if split else [mask])]
    return found


def dataset_of_maps(
    images: Sequence[Image],
    maps: Iterable[NDArray[Any]],
    *,
    classes: Sequence[str],
    background: str | None,
    preset: str,
    image_root: Path | None = None,
) -> Dataset:
    """Predicted label maps as the instances that a dialect has rows for.

    Args:
        images: The images, in any order.
        maps: A map ``(H, W)`` for each of them, as in `instances_of_map`; they are taken one at a time.
        classes: All classes in the order of their ids; they become the categories, the background too.
        background: The class of pixels that show nothing.
        preset: The dialect: carvana, airbus or severstal.
        image_root: The folder that file names are relative to.
    """
    split = PRESETS[preset].row_per_instance
    masks = (instances_of_map(one, classes=classes, background=background, split=split) for one in maps)
    return dataset_of_masks(images, masks, classes, image_root=image_root)


def write_submission(
    dataset: Dataset, path: Path, *, preset: str, background: str | None = None, force: bool = False
) -> Path:
    """Write a competition's CSV: every image is listed by its base name, with blank runs where nothing was found.

    ``carvana`` has a row for each image, ``airbus`` one for each ship, ``severstal`` one for each image and class
    (``ImageId_ClassId``). `rle_csv.read` gives the same masks back.

    Args:
        dataset: The predictions, as of `dataset_of_maps`.
        path: The file, where it ends in ``.csv``; else a folder, which gets ``submission.csv``.
        preset: The dialect.
        background: A class that gets no rows.
        force: Whether a file that is there is overwritten.

    Returns:
        The file.

    Raises:
        DataError: Two images have the same base name, the dialect is unknown or cannot tell several classes apart,
            or the file is already there.
    """
    _refuse_equal_base_names(image.file_name for image in dataset.images)
    listed = _without(dataset, background)
    columns = PRESETS[preset].headers[-1] if preset in PRESETS else None
    out = path if path.suffix.lower() == ".csv" else path / "submission.csv"
    return rle_csv.write(listed, out, preset=preset, columns=columns, force=force)[0]


class SubmissionFile:
    """A competition's CSV whose rows come image by image; see `write_submission`.

    Args:
        path: The file.
        names: Paths of all images below their folder.
        classes: All classes in the order of their ids.
        preset: The dialect.
        background: The class that gets no rows.
        stack: Closes the temporary file.

    Raises:
        DataError: Two images have the same base name.
    """

    def __init__(
        self,
        path: Path,
        *,
        names: Sequence[str],
        classes: Sequence[str],
        preset: str,
        background: str | None,
        stack: ExitStack,
    ) -> None:
        _refuse_equal_base_names(names)
        self._path = path
        self._classes = tuple(classes)
        self._preset = preset
        self._background = background
        self._columns = PRESETS[preset].headers[-1]
        self._classes_with_rows: set[str] = set()
        # the writer quotes a line feed by itself, but not a carriage return
        has_returns = any("\r" in name for name in names)
        spool = stack.enter_context(tempfile.SpooledTemporaryFile(_SPOOLED_BYTES))  # noqa: SIM115
        self._spool: IO[bytes] = spool
        self._text = io.StringIO()
        self._table = csv.writer(
            self._text, lineterminator="\n", quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL
        )
        self._append([list(self._columns)])

    def rows(self, name: str, labels: NDArray[Any]) -> tuple[Dataset, list[list[str]]]:
        """The instances of an image, and its rows.

        Args:
            name: Path of the image.
            labels: Its label map, as in `instances_of_map`.
        """
        image = Image(1, name.rsplit("/", 1)[-1], labels.shape[1], labels.shape[0])
        dataset = dataset_of_maps(
            [image], [labels], classes=self._classes, background=self._background, preset=self._preset
        )
        listed = _without(dataset, self._background)
        return listed, rle_csv.rows_of(listed, preset=self._preset, columns=self._columns)

    def add(self, dataset: Dataset, rows: list[list[str]]) -> None:
        """Append the rows of the next image, as `rows` gave them.

        Raises:
            DataError: The dialect names no class, and there are instances of several.
        """
        self._classes_with_rows |= {name for name, count in dataset.counts().items() if count}
        rle_csv.refuse_several_classes(PRESETS[self._preset], sorted(self._classes_with_rows))
        self._append(rows)

    def write(self) -> None:
        """Write the file."""
        self._spool.seek(0)
        write_chunks(self._path, iter(lambda: self._spool.read(1 << 20), b""))

    def _append(self, rows: list[list[str]]) -> None:
        self._table.writerows(rows)
        self._spool.write(self._text.getvalue().encode("utf-8", errors="backslashreplace"))
        self._text.seek(0)
        self._text.truncate()


def _refuse_equal_base_names(names: Iterable[str]) -> None:
    by_name: dict[str, str] = {}
    for path in names:
        name = path.rsplit("/", 1)[-1]
        if name in by_name:
            raise DataError(
                "two images have the same base name, and the CSV has nothing else to tell them apart",
                file=path,
                found=f"also {by_name[name]}",
                hint="Predict on one folder at a time.",
            )
        by_name[name] = path


def _without(dataset: Dataset, background: str | None) -> Dataset:
    """The dataset without the class of the background, its images by their base names."""
    dropped = {category.id for category in dataset.categories if category.name == background}
    return replace(
        dataset,
        images=tuple(replace(image, file_name=image.file_name.rsplit("/", 1)[-1]) for image in dataset.images),
        categories=tuple(category for category in dataset.categories if category.id not in dropped),
        instances=tuple(instance for instance in dataset.instances if instance.category_id not in dropped),
    )
