"""Predicted label maps as the CSV of a competition."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
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
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError

_SPOOLED_BYTES = 1 << 22
"""Bytes of rows that are kept in memory; more go to a temporary file."""


def instances_of_map(
    labels: NDArray[Any], *, classes: Sequence[str], background: str | None, connected: bool
) -> list[tuple[int, Mask]]:
    """The masks of a label map.

    Args:
        labels: Class indices ``(H, W)`` of an integer type; 255 is ignored.
        classes: All classes in the order of their ids.
        background: The class without masks; None for none.
        connected: Whether each connected region gets a mask of its own; pixels that touch at a side or a corner are
            connected.

    Returns:
        Class index and mask ``(H, W)`` of each, by class, the regions of a class from top to bottom.

    Raises:
        DataError: The map has a value that is not a class index.
    """
    masks: list[tuple[int, Mask]] = []
    for class_id in np.unique(labels).tolist():
        if class_id == IGNORE_LABEL:
            continue
        if class_id >= len(classes):
            raise DataError(
                "the label map has a value that is not a class index",
                found=str(class_id),
                expected=f"0 to {len(classes) - 1}, or {IGNORE_LABEL}",
            )
        if classes[class_id] != background:
            mask = labels == class_id
            masks += [(class_id, region) for region in (rle_csv.components(mask) if connected else [mask])]
    return masks


def dataset_of_maps(
    images: Sequence[Image],
    maps: Iterable[NDArray[Any]],
    *,
    classes: Sequence[str],
    background: str | None,
    preset: str,
    image_root: Path | None = None,
) -> Dataset:
    """The instances of predicted label maps for which a dialect has rows.

    Args:
        images: The images, in any order.
        maps: A map ``(H, W)`` for each image; see `instances_of_map`. From a generator, a single map is in memory.
        classes: All classes in the order of their ids; they become the categories, including the background.
        background: The class without instances; None for none.
        preset: The dialect: carvana, airbus or severstal.
        image_root: The folder that file names are relative to.
    """
    connected = PRESETS[preset].row_per_instance
    masks = (instances_of_map(labels, classes=classes, background=background, connected=connected) for labels in maps)
    return dataset_of_masks(images, masks, classes, image_root=image_root)


def write_submission(
    dataset: Dataset, path: Path, *, preset: str, background: str | None = None, force: bool = False
) -> Path:
    """Write a competition's CSV, which lists each image by its base name, with empty runs for images without instances.

    ``carvana`` has a row for each image, ``airbus`` a row for each ship, ``severstal`` a row for each image and class
    (``ImageId_ClassId``). `rle_csv.read` reads the same masks from it.

    Args:
        dataset: The predictions; see `dataset_of_maps`.
        path: A path that ends in ``.csv``, or a folder, which gets ``submission.csv``.
        preset: The dialect.
        background: The class that gets no rows; None for none.
        force: Whether an existing file is overwritten.

    Returns:
        The file.

    Raises:
        DataError: Two images have the same base name, the dialect is unknown or cannot distinguish several classes, or
            the file already exists.
    """
    _refuse_equal_base_names(image.file_name for image in dataset.images)
    listed = _without(dataset, background)
    columns = PRESETS[preset].headers[-1] if preset in PRESETS else None
    out = path if path.suffix.lower() == ".csv" else path / "submission.csv"
    return rle_csv.write(listed, out, preset=preset, columns=columns, force=force)[0]


class SubmissionFile:
    """A competition's CSV whose rows are added image by image; see `write_submission`.

    Args:
        path: The file.
        names: Paths of all images below their folder.
        classes: All classes in the order of their ids.
        preset: The dialect.
        background: The class that gets no rows; None for none.
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
        # csv quotes fields with a line feed, but not those with a carriage return
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
            labels: Its label map ``(H, W)``; see `instances_of_map`.
        """
        image = Image(1, name.rsplit("/", 1)[-1], labels.shape[1], labels.shape[0])
        dataset = dataset_of_maps(
            [image], [labels], classes=self._classes, background=self._background, preset=self._preset
        )
        listed = _without(dataset, self._background)
        return listed, rle_csv.rows_of(listed, preset=self._preset, columns=self._columns)

    def add(self, counts: Mapping[str, int], rows: list[list[str]]) -> None:
        """Append the rows of the next image, as returned by `rows`.

        Args:
            counts: Number of its instances by class.
            rows: Its rows.

        Raises:
            DataError: The dialect has no column for the class, and there are instances of several classes.
        """
        self._classes_with_rows |= {name for name, count in counts.items() if count}
        rle_csv.refuse_several_classes(PRESETS[self._preset], sorted(self._classes_with_rows))
        self._append(rows)

    def write(self) -> None:
        """Write the file."""
        self._spool.seek(0)
        write_output(self._path, iter(lambda: self._spool.read(1 << 20), b""), kind=PREDICTIONS)

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
                "two images have the same base name, which is all that the CSV has of an image",
                file=path,
                found=f"also {by_name[name]}",
                hint="Predict on each folder separately.",
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
