"""Writers that take the label map of a raster row by row, so that no whole map is in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.output_record import DRAWING, PREDICTIONS, claim, settle
from d2tune.annotations.io.raster_files import ARRAY_SUFFIXES
from d2tune.annotations.io.rasters import Georeference
from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.inference.loop import inference_mode
from d2tune.inference.results import LabelMap
from d2tune.inference.writers.base import Images, Writer, WriterOptions
from d2tune.report.sheets.label_overlay import colors

_TIFFS = (".tif", ".tiff")

Size = tuple[int, int]
"""Height and width, in pixels."""


class RowsFile(Protocol):
    """A file that is written from top to bottom."""

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Write the next rows ``(h, W)`` of a label map."""


class MapWriter(Writer[LabelMap, Size]):
    """The base class of writers of a file for each label map, of photos at once and of rasters row by row."""

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self.rasters = [self._is_raster(path) for path in images.paths]

    def _is_raster(self, path: Path) -> bool:
        is_raster_file = path.suffix.lower() in (*_TIFFS, *ARRAY_SUFFIXES)
        return self.predictor.reader.raster is not None and (path.is_dir() or is_raster_file)

    def batches(self) -> list[list[int]]:
        """See `Writer`; among rasters, each image is predicted alone."""
        return batches_of_rows(self) if any(self.rasters) else super().batches()

    def predictions(self, done: Collection[int] = (), *, within: range | None = None) -> Iterator[Any]:
        """See `Writer`; rasters are predicted row by row, photos as a stream."""
        if not any(self.rasters):
            return super().predictions(done, within=within)
        return (kept if isinstance(kept, DataError) else kept[0] for kept in rows_predictions([self], done, within))

    @abstractmethod
    def _write_photo(self, index: int, result: LabelMap, pixels: Pixels | None) -> None:
        """Write the file of a photo."""

    @abstractmethod
    def _rows_file(self, index: int, size: Size, georeference: Georeference | None) -> AbstractContextManager[RowsFile]:
        """The file of a raster."""

    @contextmanager
    def open_rows(self, index: int, size: Size, georeference: Georeference | None) -> Iterator[RowsFile]:
        """Open the file of a raster, which is recorded as written by d2tune."""
        of_kinds = (PREDICTIONS, self.files_of(index)), (DRAWING, self.drawings_of(index))
        for kind, paths in of_kinds:
            claim(paths, kind)
        with self._rows_file(index, size, georeference) as file:
            yield file
        for kind, paths in of_kinds:
            settle(paths, kind)

    def convert(self, index: int, result: LabelMap, pixels: Pixels | None) -> Size:
        """Write the file of the image; returns its size."""
        size = result.height_px, result.width_px
        if not self.rasters[index]:
            self._write_photo(index, result, pixels)
            return size
        with self.predictor.reader.open(self.images.paths[index]) as opened:
            georeference = opened.georeference
        with self.open_rows(index, size, georeference) as file:
            file.write(result.class_ids)
        return size

    def add(self, index: int, kept: Size) -> int:
        """Count the image; returns 0, because label maps have no counted regions."""
        self.image_of(index, *kept)
        return 0

    @property
    def colors(self) -> NDArray[np.uint8]:
        """The color of each class, ``(K, 3)`` RGB."""
        return np.asarray(colors(self.predictor.class_names))


def batches_of_rows(writer: Writer[Any, Any]) -> list[list[int]]:
    """The images one by one, as `rows_predictions` predicts them."""
    return [[index] for index in range(len(writer.images.paths))]


def rows_predictions(
    writers: Sequence[MapWriter], done: Collection[int] = (), within: range | None = None
) -> Iterator[list[Size] | DataError]:
    """Predict on photos and rasters, and write the files of all writers; of rasters while rows are predicted.

    Args:
        writers: Writers with the same images and predictor.
        done: Indices of images that are skipped.
        within: Only these images; None takes all.

    Yields:
        What each writer keeps of an image, or the error of an image that cannot be read.
    """
    first = writers[0]
    with inference_mode(first.predictor.model):
        for index in range(len(first.rasters)) if within is None else within:
            if index in done:
                continue
            try:
                yield _raster(writers, index) if first.rasters[index] else _photo(writers, index)
            except DataError as error:
                yield error


def _raster(writers: Sequence[MapWriter], index: int) -> list[Size]:
    first = writers[0]
    with first.predictor.open_rows(first.images.paths[index]) as label_map, ExitStack() as stack:
        size = label_map.height_px, label_map.width_px
        files = [stack.enter_context(writer.open_rows(index, size, label_map.georeference)) for writer in writers]
        for rows in label_map.rows:
            for file in files:
                file.write(rows)
    return [size] * len(writers)


def _photo(writers: Sequence[MapWriter], index: int) -> list[Size] | DataError:
    first = writers[0]

    def convert(_: int, result: LabelMap, pixels: Pixels | None) -> list[Size]:
        return [writer.convert(index, result, pixels) for writer in writers]

    keeps = any(writer.keeps_pixels for writer in writers)
    kept: list[Size] | DataError = next(
        iter(
            first.predictor.stream([first.images.paths[index]], convert=convert, keep_pixels=keeps, show_progress=False)
        )
    )
    return kept
