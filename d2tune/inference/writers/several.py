"""A writer of several formats in one pass over the images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.inference.writers.base import Images, Writer, WriterFactory, WriterOptions
from d2tune.inference.writers.rows import MapWriter, batches_of_rows, rows_predictions


class SeveralWriter(Writer[Any, list[Any]]):
    """Writes every result with each of several writers, whose files have different names.

    Args:
        out: The output folder of all of them.
        images: The images.
        predictor: The predictor of the task.
        options: The options for writing.
        factories: The writers.

    Raises:
        DataError: Two of the writers would write the same file, or ``out`` is a CSV.
    """

    def __init__(
        self,
        out: Path,
        images: Images,
        predictor: Any,
        options: WriterOptions,
        *,
        factories: Sequence[WriterFactory],
    ) -> None:
        super().__init__(out, images, predictor, options)
        if out.suffix.lower() == ".csv":
            hint = "Name a folder, or write csv alone."
            raise DataError("several formats are written to a folder", place="--out", found=str(out), hint=hint)
        with ExitStack() as stack:
            self._writers: list[Writer[Any, Any]] = [
                stack.enter_context(factory(out, images, predictor, options)) for factory in factories
            ]
            self._refuse_equal_names()
            self._stack.push(stack.pop_all())
        self.keeps_pixels = any(writer.keeps_pixels for writer in self._writers)
        maps = [writer for writer in self._writers if isinstance(writer, MapWriter)]
        self._by_rows = maps if len(maps) == len(self._writers) and any(maps[0].rasters) else []

    def _refuse_equal_names(self) -> None:
        """Refuse formats of which a file would replace that of another one."""
        owners: dict[str, str] = {}
        for writer in self._writers:
            indices = range(len(self.images.paths))
            files = (path for index in indices for path in (*writer.files_of(index), *writer.drawings_of(index)))
            for path in (*files, *writer.final_files()):
                # a file system may not distinguish upper and lower case
                owner = owners.setdefault(str(path).casefold(), type(writer).__name__)
                if owner != type(writer).__name__:
                    raise DataError(
                        "two of the formats would write this file",
                        file=path,
                        place="--to",
                        hint="Write one of them to another folder, with a second command.",
                    )

    def batches(self) -> list[list[int]]:
        """See `Writer`; among rasters whose maps are written by rows, each image is predicted alone."""
        return batches_of_rows(self) if self._by_rows else super().batches()

    def predictions(self, done: Collection[int] = (), *, within: range | None = None) -> Iterator[Any]:
        """See `Writer`; maps of rasters are written row by row where no format needs whole maps."""
        if self._by_rows:
            return rows_predictions(self._by_rows, done, within)
        return super().predictions(done, within=within)

    def files_of(self, index: int) -> list[Path]:
        """The files of all writers with the predictions of an image."""
        return [path for writer in self._writers for path in writer.files_of(index)]

    def folders_of(self, index: int) -> list[Path]:
        """The folders of all writers that hold files of an image alone."""
        return [path for writer in self._writers for path in writer.folders_of(index)]

    def drawings_of(self, index: int) -> list[Path]:
        """The files of all writers on which the predictions of an image are drawn."""
        return [path for writer in self._writers for path in writer.drawings_of(index)]

    def files_of_entry(self, index: int, kept: list[Any]) -> list[Path]:
        """All files that the writers wrote for an image."""
        pairs = zip(self._writers, kept, strict=True)
        return [path for writer, one in pairs for path in writer.files_of_entry(index, one)]

    def is_kept(self, kept: list[Any]) -> bool:
        """Whether one of the writers has left a file as it was."""
        return any(writer.is_kept(one) for writer, one in zip(self._writers, kept, strict=True))

    def final_files(self) -> list[Path]:
        """The files of all writers that `finish` writes."""
        return [path for writer in self._writers for path in writer.final_files()]

    def content_at(self, target: Path, index: int, path: Path) -> bytes | None:
        """See `Writer`; from the writer that has the file."""
        contents = (writer.content_at(target, index, path) for writer in self._writers)
        return next((content for content in contents if content is not None), None)

    def convert(self, index: int, result: Any, pixels: Pixels | None) -> list[Any]:
        """What each writer keeps of a result."""
        return [writer.convert(index, result, pixels) for writer in self._writers]

    def add(self, index: int, kept: list[Any]) -> int:
        """Add the next image to each writer; returns the largest number of instances or regions."""
        added = [writer.add(index, one) for writer, one in zip(self._writers, kept, strict=True)]
        self.written += 1
        first = max(self._writers, key=lambda writer: writer.lower)
        self.lower, self.highest_lower = first.lower, first.highest_lower
        return max(added)

    def finish(self) -> None:
        """Write the files that concern all images."""
        for writer in self._writers:
            writer.finish()
